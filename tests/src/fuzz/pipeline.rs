//! One byte of options, then segments: ten bytes for what it is, and the payload, counted.
//!
//! So the input chooses for each of four connections what it carries: HTTP/1, HTTP/2, one that becomes the other, a
//! PROXY header before either, or none of these.

use super::frames::{PREFACE, block, frame};
use super::heads;
use super::input::Input;
use mirror_daemon::config::{Config, ShadowId};
use mirror_daemon::flow::{Direction, FlowKey, HashSeed, Lifecycle, Segment, SeqNumber, TcpFlags, Timestamp};
use mirror_daemon::pipeline::{Outlet, Pipeline, View};
use mirror_daemon::replay::{BodyPiece, BodyReader, ShadowBody, ShadowRequest};
use mirror_daemon::telemetry::Ledger;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Waker};

/// Every rule has three mirrors.
const MIRRORS: u64 = 3;
const CONFIG: &str = r#"
[capture]
interfaces = ["unused"]
ports = [8080]
PROXIED
[[shadow]]
name = "buffered"
url = "http://127.0.0.1:9"
redact = { headers = ["authorization"], cookies = ["sid"], query = ["token"] }
[[shadow]]
name = "older"
url = "http://127.0.0.1:9"
protocol = "http1"
buffer_body = "16B"
headers = [{ set = { name = "X-A", value = "1" } }, { append = { name = "X-B", value = "" } }, { remove = "X-C" }]
[[shadow]]
name = "newer"
url = "https://127.0.0.1:9"
protocol = "http2"
buffer_body = "64B"
host = { literal = "x.example:8443" }
[[route]]
hosts = ["h"]
[[route.rule]]
match = [{ path = { prefix = "/a" } }]
mirror = [{ shadow = "buffered" }, { shadow = "older", percentage = 50 }, { shadow = "newer" }]
[[route]]
[[route.rule]]
mirror = [{ shadow = "older" }, { shadow = "newer" }, { shadow = "newer", percentage = 50, key = "query:id" }]
"#;
/// What a reload brings: one shadow less, the others in another place.
const NEXT_CONFIG: &str = r#"
[capture]
interfaces = ["unused"]
ports = [8080]
[[shadow]]
name = "newer"
url = "https://127.0.0.1:9"
protocol = "http2"
[[shadow]]
name = "buffered"
url = "http://127.0.0.1:9"
[[route]]
[[route.rule]]
mirror = [{ shadow = "buffered" }, { shadow = "newer" }, { shadow = "buffered", percentage = 50 }]
"#;

/// The bounds where the input wants them to be reached.
const TIGHT_TOTAL_BYTES: usize = 24 * 1024;
/// What may be left of four connections that were told to give up what they hold.
const SHED_REST_BYTES: usize = 64 * 1024;

static CONFIGS: LazyLock<[Arc<Config>; 3]> = LazyLock::new(|| {
    let read = |text: &str| Config::from_toml(text, "fuzz.toml").expect("the configuration is right");
    let mut proxied =
        read(&CONFIG.replace("PROXIED", "proxy_protocol = true\nhttp2_tolerate_unknown_headers = true"));
    proxied.capture.limits.max_total_bytes = TIGHT_TOTAL_BYTES;
    proxied.capture.limits.max_reorder_bytes = 4096;
    proxied.capture.limits.max_flows = 2;
    [read(&CONFIG.replace("PROXIED", "")), proxied, read(NEXT_CONFIG)].map(Arc::new)
});

pub(super) fn run(input: &[u8]) {
    let mut input = Input(input);
    let Some(options) = input.byte() else { return };
    let mut wire = Wire::new(options);
    while let Some(bytes) = input.array() {
        let Some(payload) = input.counted() else { break };
        wire.step(&Record::of(bytes), payload);
        wire.check();
    }
    wire.end();
}

/// What a step says of its segment.
struct Record {
    /// Bit 0: direction; 1 to 3: where it lies; 4 and 5: a lifecycle event instead; 6 and 7: which connection.
    kind: u8,
    /// What the payload is, and an argument.
    what: u8,
    stream: u8,
    frame_flags: u8,
    seq: u8,
    ack: u8,
    flags: u8,
    extra: u8,
    offset: u8,
    time: u8,
}

impl Record {
    fn of([kind, what, stream, frame_flags, seq, ack, flags, extra, offset, time]: [u8; 10]) -> Self {
        Self { kind, what, stream, frame_flags, seq, ack, flags, extra, offset, time }
    }

    fn key(&self) -> FlowKey {
        FlowKey {
            gateway_addr: [1; 16],
            remote_addr: [self.kind >> 6; 16],
            gateway_port: 8080,
            remote_port: 40_000,
            capture_point: 1,
        }
    }

    /// How far from its place the segment lies; `None`: there.
    fn jump(&self) -> Option<i32> {
        let jump = i32::from(self.seq as i8);
        match self.kind >> 1 & 7 {
            0..=4 => None,
            5 => Some(jump),
            6 => Some(jump << 8),
            _ => Some(jump << 24),
        }
    }

    fn payload(&self, bytes: &[u8]) -> Vec<u8> {
        let argument = self.what >> 4;
        match self.what & 15 {
            0..=4 => bytes.to_vec(),
            5 => [PREFACE, bytes].concat(),
            6 => [b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n", bytes].concat(),
            7 => [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x01\x02\x03\x04\x05\x06\x07\x08\0\x01\0\x02", bytes]
                .concat(),
            8 => {
                let more = match argument & 3 {
                    0 => "",
                    1 => "Content-Length: 20\r\n",
                    2 => "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAAA\r\n",
                    _ => "Cookie: sid=1; a=b\r\nAuthorization: x\r\nExpect: 100-continue\r\n",
                };
                let line = ["GET /a?token=x&id=1", "POST http://h/b", "OPTIONS *", "GET /"]
                    [usize::from(argument >> 2)];
                [format!("{line} HTTP/1.1\r\nHost: h\r\n{more}").as_bytes(), bytes, b"\r\n\r\n"].concat()
            }
            9 => [
                b"POST /a.B/C HTTP/1.1\r\nHost: h\r\nContent-Type: application/grpc\r\n\
                  Transfer-Encoding: chunked\r\n\r\n",
                bytes,
            ]
            .concat(),
            10 => [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat(),
            11 => b"0\r\nX-Sum: 1\r\n\r\n".to_vec(),
            12 => {
                let block = [block(argument), block(bytes.first().copied().unwrap_or(0))].concat();
                let block = [&block, bytes.get(1..).unwrap_or_default()].concat();
                frame(1, self.frame_flags, self.stream, &block)
            }
            13 => frame(0, self.frame_flags, self.stream, bytes),
            14 => frame(argument, self.frame_flags, self.stream, bytes),
            _ => self.answer(argument, bytes),
        }
    }

    fn answer(&self, argument: u8, bytes: &[u8]) -> Vec<u8> {
        match argument & 3 {
            0 => [b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", bytes].concat(),
            1 => [b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", bytes]
                .concat(),
            2 => frame(1, self.frame_flags | 4, self.stream, b"\x88"),
            // So long that a window of the search passes.
            _ => frame(0, 0, self.stream, &[0; 1500]).repeat(usize::from(argument)),
        }
    }
}

/// A pipeline under test.
struct Wire {
    pipeline: Pipeline<Kept>,
    ledger: Arc<Ledger>,
    config: Arc<Config>,
    generation: u64,
    /// Where each direction goes on, for all connections together.
    next: [u32; 2],
    now: u64,
}

impl Wire {
    fn new(options: u8) -> Self {
        let config = Arc::clone(&CONFIGS[usize::from(options & 1)]);
        let ledger = Arc::new(Ledger::default());
        let view = Arc::new(View::new(0, Arc::clone(&config), &ledger));
        let outlet = Kept { forgets: options & 2 == 2, ..Kept::default() };
        let pipeline = Pipeline::new(view, Arc::clone(&ledger), HashSeed([1, 2]), outlet);
        Self { pipeline, ledger, config, generation: 0, next: [0, 1 << 31], now: 0 }
    }

    fn step(&mut self, record: &Record, bytes: &[u8]) {
        self.now += u64::from(record.time) << 24;
        let at = Timestamp(self.now);
        match (record.kind >> 4 & 3, record.extra & 3) {
            (3, 0) => self.reload(),
            (3, 1) => self.pipeline.handle_lifecycle(&record.key(), Lifecycle::Closed, at),
            (3, _) => self.pipeline.handle_lifecycle(&record.key(), Lifecycle::Opened, at),
            _ => self.segment(record, &record.payload(bytes)),
        }
        self.pipeline.handle_timeout(at);
    }

    fn reload(&mut self) {
        self.generation += 1;
        let config = Arc::clone(&CONFIGS[2]);
        let view = View::new(self.generation, config, &self.ledger);
        self.pipeline.set_view(Arc::new(view));
    }

    fn segment(&mut self, record: &Record, payload: &[u8]) {
        let Record { extra, offset, .. } = *record;
        let (direction, side) = match record.kind & 1 {
            0 => (Direction::Request, 0),
            _ => (Direction::Answer, 1),
        };
        // Mostly where the stream goes on, else near it or anywhere.
        let seq = self.next[side].wrapping_add_signed(record.jump().unwrap_or(0));
        let ack = self.next[1 - side].wrapping_add_signed(i32::from(record.ack as i8));
        let is_snapped = extra & 0x30 == 0x30;
        // Of a snapped segment only the beginning was copied.
        let shown = if is_snapped && extra & 4 == 4 { payload.len().min(16) } else { payload.len() };
        let segment_bytes = payload.len() as u32 + if is_snapped { u32::from(offset) } else { 0 };
        if record.jump().is_none() {
            self.next[side] = seq.wrapping_add(segment_bytes).wrapping_add(u32::from(record.flags & 2 != 0));
        }
        self.pipeline.handle_segment(&Segment {
            key: record.key(),
            direction,
            seq: SeqNumber(seq),
            ack: SeqNumber(ack),
            flags: TcpFlags(record.flags & if extra & 3 == 0 { 0x17 } else { 0 } | 0x10),
            selected: (extra & 8 != 0).then_some(extra & 0x10 != 0),
            at: Timestamp(self.now),
            segment_bytes,
            offset_bytes: if extra & 0xc0 == 0xc0 { u32::from(offset) } else { 0 },
            payload: &payload[..shown],
        });
    }

    /// What holds at any moment.
    fn check(&self) {
        let buffered_bytes = self.pipeline.counters().buffered_bytes;
        let most = self.config.capture.limits.max_total_bytes + SHED_REST_BYTES;
        assert!(self.generation > 0 || buffered_bytes <= most, "{buffered_bytes}");
    }

    /// What holds behind the end.
    fn end(mut self) {
        self.pipeline.handle_end();
        assert_eq!(self.pipeline.held_bytes(), 0);
        let counters = self.pipeline.counters();
        let flows = counters.http2_searching + counters.http2_unproven + counters.http2_synchronised;
        assert_eq!((counters.buffered_bytes, flows), (0, 0));
        let kept = std::mem::take(self.pipeline.outlet_mut());
        let (mut owed, mut closed) = (0, kept.offered);
        kept.requests.into_iter().for_each(check_request);
        for (name, books) in self.ledger.shadows() {
            owed += books.owed.value();
            closed += books.sampled_out.value() + books.shed.total() + books.dropped.total();
            assert_eq!(books.streaming_bytes.value(), 0, "{name} gave back its windows");
        }
        assert_eq!((owed, owed), (self.ledger.matched.value() * MIRRORS, closed));
    }
}

/// Keeps what was offered, or counts it and lets it go.
#[derive(Default)]
struct Kept {
    offered: u64,
    requests: Vec<ShadowRequest>,
    forgets: bool,
}

impl Outlet for Kept {
    fn offer(&mut self, _shadow: ShadowId, request: ShadowRequest) {
        self.offered += 1;
        if !self.forgets {
            self.requests.push(request);
        }
    }
    fn ignore(&mut self, _flow: &FlowKey) {}
    fn pass_over(&mut self, _flow: &FlowKey, _up_to: SeqNumber) {}

    fn copy_answers(&mut self, _flow: &FlowKey, _whole: bool) {}
}

fn check_request(request: ShadowRequest) {
    match request.body {
        ShadowBody::Buffered { bytes, trailers } => heads::check(&request.head, &bytes, &trailers),
        ShadowBody::Streaming(reader) => {
            if let Some((bytes, trailers)) = read(reader) {
                heads::check(&request.head, &bytes, &trailers);
            }
        }
    }
}

/// The streamed body and its trailers; `None` when it was aborted.
fn read(mut reader: BodyReader) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut body = Vec::new();
    loop {
        match reader.poll_piece(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(BodyPiece::Bytes(bytes))) => body.extend_from_slice(&bytes),
            Poll::Ready(Ok(BodyPiece::End { trailers })) => return Some((body, trailers.to_vec())),
            Poll::Ready(Err(_)) => return None,
            Poll::Pending => panic!("a streamed body that nobody will end"),
        }
    }
}
