//! Connections of HTTP/2: what they make capture do, and what they leave behind.

use super::*;

/// Whether capture copies answers whole, as it was told last; and how often a flow was ignored.
#[derive(Debug, Default)]
struct Told {
    whole_answers: bool,
    ignored: usize,
}

impl Outlet for Told {
    fn offer(&mut self, _shadow: ShadowId, _request: ShadowRequest) {}
    fn ignore(&mut self, _flow: &FlowKey) {
        self.ignored += 1;
    }
    fn pass_over(&mut self, _flow: &FlowKey, _up_to: SeqNumber) {}
    fn copy_answers(&mut self, _flow: &FlowKey, whole: bool) {
        assert_ne!(whole, self.whole_answers, "told once");
        self.whole_answers = whole;
    }
}

/// One connection.
struct Rig {
    key: FlowKey,
    pipeline: Pipeline<Told>,
    ledger: Arc<Ledger>,
    request_seq: SeqNumber,
    answer_seq: SeqNumber,
}

impl Rig {
    fn new() -> Self {
        let ledger = Arc::new(Ledger::default());
        let config = Config::from_toml(CONFIG, "test.toml").unwrap();
        let view = Arc::new(View::new(1, Arc::new(config), &ledger));
        let pipeline = Pipeline::new(view, Arc::clone(&ledger), HashSeed([1, 2]), Told::default());
        Self { key: KEY, pipeline, ledger, request_seq: SeqNumber(1000), answer_seq: SeqNumber(5000) }
    }

    fn segment(&mut self, direction: Direction, flags: TcpFlags, payload: &[u8]) {
        let (seq, ack) = match direction {
            Direction::Request => (self.request_seq, self.answer_seq),
            Direction::Answer => (self.answer_seq, self.request_seq),
        };
        let segment = Segment { direction, seq, ack, ..segment(self.key, flags, payload) };
        self.pipeline.handle_segment(&segment);
        let used = segment.segment_bytes + u32::from(flags == TcpFlags::SYN);
        match direction {
            Direction::Request => self.request_seq = seq.add(used),
            Direction::Answer => self.answer_seq = seq.add(used),
        }
    }

    fn ask(&mut self, payload: &[u8]) {
        self.segment(Direction::Request, TcpFlags::ACK, payload);
    }

    fn answer(&mut self, payload: &[u8]) {
        self.segment(Direction::Answer, TcpFlags::ACK, payload);
    }
}

/// Joined in the middle, with a request that waits for its proof.
fn held() -> Rig {
    let mut rig = Rig::new();
    for number in 0..20 {
        rig.ask(&frame(0, 0, 1, &[number; 1000]));
        rig.answer(&frame(6, 0, 0, &[0; 8]));
    }
    rig.ask(&frame(1, 5, 101, b"\x82\x86\x84\x01\x09h.example"));
    assert_eq!(rig.pipeline.counters().http2_unproven, 1);
    assert!(rig.pipeline.outlet_mut().whole_answers);
    rig
}

#[test]
fn verdict_for_whole_answers_does_not_outlive_the_connection() {
    let mut rig = held();
    rig.segment(Direction::Request, TcpFlags::RST, b"");
    assert!(!rig.pipeline.outlet_mut().whole_answers);
    assert_eq!(rig.ledger.dropped.of(DropReason::UnprovenBoundary).value(), 1);
}

#[test]
fn verdict_for_whole_answers_is_taken_back_when_it_was_http_1_after_all() {
    let mut rig = held();
    // Not a frame; then a request at the start of a segment.
    rig.ask(&[0xff; 100]);
    rig.ask(b"GET / HTTP/1.1\r\nHost: h.example\r\n\r\n");
    assert!(!rig.pipeline.outlet_mut().whole_answers);
    assert_eq!(rig.pipeline.counters().http2_unproven + rig.pipeline.counters().http2_searching, 0);
}

#[test]
fn connection_of_http_2_that_is_passed_over_leaves_nothing_in_the_books() {
    let mut rig = Rig::new();
    rig.segment(Direction::Request, TcpFlags::SYN, b"");
    rig.ask(
        b"GET / HTTP/1.1\r\nHost: h.example\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
          HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
    );
    rig.answer(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n");
    assert_eq!(rig.pipeline.counters().http2_synchronised, 1);
    rig.ask(b"this is no preface of HTTP/2");
    assert_eq!(rig.pipeline.outlet_mut().ignored, 1);
    let counters = rig.pipeline.counters();
    assert_eq!((counters.http2_synchronised, counters.buffered_bytes), (0, 0));
}

#[test]
fn many_connections_with_full_header_tables_leave_room_for_requests() {
    let mut rig = Rig::new();
    let hello = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(4, 0, 0, b"")].concat();
    // Two new fields each: 40 requests fill a table of 4,096 bytes.
    let requests: Vec<_> = (0..40_u8)
        .map(|number| {
            let field = |letter| {
                [&[0x40, 4, b'x', b'-', b'a' + number % 26, letter, 20][..], &[b'0' + number; 20]].concat()
            };
            let block = [&b"\x82\x86\x84\x01\x09h.example"[..], &field(b'a'), &field(b'b')].concat();
            frame(1, 5, u32::from(number) * 2 + 1, &block)
        })
        .collect();
    for port in 0..2_500 {
        rig.key.remote_port = 10_000 + port;
        rig.request_seq = SeqNumber(1000);
        rig.segment(Direction::Request, TcpFlags::SYN, b"");
        rig.ask(&hello);
        for request in &requests {
            rig.ask(request);
        }
    }
    let counters = rig.pipeline.counters();
    assert!(counters.buffered_bytes > 16 * 1024 * 1024, "{}", counters.buffered_bytes);
    assert_eq!((rig.ledger.matched.value(), counters.http2_synchronised), (2_500 * 40, 2_500));
}
