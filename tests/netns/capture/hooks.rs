//! Each kind of hook, each leg, both families.

use super::*;

#[test]
fn tcx_tells_each_byte_once() {
    if !tcx_or_skip("tcx_tells_each_byte_once") {
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
