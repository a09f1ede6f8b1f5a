//! One claim a test.

use super::super::frame::{FrameError, PREFACE};
use super::super::hpack::HpackError;
use super::super::*;
use super::harness::*;
use crate::drop_reason::DropReason;
use crate::flow::{Chunk, CloseCause, Direction, FlowEvent, SeqNumber, Timestamp};
use crate::http::{BodyLength, RequestNumber};
use std::time::Duration;

#[test]
fn request_without_body_is_whole_at_once() {
    let mut probe = Probe::at_start();
    probe.request(&[hello(), get_frame(1, "/a?b")].concat());
    let seen = &probe.seen[&0];
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("GET", "/a?b"));
    assert_eq!(seen.body_length, Some(BodyLength::None));
    let fields = [(":scheme".to_owned(), b"http".to_vec()), (":authority".to_owned(), b"h".to_vec())];
    assert_eq!(seen.fields, fields);
    assert!(seen.is_mirrored() && !seen.held);
    assert_eq!(probe.flow.synchronisation(), Synchronisation::Synchronised);
}

#[test]
fn body_comes_without_padding_and_trailers_end_it() {
    let mut probe = Probe::at_start();
    probe.request(&[hello(), headers(1, END_HEADERS, &get("/"))].concat());
    probe.request(&frame(0, PADDED, 1, b"\x03abc\0\0\0"));
    probe.request(&frame(0, 0, 1, b"def"));
    probe.request(&frame(0, 0, 1, b""));
    probe.request(&headers(1, END_STREAM | END_HEADERS, &[("x-sum", "6")]));
    let seen = &probe.seen[&0];
    assert_eq!((seen.body.as_slice(), seen.body_length), (&b"abcdef"[..], Some(BodyLength::Chunked)));
    assert_eq!(seen.trailers, [("x-sum".to_owned(), b"6".to_vec())]);
    assert!(seen.is_mirrored());
}

#[test]
fn streams_are_interleaved() {
    let mut probe = Probe::at_start();
    probe.request(
        &[hello(), headers(1, END_HEADERS, &get("/1")), headers(3, END_HEADERS, &get("/3"))].concat(),
    );
    for (stream, flags, bytes) in [(3, 0, "a"), (1, 0, "b"), (3, END_STREAM, "c"), (1, END_STREAM, "d")] {
        probe.request(&frame(0, flags, stream, bytes.as_bytes()));
    }
    assert_eq!((&probe.seen[&0].body[..], &probe.seen[&1].body[..]), (&b"bd"[..], &b"ac"[..]));
    assert_eq!(probe.mirrored().len(), 2);
}

#[test]
fn header_block_may_come_in_continuations_with_priority_and_padding() {
    let block = block(&get("/"));
    let (first, rest) = block.split_at(5);
    let (second, third) = rest.split_at(7);
    let padded = [&[2, 0, 0, 0, 0, 9][..], first, &[0, 0]].concat();
    let mut probe = Probe::at_start();
    probe.request(&hello());
    probe.request(&frame(1, END_STREAM | PADDED | 0x20, 1, &padded));
    probe.request(&frame(9, 0, 1, second));
    probe.request(&frame(9, END_HEADERS, 1, third));
    assert_eq!(probe.mirrored().len(), 1);
}

#[test]
fn content_length_must_fit_the_body() {
    for (declared, body, fits) in [("3", "abc", true), ("2", "abc", false), ("4", "abc", false)] {
        let mut fields = get("/");
        fields.push(("content-length", declared));
        let mut probe = Probe::at_start();
        probe.request(&[hello(), headers(1, END_HEADERS, &fields)].concat());
        probe.request(&frame(0, END_STREAM, 1, body.as_bytes()));
        assert_eq!(probe.mirrored().len(), usize::from(fits), "{declared}");
        let expected = if fits { vec![] } else { vec![DropReason::Malformed] };
        assert_eq!(probe.drops(), expected);
    }
}

#[test]
fn malformed_requests_name_their_rule() {
    use HeadError::*;
    let cases: [(HeadError, Vec<(&str, &str)>); 20] = [
        (FieldName, [get("/"), vec![("X-A", "1")]].concat()),
        (FieldName, [get("/"), vec![("", "1")]].concat()),
        (FieldName, [get("/"), vec![("x a", "1")]].concat()),
        (FieldValue, [get("/"), vec![("x", "a\r\nb")]].concat()),
        (FieldValue, [get("/"), vec![("x", " a")]].concat()),
        (ConnectionSpecific, [get("/"), vec![("connection", "x")]].concat()),
        (ConnectionSpecific, [get("/"), vec![("transfer-encoding", "chunked")]].concat()),
        (ConnectionSpecific, [get("/"), vec![("te", "gzip")]].concat()),
        (PseudoOrder, [vec![("x", "y")], get("/")].concat()),
        (PseudoDuplicate, [get("/"), vec![(":path", "/b")]].concat()),
        (PseudoUnknown, [get("/"), vec![(":status", "200")]].concat()),
        (PseudoMissing, vec![(":method", "GET"), (":scheme", "http")]),
        (PseudoMissing, vec![(":scheme", "http"), (":path", "/")]),
        (PseudoValue, get("")),
        (PseudoValue, get("a")),
        (PseudoValue, get("/a b")),
        (PseudoValue, get("*")),
        (ContentLength, [get("/"), vec![("content-length", "+1")]].concat()),
        (ContentLength, [get("/"), vec![("content-length", "1"), ("content-length", "2")]].concat()),
        (ContentLengthMismatch, [get("/"), vec![("content-length", "1")]].concat()),
    ];
    for (kind, fields) in cases {
        let mut probe = Probe::at_start();
        probe.request(&[hello(), headers(1, END_STREAM | END_HEADERS, &fields)].concat());
        probe.request(&get_frame(3, "/next"));
        assert_eq!(probe.flow.take_counters().unwrap_or_default().head(kind), 1, "{kind:?} {fields:?}");
        assert_eq!(probe.drops(), [kind.drop_reason()]);
        assert_eq!(probe.mirrored()[0].target, "/next", "{kind:?}: the connection goes on");
    }
}

#[test]
fn connect_is_passed_over_and_counted() {
    let extended = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":authority", "h"),
        (":path", "/"),
    ];
    let mut probe = Probe::at_start();
    probe.request(
        &[hello(), headers(1, END_HEADERS, &[(":method", "CONNECT"), (":authority", "h:1")])].concat(),
    );
    probe.request(&headers(3, END_HEADERS, &extended));
    probe.request(&frame(0, 0, 3, b"tunnelled"));
    assert_eq!(probe.drops(), [DropReason::Upgrade; 2]);
    assert_eq!(probe.flow.take_counters().unwrap_or_default().head(HeadError::Connect), 2);
}

#[test]
fn reset_by_either_side_and_goaway_cancel_what_has_not_ended() {
    let mut probe = Probe::at_start();
    probe.request(&hello());
    for stream in [1, 3, 5] {
        probe.request(&headers(stream, END_HEADERS, &get("/")));
    }
    probe.request(&get_frame(7, "/whole"));
    probe.request(&frame(3, 0, 1, &8_u32.to_be_bytes()));
    probe.answer(&[settings(), frame(3, 0, 3, &7_u32.to_be_bytes())].concat());
    probe.answer(&frame(7, 0, 0, &[0, 0, 0, 3, 0, 0, 0, 0]));
    assert_eq!(probe.drops(), [DropReason::Cancelled; 3]);
    assert_eq!(probe.mirrored().len(), 1);
}

#[test]
fn request_behind_a_goaway_that_does_not_allow_it_is_cancelled() {
    let mut probe = Probe::at_start();
    probe.request(&hello());
    probe.answer(&frame(7, 0, 0, &[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]));
    probe.request(&get_frame(1, "/still"));
    probe.answer(&frame(7, 0, 0, &[0, 0, 0, 3, 0, 0, 0, 0]));
    probe.request(&[get_frame(3, "/last"), get_frame(5, "/again-elsewhere")].concat());
    assert_eq!(probe.mirrored().len(), 2);
    assert_eq!(probe.drops(), [DropReason::Cancelled]);
}

#[test]
fn answers_that_do_not_begin_with_settings_are_no_frames() {
    let mut probe = Probe::new(H2Flow::at_start(H2Options::default()));
    probe.request(&hello());
    // The first segment was missed; this is the body of some answer.
    probe.answer(&[frame(7, 0, 0, &[0; 8]), settings()].concat());
    probe.request(&get_frame(1, "/"));
    assert_eq!(probe.mirrored().len(), 1);
}

#[test]
fn settings_of_a_joined_connection_say_nothing_of_what_they_leave_out() {
    let mut probe = Probe::joined();
    for frame in filler(999) {
        probe.answer(&frame);
        probe.request(&frame);
    }
    // As gRPC servers send it to change a window; what they said first was not seen.
    probe.answer(&[frame(4, 0, 0, &[0, 4, 0, 1, 0, 0]), answer_frame(999)].concat());
    probe.request(&headers(1001, END_HEADERS, &get("/large")));
    probe.answer(&answer_frame(1001));
    probe.request(&frame(0, END_STREAM, 1001, &[1; 20_000]));
    probe.request(&[frame(1, 5, 1003, b"\x3f\xe1\xff\x03"), get_frame(1005, "/b")].concat());
    assert_eq!(probe.mirrored().iter().map(|seen| seen.body.len()).collect::<Vec<_>>(), [20_000, 0]);
    let counters = probe.flow.take_counters().unwrap_or_default();
    assert_eq!(counters.violations().filter(|(_, count)| *count > 0).count(), 1, "no pseudo-headers");
}

#[test]
fn whole_answers_are_asked_for_only_so_long() {
    let mut probe = Probe::joined();
    for frame in filler(999) {
        probe.request(&frame);
    }
    probe.request(&get_frame(1001, "/a"));
    assert!(probe.flow.wants_whole_answers());
    let noise = vec![0xff; 1024 * 1024];
    for mib in 0..17 {
        assert!(probe.flow.wants_whole_answers(), "{mib}");
        probe.answer(&noise);
    }
    assert!(!probe.flow.wants_whole_answers());
    let mut later = |at: Timestamp| {
        let (direction, start, ack) = (Direction::Answer, SeqNumber(0), SeqNumber(0));
        let chunk = Chunk { direction, start, at_segment_start: true, ack, at, bytes: b"x" };
        probe.event(&FlowEvent::Chunk(chunk));
        probe.flow.wants_whole_answers()
    };
    assert!(!later(Timestamp(1).after(Duration::from_secs(59))));
    assert!(later(Timestamp(1).after(Duration::from_secs(61))));
}

#[test]
fn upgrade_to_h2c_leaves_stream_1_to_http_1() {
    let mut probe = Probe::new(H2Flow::after_upgrade(H2Options::default(), RequestNumber(1)));
    probe.request(&[hello(), frame(8, 0, 1, &9_u32.to_be_bytes()), get_frame(3, "/second")].concat());
    assert_eq!(probe.seen[&1].target, "/second");
    assert_eq!(probe.drops(), []);
}

#[test]
fn gap_inside_data_costs_that_stream_only() {
    let mut probe = Probe::at_start();
    probe.request(
        &[hello(), headers(1, END_HEADERS, &get("/1")), headers(3, END_HEADERS, &get("/3"))].concat(),
    );
    let data = frame(0, END_STREAM, 1, &[7; 1000]);
    probe.request(&data[..400]);
    probe.gap(Direction::Request, 600);
    probe.request(&[&data[1000..], &frame(0, END_STREAM, 3, b"x"), &get_frame(5, "/5")].concat());
    assert_eq!(probe.drops(), [DropReason::Gap]);
    let targets: Vec<_> = probe.mirrored().iter().map(|seen| seen.target.as_str()).collect();
    assert_eq!(targets, ["/3", "/5"]);
    assert_eq!(probe.flow.synchronisation(), Synchronisation::Synchronised);
}

#[test]
fn gap_up_to_the_last_byte_of_data_is_inside_and_one_more_is_not() {
    for (bytes, inside) in [(599, true), (600, true), (609, true), (610, false)] {
        let mut probe = Probe::at_start();
        probe.request(&[hello(), headers(1, END_HEADERS, &get("/1"))].concat());
        probe.request(&frame(0, END_STREAM, 1, &[7; 1000])[..400]);
        probe.gap(Direction::Request, bytes);
        assert_eq!(probe.drops(), [DropReason::Gap]);
        let synchronised = probe.flow.synchronisation() == Synchronisation::Synchronised;
        assert_eq!(synchronised, inside, "{bytes}");
    }
}

#[test]
fn gap_inside_a_header_block_costs_its_request_and_the_table() {
    let mut probe = Probe::at_start();
    let indexed = [block(&get("/")), b"\x40\x01a\x01b".to_vec()].concat();
    probe.request(&[hello(), frame(1, END_STREAM | END_HEADERS, 1, &indexed)].concat());
    let lost = get_frame(3, "/lost");
    probe.request(&lost[..12]);
    probe.gap(Direction::Request, lost.len() - 14);
    probe.request(&lost[lost.len() - 2..]);
    probe.request(&frame(1, END_STREAM | END_HEADERS, 5, &[block(&get("/")), vec![0xbe]].concat()));
    probe.request(&get_frame(7, "/right"));
    assert_eq!(probe.drops(), [DropReason::Gap, DropReason::Undecodable]);
    assert_eq!(probe.mirrored().len(), 2);
}

#[test]
fn unknown_ordinary_fields_are_left_out_only_when_tolerated() {
    for tolerate_unknown_fields in [false, true] {
        let mut probe =
            Probe::new(H2Flow::at_start(H2Options { tolerate_unknown_fields, ..H2Options::default() }));
        let lost = get_frame(1, "/lost");
        probe.request(&[&hello(), &lost[..12]].concat());
        probe.gap(Direction::Request, lost.len() - 12);
        probe.request(&frame(1, END_STREAM | END_HEADERS, 3, &[block(&get("/")), vec![0xbe]].concat()));
        // Here the unknown field may be the path.
        probe.request(&frame(1, END_STREAM | END_HEADERS, 5, &[block(&get("/")[..3]), vec![0xbe]].concat()));
        assert_eq!(probe.mirrored().len(), usize::from(tolerate_unknown_fields));
        assert_eq!(probe.drops().len(), if tolerate_unknown_fields { 2 } else { 3 });
    }
}

#[test]
fn header_block_error_costs_its_request_and_the_table_but_not_the_connection() {
    let mut probe = Probe::at_start();
    probe.request(&[hello(), frame(1, END_STREAM | END_HEADERS, 1, &[0x80]), get_frame(3, "/")].concat());
    assert_eq!(probe.drops(), [DropReason::Malformed]);
    assert_eq!(probe.mirrored().len(), 1);
    assert_eq!(probe.flow.take_counters().unwrap_or_default().hpack(HpackError::InvalidIndex), 1);
}

#[test]
fn frame_violations_are_counted_by_kind_and_never_replayed() {
    use FrameError::*;
    let cases: [(FrameError, Vec<u8>); 24] = [
        (FrameTooLarge, [&[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1][..]].concat()),
        (StreamZero, frame(0, 0, 0, b"x")),
        (StreamZero, frame(1, END_HEADERS, 0, b"")),
        (StreamZero, frame(3, 0, 0, &[0; 4])),
        (NotStreamZero, frame(4, 0, 1, &[])),
        (NotStreamZero, frame(6, 0, 1, &[0; 8])),
        (PayloadLength, frame(6, 0, 0, &[0; 7])),
        (PayloadLength, frame(3, 0, 1, &[0; 5])),
        (PayloadLength, frame(4, 0, 0, &[0; 5])),
        (PayloadLength, frame(0, PADDED, 1, &[])),
        (PaddingTooLong, frame(0, PADDED, 1, &[1])),
        (PaddingTooLong, frame(1, PADDED | END_HEADERS, 3, &[2, 0])),
        (SettingValue, frame(4, 0, 0, &[0, 2, 0, 0, 0, 2])),
        (SettingsAckPayload, frame(4, 1, 0, &[0; 6])),
        (WindowUpdateZero, frame(8, 0, 1, &[0; 4])),
        (SelfDependency, frame(2, 0, 1, &[0, 0, 0, 1, 0])),
        (ContinuationUnexpected, frame(9, END_HEADERS, 1, &[])),
        (ContinuationExpected, [frame(1, 0, 3, &[]), frame(6, 0, 0, &[0; 8])].concat()),
        (ContinuationExpected, [frame(1, 0, 3, &[]), frame(9, END_HEADERS, 1, &[])].concat()),
        (PushPromise, frame(5, END_HEADERS, 1, &[0, 0, 0, 2])),
        (StreamParity, frame(1, END_HEADERS | END_STREAM, 2, &[0x82])),
        (IdleStream, frame(0, 0, 9, b"x")),
        (IdleStream, frame(3, 0, 9, &[0; 4])),
        (IdleStream, frame(8, 0, 9, &[0, 0, 0, 1])),
    ];
    for (kind, bytes) in cases {
        let mut probe = Probe::at_start();
        probe.request(&[hello(), headers(1, END_HEADERS, &get("/"))].concat());
        probe.request(&bytes);
        assert_eq!(probe.flow.take_counters().unwrap_or_default().frame(kind), 1, "{kind:?}");
        assert_eq!(probe.drops(), [DropReason::Malformed], "{kind:?}");
        probe.close();
        assert!(probe.mirrored().is_empty());
    }
}

#[test]
fn connection_that_is_not_http_2_is_passed_over() {
    let mut probe = Probe::at_start();
    probe.request(b"PRI * HTTP/2.0\r\n\r\nXX");
    assert_eq!(probe.passed_over, Some(DropReason::NotHttp));
    let mut probe = Probe::at_start();
    probe.request(&[PREFACE.as_slice(), &get_frame(1, "/")].concat());
    assert_eq!(probe.flow.take_counters().unwrap_or_default().frame(FrameError::FirstFrameNotSettings), 1);
    assert!(probe.mirrored().is_empty());
}

#[test]
fn continuation_flood_is_bounded() {
    let mut probe = Probe::at_start();
    probe.request(&[hello(), frame(1, END_STREAM, 1, &block(&get("/")))].concat());
    for _ in 0..10_000 {
        probe.request(&frame(9, 0, 1, &[]));
    }
    probe.request(&frame(9, END_HEADERS, 1, &[]));
    probe.request(&get_frame(3, "/next"));
    assert_eq!(probe.drops(), [DropReason::HeadTooLarge]);
    assert_eq!(probe.mirrored().len(), 1);

    let mut probe = Probe::at_start();
    probe.request(&[hello(), frame(1, END_STREAM, 1, &[])].concat());
    for _ in 0..1000 {
        probe.request(&frame(9, 0, 1, &[0; 16_000]));
        assert!(probe.flow.allocated_bytes() < 600_000);
    }
    assert_eq!(probe.drops(), [DropReason::HeadTooLarge]);
}

#[test]
fn rapid_reset_costs_bounded_memory() {
    let mut probe = Probe::at_start();
    probe.request(&hello());
    for number in 0..50_000 {
        let stream = 2 * number + 1;
        probe
            .request(&[headers(stream, END_HEADERS, &get("/")), frame(3, 0, stream, &[0, 0, 0, 8])].concat());
        probe.seen.clear();
        assert!(probe.flow.allocated_bytes() < 10_000);
    }
}

#[test]
fn memory_that_a_burst_took_is_given_back() {
    let mut probe = Probe::at_start();
    probe.request(&[hello(), get_frame(1, "/")].concat());
    let before = probe.flow.allocated_bytes();
    let large = "x".repeat(4000);
    let mut fields = get("/large");
    fields.extend([("x-large", large.as_str()); 25]);
    let block = block(&fields);
    let mut frames: Vec<_> = block.chunks(16_000).map(|part| frame(9, 0, 3, part)).collect();
    let last = frames.len() - 1;
    frames[0][3..5].copy_from_slice(&[1, END_STREAM]);
    frames[last][4] = END_HEADERS;
    probe.request(&frames.concat());
    for stream in (5..1005).step_by(2) {
        probe.request(&headers(stream, END_HEADERS, &get("/")));
    }
    for stream in (5..1005).step_by(2) {
        probe.request(&frame(0, END_STREAM, stream, b""));
    }
    assert_eq!(probe.mirrored().len(), 502);
    assert!(probe.flow.allocated_bytes() < before + 24 * 1024, "{}", probe.flow.allocated_bytes());
}

#[test]
fn streams_beyond_the_bound_are_dropped_and_the_others_go_on() {
    let mut probe = Probe::at_start();
    probe.request(&hello());
    for number in 0..MAX_STREAMS as u32 + 2 {
        probe.request(&headers(2 * number + 1, END_HEADERS, &get("/")));
    }
    assert_eq!(probe.drops(), [DropReason::FlowEvicted; 2]);
    probe.request(&frame(0, END_STREAM, 1, b"x"));
    assert_eq!(probe.mirrored().len(), 1);
}

#[test]
fn stream_errors_leave_the_connection_as_it_is() {
    let mut probe = Probe::at_start();
    probe.request(&hello());
    for _ in 0..1000 {
        probe.request(&frame(8, 0, 0, &[0, 0, 0, 1]));
        probe.request(&frame(2, 0, 5, &[0, 0, 0, 5, 0]));
    }
    probe.request(&get_frame(1, "/"));
    assert_eq!(probe.flow.take_counters().unwrap_or_default().frame(FrameError::SelfDependency), 1000);
    assert_eq!((probe.passed_over, probe.mirrored().len()), (None, 1));
}

#[test]
fn second_head_on_an_old_stream_is_a_violation() {
    let mut probe = Probe::at_start();
    probe.request(&[hello(), get_frame(3, "/"), get_frame(1, "/old")].concat());
    assert_eq!(probe.flow.take_counters().unwrap_or_default().frame(FrameError::StreamIdNotIncreasing), 1);
    assert_eq!(probe.mirrored().len(), 1);
}

#[test]
fn end_of_the_connection_ends_every_request() {
    for (cause, reason) in
        [(CloseCause::Finished, DropReason::Truncated), (CloseCause::Reset, DropReason::Reset)]
    {
        let mut probe = Probe::at_start();
        probe.request(&[hello(), headers(1, END_HEADERS, &get("/"))].concat());
        probe.event(&FlowEvent::Closed(cause));
        assert_eq!(probe.drops(), [reason]);
    }
}

/// Frames of a joined connection until its boundaries are proven.
fn filler(first: u32) -> Vec<Vec<u8>> {
    (0..20).map(|number| frame(0, 0, first, &vec![number; 1000])).collect()
}

#[test]
fn joined_connection_releases_after_proof_and_answer_and_is_trusted_then() {
    let mut probe = Probe::joined();
    probe.answer(&filler(999).concat());
    probe.answer(&[answer_frame(5), answer_frame(7)].concat());
    for frame in filler(999) {
        probe.request(&frame);
    }
    assert_eq!(probe.flow.synchronisation(), Synchronisation::Unproven);
    probe.request(&get_frame(1001, "/a"));
    probe.request(&get_frame(1003, "/b"));
    assert!(probe.mirrored().is_empty());
    probe.answer(&answer_frame(1003));
    assert_eq!(probe.mirrored().len(), 2);
    assert_eq!(probe.flow.synchronisation(), Synchronisation::Synchronised);
    probe.request(&get_frame(1005, "/c"));
    assert_eq!(probe.mirrored().len(), 3);
}

#[test]
fn held_request_without_an_answer_is_dropped_in_time() {
    let mut probe = Probe::joined();
    for frame in filler(999) {
        probe.request(&frame);
    }
    probe.request(&get_frame(1001, "/a"));
    let at = probe.flow.next_timeout().expect("something is held");
    assert_eq!(at, Timestamp(1).after(Duration::from_secs(60)));
    let mut drops = Vec::new();
    probe.flow.handle_timeout(at, &mut |event| drops.push(format!("{event:?}")));
    assert_eq!(drops, ["Dropped { number: RequestNumber(0), reason: UnprovenBoundary }"]);
    assert_eq!(probe.flow.next_timeout(), None);
}

#[test]
fn frames_embedded_in_a_body_are_not_released_even_when_their_stream_is_answered() {
    // An upload of 16,384-byte DATA frames, each full of small requests, joined inside one of them.
    let evil: Vec<u8> = (0..).flat_map(|n| get_frame(1003 + 2 * n, "/evil")).take(16_384).collect();
    let upload = frame(0, 0, 999, &evil);
    for start in [9, 100, 1000, 16_000] {
        let mut probe = Probe::joined();
        probe.answer(&filler(997).concat());
        probe.request(&upload[start..]);
        for _ in 0..3 {
            probe.answer(&[answer_frame(1003), answer_frame(1005), answer_frame(1201)].concat());
            probe.request(&upload);
        }
        for frame in filler(999) {
            probe.request(&frame);
        }
        probe.request(&get_frame(2001, "/good"));
        probe.answer(&answer_frame(2001));
        probe.close();
        let targets: Vec<_> = probe.mirrored().iter().map(|seen| seen.target.clone()).collect();
        assert_eq!(targets, ["/good"], "joined at {start}");
    }
}

#[test]
fn chain_that_dies_at_each_true_header_does_not_get_another_one_released() {
    // Each body of 16,384 octets holds a chain that lives over the true headers, with a request in it, and behind
    // that the head of a header block that ends where the body does: a CONTINUATION would have to follow.
    let upload = |number: u32| {
        let evil = get_frame(1003 + 2 * number, "/evil");
        let jump_bytes = 16_393 - evil.len() - 9;
        let jump = &frame(0, 0, 5, &vec![0; jump_bytes])[..9];
        let killer = &frame(1, 0, 3, &[0; 1000])[..9];
        let mut body = [&[0xee; 2000][..], &evil, jump].concat();
        body.resize(16_384 - 1009, 0xee);
        body.extend([killer, &[0xee; 1000]].concat());
        frame(0, 0, 999, &body)
    };
    let mut probe = Probe::joined();
    probe.answer(&filler(997).concat());
    probe.request(&upload(0)[500..]);
    for number in 1..6 {
        probe.request(&upload(number));
        probe.answer(&answer_frame(1003 + 2 * number));
    }
    probe.close();
    assert!(probe.mirrored().is_empty(), "{:?}", probe.mirrored());
}

#[test]
fn first_bytes_of_a_joined_connection_tell_frames() {
    assert!(looks_like_frames(&[settings(), get_frame(1, "/")].concat(), Direction::Request));
    assert!(looks_like_frames(&frame(0, 0, 1, &[0; 5000])[..1000], Direction::Request));
    assert!(!looks_like_frames(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", Direction::Request));
    assert!(!looks_like_frames(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", Direction::Request));
    assert!(!looks_like_frames(&[0; 100], Direction::Request));
    assert!(!looks_like_frames(b"", Direction::Request));
}

#[test]
fn larger_frames_to_reckon_with_need_a_longer_stretch_to_be_certain() {
    let frames = frame(0, 0, 1, &[0xee; 1_000]).repeat(60);
    let is_found = |largest_frame_bytes| {
        let options = H2Options { largest_frame_bytes, ..H2Options::default() };
        let mut probe = Probe::new(H2Flow::joined(options));
        probe.request(&frames);
        probe.flow.synchronisation() != Synchronisation::Searching
    };
    assert!(is_found(None) && is_found(Some(50_000)));
    assert!(!is_found(Some(65_536)), "no more than 60 KiB were seen");
}
