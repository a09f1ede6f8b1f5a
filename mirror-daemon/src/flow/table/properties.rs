#![expect(clippy::arithmetic_side_effects, reason = "tests")]

//! What holds for any traffic.

use super::*;
use crate::flow::{Chunk, FlowEvent, SeqNumber};
use proptest::prelude::*;
use proptest::sample::Index;

const SEED: HashSeed = HashSeed([3, 4]);

/// What one direction yielded: byte or gap, by offset from `origin`, in order without a seam.
#[derive(Debug, Default)]
struct Yield {
    bytes: Vec<Option<u8>>,
    gaps: usize,
    first: Option<SeqNumber>,
    closed: Option<CloseCause>,
}

impl Yield {
    fn note(&mut self, event: &FlowEvent<'_>) {
        assert_eq!(self.closed, None, "nothing follows the close");
        match event {
            FlowEvent::Chunk(Chunk { direction: Direction::Request, start, bytes, .. }) => {
                assert!(!bytes.is_empty());
                self.join(*start);
                self.bytes.extend(bytes.iter().copied().map(Some));
            }
            FlowEvent::Gap { direction: Direction::Request, start, bytes, .. } => {
                assert!(*bytes > 0);
                self.join(*start);
                self.bytes.resize(self.bytes.len() + usize::try_from(*bytes).unwrap(), None);
                self.gaps += 1;
            }
            FlowEvent::Closed(cause) => self.closed = Some(*cause),
            _ => {}
        }
    }

    fn join(&mut self, start: SeqNumber) {
        let first = *self.first.get_or_insert(start);
        assert_eq!(first.add(u32::try_from(self.bytes.len()).unwrap()), start, "no seam");
    }
}

/// A stream, and how it is cut up and sent.
#[derive(Clone, Debug)]
struct Traffic {
    isn: u32,
    stream: Vec<u8>,
    /// Start and length of each segment; together they cover the stream.
    segments: Vec<(usize, usize)>,
}

/// Cuts a stream anywhere, sends some parts again over any range, and moves segments by up to `shift` places.
fn traffic(shift: usize) -> impl Strategy<Value = Traffic> {
    let stream = prop::collection::vec(any::<u8>(), 1..400);
    let isn = prop_oneof![any::<u32>(), (u32::MAX - 400)..=u32::MAX];
    let cuts = prop::collection::vec(any::<Index>(), 0..30);
    let again = prop::collection::vec((any::<Index>(), 1..60_usize), 0..15);
    let keys = prop::collection::vec(0..=shift, 50);
    (isn, stream, cuts, again, keys).prop_map(|(isn, stream, cuts, again, keys)| {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len())).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let mut segments: Vec<(usize, usize)> = cuts.windows(2).map(|w| (w[0], w[1] - w[0])).collect();
        for (at, bytes) in again {
            let start = at.index(stream.len());
            let place = at.index(segments.len() + 1);
            segments.insert(place, (start, bytes.min(stream.len() - start)));
        }
        let mut order: Vec<usize> = (0..segments.len()).collect();
        order.sort_by_key(|n| n + keys.get(*n).copied().unwrap_or(0));
        let segments = order.into_iter().map(|n| segments[n]).collect();
        Traffic { isn, stream, segments }
    })
}

fn segment<'a>(isn: u32, offset: usize, payload: &'a [u8]) -> Segment<'a> {
    Segment {
        key: FlowKey::default(),
        direction: Direction::Request,
        seq: SeqNumber(isn).add(1).add(u32::try_from(offset).unwrap()),
        ack: SeqNumber(0),
        flags: TcpFlags(0),
        selected: None,
        at: Timestamp(5),
        segment_bytes: u32::try_from(payload.len()).unwrap(),
        offset_bytes: 0,
        payload,
    }
}

fn syn(isn: u32) -> Segment<'static> {
    Segment { seq: SeqNumber(isn), flags: TcpFlags::SYN, ..segment(isn, 0, b"") }
}

fn acknowledge(isn: u32, offset: usize) -> Segment<'static> {
    let here = segment(isn, offset, b"");
    Segment { direction: Direction::Answer, flags: TcpFlags::ACK, ack: here.seq, ..here }
}

fn table(limits: FlowLimits) -> FlowTable<()> {
    FlowTable::new(limits, Answers::Glimpsed, SEED)
}

fn books_balance<S: Default>(table: &FlowTable<S>) -> bool {
    let counters = table.counters();
    let held = u64::try_from(table.held_bytes()).unwrap();
    let rest = counters.forwarded_bytes + counters.duplicate_bytes + counters.dropped.total() + held;
    counters.received_bytes == rest
}

/// All fields of a segment at random; few keys and close numbers, so that segments meet.
fn any_segment() -> impl Strategy<Value = (Segment<'static>, Vec<u8>)> {
    let seq = || prop_oneof![8 => (0..3_000_u32).prop_map(|n| n.wrapping_sub(1_500)), 1 => any::<u32>()];
    let numbers = (0..6_u16, any::<bool>(), seq(), seq(), 0..0x20_u8);
    let selected = prop_oneof![6 => Just(None), 2 => Just(Some(false)), 1 => Just(Some(true))];
    let lengths =
        (prop_oneof![9 => 0..3_000_u32, 1 => any::<u32>()], prop_oneof![8 => Just(0), 1 => any::<u32>()]);
    let payload = prop::collection::vec(any::<u8>(), 0..200);
    (numbers, selected, 0..20_000_000_000_u64, lengths, payload, any::<bool>()).prop_map(
        |((port, is_request, seq, ack, flags), selected, at, (wire, offset), payload, is_whole)| {
            let whole = u32::try_from(payload.len()).unwrap();
            let segment = Segment {
                key: FlowKey { remote_port: port, ..FlowKey::default() },
                direction: if is_request { Direction::Request } else { Direction::Answer },
                seq: SeqNumber(seq),
                ack: SeqNumber(ack),
                flags: TcpFlags(flags),
                selected,
                at: Timestamp(at),
                segment_bytes: if is_whole { whole } else { wire },
                offset_bytes: if is_whole { 0 } else { offset },
                payload: &[],
            };
            (segment, payload)
        },
    )
}

proptest! {
    #[test]
    fn any_cutting_order_and_repetition_gives_the_stream(traffic in traffic(8)) {
        let mut seen = Yield::default();
        let mut table = table(FlowLimits::default());
        table.handle_segment(&syn(traffic.isn), &mut |_, (), event| seen.note(&event));
        for (start, bytes) in &traffic.segments {
            let segment = segment(traffic.isn, *start, &traffic.stream[*start..start + bytes]);
            table.handle_segment(&segment, &mut |_, (), event| seen.note(&event));
            prop_assert!(books_balance(&table));
        }
        let all: Vec<_> = traffic.stream.iter().copied().map(Some).collect();
        prop_assert_eq!(seen.bytes, all);
        prop_assert_eq!((table.held_bytes(), table.allocated_bytes()), (0, 0));
    }

    #[test]
    fn where_copies_differ_the_first_one_wins(traffic in traffic(8)) {
        let mut seen = Yield::default();
        let mut oracle: Vec<Option<u8>> = vec![None; traffic.stream.len()];
        let mut table = table(FlowLimits::default());
        table.handle_segment(&syn(traffic.isn), &mut |_, (), event| seen.note(&event));
        for (number, (start, bytes)) in traffic.segments.iter().enumerate() {
            let copy = vec![u8::try_from(number).unwrap(); *bytes];
            for place in &mut oracle[*start..start + bytes] {
                place.get_or_insert(u8::try_from(number).unwrap());
            }
            let segment = segment(traffic.isn, *start, &copy);
            table.handle_segment(&segment, &mut |_, (), event| seen.note(&event));
        }
        prop_assert_eq!(seen.bytes, oracle);
    }

    #[test]
    fn under_loss_bytes_and_gaps_tile_the_stream(
        traffic in traffic(3),
        lost in prop::collection::vec(any::<bool>(), 50),
        fragments in 1..20_usize,
        acks_at in prop::collection::vec(any::<bool>(), 50),
    ) {
        let mut seen = Yield::default();
        let mut sent = vec![false; traffic.stream.len()];
        let limits = FlowLimits { max_reorder_fragments: fragments, ..FlowLimits::default() };
        let mut table = table(limits);
        table.handle_segment(&syn(traffic.isn), &mut |_, (), event| seen.note(&event));
        let mut on_event = |_: &FlowKey, (): &mut (), event: FlowEvent<'_>| seen.note(&event);
        for (number, (start, bytes)) in traffic.segments.iter().enumerate() {
            sent[*start..start + bytes].fill(true);
            if !lost[number % lost.len()] {
                let segment = segment(traffic.isn, *start, &traffic.stream[*start..start + bytes]);
                table.handle_segment(&segment, &mut on_event);
            }
            if acks_at[number % acks_at.len()] {
                let received = sent.iter().take_while(|sent| **sent).count();
                table.handle_segment(&acknowledge(traffic.isn, received), &mut on_event);
            }
            prop_assert!(books_balance(&table));
        }
        table.handle_segment(&acknowledge(traffic.isn, traffic.stream.len()), &mut on_event);
        prop_assert!(books_balance(&table));
        prop_assert_eq!(table.held_bytes(), 0);
        prop_assert_eq!(seen.bytes.len(), traffic.stream.len());
        for (yielded, true_byte) in seen.bytes.iter().zip(&traffic.stream) {
            prop_assert!(yielded.is_none_or(|byte| byte == *true_byte));
        }
        if lost.iter().all(|lost| !lost) && fragments > 10 {
            prop_assert_eq!(seen.gaps, 0);
        }
    }

    #[test]
    fn joining_at_any_byte_gives_a_suffix(traffic in traffic(0), join in any::<Index>()) {
        let mut seen = Yield::default();
        let mut table = table(FlowLimits::default());
        let from = join.index(traffic.segments.len());
        let mut joined_at = None;
        for (start, bytes) in traffic.segments.iter().skip(from).filter(|(_, bytes)| *bytes > 0) {
            joined_at.get_or_insert(*start);
            let segment = segment(traffic.isn, *start, &traffic.stream[*start..start + bytes]);
            table.handle_segment(&segment, &mut |_, (), event| seen.note(&event));
        }
        table.handle_end(&mut |_, (), event| seen.note(&event));
        prop_assert!(books_balance(&table));
        if let Some(joined_at) = joined_at {
            for (yielded, true_byte) in seen.bytes.iter().zip(&traffic.stream[joined_at..]) {
                prop_assert!(yielded.is_none_or(|byte| byte == *true_byte));
            }
            prop_assert_eq!(seen.closed, Some(CloseCause::CaptureEnded));
        }
    }

    #[test]
    fn hostile_segments_never_panic_and_stay_within_bounds(
        segments in prop::collection::vec((any_segment(), 0..40_u8), 1..150),
        max_flows in 0..5_usize,
        max_reorder_bytes in 0..1_500_usize,
        max_total_bytes in 0..3_000_usize,
        assembled in any::<bool>(),
    ) {
        let limits = FlowLimits {
            max_flows,
            max_reorder_bytes,
            max_total_bytes,
            max_reorder_fragments: 8,
            ..FlowLimits::default()
        };
        let answers = if assembled { Answers::Assembled } else { Answers::Glimpsed };
        let mut table = FlowTable::<Option<CloseCause>>::new(limits, answers, SEED);
        let mut events = 0_usize;
        let mut on_event = |_: &FlowKey, closed: &mut Option<CloseCause>, event: FlowEvent<'_>| {
            events += 1;
            assert_eq!(*closed, None, "state is fresh behind a close");
            match event {
                FlowEvent::Closed(cause) => *closed = Some(cause),
                FlowEvent::Gap { bytes, cause, .. } => {
                    assert!(bytes > 0, "{cause:?}");
                }
                _ => {}
            }
        };
        let mut clock = Timestamp(0);
        for ((segment, payload), also) in &segments {
            let segment = Segment { payload, ..*segment };
            table.handle_segment(&segment, &mut on_event);
            clock = clock.max(segment.at);
            match also {
                0 => table.handle_lifecycle(&segment.key, Lifecycle::Opened, segment.at, &mut on_event),
                1 => table.handle_lifecycle(&segment.key, Lifecycle::Closed, segment.at, &mut on_event),
                2 => drop(table.ignore(&segment.key)),
                3..10 => table.handle_timeout(clock, &mut on_event),
                _ => {}
            }
            prop_assert!(books_balance(&table), "{:?} held {}", table.counters(), table.held_bytes());
            prop_assert!(table.len() <= max_flows.max(1));
            prop_assert!(table.allocated_bytes() <= max_total_bytes);
            prop_assert!(table.allocated_bytes() <= 2 * max_flows.max(1) * max_reorder_bytes);
            prop_assert!(table.held_bytes() <= table.allocated_bytes());
        }
        table.handle_end(&mut on_event);
        prop_assert!(books_balance(&table));
        prop_assert_eq!((table.held_bytes(), table.allocated_bytes(), table.len()), (0, 0, 0));
        prop_assert_eq!(table.counters().flows_opened, table.counters().closed.total());
        prop_assert!(table.holders.first().is_none());
    }

    #[test]
    fn waking_when_asked_always_comes_to_rest(segments in prop::collection::vec(any_segment(), 1..60)) {
        let mut table = FlowTable::<()>::new(FlowLimits::default(), Answers::Assembled, SEED);
        for (segment, payload) in &segments {
            table.handle_segment(&Segment { payload, ..*segment }, &mut |_, (), _| {});
        }
        for _ in 0..1_000 {
            let Some(next) = table.next_timeout() else { break };
            table.handle_timeout(next, &mut |_, (), _| {});
        }
        prop_assert_eq!(table.next_timeout(), None);
        prop_assert!(table.is_empty());
        prop_assert_eq!(table.held_bytes(), 0);
    }
}
