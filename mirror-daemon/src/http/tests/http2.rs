//! HTTP/2 as a connection's protocol: how it is found, joined, and followed through glimpses of its answers.

use super::*;
use crate::http::h2::Synchronisation;

const WHOLE: Option<Result<(), DropReason>> = Some(Ok(()));

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const HTTP2_GET: &str = "GET / None";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn settings() -> Vec<u8> {
    frame(4, 0, 0, b"")
}

/// `GET /` with `h` for an authority, from the static table alone.
fn get(stream: u32) -> Vec<u8> {
    frame(1, END_STREAM | END_HEADERS, stream, b"\x82\x86\x84\x01\x01h")
}

/// The same without an end.
fn upload(stream: u32) -> Vec<u8> {
    frame(1, END_HEADERS, stream, b"\x83\x86\x84\x01\x01h")
}

fn answer(stream: u32) -> Vec<u8> {
    frame(1, END_STREAM | END_HEADERS, stream, b"\x88")
}

fn hello() -> Vec<u8> {
    [PREFACE, &settings()].concat()
}

#[test]
fn preface_begins_http2_wherever_it_is_cut() {
    let bytes = [hello(), get(1)].concat();
    for cut in 0..bytes.len() {
        let log = decode_pieces(&[&bytes[..cut], &bytes[cut..], &get(3)]);
        assert_eq!(log.ends(), [(HTTP2_GET, WHOLE), (HTTP2_GET, WHOLE)], "{cut}");
    }
}

#[test]
fn accepted_upgrade_to_h2c_is_mirrored_and_goes_on_in_http2() {
    let ask = "GET /a HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n";
    let switching = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
    let accepted = [&switching[..], &settings(), &answer(1)].concat();
    for early in [false, true] {
        let mut wire = Wire::open(false);
        wire.request(ask);
        if early {
            // Captured before the answer that came before it.
            wire.request([hello(), get(3)].concat());
            wire.answer(&accepted);
        } else {
            wire.answer(&accepted);
            wire.request([hello(), get(3)].concat());
        }
        wire.answer(answer(3));
        wire.request(get(5));
        assert_eq!(wire.flow.synchronisation(), Some(Synchronisation::Synchronised));
        let log = wire.close(CloseCause::Finished);
        assert_eq!(log.ends(), [(GET_SEEN, WHOLE), (HTTP2_GET, WHOLE), (HTTP2_GET, WHOLE)], "{early}");
        assert!(log.requests[&0].may_go() && log.passed_over.is_empty());
    }
}

/// Frames enough to prove a boundary behind them.
fn window() -> Vec<u8> {
    frame(0, 0, 1, &[0xee; 1_000]).repeat(19)
}

#[test]
fn joined_http2_is_mirrored_once_answers_in_pieces_have_proven_it() {
    let mut wire = Wire::open(true);
    wire.request(get(101));
    assert_eq!(wire.flow.synchronisation(), Some(Synchronisation::Searching));
    wire.request(window());
    assert!(!wire.flow.wants_whole_answers(), "there is nothing to prove");
    wire.request(get(103));
    assert!(wire.flow.wants_whole_answers());
    assert_eq!(wire.flow.synchronisation(), Some(Synchronisation::Unproven));
    let (all, start) = ([window(), answer(103)].concat(), wire.answer_seq);
    for (index, piece) in all.chunks(4_000).enumerate() {
        let glimpse = Glimpse {
            start,
            offset_bytes: index as u32 * 4_000,
            ack: wire.request_seq,
            at: Timestamp(0),
            segment_bytes: all.len() as u32,
            head: piece,
        };
        wire.event(&FlowEvent::Glimpse(glimpse));
    }
    wire.answer_seq = start.add(all.len() as u32);
    assert_eq!(wire.flow.synchronisation(), Some(Synchronisation::Synchronised));
    assert!(!wire.flow.wants_whole_answers());
    wire.request(get(105));
    let log = wire.close(CloseCause::Finished);
    assert_eq!(log.ends(), [(HTTP2_GET, WHOLE), (HTTP2_GET, WHOLE)]);
    assert!(log.requests.values().all(Seen::may_go));
}

#[test]
fn joined_connection_is_taken_for_what_it_looks_like_until_it_is_certain() {
    let mut wire = Wire::open(true);
    // The end of an upload over HTTP/1 that looks like HTTP/2.
    wire.request(get(1));
    assert_eq!(wire.flow.synchronisation(), Some(Synchronisation::Searching));
    for _ in 0..4 {
        wire.request(GET);
        assert_eq!(wire.flow.synchronisation(), None);
        wire.answer(OK);
    }
    let log = wire.close(CloseCause::Finished);
    assert!(log.requests.values().any(Seen::may_go), "{log:?}");
}

#[test]
fn connection_proven_to_be_http2_is_not_taken_for_http1_when_its_boundaries_are_lost() {
    let mut wire = Wire::open(true);
    wire.request(get(1));
    wire.request([window(), get(3)].concat());
    wire.answer([window(), answer(3)].concat());
    assert_eq!(wire.flow.synchronisation(), Some(Synchronisation::Synchronised));
    wire.request(get(5));
    // Not a frame, and then a body with a request in it, at the start of a segment.
    wire.request([0xff; 9]);
    wire.request(GET);
    assert_eq!(wire.flow.synchronisation(), Some(Synchronisation::Searching));
    wire.request([window(), get(7)].concat());
    wire.answer(answer(7));
    assert_eq!(wire.close(CloseCause::Finished).ends(), [(HTTP2_GET, WHOLE); 3]);
}

#[test]
fn requests_are_counted_on_when_a_joined_connection_looks_like_another_protocol() {
    let mut wire = Wire::open(true);
    for _ in 0..2 {
        wire.request(GET);
        // It was answered before it ended: no request.
        wire.request("GET / HTTP/1.1\r\n");
        wire.answer(OK);
        wire.request(get(1));
        assert_eq!(wire.flow.synchronisation(), Some(Synchronisation::Searching));
    }
    // The log refuses a number that comes again.
    let log = wire.close(CloseCause::Finished);
    assert_eq!(log.requests.len(), 2);
}

#[test]
fn bodies_of_http1_known_from_its_start_are_not_taken_for_http2() {
    let mut wire = Wire::open(false);
    wire.request(GET);
    wire.gap(100_000);
    wire.request(get(1));
    assert_eq!(wire.flow.synchronisation(), None);
}

#[test]
fn reset_behind_answers_that_were_cut_short_still_ends_an_upload() {
    let mut wire = Wire::open(false);
    wire.request([hello(), upload(1), upload(3)].concat());
    // Several frames in one segment, of which only the beginning was copied.
    let head = [settings(), frame(0, 0, 1, &[7; 100])].concat();
    let start = wire.answer_seq;
    wire.event(&FlowEvent::Glimpse(Glimpse {
        start,
        offset_bytes: 0,
        ack: wire.request_seq,
        at: Timestamp(0),
        segment_bytes: 60_000,
        head: &head,
    }));
    wire.answer_seq = start.add(60_000);
    wire.answer(frame(3, 0, 3, &[0, 0, 0, 8]));
    wire.request(frame(0, END_STREAM, 1, b"end"));
    let log = wire.close(CloseCause::Finished);
    let seen = "POST / Chunked";
    assert_eq!(log.ends(), [(seen, WHOLE), (seen, Some(Err(DropReason::Cancelled)))]);
}

#[test]
fn guessed_answers_prove_nothing() {
    let mut wire = Wire::open(true);
    wire.request(get(101));
    wire.request(window());
    wire.request(get(103));
    // The beginning of a segment, and too little before it to be certain.
    wire.answer(answer(103));
    assert_eq!(wire.flow.synchronisation(), Some(Synchronisation::Unproven));
    let log = wire.close(CloseCause::Finished);
    assert_eq!(log.ends(), [(HTTP2_GET, Some(Err(DropReason::UnprovenBoundary)))]);
}

#[test]
fn no_room_for_a_connection_costs_its_requests_and_not_the_connection() {
    let mut wire = Wire::open(false);
    wire.request([hello(), upload(1)].concat());
    assert!(wire.flow.allocated_bytes() > 0);
    let Wire { flow, log, .. } = &mut wire;
    flow.shed(&mut |event| log.note(event));
    assert_eq!(wire.flow.synchronisation(), Some(Synchronisation::Searching));
    wire.request([window(), get(3)].concat());
    wire.answer([window(), answer(3)].concat());
    wire.request(get(5));
    let log = wire.close(CloseCause::Finished);
    let lost = ("POST / Chunked", Some(Err(DropReason::BufferFull)));
    assert_eq!(log.ends(), [lost, (HTTP2_GET, WHOLE), (HTTP2_GET, WHOLE)]);
}
