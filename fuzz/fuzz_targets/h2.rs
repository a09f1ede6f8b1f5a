//! The HTTP/2 decoder: never panics, keeps its bounds, and every request ends exactly once.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::{arbitrary, fuzz_target};
use mirror_daemon::flow::{Chunk, CloseCause, Direction, FlowEvent, GapCause, SeqNumber, Timestamp};
use mirror_daemon::http::HttpEvent;
use mirror_daemon::http::h2::{H2Flow, H2Options};
use std::collections::BTreeMap;

#[derive(Arbitrary, Debug)]
enum Step<'a> {
    Request(&'a [u8]),
    Answer(&'a [u8]),
    /// A frame header that is right, so that the fuzzer gets further.
    Frame { kind: u8, flags: u8, stream: u8, payload: &'a [u8] },
    Gap { request: bool, bytes: u16 },
    Timeout(u64),
}

fuzz_target!(|input: (bool, bool, Vec<Step<'_>>)| {
    let (joined, tolerate_unknown_fields, steps) = input;
    let options = H2Options { tolerate_unknown_fields };
    let mut flow = if joined { H2Flow::joined(options) } else { H2Flow::at_start(options) };
    let mut ended = BTreeMap::new();
    if !joined {
        give(&mut flow, Direction::Request, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", &mut ended);
    }
    for step in steps {
        match step {
            Step::Request(bytes) => give(&mut flow, Direction::Request, bytes, &mut ended),
            Step::Answer(bytes) => give(&mut flow, Direction::Answer, bytes, &mut ended),
            Step::Frame { kind, flags, stream, payload } => {
                let length = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes();
                let head = [length[1], length[2], length[3], kind % 12, flags, 0, 0, 0, stream];
                give(&mut flow, Direction::Request, &[&head, payload].concat(), &mut ended);
            }
            Step::Gap { request, bytes } => {
                let direction = if request { Direction::Request } else { Direction::Answer };
                let (start, cause) = (SeqNumber(0), GapCause::Timeout);
                let gap = FlowEvent::Gap { direction, start, bytes: u32::from(bytes), cause };
                flow.handle_event(&gap, &mut |event| note(&mut ended, &event));
            }
            Step::Timeout(at) => flow.handle_timeout(Timestamp(at), &mut |event| note(&mut ended, &event)),
        }
        assert!(flow.allocated_bytes() < 4 << 20);
    }
    flow.handle_event(&FlowEvent::Closed(CloseCause::Finished), &mut |event| note(&mut ended, &event));
    assert!(ended.values().all(|ended| *ended), "a request never ended");
});

fn give(flow: &mut H2Flow, direction: Direction, bytes: &[u8], ended: &mut BTreeMap<u64, bool>) {
    if bytes.is_empty() {
        return;
    }
    let (start, ack, at) = (SeqNumber(0), SeqNumber(0), Timestamp(0));
    let chunk = Chunk { direction, start, at_segment_start: true, ack, at, bytes };
    flow.handle_event(&FlowEvent::Chunk(chunk), &mut |event| note(ended, &event));
}

fn note(ended: &mut BTreeMap<u64, bool>, event: &HttpEvent<'_>) {
    match event {
        HttpEvent::Request { number, .. } => assert_eq!(ended.insert(number.0, false), None),
        HttpEvent::Body { number, .. } | HttpEvent::Trailers { number, .. } | HttpEvent::Released { number } => {
            assert_eq!(ended.get(&number.0), Some(&false));
        }
        HttpEvent::Complete { number } => assert_eq!(ended.insert(number.0, true), Some(false)),
        HttpEvent::Dropped { number, .. } => assert_ne!(ended.insert(number.0, true), Some(true)),
        HttpEvent::Client { .. } | HttpEvent::PassOver { .. } => {}
    }
}
