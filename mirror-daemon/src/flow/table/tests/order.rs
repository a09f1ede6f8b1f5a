//! Order, repetition, holes and bounds of one direction.

use super::*;

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
fn contradictory_lengths_are_refused() {
    let mut rig = Rig::new();
    rig.open().send(Segment { segment_bytes: 2, ..request(1, 0, b"abc") });
    rig.send(Segment { offset_bytes: u32::MAX, ..request(1, 0, b"abc") });
    rig.send(Segment { segment_bytes: u32::MAX, ..request(1, 0, b"abc") });
    assert!(rig.take().is_empty());
    assert_eq!(rig.table.counters().malformed_segments, 3);
}
