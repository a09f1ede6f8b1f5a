//! The pure middle as a whole, fed any segments: never panics, keeps its books, holds nothing after the end.
//!
//! The input is a list of records: eight bytes of header fields, then as many bytes of payload as the last says.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mirror_daemon::config::{Config, ShadowId};
use mirror_daemon::flow::{Direction, FlowKey, HashSeed, Lifecycle, Segment, SeqNumber, TcpFlags, Timestamp};
use mirror_daemon::pipeline::{Outlet, Pipeline, View};
use mirror_daemon::replay::ShadowRequest;
use mirror_daemon::telemetry::Ledger;
use std::sync::{Arc, LazyLock};

const CONFIG: &str = r#"
[capture]
interfaces = ["unused"]
ports = [8080]
[[shadow]]
name = "buffered"
url = "http://127.0.0.1:9"
[[shadow]]
name = "streamed"
url = "http://127.0.0.1:9"
buffer_body = "16B"
[[route]]
[[route.rule]]
mirror = [{ shadow = "buffered" }, { shadow = "streamed" }]
"#;

static CHECKED: LazyLock<Arc<Config>> =
    LazyLock::new(|| Arc::new(Config::from_toml(CONFIG, "fuzz.toml").expect("the configuration is right")));

#[derive(Default)]
struct Count(u64);

impl Outlet for Count {
    fn offer(&mut self, _shadow: ShadowId, _request: ShadowRequest) {
        self.0 += 1;
    }
    fn ignore(&mut self, _flow: &FlowKey) {}
    fn pass_over(&mut self, _flow: &FlowKey, _up_to: SeqNumber) {}

    fn copy_answers(&mut self, _flow: &FlowKey, _whole: bool) {}
}

fuzz_target!(|input: &[u8]| {
    let ledger = Arc::new(Ledger::default());
    let view = Arc::new(View::new(0, Arc::clone(&CHECKED), &ledger));
    let mut pipeline = Pipeline::new(view, Arc::clone(&ledger), HashSeed([1, 2]), Count::default());
    let (mut rest, mut now) = (input, 0_u64);
    let mut next = [0_u32, 1 << 31];
    while let [kind, seq, ack, flags, extra, offset, time, length, tail @ ..] = rest {
        let (payload, behind) = tail.split_at(tail.len().min(usize::from(*length)));
        rest = behind;
        now += u64::from(*time) << 24;
        let key = key(kind >> 6);
        let direction = if kind & 1 == 0 { Direction::Request } else { Direction::Answer };
        let side = usize::from(kind & 1);
        // Mostly where the stream goes on, else near it or anywhere.
        let jump = match kind >> 1 & 7 {
            0..=4 => 0,
            5 => i32::from(*seq as i8),
            6 => i32::from(*seq as i8) << 8,
            _ => i32::from(*seq as i8) << 24,
        };
        let at_seq = next[side].wrapping_add_signed(jump);
        let at_ack = next[1 - side].wrapping_add_signed(i32::from(*ack as i8));
        let bytes = payload.len() as u32;
        if kind >> 1 & 7 < 5 {
            next[side] = at_seq.wrapping_add(bytes).wrapping_add(u32::from(flags & 2 != 0));
        }
        let segment = Segment {
            key,
            direction,
            seq: SeqNumber(at_seq),
            ack: SeqNumber(at_ack),
            flags: TcpFlags(*flags & 0x17 & if extra & 3 == 0 { 0xff } else { 0x10 } | 0x10),
            selected: (extra & 4 != 0).then_some(extra & 8 != 0),
            at: Timestamp(now),
            segment_bytes: bytes + if extra & 0x30 == 0x30 { u32::from(*offset) } else { 0 },
            offset_bytes: if extra & 0xc0 == 0xc0 { u32::from(*offset) } else { 0 },
            payload,
        };
        match kind >> 4 & 3 {
            3 if extra & 1 == 1 => pipeline.handle_lifecycle(&key, Lifecycle::Closed, Timestamp(now)),
            3 => pipeline.handle_lifecycle(&key, Lifecycle::Opened, Timestamp(now)),
            _ => pipeline.handle_segment(&segment),
        }
        pipeline.handle_timeout(Timestamp(now));
    }
    pipeline.handle_end();
    assert_eq!(pipeline.held_bytes(), 0);
    let (mut owed, mut closed) = (0, pipeline.outlet_mut().0);
    for (_, books) in ledger.shadows() {
        owed += books.owed.value();
        closed += books.sampled_out.value() + books.shed.total() + books.dropped.total();
    }
    assert_eq!((owed, owed), (ledger.matched.value() * 2, closed));
});

fn key(number: u8) -> FlowKey {
    FlowKey {
        gateway_addr: [1; 16],
        remote_addr: [number; 16],
        gateway_port: 8080,
        remote_port: 40_000,
        capture_point: 1,
    }
}
