//! What changes while capture points are attached: configuration, and connections older than the daemon.

use crate::capture::{PORT, SMALL, by_default, config, interface, opened};
use crate::place::{Place, may_test_kernel};
use crate::traffic::{Log, Server, pattern, record};
use mirror_daemon::capture::{Attachment, Capture, PointState};
use mirror_daemon::config::{CapturePoint, Leg, TcMode};

const OTHER_PORT: u16 = 8081;

/// Whether all that was told of the only connection says this about its selection.
fn all_selected(log: &Log) -> Vec<Option<bool>> {
    let (request, answer) = log.only();
    let mut said: Vec<_> = request.selected.iter().chain(&answer.selected).copied().collect();
    said.dedup();
    said
}

#[test]
fn gateways_connections_older_than_the_daemon_are_selected() {
    if !may_test_kernel() {
        return;
    }
    for is_v6 in [false, true] {
        let mut place = Place::new(is_v6);
        let (netns, client_netns) = (place.gateway_netns(), place.client_netns());
        let cgroup = place.make_cgroup();
        let ours = Server::in_cgroup(&cgroup, &netns, place.gateway_addr(), PORT);
        let others = Server::new(&netns, place.gateway_addr(), OTHER_PORT);
        let (mut old, mut foreign) = (ours.talk(&client_netns), others.talk(&client_netns));
        let mut config = config(vec![interface(&place, "eth0")]);
        config.ports = vec![PORT, OTHER_PORT];
        config.gateway_cgroups = vec![cgroup];
        let mut capture = opened(&config, by_default());
        let log = record(&mut capture, || old.send(b"older"), |log| log.records > 0);
        assert_eq!(all_selected(&log), [Some(true)]);
        let log = record(&mut capture, || foreign.send(b"of others"), |log| log.records > 0);
        assert_eq!(all_selected(&log), [Some(false)]);
    }
}

#[test]
fn change_of_ports_leg_and_exclusions_reaches_attached_points() {
    if !may_test_kernel() {
        return;
    }
    let place = Place::new(false);
    let client_netns = place.client_netns();
    let mut config = config(vec![interface(&place, "eth0")]);
    let mut capture = opened(&config, by_default());
    let server = Server::new(&place.gateway_netns(), place.gateway_addr(), OTHER_PORT);
    let told = |capture: &mut Capture| {
        record(capture, || server.exchange(&client_netns, SMALL, 1), |log| log.finished() == 1).finished()
    };
    let not_told = |capture: &mut Capture| {
        record(capture, || server.exchange(&client_netns, SMALL, 1), |_| true).records == 0
    };
    assert!(not_told(&mut capture));
    config.ports = vec![OTHER_PORT];
    capture.attacher.apply(&config).expect("maps to write");
    assert_eq!(told(&mut capture), 1);
    // Nothing leaves the gateway for that port.
    config.leg = Leg::Upstream;
    capture.attacher.apply(&config).expect("maps to write");
    assert!(not_told(&mut capture));
    // The other side of the pair sees it leave.
    config.points = vec![CapturePoint::Interface {
        name: "eth0".to_owned(),
        netns: Some(client_netns.clone()),
        host_side: false,
    }];
    capture.attacher.apply(&config).expect("maps to write");
    assert_eq!(told(&mut capture), 1);
    config.exclude = vec![server.addr];
    capture.attacher.apply(&config).expect("maps to write");
    assert!(not_told(&mut capture));
    config.exclude.clear();
    capture.attacher.apply(&config).expect("maps to write");
    assert_eq!(told(&mut capture), 1);
}

#[test]
fn change_of_the_attach_mode_attaches_anew() {
    if !may_test_kernel() {
        return;
    }
    let place = Place::new(false);
    let netns = place.gateway_netns();
    let mut config = config(vec![interface(&place, "eth0")]);
    let mut capture = opened(&config, by_default());
    let number = capture.attacher.points().remove(0).number;
    let server = Server::new(&netns, place.gateway_addr(), PORT);
    for (mode, how) in [(TcMode::Clsact, Attachment::Clsact), (TcMode::Auto, by_default())] {
        config.tc_mode = mode;
        capture.attacher.apply(&config).expect("maps to write");
        let point = capture.attacher.points().remove(0);
        assert_eq!((point.number, point.state), (number, PointState::Attached(how)));
        let client_netns = place.client_netns();
        let log =
            record(&mut capture, || server.exchange(&client_netns, SMALL, 1), |log| log.finished() == 1);
        // Told once: nothing of the other mode is left.
        let times = log.only().0.coverage(&pattern(b'q', SMALL.request_bytes));
        assert!(times.iter().all(|times| *times > 0), "{times:?}");
        let is_once = times.iter().all(|times| *times == 1);
        assert!(is_once || place.retransmissions() > 0, "{times:?}");
    }
}

#[test]
fn change_of_the_gateways_cgroups_reaches_attached_points() {
    if !may_test_kernel() {
        return;
    }
    let mut place = Place::new(false);
    let client_netns = place.client_netns();
    let cgroup = place.make_cgroup();
    let server = Server::in_cgroup(&cgroup, &place.gateway_netns(), place.gateway_addr(), PORT);
    let mut config = config(vec![interface(&place, "eth0")]);
    let mut capture = opened(&config, by_default());
    let mut talk = server.talk(&client_netns);
    let mut says =
        |capture: &mut Capture| all_selected(&record(capture, || talk.send(b"bytes"), |log| log.records > 0));
    assert_eq!(says(&mut capture), [None]);
    let parent = cgroup.parent().expect("a root").to_owned();
    let other = parent.join(format!("kt{}-other", std::process::id()));
    std::fs::create_dir(&other).expect("a new cgroup");
    for (cgroups, expected) in [
        (vec![other.clone()], Some(false)),
        (vec![other.clone(), cgroup], Some(true)),
        (vec![other.clone()], Some(false)),
        (Vec::new(), None),
    ] {
        config.gateway_cgroups = cgroups;
        capture.attacher.apply(&config).expect("maps to write");
        assert_eq!(says(&mut capture), [expected], "{:?}", config.gateway_cgroups);
    }
    std::fs::remove_dir(other).expect("an empty cgroup");
}
