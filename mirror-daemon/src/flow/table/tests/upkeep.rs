//! What is forgotten when, and to make room for whom.

use super::*;

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
fn alarms_do_not_pile_up() {
    let limits = FlowLimits { max_flows: 10, ..FlowLimits::default() };
    let mut rig = Rig::with(limits, Answers::Glimpsed);
    for n in 0..5_000_u32 {
        rig.send(syn(1, n * 100)).send(Segment { seq: SeqNumber(n * 100 + 5), ..request(1, 0, b"x") });
    }
    assert!(rig.table.timers.len() <= 10 * 2 + 64 + 1, "{}", rig.table.timers.len());
}
