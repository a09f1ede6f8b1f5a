//! What is attached, beside whom, with which privileges, and what is left.

use super::*;

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
        assert!(
            refused.to_string().starts_with("not permitted to create BPF maps: run as root"),
            "{refused:?}"
        );
    });
}
