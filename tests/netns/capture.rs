//! Whether the records tell of every byte once, at each kind of capture point.

use crate::place::{Place, kernel_has_tcx, may_test_kernel, run, within};
use crate::traffic::{Exchange, Log, Server, pattern, read_all, record};
use mirror_common::{ANY_POINT, KernelCounter, LossReason, SHED_LEVELS};
use mirror_daemon::capture::{
    self, Attachment, Capture, CaptureError, ControlEvent, LiveWriter, PointState, TestKnobs,
};
use mirror_daemon::config::{CaptureConfig, CapturePoint, FlowLimits, Leg, TcMode};
use mirror_daemon::flow::SeqNumber;
use rustix::thread::CapabilitySet;
use std::net::Ipv4Addr;
use std::sync::mpsc;
use std::time::{Duration, Instant};

pub(crate) const PORT: u16 = 8080;
pub(crate) const SMALL: Exchange = Exchange { request_bytes: 300, answer_bytes: 2000, write_bytes: 65_536 };
/// Writes large enough that segments travel as GSO super-packets.
const LARGE: Exchange = Exchange { request_bytes: 3_000_000, answer_bytes: 1_000_000, write_bytes: 262_144 };

pub(crate) fn config(points: Vec<CapturePoint>) -> CaptureConfig {
    CaptureConfig {
        points,
        gateways: Vec::new(),
        leg: Leg::Downstream,
        ports: vec![PORT],
        tc_mode: TcMode::Auto,
        gateway_cgroups: Vec::new(),
        ring_bytes: 16 << 20,
        shards: 1,
        answer_snap_bytes: 16_384,
        tolerate_unknown_fields: false,
        tick: Duration::from_millis(1),
        proxy_protocol: false,
        exclude: Vec::new(),
        limits: FlowLimits::default(),
    }
}

/// What `TcMode::Auto` comes to on this kernel.
pub(crate) fn by_default() -> Attachment {
    if kernel_has_tcx() { Attachment::Tcx } else { Attachment::Clsact }
}

pub(crate) fn interface(place: &Place, name: &str) -> CapturePoint {
    CapturePoint::Interface { name: name.to_owned(), netns: Some(place.gateway_netns()), host_side: false }
}

pub(crate) fn opened(config: &CaptureConfig, how: Attachment) -> Capture {
    let capture = capture::open(config).expect("root, and built kernel programs");
    for point in capture.attacher.points() {
        assert_eq!(point.state, PointState::Attached(how), "{point:?}");
        assert_eq!(point.lifecycle_error, None);
    }
    capture
}

/// Runs `work` while the heart beats, however long loading takes on this machine.
fn with_heartbeat<T>(live: &mut LiveWriter, work: impl FnOnce() -> T) -> T {
    live.beat().expect("a map to write");
    let (done_tx, done_rx) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while done_rx.recv_timeout(Duration::from_millis(200)) == Err(mpsc::RecvTimeoutError::Timeout) {
                live.beat().expect("a map to write");
            }
        });
        let done = work();
        drop(done_tx);
        done
    })
}

/// Every byte of the request once; of the answer the first bytes of each segment; the books balance.
pub(crate) fn assert_told_once(log: &Log, capture: &Capture, place: &Place, exchange: Exchange) {
    let (request, answer) = log.only();
    let times = request.coverage(&pattern(b'q', exchange.request_bytes));
    assert!(times.iter().all(|times| *times > 0), "missing: {}", times.iter().filter(|t| **t == 0).count());
    let repeated = times.iter().filter(|times| **times > 1).count();
    assert!(repeated == 0 || place.retransmissions() > 0, "{repeated} bytes told twice");
    answer.coverage(&pattern(b'a', exchange.answer_bytes));
    assert!(answer.segment_bytes >= exchange.answer_bytes as u64);
    let counters = capture.counters.snapshot().expect("counters");
    assert_eq!(counters.unbalanced_bytes(), 0, "{counters:?}");
    assert_eq!(counters.of(KernelCounter::Records), log.records as u64);
    assert_eq!(counters.of(KernelCounter::CopiedBytes), log.copied_bytes);
    assert_eq!(counters.of(KernelCounter::RingFullRecords), 0);
}

fn exchange_is_told_once(config: &CaptureConfig, how: Attachment, place: &Place, exchange: Exchange) {
    let mut capture = opened(config, how);
    let server = Server::new(&place.gateway_netns(), place.gateway_addr(), PORT);
    let client_netns = place.client_netns();
    let log = record(&mut capture, || server.exchange(&client_netns, exchange, 1), |log| log.finished() == 1);
    assert_told_once(&log, &capture, place, exchange);
}

#[test]
fn tcx_tells_each_byte_once() {
    if !may_test_kernel() || !kernel_has_tcx() {
        return;
    }
    for is_v6 in [false, true] {
        let place = Place::new(is_v6);
        let mut config = config(vec![interface(&place, "eth0")]);
        config.tc_mode = TcMode::Tcx;
        exchange_is_told_once(&config, Attachment::Tcx, &place, SMALL);
        exchange_is_told_once(&config, Attachment::Tcx, &place, LARGE);
    }
}

#[test]
fn clsact_tells_each_byte_once_and_leaves_nothing_behind() {
    if !may_test_kernel() {
        return;
    }
    for is_v6 in [false, true] {
        let place = Place::new(is_v6);
        let mut config = config(vec![interface(&place, "eth0")]);
        config.tc_mode = TcMode::Clsact;
        exchange_is_told_once(&config, Attachment::Clsact, &place, SMALL);
        exchange_is_told_once(&config, Attachment::Clsact, &place, LARGE);
        let netns = place.gateway_netns();
        let left = within(&netns, || run("tc", &["qdisc", "show", "dev", "eth0"]));
        assert!(!left.contains("clsact"), "{left}");
    }
}

#[test]
fn filters_of_others_stay_when_ours_go() {
    if !may_test_kernel() {
        return;
    }
    let place = Place::new(false);
    let netns = place.gateway_netns();
    within(&netns, || run("tc", &["qdisc", "add", "dev", "eth0", "clsact"]));
    // A classic BPF filter that matches everything.
    let other = ["filter", "add", "dev", "eth0", "ingress", "bpf", "bytecode", "1,6 0 0 4294967295,"];
    within(&netns, || run("tc", &other));
    let mut config = config(vec![interface(&place, "eth0")]);
    config.tc_mode = TcMode::Clsact;
    exchange_is_told_once(&config, Attachment::Clsact, &place, SMALL);
    let left = within(&netns, || run("tc", &["filter", "show", "dev", "eth0", "ingress"]));
    assert!(left.contains("bytecode") && !left.contains("mirror_tc"), "{left}");
}

#[test]
fn filters_of_a_killed_daemon_are_swept_once_stale_and_those_of_a_living_one_stay() {
    if !may_test_kernel() {
        return;
    }
    let place = Place::new(false);
    let netns = place.gateway_netns();
    let mut config = config(vec![interface(&place, "eth0")]);
    config.tc_mode = TcMode::Clsact;
    let filters = || {
        within(&netns, || run("tc", &["filter", "show", "dev", "eth0", "ingress"]))
            .matches("direct-action")
            .count()
    };
    let mut first = opened(&config, Attachment::Clsact);
    let second = with_heartbeat(&mut first.live, || opened(&config, Attachment::Clsact));
    assert_eq!(filters(), 2, "the first one lives");
    drop(second);
    assert_eq!(filters(), 1);
    first.live.stop().expect("a map to write");
    // As if killed: its filters stay, its heartbeat is stale.
    std::mem::forget(first.attacher);
    assert_eq!(filters(), 1);
    let third = opened(&config, Attachment::Clsact);
    assert_eq!(filters(), 1, "the dead one's were swept");
    drop(third);
    assert_eq!(filters(), 0);
}

#[test]
fn cgroup_tells_each_byte_once_and_opens_and_closes() {
    if !may_test_kernel() {
        return;
    }
    for (is_v6, exchange) in [(false, SMALL), (true, SMALL), (false, LARGE), (true, LARGE)] {
        let mut place = Place::new(is_v6);
        let cgroup = place.make_cgroup();
        let server = Server::in_cgroup(&cgroup, &place.gateway_netns(), place.gateway_addr(), PORT);
        let mut capture = opened(&config(vec![CapturePoint::Cgroup { path: cgroup }]), Attachment::Cgroup);
        let client_netns = place.client_netns();
        let is_done = |log: &Log| log.finished() == 1 && log.events.len() >= 2;
        let log = record(&mut capture, || server.exchange(&client_netns, exchange, 1), is_done);
        assert_told_once(&log, &capture, &place, exchange);
        let key = *log.shards.keys().next().expect("one connection");
        assert!(
            matches!(log.events[0], ControlEvent::Opened { flow, .. } if flow == key),
            "{:?}",
            log.events
        );
        assert!(
            matches!(log.events[1], ControlEvent::Closed { flow, .. } if flow == key),
            "{:?}",
            log.events
        );
    }
}

#[test]
fn loopback_tells_each_byte_once() {
    if !may_test_kernel() {
        return;
    }
    for (mode, how) in [(TcMode::Auto, by_default()), (TcMode::Clsact, Attachment::Clsact)] {
        for exchange in [SMALL, LARGE] {
            let place = Place::new(false);
            let netns = place.gateway_netns();
            let mut config = config(vec![interface(&place, "lo")]);
            config.tc_mode = mode;
            let mut capture = opened(&config, how);
            let server = Server::new(&netns, Ipv4Addr::LOCALHOST.into(), PORT);
            let log =
                record(&mut capture, || server.exchange(&netns, exchange, 1), |log| log.finished() == 1);
            assert_told_once(&log, &capture, &place, exchange);
        }
    }
}

#[test]
fn upstream_leg_is_told_from_the_one_who_connects() {
    if !may_test_kernel() {
        return;
    }
    let place = Place::new(false);
    // The gateway is the client here: its eth0 sees requests leave.
    let point = CapturePoint::Interface {
        name: "eth0".to_owned(),
        netns: Some(place.client_netns()),
        host_side: false,
    };
    let mut config = config(vec![point]);
    config.leg = Leg::Upstream;
    exchange_is_told_once(&config, by_default(), &place, SMALL);
    // Seen from the host's side of a veth pair, in and out change places.
    config.points = vec![CapturePoint::Interface {
        name: "eth0".to_owned(),
        netns: Some(place.gateway_netns()),
        host_side: true,
    }];
    exchange_is_told_once(&config, by_default(), &place, SMALL);
    let server = Server::new(&place.gateway_netns(), place.gateway_addr(), PORT);
    config.exclude = vec![server.addr];
    let mut capture = opened(&config, by_default());
    let client_netns = place.client_netns();
    let log = record(&mut capture, || server.exchange(&client_netns, SMALL, 1), |_| true);
    assert_eq!(log.records, 0);
    assert!(capture.counters.snapshot().expect("counters").of(KernelCounter::Excluded) > 0);
}

#[test]
fn own_connections_are_left_out_in_both_directions() {
    if !may_test_kernel() {
        return;
    }
    let place = Place::new(false);
    let mut capture = opened(&config(vec![interface(&place, "lo")]), by_default());
    let netns = place.gateway_netns();
    let server = Server::new(&netns, Ipv4Addr::LOCALHOST.into(), PORT);
    let log = record(&mut capture, || server.exchange_marked(&netns, SMALL), |_| true);
    assert_eq!(log.records, 0);
    let counters = capture.counters.snapshot().expect("counters");
    assert!(counters.of(KernelCounter::Own) > 0 && counters.of(KernelCounter::IgnoredSegments) > 0);
    assert_eq!(counters.unbalanced_bytes(), 0);
}

#[test]
fn nothing_is_told_while_the_heartbeat_is_stale() {
    if !may_test_kernel() {
        return;
    }
    let place = Place::new(false);
    let mut capture = opened(&config(vec![interface(&place, "eth0")]), by_default());
    let server = Server::new(&place.gateway_netns(), place.gateway_addr(), PORT);
    server.exchange(&place.client_netns(), SMALL, 1);
    capture.live.beat().expect("a map to write");
    capture.live.stop().expect("a map to write");
    server.exchange(&place.client_netns(), SMALL, 1);
    let mut log = Log::default();
    read_all(&mut capture, &mut log);
    assert_eq!((log.records, log.events.len()), (0, 0));
    let counters = capture.counters.snapshot().expect("counters");
    assert!(counters.of(KernelCounter::Inert) > 0);
    assert_eq!(counters.of(KernelCounter::Segments), 0);
}

#[test]
fn full_ring_costs_the_copy_and_every_lost_byte_is_counted_and_marked() {
    if !may_test_kernel() {
        return;
    }
    let place = Place::new(false);
    let mut config = config(vec![interface(&place, "eth0")]);
    config.ring_bytes = 1;
    let mut capture = opened(&config, by_default());
    let server = Server::new(&place.gateway_netns(), place.gateway_addr(), PORT);
    capture.live.beat().expect("a map to write");
    // Nobody reads: production gets its bytes all the same, which `exchange` asserts.
    server.exchange(&place.client_netns(), LARGE, 1);
    let mut log = Log::default();
    read_all(&mut capture, &mut log);
    let counters = capture.counters.snapshot().expect("counters");
    assert_eq!(counters.unbalanced_bytes(), 0, "{counters:?}");
    assert!(counters.of(KernelCounter::RingFullRecords) > 0);
    assert_eq!(counters.of(KernelCounter::ControlFull), 0);
    let marked: u64 = log
        .events
        .iter()
        .map(|event| match event {
            ControlEvent::Lost { bytes, reason: LossReason::RingFull, .. } => u64::from(*bytes),
            other => panic!("{other:?}"),
        })
        .sum();
    assert_eq!(marked, counters.of(KernelCounter::RingFullBytes));
}

#[test]
fn both_directions_of_a_flow_are_in_one_ring_which_user_space_can_tell() {
    if !may_test_kernel() {
        return;
    }
    let place = Place::new(false);
    let mut config = config(vec![interface(&place, "eth0")]);
    config.shards = 2;
    let mut capture = opened(&config, by_default());
    let server = Server::new(&place.gateway_netns(), place.gateway_addr(), PORT);
    let client_netns = place.client_netns();
    let log = record(&mut capture, || server.exchange(&client_netns, SMALL, 40), |log| log.finished() == 40);
    assert_eq!(log.finished(), 40);
    for (flow, shards) in &log.shards {
        assert_eq!(shards, &[flow.hash().shard(2)], "user space finds another ring for {flow:?}");
    }
    for shard in 0..2 {
        assert!(log.shards.values().any(|shards| shards == &[shard]), "ring {shard} is never used");
    }
}

#[test]
fn shed_level_leaves_out_whole_flows() {
    if !may_test_kernel() {
        return;
    }
    let place = Place::new(false);
    let mut capture = opened(&config(vec![interface(&place, "eth0")]), by_default());
    capture.live.shed(SHED_LEVELS / 2);
    let server = Server::new(&place.gateway_netns(), place.gateway_addr(), PORT);
    let client_netns = place.client_netns();
    let log = record(
        &mut capture,
        || server.exchange(&client_netns, SMALL, 40),
        |log| log.finished() == log.shards.len(),
    );
    assert!((5..36).contains(&log.finished()), "{} of 40", log.finished());
    assert_eq!(log.finished(), log.shards.len(), "a flow was told in part");
    let counters = capture.counters.snapshot().expect("counters");
    assert_eq!(counters.unbalanced_bytes(), 0);
    assert!(counters.of(KernelCounter::ShedBytes) > 0);
    capture.live.shed(SHED_LEVELS);
    let log = record(&mut capture, || server.exchange(&client_netns, SMALL, 5), |_| true);
    assert_eq!(log.records, 0);
}

#[test]
fn verdicts_stop_the_copy_until_the_next_syn() {
    if !may_test_kernel() {
        return;
    }
    let place = Place::new(false);
    let mut capture = opened(&config(vec![interface(&place, "eth0")]), by_default());
    let server = Server::new(&place.gateway_netns(), place.gateway_addr(), PORT);
    let client_netns = place.client_netns();
    let (key, start) = {
        capture.live.beat().expect("a map to write");
        let mut talk = server.talk(&client_netns);
        talk.send(b"first");
        let mut log = Log::default();
        read_all(&mut capture, &mut log);
        let key = *log.shards.keys().next().expect("one connection");
        let start = log.flows[&(key, true)].start().expect("the SYN was told");
        // 5 bytes so far; the next 5 are passed over, what follows is copied.
        capture.verdicts[0].pass_over(&key, SeqNumber(start.wrapping_add(10))).expect("a map to write");
        talk.send(b"over!");
        talk.send(b"third");
        let mut log = Log::default();
        read_all(&mut capture, &mut log);
        let told = &log.flows[&(key, true)];
        assert_eq!(told.segment_bytes, 10, "the header of what is passed over still comes");
        assert_eq!(told.payload(), b"third");
        capture.verdicts[0].ignore(&key).expect("a map to write");
        talk.send(b"fourth");
        let mut log = Log::default();
        read_all(&mut capture, &mut log);
        assert_eq!(log.records, 0);
        capture.verdicts[0].capture(&key).expect("a map to write");
        talk.send(b"fifth");
        read_all(&mut capture, &mut log);
        assert_eq!(log.flows[&(key, true)].payload(), b"fifth");
        (key, start)
    };
    let counters = capture.counters.snapshot().expect("counters");
    assert_eq!(counters.of(KernelCounter::PassedOverBytes), 5);
    assert_eq!(counters.of(KernelCounter::IgnoredBytes), 6);
    assert_eq!(counters.unbalanced_bytes(), 0);
    assert!(key.gateway_port == PORT && start != 0);
}

#[test]
fn test_knob_drops_one_in_so_many_records_and_counts_them() {
    if !may_test_kernel() {
        return;
    }
    let place = Place::new(false);
    let mut capture =
        capture::open_with(&config(vec![interface(&place, "eth0")]), TestKnobs { drop_one_in: 4 })
            .expect("root");
    let server = Server::new(&place.gateway_netns(), place.gateway_addr(), PORT);
    let client_netns = place.client_netns();
    record(&mut capture, || server.exchange(&client_netns, SMALL, 40), |_| true);
    let counters = capture.counters.snapshot().expect("counters");
    let (dropped, tried) =
        (counters.of(KernelCounter::TestDroppedRecords), counters.of(KernelCounter::TriedRecords));
    assert!(dropped > tried / 8 && dropped < tried / 2, "{dropped} of {tried}");
    assert_eq!(counters.unbalanced_bytes(), 0);
}

#[test]
fn records_say_whether_the_flow_is_the_gateways_own() {
    if !may_test_kernel() {
        return;
    }
    let mut place = Place::new(false);
    let cgroup = place.make_cgroup();
    let mut config = config(vec![interface(&place, "eth0")]);
    config.gateway_cgroups = vec![cgroup.clone()];
    let mut capture = opened(&config, by_default());
    let client_netns = place.client_netns();
    let ours = Server::in_cgroup(&cgroup, &place.gateway_netns(), place.gateway_addr(), PORT);
    let is_done = |log: &Log| log.finished() == 1 && log.events.len() >= 2;
    let log = record(&mut capture, || ours.exchange(&client_netns, SMALL, 1), is_done);
    let (request, answer) = log.only();
    assert_eq!(request.selected.last(), Some(&Some(true)));
    assert_eq!(answer.selected.last(), Some(&Some(true)));
    let key = *log.shards.keys().next().expect("one connection");
    let anywhere = key.at_point(ANY_POINT);
    assert!(
        matches!(log.events[0], ControlEvent::Opened { flow, .. } if flow == anywhere),
        "{:?}",
        log.events
    );
    assert!(
        matches!(log.events[1], ControlEvent::Closed { flow, .. } if flow == anywhere),
        "{:?}",
        log.events
    );
    drop(ours);
    let others = Server::new(&place.gateway_netns(), place.gateway_addr(), PORT);
    let log = record(&mut capture, || others.exchange(&client_netns, SMALL, 1), |log| log.finished() == 1);
    let (request, answer) = log.only();
    assert!(request.selected.iter().chain(&answer.selected).all(|selected| *selected == Some(false)));
    assert_eq!(log.events, []);
}

#[test]
fn sleeping_reader_is_woken_by_the_next_record() {
    if !may_test_kernel() {
        return;
    }
    let place = Place::new(false);
    let mut capture = opened(&config(vec![interface(&place, "eth0")]), by_default());
    let server = Server::new(&place.gateway_netns(), place.gateway_addr(), PORT);
    let client_netns = place.client_netns();
    capture.live.beat().expect("a map to write");
    let mut reader = capture.readers.remove(0);
    let mut sleeps = 0;
    std::thread::scope(|scope| {
        // Until the ring has been empty for long enough, waits are ticks.
        let idle_from = Instant::now();
        while idle_from.elapsed() < Duration::from_millis(150) {
            reader.wait(None).expect("a ring to wait for");
        }
        let (asleep_tx, asleep_rx) = mpsc::channel();
        scope.spawn(move || {
            asleep_rx.recv().expect("the reader");
            server.exchange(&client_netns, SMALL, 1);
        });
        asleep_tx.send(()).expect("the client");
        let mut records = 0;
        while records == 0 && sleeps < 20 {
            reader.wait(None).expect("a ring to wait for");
            sleeps += 1;
            records += reader.drain(1000, |_| ()).records;
        }
        assert!(records > 0);
    });
    assert!(capture.counters.snapshot().expect("counters").of(KernelCounter::WakeUps) >= 1);
    assert!(sleeps < 5, "{sleeps} sleeps");
    let waker = reader.waker();
    waker.wake();
    let from = Instant::now();
    reader.wait(None).expect("a ring to wait for");
    assert!(from.elapsed() < Duration::from_millis(500));
}

#[test]
fn point_that_cannot_be_attached_says_why_and_is_tried_again() {
    if !may_test_kernel() {
        return;
    }
    let place = Place::new(false);
    let mut capture = capture::open(&config(vec![interface(&place, "veth9")])).expect("root");
    let state = capture.attacher.points().remove(0).state;
    assert!(
        matches!(&state, PointState::Failed(why) if why.contains("no interface veth9 in /run/netns/")),
        "{state:?}"
    );
    let netns = place.gateway_netns();
    within(&netns, || run("ip", &["link", "add", "veth9", "type", "veth", "peer", "name", "veth8"]));
    capture.attacher.check();
    assert_eq!(capture.attacher.points().remove(0).state, PointState::Attached(by_default()));
    within(&netns, || run("ip", &["link", "del", "veth9"]));
    capture.attacher.check();
    assert!(matches!(capture.attacher.points().remove(0).state, PointState::Failed(_)));
    capture.attacher.apply(&config(Vec::new())).expect("maps to write");
    assert_eq!(capture.attacher.points(), []);
}

#[test]
fn two_capabilities_are_enough_to_load_and_attach() {
    if !may_test_kernel() {
        return;
    }
    let mut place = Place::new(false);
    let cgroup = place.make_cgroup();
    let here = CapturePoint::Interface { name: "eth0".to_owned(), netns: None, host_side: false };
    within(&place.gateway_netns(), || {
        let mut few = rustix::thread::capabilities(None).expect("this thread's capabilities");
        few.effective = CapabilitySet::BPF | CapabilitySet::NET_ADMIN;
        if !kernel_has_tcx() {
            // 6.1 refuses to overwrite half a spilled number without it.
            few.effective |= CapabilitySet::PERFMON;
        }
        rustix::thread::set_capabilities(None, few).expect("to give capabilities up");
        let capture =
            capture::open(&config(vec![here, CapturePoint::Cgroup { path: cgroup }])).expect("to load");
        for point in capture.attacher.points() {
            assert!(matches!(point.state, PointState::Attached(_)), "{point:?}");
            assert_eq!(point.lifecycle_error, None);
        }
        few.effective = CapabilitySet::empty();
        rustix::thread::set_capabilities(None, few).expect("to give capabilities up");
        let refused = capture::open(&config(Vec::new())).expect_err("nothing is permitted");
        assert!(matches!(refused, CaptureError::NotPermitted { .. }), "{refused:?}");
    });
}
