//! What is left when the daemon is gone, and how it goes.

use std::process::Command;
use std::time::{Duration, Instant};

use mirror_common::KernelCounter;
use mirror_tests::cgroup::Cgroup;
use mirror_tests::client::load::Load;
use mirror_tests::daemon::{Daemon, Metrics};
use mirror_tests::netns::Role;
use mirror_tests::nginx::{Nginx, NginxConfig};
use mirror_tests::privilege::{root_or_skip, tcx_or_skip};
use mirror_tests::server::{Behaviour, LogMode};
use mirror_tests::{bpf, wait};
use rustix::process::Signal;

use super::{ask, wait_until_mirrored};
use crate::stage::{HOST, STOP_LIMIT, Stage, Wish, gateway, wait_for_metric};

/// The kernel frees with a delay.
const FREE_LIMIT: Duration = Duration::from_secs(60);

/// A second nginx in a cgroup and a namespace of its own, so that both kinds of capture point are in use.
struct Both {
    stage: Stage,
    cgroup: Cgroup,
    _nginx: Nginx,
}

impl Both {
    fn new() -> Self {
        let stage = Stage::new(&LogMode::Count);
        let cgroup = Cgroup::new().unwrap();
        let config = NginxConfig::new([Role::Node.at(8090)], stage.production.address());
        let nginx = Nginx::start_in_cgroup(&stage.lab.node, &config, &cgroup).unwrap();
        Self { stage, cgroup, _nginx: nginx }
    }

    fn daemon(&self, attach: &str) -> Daemon {
        let cgroup = self.cgroup.path().display();
        let capture = format!("{attach}\ninterfaces = [\"eth0\"]\ncgroups = [\"{cgroup}\"]");
        let daemon = self.stage.daemon_with(&Wish { capture, ..Wish::default() });
        wait_until_mirrored(&self.stage, 0);
        assert!(!self.on_interface().is_empty() && !self.on_cgroup().is_empty());
        daemon
    }

    fn on_interface(&self) -> Vec<String> {
        bpf::attached_in(&self.stage.lab.gateway).unwrap()
    }

    fn on_cgroup(&self) -> Vec<String> {
        bpf::attached_to_cgroup(self.cgroup.path()).unwrap()
    }

    fn assert_nothing_is_left(&self, held: &bpf::HeldObjects) {
        let freed = || bpf::still_loaded(held).is_empty();
        let waited = wait::until_true("the kernel frees everything", FREE_LIMIT, freed);
        waited.unwrap_or_else(|failure| panic!("{failure:#}: {:?}", bpf::still_loaded(held)));
        assert_eq!((self.on_interface(), self.on_cgroup()), (vec![], vec![]));
        ask(&self.stage, 1);
    }
}

#[test]
fn stopped_daemon_leaves_nothing_attached() {
    if !root_or_skip("stopped_daemon_leaves_nothing_attached") {
        return;
    }
    let both = Both::new();
    let mut daemon = both.daemon("");
    let held = daemon.held_objects().unwrap();
    assert!(!held.programs.is_empty() && !held.maps.is_empty());
    daemon.stop(STOP_LIMIT).unwrap();
    both.assert_nothing_is_left(&held);
}

#[test]
fn killed_daemon_leaves_no_tcx_and_no_cgroup_link() {
    if !tcx_or_skip("killed_daemon_leaves_no_tcx_and_no_cgroup_link") {
        return;
    }
    let both = Both::new();
    let mut daemon = both.daemon("attach = \"tcx\"");
    let held = daemon.held_objects().unwrap();
    assert!(!held.links.is_empty());
    daemon.kill();
    both.assert_nothing_is_left(&held);
}

#[test]
fn filter_of_a_killed_daemon_does_nothing_within_two_seconds_and_goes_at_the_next_start() {
    if !root_or_skip("filter_of_a_killed_daemon_does_nothing_within_two_seconds_and_goes_at_the_next_start") {
        return;
    }
    let stage = Stage::new(&LogMode::Count);
    let wish = Wish { capture: "attach = \"clsact\"".to_owned(), ..Wish::default() };
    let mut daemon = stage.daemon_with(&wish);
    wait_until_mirrored(&stage, 0);
    let attached = || bpf::attached_in(&stage.lab.gateway).unwrap();
    let (held, with_one) = (daemon.held_objects().unwrap(), attached().len());
    assert!(with_one > 0);
    daemon.kill();
    // The last heartbeat was before this.
    let killed = Instant::now();
    assert_eq!(attached().len(), with_one, "a filter outlives its daemon");
    std::thread::sleep(Duration::from_secs(2).saturating_sub(killed.elapsed()));
    let counters = || bpf::kernel_counters(&held).unwrap();
    let before = counters();
    for id in 0..20 {
        ask(&stage, id);
    }
    let grown = counters().since(&before);
    assert!(grown.of(KernelCounter::Stalled) > 0, "{grown:?}");
    let idle =
        (0..).zip(grown.counts).all(|(index, count)| count == 0 || index == KernelCounter::Stalled as usize);
    assert!(idle, "{grown:?}");
    let mut next = stage.daemon_with(&wish);
    assert_eq!(attached().len(), with_one, "the old filters were swept");
    let freed = || bpf::still_loaded(&held).is_empty();
    wait::until_true("the kernel frees the old programs", FREE_LIMIT, freed).unwrap();
    wait_until_mirrored(&stage, 100);
    next.stop(STOP_LIMIT).unwrap();
    assert!(attached().is_empty());
}

#[test]
fn filter_and_qdisc_of_a_daemon_killed_just_now_go_whatever_mode_the_next_one_uses() {
    if !tcx_or_skip("filter_and_qdisc_of_a_daemon_killed_just_now_go_whatever_mode_the_next_one_uses") {
        return;
    }
    let stage = Stage::new(&LogMode::Count);
    let wish = |mode: &str| Wish { capture: format!("attach = \"{mode}\""), ..Wish::default() };
    let qdiscs = || {
        let show = || Command::new("tc").args(["qdisc", "show", "dev", "eth0"]).output();
        String::from_utf8(stage.lab.gateway.run(show).unwrap().unwrap().stdout).unwrap()
    };
    for mode in ["tcx", "clsact"] {
        let mut killed = stage.daemon_with(&wish("clsact"));
        assert!(qdiscs().contains("clsact"));
        let held = killed.held_objects().unwrap();
        killed.kill();
        // Its heartbeat is fresh still: the filters are swept while this one runs.
        let mut next = stage.daemon_with(&wish(mode));
        let freed = || bpf::still_loaded(&held).is_empty();
        wait::until_true("the old programs go", FREE_LIMIT, freed).unwrap();
        next.stop(STOP_LIMIT).unwrap();
        assert!(bpf::attached_in(&stage.lab.gateway).unwrap().is_empty());
        assert!(!qdiscs().contains("clsact"), "{mode}: {}", qdiscs());
    }
}

/// A daemon whose shadow hangs, with requests in flight and others waiting behind them.
fn daemon_with_a_backlog(stage: &Stage, top: &'static str) -> Daemon {
    stage.shadow.behave(Behaviour::Silent);
    let port = crate::stage::APP_PORT;
    let wish = Wish { top, ..Wish::shadow_at(port, "timeout = \"600s\"\nmax_in_flight = 4") };
    let daemon = stage.daemon_with(&wish);
    let load = Load { rate: None, ..Load::new(gateway(), HOST, 200) };
    assert_eq!(load.run(&stage.lab.client).unwrap().good, 200);
    wait_for_metric(&daemon, "some wait", |metrics| metrics.sum("mirror_shadow_queue_items", &[]) == 196.0);
    daemon
}

#[test]
fn drain_ends_at_its_deadline_with_code_0_and_detached() {
    if !root_or_skip("drain_ends_at_its_deadline_with_code_0_and_detached") {
        return;
    }
    let stage = Stage::new(&LogMode::Count);
    let mut daemon = daemon_with_a_backlog(&stage, "drain_timeout = \"1s\"");
    let begun = Instant::now();
    // Far below what the shadow's time-outs would take.
    daemon.stop(STOP_LIMIT).unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(1), "it drains while it may");
    assert!(bpf::attached_in(&stage.lab.gateway).unwrap().is_empty());
}

#[test]
fn sigterm_ends_a_drain_at_once_but_not_together_with_the_first() {
    if !root_or_skip("sigterm_ends_a_drain_at_once_but_not_together_with_the_first") {
        return;
    }
    let stage = Stage::new(&LogMode::Count);
    let mut daemon = daemon_with_a_backlog(&stage, "drain_timeout = \"600s\"");
    // As `timeout` does it: to the process, and then to its group.
    daemon.signal(Signal::TERM).unwrap();
    daemon.signal(Signal::TERM).unwrap();
    let drains = |metrics: &Metrics| metrics.sum("mirror_draining", &[]) == 1.0;
    wait_for_metric(&daemon, "it drains", drains);
    let told = Instant::now();
    let detached = || bpf::attached_in(&stage.lab.gateway).unwrap().is_empty();
    wait::until_true("a draining daemon captures nothing", FREE_LIMIT, detached).unwrap();
    wait::until_true("a second is over", FREE_LIMIT, || told.elapsed() > Duration::from_secs(1)).unwrap();
    wait_for_metric(&daemon, "it drains still", drains);
    // Far below the deadline.
    daemon.stop(STOP_LIMIT).unwrap();
}
