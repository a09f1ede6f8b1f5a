//! Many capture points: whose a segment is, what comes and goes, and that nothing stays behind.

use super::*;
use aya::maps::{HashMap, Map, MapData};
use mirror_common::{MAX_CAPTURE_POINTS, MAX_INTERFACE_POINTS, PointSettings};
use mirror_daemon::flow::FlowKey;
use mirror_tests::bpf;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// As many gateway pods as one node is to carry at least.
const PODS: usize = 60;
/// No other test's port: the process enters a cgroup for a moment, and with it whatever others do meanwhile.
const POD_PORT: u16 = 8790;

/// Cgroups below one of the place's own, gone again with this.
struct Pods {
    paths: Vec<PathBuf>,
}

impl Pods {
    fn new(place: &mut Place, count: usize) -> Self {
        let above = place.make_cgroup();
        let paths: Vec<PathBuf> = (0..count).map(|pod| above.join(format!("pod{pod}"))).collect();
        paths.iter().for_each(|path| std::fs::create_dir(path).expect("a new cgroup"));
        Self { paths }
    }

    fn point(&self, pod: usize) -> CapturePoint {
        CapturePoint::Cgroup { path: self.paths[pod].clone() }
    }

    /// A server in the cgroup of this pod, with an address of its own.
    fn server(&self, pod: usize, netns: &Path) -> Server {
        Server::in_cgroup(&self.paths[pod], netns, address(pod), POD_PORT)
    }
}

impl Drop for Pods {
    fn drop(&mut self) {
        for path in self.paths.iter().rev() {
            let _ = std::fs::remove_dir(path);
        }
    }
}

fn address(pod: usize) -> IpAddr {
    Ipv4Addr::new(127, 0, 77, 1 + pod as u8).into()
}

fn pod_of(flow: &FlowKey) -> usize {
    usize::from(flow.gateway_addr[15]) - 1
}

fn without_points() -> CaptureConfig {
    CaptureConfig { ports: vec![POD_PORT], ..config(Vec::new()) }
}

fn state_of(capture: &Capture, number: u32) -> PointState {
    let points = capture.attacher.points();
    points.into_iter().find(|point| point.number == number).expect("a wanted point").state
}

fn change(capture: &mut Capture, change: impl FnOnce(&mut Vec<CapturePoint>)) {
    let mut config = without_points();
    config.points = capture.attacher.points().into_iter().map(|point| point.point).collect();
    change(&mut config.points);
    capture.attacher.apply(&config).expect("room for all");
}

/// Wants one point more. Its number.
fn add(capture: &mut Capture, point: CapturePoint) -> u32 {
    change(capture, |points| points.push(point.clone()));
    let points = capture.attacher.points();
    points.iter().find(|wanted| wanted.point == point).expect("a wanted point").number
}

fn remove(capture: &mut Capture, number: u32) {
    let points = capture.attacher.points();
    let gone = points.into_iter().find(|point| point.number == number).expect("a wanted point").point;
    change(capture, |points| points.retain(|point| *point != gone));
}

fn added(capture: &mut Capture, point: CapturePoint) -> u32 {
    let number = add(capture, point);
    assert_eq!(state_of(capture, number), PointState::Attached(Attachment::Cgroup));
    number
}

/// Whose each connection was told to be: pods by their addresses, and the numbers they were told under.
fn told(log: &Log) -> BTreeMap<usize, BTreeSet<u32>> {
    let mut told: BTreeMap<usize, BTreeSet<u32>> = BTreeMap::new();
    for flow in log.shards.keys() {
        told.entry(pod_of(flow)).or_default().insert(flow.capture_point);
    }
    told
}

/// Every pod's records, opens and closes have its own number.
fn assert_told_under(numbers: &BTreeMap<usize, BTreeSet<u32>>, log: &Log) {
    for (pod, under) in &told(log) {
        assert_eq!(under, &numbers[pod], "pod {pod}");
    }
    for event in &log.events {
        let (ControlEvent::Opened { flow, .. } | ControlEvent::Closed { flow, .. }) = event else {
            panic!("{event:?}")
        };
        assert!(numbers[&pod_of(flow)].contains(&flow.capture_point), "{event:?}");
    }
}

fn median_and_p99(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

#[test]
fn each_of_many_cgroups_tells_what_is_its_own() {
    if !may_test_kernel() {
        return;
    }
    let mut place = Place::new(false);
    let pods = Pods::new(&mut place, PODS);
    let netns = place.gateway_netns();
    let servers: Vec<Server> = (0..PODS).map(|pod| pods.server(pod, &netns)).collect();
    let mut capture = opened(&without_points(), Attachment::Cgroup);
    capture.live.beat().expect("a map to write");
    let mut log = Log::default();
    let mut numbers = BTreeMap::new();
    let (mut add_times, mut remove_times) = (Vec::new(), Vec::new());
    let before = added(&mut capture, pods.point(0));
    numbers.insert(0, BTreeSet::from([before]));
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // The first pod has traffic all the while.
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                servers[0].exchange(&netns, SMALL, 1);
            }
        });
        for pod in 1..PODS {
            capture.live.beat().expect("a map to write");
            let begun = Instant::now();
            let number = add(&mut capture, pods.point(pod));
            add_times.push(begun.elapsed());
            numbers.insert(pod, BTreeSet::from([number]));
            read_all(&mut capture, &mut log);
        }
        is_over.store(true, Ordering::Relaxed);
    });
    read_all(&mut capture, &mut log);
    assert_eq!(told(&log), BTreeMap::from([(0, numbers[&0].clone())]));
    let rest = record(
        &mut capture,
        || servers[1..].iter().for_each(|server| server.exchange(&netns, SMALL, 1)),
        |log| log.finished() == PODS - 1 && log.events.len() == 2 * (PODS - 1),
    );
    assert_eq!(rest.finished(), PODS - 1);
    assert_eq!(rest.events.len(), 2 * (PODS - 1));
    assert_told_under(&numbers, &rest);
    assert_told_under(&numbers, &log);
    assert_eq!(capture.counters.snapshot().expect("counters").unbalanced_bytes(), 0);
    for number in numbers.values().flatten() {
        let begun = Instant::now();
        remove(&mut capture, *number);
        remove_times.push(begun.elapsed());
    }
    let silent = record(&mut capture, || servers[7].exchange(&netns, SMALL, 1), |_| true);
    assert_eq!((silent.records, silent.events.len()), (0, 0));
    eprintln!(
        "median and p99: add {:?}, remove {:?}",
        median_and_p99(add_times),
        median_and_p99(remove_times)
    );
}

#[test]
fn what_is_below_a_cgroup_is_told_as_its_own_and_not_attached_beside_it() {
    if !may_test_kernel() {
        return;
    }
    let mut place = Place::new(false);
    let pods = Pods::new(&mut place, 2);
    let container = pods.paths[0].join("container");
    std::fs::create_dir(&container).expect("a new cgroup");
    let netns = place.gateway_netns();
    let server = Server::in_cgroup(&container, &netns, address(0), POD_PORT);
    let mut capture = opened(&without_points(), Attachment::Cgroup);
    let pod = added(&mut capture, pods.point(0));
    added(&mut capture, pods.point(1));
    let above = pods.paths[0].parent().expect("above").to_owned();
    // A final "." would make it the same path to Rust, and so the same point.
    let refused = [container.clone(), pods.paths[0].join("../pod0"), above];
    for path in refused {
        let number = add(&mut capture, CapturePoint::Cgroup { path });
        let state = state_of(&capture, number);
        assert!(
            matches!(&state, PointState::Failed(why) if why.contains("sees the same connections")),
            "{state:?}"
        );
        remove(&mut capture, number);
    }
    let log = record(&mut capture, || server.exchange(&netns, SMALL, 1), |log| log.finished() == 1);
    assert_eq!(told(&log), BTreeMap::from([(0, BTreeSet::from([pod]))]));
    remove(&mut capture, pod);
    // Now that the pod is left out, its container can be a point.
    let number = added(&mut capture, CapturePoint::Cgroup { path: container.clone() });
    let log = record(&mut capture, || server.exchange(&netns, SMALL, 1), |log| log.finished() == 1);
    assert_eq!(told(&log), BTreeMap::from([(0, BTreeSet::from([number]))]));
    drop(capture);
    std::fs::remove_dir(container).expect("an empty cgroup");
}

#[test]
fn cgroup_attached_anew_has_another_number_and_late_records_keep_the_old_one() {
    if !may_test_kernel() {
        return;
    }
    let mut place = Place::new(false);
    let pods = Pods::new(&mut place, 2);
    let netns = place.gateway_netns();
    let servers = [pods.server(0, &netns), pods.server(1, &netns)];
    let mut capture = opened(&without_points(), Attachment::Cgroup);
    let first = added(&mut capture, pods.point(0));
    with_heartbeat(&mut capture.live, || servers[0].exchange(&netns, SMALL, 1));
    remove(&mut capture, first);
    // The kernel's storage of this cgroup outlives the detaching: what it said must not be found again.
    with_heartbeat(&mut capture.live, || servers[0].exchange(&netns, SMALL, 1));
    // Whoever comes next, and all that come until the place in the kernel's table is used again, has another number.
    let others: Vec<u32> = (0..MAX_CAPTURE_POINTS)
        .map(|_| {
            let number = added(&mut capture, pods.point(1));
            remove(&mut capture, number);
            number
        })
        .collect();
    let same_place =
        others.iter().filter(|number| PointSettings::place_of(**number) == PointSettings::place_of(first));
    assert_eq!(same_place.count(), 1, "the place was not used again");
    assert!(!others.contains(&first));
    let again = added(&mut capture, pods.point(0));
    let log = record(
        &mut capture,
        || servers.iter().for_each(|server| server.exchange(&netns, SMALL, 1)),
        |log| log.finished() == 2,
    );
    // The ring still held what the point told before it went.
    assert_eq!(log.finished(), 2);
    assert_eq!(told(&log), BTreeMap::from([(0, BTreeSet::from([first, again]))]));
}

#[test]
fn cgroup_that_vanished_is_noticed_and_its_successor_is_captured() {
    if !may_test_kernel() {
        return;
    }
    let mut place = Place::new(false);
    let pods = Pods::new(&mut place, 1);
    let netns = place.gateway_netns();
    let mut capture = opened(&without_points(), Attachment::Cgroup);
    let number = added(&mut capture, pods.point(0));
    std::fs::remove_dir(&pods.paths[0]).expect("an empty cgroup");
    capture.attacher.check();
    let state = state_of(&capture, number);
    assert!(matches!(&state, PointState::Failed(why) if why.contains("cannot open the cgroup")), "{state:?}");
    std::fs::create_dir(&pods.paths[0]).expect("a new cgroup");
    capture.attacher.check();
    assert_eq!(state_of(&capture, number), PointState::Attached(Attachment::Cgroup));
    let server = pods.server(0, &netns);
    let log = record(&mut capture, || server.exchange(&netns, SMALL, 1), |log| log.finished() == 1);
    assert_eq!(told(&log), BTreeMap::from([(0, BTreeSet::from([number]))]));
}

#[test]
fn interfaces_that_look_the_same_are_told_apart() {
    if !may_test_kernel() {
        return;
    }
    // In each the same names, addresses and interface indexes.
    let places = [Place::new(false), Place::new(false), Place::new(false)];
    let config = config(places.iter().map(|place| interface(place, "eth0")).collect());
    let mut capture = opened(&config, by_default());
    let numbers: Vec<u32> = capture.attacher.points().iter().map(|point| point.number).collect();
    let servers: Vec<Server> =
        places.iter().map(|place| Server::new(&place.gateway_netns(), place.gateway_addr(), PORT)).collect();
    let work = || {
        std::thread::scope(|scope| {
            for (index, (place, server)) in places.iter().zip(&servers).enumerate() {
                scope.spawn(move || server.exchange(&place.client_netns(), SMALL, 5 * (index + 1)));
            }
        });
    };
    let log = record(&mut capture, work, |log| log.finished() == 30);
    assert_eq!(log.finished(), 30);
    for (index, number) in numbers.iter().enumerate() {
        let own = log.shards.keys().filter(|flow| flow.capture_point == *number).count();
        assert_eq!(own, 5 * (index + 1), "at point {number}");
    }
    for ((_, is_request), told) in &log.flows {
        let (name, bytes) =
            if *is_request { (b'q', SMALL.request_bytes) } else { (b'a', SMALL.answer_bytes) };
        assert!(told.coverage(&pattern(name, bytes)).iter().all(|times| *times > 0));
    }
}

#[test]
fn interface_whose_namespace_was_replaced_is_attached_anew() {
    if !may_test_kernel() {
        return;
    }
    let name = std::env::temp_dir().join(format!("mirror-many-{}", std::process::id()));
    for (mode, how) in [(TcMode::Auto, by_default()), (TcMode::Clsact, Attachment::Clsact)] {
        // Two namespaces that look the same, under one name, the second while the first still lives.
        let (old, new) = (Place::new(false), Place::new(false));
        std::os::unix::fs::symlink(old.gateway_netns(), &name).expect("a new name");
        let point =
            CapturePoint::Interface { name: "eth0".to_owned(), netns: Some(name.clone()), host_side: false };
        let config = CaptureConfig { tc_mode: mode, ..config(vec![point]) };
        let mut capture = opened(&config, how);
        std::fs::remove_file(&name).expect("the name");
        std::os::unix::fs::symlink(new.gateway_netns(), &name).expect("a new name");
        capture.attacher.check();
        std::fs::remove_file(&name).expect("the name");
        let server = Server::new(&new.gateway_netns(), new.gateway_addr(), PORT);
        let client_netns = new.client_netns();
        let log =
            record(&mut capture, || server.exchange(&client_netns, SMALL, 1), |log| log.finished() == 1);
        assert_told_once(&log, &capture, &new, SMALL);
        drop(capture);
        for place in [old, new] {
            let left =
                within(&place.gateway_netns(), || run("tc", &["filter", "show", "dev", "eth0", "ingress"]));
            assert!(!left.contains("mirror_tc"), "{left}");
        }
    }
}

#[test]
fn interface_too_many_waits_until_another_goes() {
    if !may_test_kernel() {
        return;
    }
    let place = Place::new(false);
    let netns = place.gateway_netns();
    let name = netns.file_name().and_then(|name| name.to_str()).expect("a name");
    for pair in 0..=MAX_INTERFACE_POINTS / 2 {
        let (one, other) = (format!("a{pair}"), format!("b{pair}"));
        run("ip", &["-n", name, "link", "add", &one, "type", "veth", "peer", "name", &other]);
    }
    let pairs = 0..=MAX_INTERFACE_POINTS / 2;
    let points = pairs.flat_map(|pair| ["a", "b"].map(|end| interface(&place, &format!("{end}{pair}"))));
    let points: Vec<CapturePoint> = points.take(MAX_INTERFACE_POINTS + 1).collect();
    let mut capture = capture::open(&config(points)).expect("root");
    let failed = |capture: &Capture| {
        let points = capture.attacher.points().into_iter();
        points.filter(|point| matches!(point.state, PointState::Failed(_))).collect::<Vec<_>>()
    };
    let [last] = &failed(&capture)[..] else { panic!("{:?}", capture.attacher.points()) };
    assert!(matches!(&last.state, PointState::Failed(why) if why.contains("are interfaces")), "{last:?}");
    let first = capture.attacher.points().remove(0).number;
    remove(&mut capture, first);
    capture.attacher.check();
    assert_eq!(failed(&capture), []);
}

/// Programs, links and maps that this process holds, and all that it has open.
fn holds() -> (bpf::HeldObjects, usize) {
    let held = bpf::held_by(std::process::id()).expect("this process");
    (held, std::fs::read_dir("/proc/self/fd").expect("this process").count())
}

/// The cgroups that the kernel keeps a number for.
fn cgroups_with_storage(held: &bpf::HeldObjects) -> usize {
    let map = held.map_named("CGROUPS").map(Map::HashMap);
    map.map_or(0, |map| {
        HashMap::<MapData, u64, u32>::try_from(map).expect("its key and value").keys().count()
    })
}

#[test]
fn rounds_of_adding_and_removing_leave_nothing_behind() {
    const ALONE: &str = "MIRROR_TESTS_ALONE";
    const NAME: &str = "capture::many::rounds_of_adding_and_removing_leave_nothing_behind";
    if !may_test_kernel() {
        return;
    }
    if std::env::var_os(ALONE).is_none() {
        // What a process has open can only be counted where no other test runs.
        let itself = std::env::current_exe().expect("this program");
        let alone = std::process::Command::new(itself)
            .args(["--exact", NAME, "--nocapture"])
            .env(ALONE, "1")
            .output()
            .expect("this program");
        let said =
            String::from_utf8_lossy(&alone.stdout).into_owned() + &String::from_utf8_lossy(&alone.stderr);
        assert!(alone.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let mut place = Place::new(false);
    let pods = Pods::new(&mut place, 4);
    let mut capture = opened(&without_points(), Attachment::Cgroup);
    let eth0 = interface(&place, "eth0");
    let round = |capture: &mut Capture, with_interface: bool| {
        let mut numbers: Vec<u32> = (0..4).map(|pod| added(capture, pods.point(pod))).collect();
        if with_interface {
            numbers.push(add(capture, eth0.clone()));
        }
        numbers.into_iter().for_each(|number| remove(capture, number));
    };
    // Loads what stays loaded.
    round(&mut capture, true);
    let (before, descriptors) = holds();
    assert!(before.links.is_empty(), "{before:?}");
    assert_eq!(cgroups_with_storage(&before), 4);
    for count in 0..200 {
        // An interface takes a grace period of the kernel's RCU each time.
        round(&mut capture, count % 10 == 0);
    }
    assert_eq!(holds(), (before.clone(), descriptors));
    assert_eq!(cgroups_with_storage(&before), 4);
    drop(pods);
    // The kernel frees a cgroup's storage some time after it is gone.
    let freed = || cgroups_with_storage(&before) == 0;
    mirror_tests::wait::until_true("the kernel frees storage", Duration::from_secs(30), freed)
        .expect("it does");
    drop(capture);
    let gone = || bpf::still_loaded(&before).is_empty();
    mirror_tests::wait::until_true("the kernel frees all", Duration::from_secs(30), gone).expect("it does");
}
