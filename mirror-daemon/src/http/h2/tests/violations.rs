//! What breaks the rules, and what wants too much.

use super::super::frame::{FrameError, PREFACE};
use super::super::hpack::HpackError;
use super::super::*;
use super::harness::*;
use crate::drop_reason::DropReason;

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
        // The open request, and the one whose head is interrupted.
        let requests = if kind == ContinuationExpected { 2 } else { 1 };
        assert_eq!(probe.drops(), vec![DropReason::Malformed; requests], "{kind:?}");
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
