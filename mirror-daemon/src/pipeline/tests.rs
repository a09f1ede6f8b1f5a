#![allow(clippy::arithmetic_side_effects, reason = "a test that overflows fails, as it should")]

mod calls;
mod http2;

use super::*;
use crate::config::Config;
use crate::flow::{Direction, TcpFlags};

const CONFIG: &str = r#"
[capture]
interfaces = ["unused"]
ports = [8080]

[[shadow]]
name = "new"
url = "http://127.0.0.1:9"

[[route]]
hosts = ["h.example"]
  [[route.rule]]
  mirror = [{ shadow = "new" }]
"#;
const MAX_TOTAL_BYTES: usize = 100_000;
const CONNECTIONS: u16 = 50;
const KEY: FlowKey = FlowKey {
    gateway_addr: [1; 16],
    remote_addr: [2; 16],
    gateway_port: 8080,
    remote_port: 40_000,
    capture_point: 1,
};

/// Where copies go: counted, and their books closed by dropping them.
#[derive(Default)]
struct Counting(usize);

impl Outlet for Counting {
    fn offer(&mut self, _shadow: ShadowId, _request: ShadowRequest) {
        self.0 += 1;
    }
    fn ignore(&mut self, _flow: &FlowKey) {}
    fn pass_over(&mut self, _flow: &FlowKey, _up_to: SeqNumber) {}

    fn copy_answers(&mut self, _flow: &FlowKey, _whole: bool) {}
}

struct Nowhere;

impl Outlet for Nowhere {
    fn offer(&mut self, _shadow: ShadowId, _request: ShadowRequest) {
        panic!("no request is whole");
    }
    fn ignore(&mut self, _flow: &FlowKey) {}
    fn pass_over(&mut self, _flow: &FlowKey, _up_to: SeqNumber) {}

    fn copy_answers(&mut self, _flow: &FlowKey, _whole: bool) {}
}

/// Each of many connections sends `bytes` and nothing more; the books at their end.
fn many_connections_send(bytes: &[u8]) -> Arc<Ledger> {
    let (mut pipeline, ledger) = many_open_connections_sent(bytes);
    pipeline.handle_end();
    assert_eq!(pipeline.counters().buffered_bytes, 0, "all is given back");
    assert_eq!(ledger.seen(), u64::from(CONNECTIONS));
    ledger
}

fn many_open_connections_sent(bytes: &[u8]) -> (Pipeline<Nowhere>, Arc<Ledger>) {
    let mut config = Config::from_toml(CONFIG, "test.toml").unwrap();
    config.capture.limits.max_total_bytes = MAX_TOTAL_BYTES;
    let ledger = Arc::new(Ledger::default());
    let view = Arc::new(View::new(1, Arc::new(config), &ledger));
    let mut pipeline = Pipeline::new(view, Arc::clone(&ledger), HashSeed([1, 2]), Nowhere);
    for port in 0..CONNECTIONS {
        begin_connection(&mut pipeline, FlowKey { remote_port: KEY.remote_port + port, ..KEY }, bytes);
        let buffered_bytes = pipeline.counters().buffered_bytes;
        // What is given up still keeps its entry.
        let entries_bytes = 512 * usize::from(CONNECTIONS);
        assert!(buffered_bytes <= MAX_TOTAL_BYTES + entries_bytes, "{buffered_bytes}");
    }
    (pipeline, ledger)
}

#[test]
fn heads_in_pieces_are_bounded_together() {
    let half_head = format!("GET / HTTP/1.1\r\nHost: h.example\r\nX: {}", "x".repeat(8_000));
    let ledger = many_connections_send(half_head.as_bytes());
    assert!(ledger.dropped.of(DropReason::BufferFull).value() > 30);
}

#[test]
fn heads_that_wait_for_their_bodies_are_bounded_together() {
    let head = format!(
        "POST / HTTP/1.1\r\nHost: h.example\r\nX: {}\r\nContent-Length: 9\r\n\r\n",
        "x".repeat(8_000)
    );
    let ledger = many_connections_send(head.as_bytes());
    let books = ledger.shadow("new");
    assert!(books.shed.of(DropReason::BufferFull).value() > 30);
    assert_eq!((books.owed.value(), books.open()), (u64::from(CONNECTIONS), 0));
}

#[test]
fn uploads_that_stand_still_make_room_for_others() {
    let mut config = Config::from_toml(CONFIG, "test.toml").unwrap();
    config.capture.limits.max_total_bytes = MAX_TOTAL_BYTES;
    let ledger = Arc::new(Ledger::default());
    let view = Arc::new(View::new(1, Arc::new(config), &ledger));
    let mut pipeline = Pipeline::new(view, Arc::clone(&ledger), HashSeed([1, 2]), Counting::default());
    let head = b"POST / HTTP/1.1\r\nHost: h.example\r\nContent-Length: 10000\r\n\r\n";
    let first = [&head[..], &[b'x'; 9_000]].concat();
    let key = |port: u16| FlowKey { remote_port: port, ..KEY };
    // More than fit together; each lacks the last thousand bytes.
    for port in 0..CONNECTIONS {
        begin_connection(&mut pipeline, key(port), &first);
        assert!(pipeline.counters().buffered_bytes <= MAX_TOTAL_BYTES);
    }
    let books = ledger.shadow("new");
    let shed = books.shed.of(DropReason::BufferFull).value();
    assert!(shed >= u64::from(CONNECTIONS) - 10, "{shed}");
    // The last ones have found room, and so does one that comes now.
    begin_connection(&mut pipeline, key(1000), &first);
    for (port, sent) in [(1000, 1), (CONNECTIONS - 1, 2), (0, 2)] {
        let seq = SeqNumber(1).add(u32::try_from(first.len()).unwrap());
        pipeline.handle_segment(&Segment { seq, ..segment(key(port), TcpFlags::ACK, &[b'x'; 1_000]) });
        assert_eq!(pipeline.outlet_mut().0, sent, "{port}");
    }
    pipeline.handle_end();
    assert_eq!(pipeline.counters().buffered_bytes, 0);
    assert_eq!((books.owed.value(), books.open()), (u64::from(CONNECTIONS) + 1, 2));
}

#[test]
fn oldest_upload_of_a_connection_makes_room_for_its_others() {
    let mut config = Config::from_toml(CONFIG, "test.toml").unwrap();
    config.capture.limits.max_total_bytes = MAX_TOTAL_BYTES;
    let ledger = Arc::new(Ledger::default());
    let view = Arc::new(View::new(1, Arc::new(config), &ledger));
    let mut pipeline = Pipeline::new(view, Arc::clone(&ledger), HashSeed([1, 2]), Counting::default());
    begin_connection(
        &mut pipeline,
        KEY,
        &[&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(4, 0, 0, b"")].concat(),
    );
    let mut seq = SeqNumber(1).add(33);
    let mut send = |pipeline: &mut Pipeline<Counting>, bytes: &[u8]| {
        pipeline.handle_segment(&Segment { seq, ..segment(KEY, TcpFlags::ACK, bytes) });
        seq = seq.add(u32::try_from(bytes.len()).unwrap());
    };
    let streams = [1, 3, 5, 7, 9, 11, 13, 15, 17, 19];
    for stream in streams {
        let head = frame(1, 4, stream, b"\x83\x86\x84\x01\x09h.example");
        send(&mut pipeline, &[head, frame(0, 0, stream, &[b'x'; 12_000])].concat());
    }
    let shed = ledger.shadow("new").shed.of(DropReason::BufferFull).value();
    assert!((1..=5).contains(&shed), "{shed}");
    for stream in streams {
        send(&mut pipeline, &frame(0, 1, stream, b"end"));
    }
    assert_eq!(pipeline.outlet_mut().0 as u64, streams.len() as u64 - shed, "all but the oldest");
    pipeline.handle_end();
    assert_eq!((pipeline.counters().buffered_bytes, ledger.shadow("new").shed.total()), (0, shed));
}

#[test]
fn connections_full_of_unwanted_requests_leave_room_for_wanted_ones() {
    const ROOM_BYTES: usize = 1 << 20;
    let mut config = Config::from_toml(CONFIG, "test.toml").unwrap();
    config.capture.limits.max_total_bytes = ROOM_BYTES;
    let ledger = Arc::new(Ledger::default());
    let view = Arc::new(View::new(1, Arc::new(config), &ledger));
    let mut pipeline = Pipeline::new(view, Arc::clone(&ledger), HashSeed([1, 2]), Counting::default());
    let hello = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(4, 0, 0, b"")].concat();
    // Of no rule's host, and open: 1,000 on each of 16 connections.
    let open = |stream: u32| frame(1, 4, 2 * stream + 1, b"\x83\x86\x84\x01\x05other");
    let flood = [hello, (0..1_000).flat_map(open).collect()].concat();
    for port in 0..16 {
        begin_connection(&mut pipeline, FlowKey { remote_port: 1_000 + port, ..KEY }, &flood);
    }
    let head = b"POST / HTTP/1.1\r\nHost: h.example\r\nContent-Length: 100000\r\n\r\n";
    begin_connection(&mut pipeline, KEY, head);
    let mut seq = SeqNumber(1).add(u32::try_from(head.len()).unwrap());
    for _ in 0..100 {
        pipeline.handle_segment(&Segment { seq, ..segment(KEY, TcpFlags::ACK, &[b'x'; 1_000]) });
        seq = seq.add(1_000);
    }
    assert_eq!(pipeline.outlet_mut().0, 1);
    pipeline.handle_end();
    assert_eq!((pipeline.counters().buffered_bytes, ledger.shadow("new").shed.total()), (0, 0));
}

#[test]
fn connection_that_is_passed_over_gives_back_what_it_holds() {
    let (pipeline, _) = many_open_connections_sent(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n");
    let counters = pipeline.counters();
    assert_eq!(counters.passed_over_not_http, u64::from(CONNECTIONS));
    assert_eq!(counters.buffered_bytes, 0);
    assert_eq!((counters.http2_searching, counters.http2_unproven, counters.http2_synchronised), (0, 0, 0));
}

#[test]
fn route_of_a_gateway_takes_requests_at_the_points_that_carry_it() {
    let text = CONFIG
        .replace(r#"["unused"]"#, r#"[{ name = "a", gateways = ["ns/gw"] }, "b"]"#)
        .replace("hosts =", "gateways = [\"ns/gw\"]\nhosts =");
    let config = Arc::new(Config::from_toml(&text, "test.toml").unwrap());
    let [with, without] = config.capture.points.as_slice() else { panic!("{:?}", config.capture.points) };
    let points = [(4, with.clone()), (7, without.clone())];
    for (capture_point, is_told, expected) in [(4, true, 1), (7, true, 0), (9, true, 0), (7, false, 1)] {
        let ledger = Arc::new(Ledger::default());
        let view = View::new(1, Arc::clone(&config), &ledger);
        let view = if is_told { view.at_points(&config.capture, points.iter().cloned()) } else { view };
        let mut pipeline =
            Pipeline::new(Arc::new(view), Arc::clone(&ledger), HashSeed([1, 2]), Counting::default());
        let key = FlowKey { gateway_port: 8080, remote_port: 40_000, capture_point, ..FlowKey::default() };
        let payload = b"GET / HTTP/1.1\r\nHost: h.example\r\n\r\n";
        begin_connection(&mut pipeline, key, payload);
        pipeline.handle_end();
        assert_eq!(pipeline.outlet_mut().0, expected, "at {capture_point}, told: {is_told}");
        assert_eq!((ledger.matched.value(), ledger.seen()), (u64::try_from(expected).unwrap(), 1));
    }
}

/// A connection is opened and sends `bytes` in one segment.
fn begin_connection(pipeline: &mut Pipeline<impl Outlet>, key: FlowKey, bytes: &[u8]) {
    pipeline.handle_segment(&segment(key, TcpFlags::SYN, b""));
    pipeline.handle_segment(&Segment { seq: SeqNumber(1), ..segment(key, TcpFlags::ACK, bytes) });
}

/// From the client, at sequence number 0.
fn segment(key: FlowKey, flags: TcpFlags, payload: &[u8]) -> Segment<'_> {
    Segment {
        key,
        direction: Direction::Request,
        seq: SeqNumber(0),
        ack: SeqNumber(0),
        flags,
        selected: None,
        at: Timestamp(0),
        segment_bytes: u32::try_from(payload.len()).unwrap(),
        offset_bytes: 0,
        payload,
    }
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}
