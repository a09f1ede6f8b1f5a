//! Connections joined in the middle.

use super::super::*;
use super::harness::*;
use crate::flow::{Chunk, Direction, FlowEvent, SeqNumber, Timestamp};
use std::time::Duration;

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
fn settings_seen_while_boundaries_are_looked_for_say_how_large_frames_are() {
    let mut probe = Probe::new(H2Flow::at_start(H2Options::default()));
    probe.request(&[hello(), get_frame(1, "/good")].concat());
    // Across a frame header, and before the first bytes of the server, which takes frames of 1 MiB.
    probe.gap(Direction::Request, 100);
    probe.answer(&frame(4, 0, 0, &[0, 5, 0, 0x10, 0, 0]));
    let evil: Vec<u8> = (0..).flat_map(|n| get_frame(1003 + 2 * n, "/evil")).take(60_000).collect();
    let upload = frame(0, 0, 999, &evil);
    for _ in 0..3 {
        probe.request(&upload);
        for stream in (1003..1303).step_by(2) {
            probe.answer(&answer_frame(stream));
        }
    }
    probe.close();
    let targets: Vec<_> = probe.mirrored().iter().map(|seen| seen.target.as_str()).collect();
    assert_eq!(targets, ["/good"]);
}
