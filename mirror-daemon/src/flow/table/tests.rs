#![expect(clippy::arithmetic_side_effects, reason = "tests")]

use super::*;
use crate::flow::{Chunk, Glimpse, SeqNumber};

const SEED: HashSeed = HashSeed([1, 2]);
const ISN: u32 = u32::MAX - 3;
const ANSWER_ISN: u32 = 7_000;

/// Events as text, so that a test reads as a transcript.
#[derive(Debug)]
struct Rig {
    table: FlowTable<u32>,
    now: Timestamp,
    log: Vec<String>,
    selected: Option<bool>,
}

impl Rig {
    fn new() -> Self {
        Self::with(FlowLimits::default(), Answers::Glimpsed)
    }

    fn with(limits: FlowLimits, answers: Answers) -> Self {
        Self {
            table: FlowTable::new(limits, answers, SEED),
            now: Timestamp(1_000_000_000),
            log: Vec::new(),
            selected: None,
        }
    }

    fn send(&mut self, mut segment: Segment<'_>) -> &mut Self {
        segment.at = self.now;
        segment.selected = self.selected;
        let log = &mut self.log;
        self.table.handle_segment(&segment, &mut |key, state, event| note(log, key, state, &event));
        self.assert_books();
        self
    }

    fn lifecycle(&mut self, lifecycle: Lifecycle) -> &mut Self {
        let (log, now) = (&mut self.log, self.now);
        self.table.handle_lifecycle(&key(1), lifecycle, now, &mut |key, state, event| {
            note(log, key, state, &event)
        });
        self.assert_books();
        self
    }

    fn pass_ms(&mut self, ms: u64) -> &mut Self {
        self.now = self.now.after(Duration::from_millis(ms));
        let log = &mut self.log;
        self.table.handle_timeout(self.now, &mut |key, state, event| note(log, key, state, &event));
        self.assert_books();
        if let Some(next) = self.table.next_timeout() {
            assert!(next > self.now, "a time-out that is due was not handled");
        }
        self
    }

    fn open(&mut self) -> &mut Self {
        self.send(syn(1, ISN)).send(syn_ack()).log.clear();
        self
    }

    fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log)
    }

    fn assert_books(&self) {
        let counters = self.table.counters();
        let held = u64::try_from(self.table.held_bytes()).unwrap();
        assert_eq!(
            counters.received_bytes,
            counters.forwarded_bytes + counters.duplicate_bytes + counters.dropped.total() + held,
            "{counters:?}, held {held}"
        );
        let live = self.table.slots.iter().filter(|slot| {
            matches!(slot.content, Content::Live(_)) && self.table.index.contains_key(&slot.key)
        });
        assert_eq!(counters.flows_opened, counters.closed.total() + u64::try_from(live.count()).unwrap());
    }
}

fn note(log: &mut Vec<String>, key: &FlowKey, state: &mut u32, event: &FlowEvent<'_>) {
    *state += 1;
    let side = |direction: &Direction| if *direction == Direction::Request { "req" } else { "ans" };
    let offset = |place: SeqNumber| place.0.wrapping_sub(ISN).wrapping_sub(1).cast_signed();
    let text = match event {
        FlowEvent::Opened { direction, joined } => {
            format!("opened {}{}", side(direction), if *joined { " joined" } else { "" })
        }
        FlowEvent::Chunk(Chunk { direction: Direction::Request, start, bytes, at_segment_start, .. }) => {
            let mark = if *at_segment_start { "^" } else { "" };
            format!("{mark}{}@{}", String::from_utf8_lossy(bytes), offset(*start))
        }
        FlowEvent::Chunk(Chunk { bytes, .. }) => format!("ans {}", String::from_utf8_lossy(bytes)),
        FlowEvent::Gap { direction: Direction::Request, start, bytes, cause } => {
            format!("gap {bytes}@{} {cause:?}", offset(*start))
        }
        FlowEvent::Gap { bytes, cause, .. } => format!("ans gap {bytes} {cause:?}"),
        FlowEvent::Glimpse(Glimpse { head, segment_bytes, offset_bytes, .. }) => {
            let place = if *offset_bytes > 0 { format!(" at {offset_bytes}") } else { String::new() };
            format!("glimpse {}/{segment_bytes}{place}", String::from_utf8_lossy(head))
        }
        FlowEvent::Finished { direction } => format!("finished {}", side(direction)),
        FlowEvent::Closed(cause) => format!("closed {cause:?} after {}", *state),
    };
    log.push(if key.remote_port == 1 { text } else { format!("{}: {text}", key.remote_port) });
}

fn key(remote_port: u16) -> FlowKey {
    FlowKey { remote_port, gateway_port: 80, ..FlowKey::default() }
}

fn request(port: u16, offset: i32, payload: &[u8]) -> Segment<'_> {
    Segment {
        key: key(port),
        direction: Direction::Request,
        seq: SeqNumber(ISN.wrapping_add(1).wrapping_add(offset.cast_unsigned())),
        ack: SeqNumber(ANSWER_ISN + 1),
        flags: TcpFlags::ACK,
        selected: None,
        at: Timestamp(0),
        segment_bytes: u32::try_from(payload.len()).unwrap(),
        offset_bytes: 0,
        payload,
    }
}

fn answer(offset: u32, acked: i32, payload: &[u8]) -> Segment<'_> {
    Segment {
        direction: Direction::Answer,
        seq: SeqNumber(ANSWER_ISN + 1 + offset),
        ack: SeqNumber(ISN.wrapping_add(1).wrapping_add(acked.cast_unsigned())),
        ..request(1, 0, payload)
    }
}

fn flagged(segment: Segment<'_>, flags: TcpFlags) -> Segment<'_> {
    Segment { flags: TcpFlags(segment.flags.0 | flags.0), ..segment }
}

fn syn(port: u16, isn: u32) -> Segment<'static> {
    Segment { seq: SeqNumber(isn), flags: TcpFlags::SYN, ..request(port, 0, b"") }
}

fn syn_ack() -> Segment<'static> {
    let flags = TcpFlags(TcpFlags::SYN.0 | TcpFlags::ACK.0);
    Segment { seq: SeqNumber(ANSWER_ISN), flags, ..answer(0, 0, b"") }
}

#[test]
fn in_order_bytes_pass_over_the_wrap() {
    let mut rig = Rig::new();
    rig.send(syn(1, ISN)).send(syn_ack());
    rig.send(request(1, 0, b"GET ")).send(request(1, 4, b"/ HTTP")).send(answer(0, 10, b"HTTP"));
    assert_eq!(rig.take(), ["opened req", "opened ans", "^GET @0", "^/ HTTP@4", "glimpse HTTP/4"]);
    assert_eq!(rig.table.allocated_bytes(), 0);
}

#[test]
fn in_order_bytes_are_those_of_the_segment_itself() {
    let mut table = FlowTable::<()>::new(FlowLimits::default(), Answers::Glimpsed, SEED);
    let payload = b"not copied";
    let mut seen = 0;
    table.handle_segment(&request(1, 0, payload), &mut |_, (), event| {
        if let FlowEvent::Chunk(chunk) = event {
            assert_eq!(chunk.bytes.as_ptr(), payload.as_ptr());
            seen += 1;
        }
    });
    assert_eq!(seen, 1);
}

#[test]
fn out_of_order_segment_fills_hole() {
    let mut rig = Rig::new();
    rig.open().send(request(1, 6, b"cc")).send(request(1, 3, b"bbb"));
    assert_eq!(rig.take(), [""; 0]);
    assert_eq!(rig.table.held_bytes(), 5);
    rig.send(request(1, 0, b"aaa"));
    assert_eq!(rig.take(), ["^aaa@0", "^bbb@3", "^cc@6"]);
    assert_eq!((rig.table.held_bytes(), rig.table.allocated_bytes()), (0, 0));
    assert_eq!(rig.table.counters().out_of_order_segments, 2);
}

#[test]
fn first_copy_of_a_byte_wins() {
    let mut rig = Rig::new();
    rig.open().send(request(1, 2, b"CD")).send(request(1, 0, b"abxyef")).send(request(1, 4, b"zzg"));
    assert_eq!(rig.take(), ["^ab@0", "^CD@2", "ef@4", "g@6"]);
    assert_eq!(rig.table.counters().overlapping_segments, 2);
    assert_eq!(rig.table.counters().duplicate_bytes, 4);
}

#[test]
fn retransmission_yields_nothing() {
    let mut rig = Rig::new();
    rig.open().send(request(1, 0, b"abc")).send(request(1, 0, b"abc")).send(request(1, 1, b"b"));
    assert_eq!(rig.take(), ["^abc@0"]);
    assert_eq!(rig.table.counters().retransmitted_segments, 2);
}

#[test]
fn keep_alive_probes_yield_nothing() {
    let mut rig = Rig::new();
    rig.open().send(request(1, 0, b"abc")).send(request(1, 2, b"?")).send(request(1, 2, b""));
    rig.send(request(1, 3, b"d"));
    assert_eq!(rig.take(), ["^abc@0", "^d@3"]);
}

#[test]
fn pieces_of_a_segment_join_and_only_the_first_is_a_segment_start() {
    let mut rig = Rig::new();
    let whole = request(1, 0, b"abcdef");
    rig.open().send(Segment { payload: b"abcd", ..whole });
    rig.send(Segment { payload: b"ef", offset_bytes: 4, ..whole });
    assert_eq!(rig.take(), ["^abcd@0", "ef@4"]);
}

#[test]
fn acknowledgement_past_a_hole_proves_it_lost() {
    let mut rig = Rig::new();
    rig.open().send(request(1, 0, b"ab")).send(request(1, 5, b"fg")).send(request(1, 9, b"j"));
    rig.send(answer(0, 5, b""));
    assert_eq!(rig.take(), ["^ab@0", "gap 3@2 Acknowledged", "^fg@5"]);
    rig.send(answer(0, 8, b""));
    assert_eq!(rig.take(), ["gap 1@7 Acknowledged"], "only what was acknowledged");
    rig.send(answer(0, 10, b"x"));
    assert_eq!(rig.take(), ["gap 1@8 Acknowledged", "^j@9", "glimpse x/1"]);
    assert_eq!(rig.table.counters().gaps.acknowledged, crate::flow::Tally { count: 3, bytes: 5 });
}

#[test]
fn hole_with_nothing_behind_it_is_found_by_acknowledgement() {
    let mut rig = Rig::new();
    rig.open().send(request(1, 0, b"ab")).send(answer(0, 2, b"")).send(answer(0, 7, b""));
    rig.send(request(1, 7, b"next"));
    assert_eq!(rig.take(), ["^ab@0", "gap 5@2 Acknowledged", "^next@7"]);
}

#[test]
fn bytes_that_were_not_captured_become_a_gap_when_acknowledged_or_late() {
    let mut rig = Rig::new();
    rig.open().send(Segment { segment_bytes: 100, ..request(1, 0, b"head") });
    rig.send(answer(0, 100, b""));
    assert_eq!(rig.take(), ["^head@0", "gap 96@4 Acknowledged"]);
    rig.send(Segment { segment_bytes: 100, ..request(1, 100, b"x") }).pass_ms(9_999);
    assert_eq!(rig.take(), ["^x@100"]);
    rig.pass_ms(1);
    assert_eq!(rig.take(), ["gap 99@101 Timeout"]);
}

#[test]
fn segment_left_out_on_purpose_is_a_gap_at_once() {
    let mut rig = Rig::new();
    let left_out = Segment { segment_bytes: 500, ..request(1, 2, b"") };
    rig.open().send(request(1, 0, b"ab")).send(left_out).send(request(1, 502, b"cd"));
    assert_eq!(rig.take(), ["^ab@0", "gap 500@2 Uncaptured", "^cd@502"]);
}

#[test]
fn hole_is_given_up_at_its_time_and_not_before() {
    let mut rig = Rig::new();
    rig.open().send(request(1, 2, b"c")).pass_ms(3_000).send(request(1, 5, b"f"));
    rig.pass_ms(6_999);
    assert_eq!(rig.take(), [""; 0]);
    rig.pass_ms(1);
    assert_eq!(rig.take(), ["gap 2@0 Timeout", "^c@2"], "the second hole is younger");
    rig.pass_ms(3_000);
    assert_eq!(rig.take(), ["gap 2@3 Timeout", "^f@5"]);
}

#[test]
fn filled_hole_never_times_out() {
    let mut rig = Rig::new();
    rig.open().send(request(1, 1, b"b")).send(request(1, 0, b"a")).take();
    rig.pass_ms(20_000);
    assert_eq!(rig.take(), [""; 0]);
}

#[test]
fn reorder_bound_gives_up_the_hole_at_the_limit_and_loses_nothing_else() {
    for (fragments, gap) in [(3, true), (4, false), (5, false)] {
        let limits = FlowLimits { max_reorder_fragments: fragments, ..FlowLimits::default() };
        let mut rig = Rig::with(limits, Answers::Glimpsed);
        rig.open();
        for n in 1..=4 {
            rig.send(request(1, n * 2, b"x"));
        }
        let log = rig.take();
        assert_eq!(log.first().is_some_and(|first| first == "gap 2@0 Overflow"), gap, "{fragments}: {log:?}");
        assert_eq!(rig.table.held_bytes() + log.iter().filter(|l| l.starts_with('^')).count(), 4);
    }
}

#[test]
fn run_larger_than_the_reorder_bound_passes_at_once() {
    let limits = FlowLimits { max_reorder_bytes: 300, ..FlowLimits::default() };
    let mut rig = Rig::with(limits, Answers::Glimpsed);
    let payload = [b'x'; 400];
    rig.open().send(request(1, 5, &payload));
    let log = rig.take();
    assert_eq!(log.len(), 2);
    assert_eq!(log[0], "gap 5@0 Overflow");
}

#[test]
fn total_bound_evicts_whoever_holds_for_longest() {
    let one = 4 * 40 + 100;
    let limits = FlowLimits { max_total_bytes: 2 * one, ..FlowLimits::default() };
    let mut rig = Rig::with(limits, Answers::Glimpsed);
    let payload = [b'x'; 100];
    for port in 2..=4 {
        rig.send(syn(port, ISN)).send(request(port, 5, &payload));
        rig.take();
        let closed = rig.table.counters().evicted_for_bytes;
        assert_eq!(closed, u64::from(port == 4));
        assert!(rig.table.allocated_bytes() <= 2 * one);
    }
    rig.send(request(2, 0, b"late")).send(request(3, 0, b"right"));
    assert_eq!(rig.take()[0], "3: ^right@0", "flow 2 is gone, flow 3 goes on");
}

#[test]
fn far_bytes_are_refused_and_the_stream_goes_on() {
    let mut rig = Rig::new();
    rig.open().send(request(1, i32::MAX, b"far")).send(request(1, -(65 << 20), b"far"));
    rig.send(request(1, 0, b"near"));
    assert_eq!(rig.take(), ["^near@0"]);
    assert_eq!((rig.table.counters().far_segments, rig.table.counters().dropped.far), (2, 6));
}

#[test]
fn stream_that_really_jumped_is_joined_again() {
    let mut rig = Rig::new();
    rig.open().send(request(1, 0, b"a")).send(request(1, 5, b"f")).take();
    // 3 GiB further on.
    let far = -(1 << 30);
    for n in 0..3 {
        rig.send(request(1, far + n, b"z"));
    }
    assert_eq!(rig.take(), [""; 0]);
    rig.send(request(1, far + 3, b"Z")).send(request(1, far + 4, b"on"));
    let log = rig.take();
    assert_eq!(log[..2], ["gap 4@1 Jumped", "^f@5"]);
    assert_eq!(log[2], format!("gap {}@6 Jumped", (3_u32 << 30) + 3 - 6));
    assert_eq!(log[3..], [format!("^Z@{}", far + 3), format!("^on@{}", far + 4)]);
}

#[test]
fn answers_that_jumped_are_glimpsed_again() {
    let mut rig = Rig::new();
    rig.open().send(answer(0, 0, b"a")).take();
    for n in 0..4 {
        rig.send(answer((2 << 30) + n, 0, b"z"));
    }
    rig.send(answer((2 << 30) + 4, 0, b"y"));
    assert_eq!(rig.take(), ["glimpse z/1", "glimpse y/1"]);
}

#[test]
fn repeated_answer_is_not_glimpsed_again() {
    let mut rig = Rig::new();
    let whole = Segment { segment_bytes: 10, ..answer(0, 0, b"HTTP") };
    rig.open().send(whole).send(whole);
    rig.send(answer(10, 0, b"more"));
    assert_eq!(rig.take(), ["glimpse HTTP/10", "glimpse more/4"]);
    assert_eq!(rig.table.counters().duplicate_bytes, 4);
}

#[test]
fn later_pieces_of_an_answer_follow_its_first_and_no_other() {
    let mut rig = Rig::new();
    let whole = Segment { segment_bytes: 10, ..answer(0, 0, b"HTTP") };
    rig.open().send(whole).send(Segment { offset_bytes: 4, ..whole }).send(answer(10, 0, b"more"));
    rig.send(Segment { offset_bytes: 4, ..whole });
    rig.send(Segment { segment_bytes: 10, offset_bytes: 4, ..answer(14, 0, b"tail") });
    assert_eq!(rig.take(), ["glimpse HTTP/10", "glimpse HTTP/10 at 4", "glimpse more/4"]);
    assert_eq!(rig.table.counters().dropped.unglimpsed, 8);
}

#[test]
fn answers_are_put_in_order_on_request() {
    let mut rig = Rig::with(FlowLimits::default(), Answers::Assembled);
    rig.open().send(answer(2, 0, b"cd")).send(answer(0, 0, b"ab")).send(answer(6, 0, b"gh"));
    rig.send(Segment { ack: SeqNumber(ANSWER_ISN + 7), ..request(1, 0, b"") });
    assert_eq!(rig.take(), ["ans ab", "ans cd", "ans gap 2 Acknowledged", "ans gh"]);
}

#[test]
fn both_fins_close_after_the_last_byte() {
    let mut rig = Rig::new();
    rig.open().send(flagged(request(1, 2, b"c"), TcpFlags::FIN));
    rig.send(flagged(answer(0, 0, b""), TcpFlags::FIN));
    assert_eq!(rig.take(), ["finished ans"], "a byte is missing");
    rig.send(request(1, 0, b"ab"));
    assert_eq!(rig.take(), ["^ab@0", "^c@2", "finished req", "closed Finished after 7"]);
}

#[test]
fn hole_before_fin_obeys_the_hole_timeout() {
    let mut rig = Rig::new();
    rig.open()
        .send(flagged(answer(0, 0, b""), TcpFlags::FIN))
        .send(flagged(request(1, 2, b""), TcpFlags::FIN));
    rig.take();
    rig.pass_ms(10_000);
    assert_eq!(rig.take(), ["gap 2@0 Timeout", "finished req", "closed Finished after 6"]);
}

#[test]
fn acknowledged_fin_is_no_lost_byte() {
    let mut rig = Rig::new();
    rig.open().send(flagged(request(1, 0, b"ab"), TcpFlags::FIN)).send(answer(0, 3, b"x"));
    assert_eq!(rig.take(), ["^ab@0", "finished req", "glimpse x/1"]);
}

#[test]
fn bytes_behind_fin_are_dropped() {
    let mut rig = Rig::new();
    rig.open().send(flagged(request(1, 0, b"ab"), TcpFlags::FIN)).send(request(1, 1, b"bcd"));
    assert_eq!(rig.take(), ["^ab@0", "finished req"]);
    assert_eq!(rig.table.counters().dropped.beyond_fin, 2);
}

#[test]
fn stragglers_of_an_ended_flow_begin_nothing_until_the_linger_is_over() {
    let mut rig = Rig::new();
    rig.open().send(flagged(request(1, 0, b"ab"), TcpFlags::FIN));
    rig.send(flagged(answer(0, 3, b""), TcpFlags::FIN)).take();
    rig.send(request(1, 0, b"ab")).pass_ms(999).send(request(1, 0, b"ab"));
    assert_eq!((rig.take(), rig.table.len()), (vec![], 1));
    rig.pass_ms(1);
    assert_eq!(rig.table.len(), 0);
    rig.send(request(1, 0, b"ab"));
    assert_eq!(rig.take(), ["opened req joined", "^ab@0"]);
}

#[test]
fn reset_closes_only_from_a_plausible_place() {
    let reset = |offset| Segment { flags: TcpFlags::RST, ..request(1, offset, b"") };
    for (offset, closes) in
        [(1, false), (2, true), (3, true), ((16 << 20) + 3, true), ((16 << 20) + 4, false)]
    {
        let mut rig = Rig::new();
        rig.open().send(request(1, 0, b"abc")).take();
        rig.send(reset(offset));
        assert_eq!(rig.take().len(), usize::from(closes), "RST at {offset}");
        assert_eq!(rig.table.counters().implausible_ends, u64::from(!closes));
    }
}

#[test]
fn syn_with_another_number_begins_a_fresh_flow() {
    let mut rig = Rig::new();
    rig.open().send(request(1, 0, b"old")).take();
    rig.send(syn(1, ISN)).send(syn(1, ISN.wrapping_add(10_000)));
    assert_eq!(rig.take(), ["closed Reused after 4", "opened req"]);
    rig.send(request(1, 10_000, b"new"));
    assert_eq!(rig.take(), ["^new@10000"]);
    assert_eq!(rig.table.counters().repeated_syns, 1);
}

#[test]
fn syn_on_a_joined_flow_begins_a_fresh_one() {
    let mut rig = Rig::new();
    rig.send(request(1, 0, b"old")).send(syn(1, ISN));
    assert_eq!(rig.take(), ["opened req joined", "^old@0", "closed Reused after 3", "opened req"]);
}

#[test]
fn bytes_on_a_syn_start_behind_it() {
    let mut rig = Rig::new();
    let fast_open = Segment { payload: b"GET", segment_bytes: 3, ..syn(1, ISN) };
    rig.send(fast_open).send(fast_open).send(request(1, 3, b" /"));
    assert_eq!(rig.take(), ["opened req", "^GET@0", "^ /@3"]);
}

#[test]
fn syn_ack_tells_where_requests_start_when_the_syn_is_lost() {
    let mut rig = Rig::new();
    rig.send(syn_ack()).send(request(1, 2, b"c")).send(request(1, 0, b"ab"));
    assert_eq!(rig.take(), ["opened req", "opened ans", "^ab@0", "^c@2"]);
}

#[test]
fn joined_flow_starts_at_the_first_byte_seen() {
    let mut rig = Rig::new();
    rig.send(request(1, 50, b"mid")).send(request(1, 40, b"earlier...mid")).send(request(1, 53, b"dle"));
    assert_eq!(rig.take(), ["opened req joined", "^mid@50", "^dle@53"]);
    assert_eq!(rig.table.counters().flows_joined, 1);
}

#[test]
fn nothing_begins_without_bytes_or_syn() {
    let mut rig = Rig::new();
    rig.send(request(1, 0, b"")).send(flagged(request(1, 0, b""), TcpFlags::FIN));
    rig.send(Segment { flags: TcpFlags::RST, ..request(1, 0, b"") });
    assert!(rig.take().is_empty() && rig.table.is_empty());
    assert_eq!(rig.table.counters().stray_segments, 3);
}

#[test]
fn idle_flow_is_closed_and_forgotten() {
    let mut rig = Rig::new();
    rig.open().send(request(1, 0, b"a")).take();
    rig.pass_ms(599_999);
    assert!(rig.take().is_empty());
    rig.send(request(1, 1, b"b")).take();
    rig.pass_ms(599_999);
    assert!(rig.take().is_empty());
    rig.pass_ms(1);
    assert_eq!(rig.take(), ["closed Idle after 5"]);
    assert!(rig.table.is_empty());
    assert_eq!(rig.table.next_timeout(), None);
}

#[test]
fn full_table_evicts_the_least_recently_active_flow() {
    let limits = FlowLimits { max_flows: 3, ..FlowLimits::default() };
    let mut rig = Rig::with(limits, Answers::Glimpsed);
    for port in 2..=4 {
        rig.send(request(port, 0, b"a")).pass_ms(2_000);
    }
    rig.send(request(2, 1, b"b")).take();
    rig.send(request(5, 0, b"a"));
    assert_eq!(rig.take(), ["3: closed Evicted after 3", "5: opened req joined", "5: ^a@0"]);
    assert_eq!(rig.table.len(), 3);
}

#[test]
fn flood_of_syns_does_not_push_out_flows_with_requests() {
    let limits = FlowLimits { max_flows: 4, ..FlowLimits::default() };
    let mut rig = Rig::with(limits, Answers::Glimpsed);
    rig.open().send(request(1, 0, b"a")).pass_ms(5_000);
    for port in 2..100 {
        rig.send(syn(port, ISN));
    }
    rig.take();
    rig.send(request(1, 1, b"b"));
    assert_eq!(rig.take(), ["^b@1"]);
    assert_eq!(rig.table.counters().evicted_for_flows, 95);
}

#[test]
fn gated_bytes_come_when_a_segment_is_selected() {
    let mut rig = Rig::new();
    rig.selected = Some(false);
    rig.send(syn(1, ISN)).send(syn_ack()).send(request(1, 0, b"GET")).send(request(1, 5, b"later"));
    assert!(rig.take().is_empty());
    assert_eq!(rig.table.held_bytes(), 8);
    rig.selected = Some(true);
    rig.send(request(1, 3, b" /"));
    assert_eq!(rig.take(), ["opened req", "^GET@0", "opened ans", "^ /@3", "^later@5"]);
}

#[test]
fn gated_bytes_come_when_the_lifecycle_hook_says_so_and_fins_count() {
    let mut rig = Rig::new();
    rig.selected = Some(false);
    rig.send(syn(1, ISN)).send(syn_ack()).send(flagged(request(1, 0, b"GET"), TcpFlags::FIN));
    rig.send(flagged(answer(0, 0, b""), TcpFlags::FIN)).lifecycle(Lifecycle::Opened);
    assert_eq!(
        rig.take(),
        ["opened req", "^GET@0", "finished req", "opened ans", "finished ans", "closed Finished after 6"]
    );
}

#[test]
fn flow_that_is_not_selected_in_time_is_ignored_until_it_is() {
    let mut rig = Rig::new();
    rig.selected = Some(false);
    rig.send(syn(1, ISN)).send(request(1, 0, b"GET")).pass_ms(999);
    assert!(rig.take().is_empty());
    rig.pass_ms(1);
    assert_eq!(rig.take(), ["closed NotGateway after 1"]);
    rig.send(request(1, 3, b" /"));
    assert!(rig.take().is_empty());
    assert_eq!((rig.table.counters().dropped.ignored, rig.table.counters().dropped.discarded), (2, 3));
    rig.selected = Some(true);
    rig.send(request(1, 5, b"x"));
    assert_eq!(rig.take(), ["opened req joined", "^x@5"]);
}

#[test]
fn gate_holds_no_more_than_the_reorder_bound() {
    let limits = FlowLimits { max_reorder_fragments: 2, ..FlowLimits::default() };
    let mut rig = Rig::with(limits, Answers::Glimpsed);
    rig.selected = Some(false);
    rig.send(syn(1, ISN));
    for n in 0..3 {
        rig.send(request(1, n, b"x"));
    }
    assert_eq!((rig.table.held_bytes(), rig.table.counters().dropped.gated), (2, 1));
    rig.lifecycle(Lifecycle::Opened).send(answer(0, 3, b""));
    assert_eq!(rig.take(), ["opened req", "^x@0", "^x@1", "gap 1@2 Acknowledged"]);
}

#[test]
fn lifecycle_close_waits_for_what_is_still_in_the_ring() {
    let mut rig = Rig::new();
    rig.open().send(request(1, 2, b"c")).lifecycle(Lifecycle::Closed).send(request(1, 6, b"g"));
    assert!(rig.take().is_empty());
    rig.pass_ms(10_000);
    let end = ["gap 2@0 Timeout", "^c@2", "gap 3@3 Timeout", "^g@6", "closed Finished after 7"];
    assert_eq!(rig.take(), end);
}

#[test]
fn late_close_of_an_earlier_connection_is_not_taken_for_this_one() {
    let mut rig = Rig::new();
    let before = rig.now;
    rig.pass_ms(1).open();
    rig.now = before;
    rig.lifecycle(Lifecycle::Closed).now = before.after(Duration::from_millis(1));
    rig.pass_ms(20_000).send(request(1, 0, b"alive"));
    assert_eq!(rig.take(), ["^alive@0"]);
}

#[test]
fn ignored_flow_gives_back_its_state_and_costs_nothing_more() {
    let mut rig = Rig::new();
    rig.open().send(request(1, 0, b"a")).send(request(1, 5, b"held")).take();
    assert_eq!(rig.table.ignore(&key(1)), Some(3));
    rig.assert_books();
    rig.send(request(1, 1, b"bcde"));
    assert!(rig.take().is_empty());
    assert_eq!(rig.table.ignore(&key(1)), None);
    rig.send(syn(1, ISN));
    assert_eq!(rig.take(), ["opened req"]);
}

#[test]
fn end_of_capture_gives_up_holes_and_closes_all() {
    let mut rig = Rig::new();
    rig.open().send(request(1, 2, b"c")).take();
    let log = &mut rig.log;
    rig.table.handle_end(&mut |key, state, event| note(log, key, state, &event));
    rig.assert_books();
    assert_eq!(rig.take(), ["gap 2@0 Timeout", "^c@2", "closed CaptureEnded after 5"]);
    assert!(rig.table.is_empty());
}

#[test]
fn contradictory_lengths_are_refused() {
    let mut rig = Rig::new();
    rig.open().send(Segment { segment_bytes: 2, ..request(1, 0, b"abc") });
    rig.send(Segment { offset_bytes: u32::MAX, ..request(1, 0, b"abc") });
    rig.send(Segment { segment_bytes: u32::MAX, ..request(1, 0, b"abc") });
    assert!(rig.take().is_empty());
    assert_eq!(rig.table.counters().malformed_segments, 3);
}

#[test]
fn alarms_do_not_pile_up() {
    let limits = FlowLimits { max_flows: 10, ..FlowLimits::default() };
    let mut rig = Rig::with(limits, Answers::Glimpsed);
    for n in 0..5_000_u32 {
        rig.send(syn(1, n * 100)).send(Segment { seq: SeqNumber(n * 100 + 5), ..request(1, 0, b"x") });
    }
    assert!(rig.table.timers.len() <= 10 * 2 + 64 + 1, "{}", rig.table.timers.len());
}
