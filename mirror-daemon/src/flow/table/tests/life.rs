//! How flows begin and end.

use super::*;

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
fn end_of_capture_gives_up_holes_and_closes_all() {
    let mut rig = Rig::new();
    rig.open().send(request(1, 2, b"c")).take();
    let log = &mut rig.log;
    rig.table.handle_end(&mut |key, state, event| note(log, key, state, &event));
    rig.assert_books();
    assert_eq!(rig.take(), ["gap 2@0 Timeout", "^c@2", "closed CaptureEnded after 5"]);
    assert!(rig.table.is_empty());
}
