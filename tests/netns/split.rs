//! The two processes of a daemon: what each may do, and what becomes of one when the other dies.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::time::Duration;

use mirror_common::KernelCounter;
use mirror_tests::cgroup::Cgroup;
use mirror_tests::client::load::Load;
use mirror_tests::daemon::{Daemon, binary};
use mirror_tests::netns::Role;
use mirror_tests::nginx::{Nginx, NginxConfig};
use mirror_tests::privilege::{kernel_has_tcx, root_or_skip};
use mirror_tests::process::Launch;
use mirror_tests::server::LogMode;
use mirror_tests::{bpf, wait};
use rustix::process::Signal;

use crate::harmless::{ask, wait_until_mirrored};
use crate::stage::{HOST, Stage, Wish, gateway, one_at_a_time, quiet_books};

/// How long a change may take on a machine that others use too.
const LIMIT: Duration = Duration::from_secs(60);

const NET_ADMIN: u32 = 12;
const SYS_ADMIN: u32 = 21;
const PERFMON: u32 = 38;
const BPF: u32 = 39;

/// The lines of `/proc/PID/status` of every thread.
fn statuses(pid: u32) -> Vec<BTreeMap<String, String>> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let read = |task: PathBuf| {
        let text = std::fs::read_to_string(task.join("status")).unwrap();
        let pairs = text.lines().filter_map(|line| line.split_once(':'));
        pairs.map(|(key, value)| (key.to_owned(), value.trim().to_owned())).collect()
    };
    tasks.map(|task| read(task.unwrap().path())).collect()
}

fn mask(status: &BTreeMap<String, String>, set: &str) -> u64 {
    u64::from_str_radix(&status[set], 16).unwrap()
}

/// Every thread of it, now.
fn assert_is_without_privileges(parser: u32) {
    for status in statuses(parser) {
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(mask(&status, set), 0, "{set}: {status:?}");
        }
        assert_eq!(status["NoNewPrivs"], "1", "{status:?}");
        assert_eq!(status["Seccomp"], "2", "{status:?}");
    }
    let held = bpf::held_by(parser).unwrap();
    assert!(held.programs.is_empty() && held.links.is_empty(), "{held:?}");
    assert!(!held.maps.is_empty(), "it reads rings");
    for entry in std::fs::read_dir(format!("/proc/{parser}/fdinfo")).unwrap() {
        let info = std::fs::read_to_string(entry.unwrap().path()).unwrap_or_default();
        if let Some(kind) = info.lines().find_map(|line| line.strip_prefix("map_type:")) {
            assert_eq!(kind.trim(), "27", "BPF_MAP_TYPE_RINGBUF: {info}");
        }
    }
}

#[test]
fn parser_has_no_privilege_in_any_thread_and_the_attacher_those_of_attaching() {
    if !root_or_skip("parser_has_no_privilege_in_any_thread_and_the_attacher_those_of_attaching") {
        return;
    }
    let stage = Stage::new(&LogMode::Count);
    let daemon = stage.daemon();
    let load = Load { rate: Some(400.0), ..Load::new(gateway(), HOST, 800) };
    let parser = daemon.parser_pid().unwrap();
    let report = std::thread::scope(|scope| {
        let loading = scope.spawn(|| load.run(&stage.lab.client).unwrap());
        while !loading.is_finished() {
            assert_is_without_privileges(parser);
            std::thread::sleep(Duration::from_millis(50));
        }
        loading.join().unwrap()
    });
    assert_eq!(report.good, 800);
    assert_eq!(quiet_books(&daemon, 800).shadow("app", "replayed"), 800);
    let attaching = [1, 2, 10, NET_ADMIN, 19, SYS_ADMIN, 24, PERFMON, BPF];
    let allowed = attaching.iter().fold(0_u64, |all, number| all | 1 << number);
    for status in statuses(daemon.pid()) {
        assert_ne!(mask(&status, "CapEff") & 1 << BPF, 0);
        assert_eq!(mask(&status, "CapPrm") & !allowed, 0, "{status:?}");
    }
    if daemon.output().contains("file_system=\"read-only") {
        // Its own threads' files, which its user may write to as far as modes go.
        let written = std::fs::read_to_string(format!("/proc/{parser}/status")).unwrap();
        assert!(written.contains("mirror-parser"));
    }
}

#[test]
fn killed_parser_is_started_again_and_production_does_not_notice() {
    if !root_or_skip("killed_parser_is_started_again_and_production_does_not_notice") {
        return;
    }
    let _alone = one_at_a_time();
    let stage = Stage::new(&LogMode::Full);
    let mut daemon = stage.daemon();
    wait_until_mirrored(&stage, 1_000_000);
    let requests = 3000;
    let load = Load { rate: Some(500.0), ..Load::new(gateway(), HOST, requests) };
    let report = std::thread::scope(|scope| {
        let loading = scope.spawn(|| load.run(&stage.lab.client).unwrap());
        for _ in 0..2 {
            let before = daemon.parser_pid().unwrap();
            std::thread::sleep(Duration::from_millis(500));
            daemon.signal_parser(Signal::KILL).unwrap();
            let is_new = || daemon.parser_pid().is_ok_and(|now| now != before) && is_ready(&daemon);
            wait::until_true("there is another parser", LIMIT, is_new).unwrap();
        }
        loading.join().unwrap()
    });
    assert_eq!((report.good, report.failed), (requests, 0), "{:?}", report.first_failure);
    wait_until_mirrored(&stage, 2_000_000);
    assert_eq!(daemon.metrics().unwrap().sum("mirror_parser_restarts_total", &[]), 2.0);
    assert_is_without_privileges(daemon.parser_pid().unwrap());
    // Connections of the killed ones broke; what came whole is what clients sent, once each.
    let mut targets = HashSet::new();
    for request in stage.shadow.requests() {
        let head = String::from_utf8_lossy(&request.head).into_owned();
        assert!(head.starts_with("GET /?id="), "{head}");
        assert!(head.to_lowercase().contains(&format!("\r\nhost: {HOST}-shadow\r\n")), "{head}");
        assert_eq!(request.body_bytes, 0, "{head}");
        assert!(targets.insert(request.target().to_owned()), "twice: {head}");
    }
    assert!(daemon.output().contains("the parser died"), "{}", daemon.output());
    let held = daemon.held_objects().unwrap();
    daemon.stop(LIMIT).unwrap();
    wait::until_true("the kernel frees everything", LIMIT, || bpf::still_loaded(&held).is_empty()).unwrap();
    assert!(bpf::attached_in(&stage.lab.gateway).unwrap().is_empty());
}

fn is_ready(daemon: &Daemon) -> bool {
    daemon.page("/readyz").is_ok_and(|(status, _)| status == 200)
}

#[test]
fn nothing_is_attached_while_there_is_no_parser() {
    if !root_or_skip("nothing_is_attached_while_there_is_no_parser") {
        return;
    }
    let stage = Stage::new(&LogMode::Count);
    let daemon = stage.daemon();
    wait_until_mirrored(&stage, 0);
    // What a parser that starts reads: nothing it can use.
    daemon.reconfigure("[capture]\nports = [0]\n").unwrap();
    wait::until_true("it is refused", LIMIT, || daemon.output().contains("configuration refused")).unwrap();
    daemon.signal_parser(Signal::KILL).unwrap();
    let detached = || bpf::attached_in(&stage.lab.gateway).unwrap().is_empty();
    wait::until_true("all is detached", LIMIT, detached).unwrap();
    wait::until_true("it is tried again", LIMIT, || daemon.output().matches("the parser died").count() >= 3)
        .unwrap();
    assert!(detached());
    ask(&stage, 1);
    daemon.reconfigure(&Wish::default().toml()).unwrap();
    wait::until_true("a parser can use it", LIMIT, || is_ready(&daemon)).unwrap();
    wait_until_mirrored(&stage, 1000);
}

#[test]
fn killed_attacher_takes_parser_and_links_with_it() {
    if !root_or_skip("killed_attacher_takes_parser_and_links_with_it") {
        return;
    }
    let stage = Stage::new(&LogMode::Count);
    let cgroup = Cgroup::new().unwrap();
    let wish = Wish { capture: format!("cgroups = [\"{}\"]", cgroup.path().display()), ..Wish::default() };
    let mut daemon = stage.daemon_with(&wish);
    let held = daemon.held_objects().unwrap();
    assert!(!bpf::attached_to_cgroup(cgroup.path()).unwrap().is_empty());
    // Asserts that the parser goes as well.
    daemon.kill();
    wait::until_true("the kernel frees everything", LIMIT, || bpf::still_loaded(&held).is_empty()).unwrap();
    assert!(bpf::attached_to_cgroup(cgroup.path()).unwrap().is_empty());
    ask(&stage, 1);
}

#[test]
fn stopped_parser_captures_nothing_and_goes_on_later() {
    if !root_or_skip("stopped_parser_captures_nothing_and_goes_on_later") {
        return;
    }
    let stage = Stage::new(&LogMode::Count);
    let daemon = stage.daemon();
    wait_until_mirrored(&stage, 0);
    let held = daemon.held_objects().unwrap();
    let stalled = || bpf::kernel_counters(&held).unwrap().of(KernelCounter::Stalled);
    for (pid, first_id) in [(daemon.parser_pid().unwrap(), 1000), (daemon.pid(), 2000)] {
        let before = stalled();
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        rustix::process::kill_process(pid, Signal::STOP).unwrap();
        wait::until_true("the programs do nothing", LIMIT, || {
            ask(&stage, 1);
            stalled() > before
        })
        .unwrap();
        // For longer than a beat is waited for.
        std::thread::sleep(Duration::from_secs(6));
        rustix::process::kill_process(pid, Signal::CONT).unwrap();
        wait_until_mirrored(&stage, first_id);
    }
    assert_eq!(daemon.metrics().unwrap().sum("mirror_parser_restarts_total", &[]), 0.0);
}

#[test]
fn two_capabilities_are_enough_for_a_cgroup() {
    if !root_or_skip("two_capabilities_are_enough_for_a_cgroup") {
        return;
    }
    let stage = Stage::new(&LogMode::Count);
    let cgroup = Cgroup::new().unwrap();
    let config = NginxConfig::new([Role::Gateway.at(8090)], stage.production.address());
    let _nginx = Nginx::start_in_cgroup(&stage.lab.gateway, &config, &cgroup).unwrap();
    let capture = format!("cgroups = [\"{}\"]", cgroup.path().display());
    let wish = Wish { capture, ports: vec![8090], ..Wish::default() };
    // Below 6.6 the verifier asks for one more.
    let enough: &[u32] = if kernel_has_tcx() { &[NET_ADMIN, BPF] } else { &[NET_ADMIN, PERFMON, BPF] };
    let few = |launch: Launch| launch.with_capabilities(enough);
    let mut daemon = Daemon::start_with(&stage.lab.gateway, &wish.toml(), few).unwrap();
    for status in statuses(daemon.pid()) {
        let expected = enough.iter().fold(0, |all, number| all | 1_u64 << number);
        assert_eq!((mask(&status, "CapEff"), mask(&status, "CapBnd")), (expected, expected));
    }
    assert_is_without_privileges(daemon.parser_pid().unwrap());
    let load = Load { rate: Some(200.0), ..Load::new(Role::Gateway.at(8090), HOST, 200) };
    assert_eq!(load.run(&stage.lab.client).unwrap().good, 200);
    let books = quiet_books(&daemon, 200);
    assert_eq!(books.shadow("app", "replayed"), 200, "{}", books.page());
    daemon.signal_parser(Signal::KILL).unwrap();
    wait::until_true("there is another parser", LIMIT, || {
        daemon.metrics().is_ok_and(|metrics| metrics.sum("mirror_parser_restarts_total", &[]) == 1.0)
    })
    .unwrap();
    daemon.stop(LIMIT).unwrap();
}

#[test]
fn sockets_to_shadows_are_marked_by_the_attacher() {
    if !root_or_skip("sockets_to_shadows_are_marked_by_the_attacher") {
        return;
    }
    let stage = Stage::new(&LogMode::Count);
    // What the daemon itself sends to the shadow's port passes the captured interface on the wanted leg.
    let capture = format!("leg = \"upstream\"\nports = [{}]", crate::stage::APP_PORT);
    let toml = Wish::default().toml().replace(&format!("ports = [{}]", crate::stage::PORT), &capture);
    let daemon = Daemon::start(&stage.lab.gateway, &toml).unwrap();
    wait_until_mirrored(&stage, 0);
    wait::until_true("its own segments are known", LIMIT, || {
        daemon.metrics().is_ok_and(|metrics| metrics.text().contains("own"))
    })
    .unwrap();
    let books = quiet_books(&daemon, 1);
    assert!(books.kernel("own") > 0, "{}", books.page());
    assert_eq!(books.at(&["requests", "dropped", "loop"]), 0, "{}", books.page());
}

#[test]
fn tap_reads_the_network_without_privileges() {
    if !root_or_skip("tap_reads_the_network_without_privileges") {
        return;
    }
    let stage = Stage::new(&LogMode::Count);
    let output = std::env::temp_dir().join(format!("mirror-split-tap-{}", std::process::id()));
    let mut tap = Launch::new(binary().unwrap())
        .args(["tap", "--interface", "eth0", "--ports", "8080", "--count", "1"])
        .in_netns(&stage.lab.gateway)
        .output_to(&output)
        .spawn()
        .unwrap();
    wait::until_true("it captures", LIMIT, || tap.output().contains("Ctrl-C ends")).unwrap();
    let pid = tap.pid();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    assert_is_without_privileges(children.trim().parse().unwrap());
    let mut id = 0;
    wait::until_true("it ends", LIMIT, || {
        id += 1;
        ask(&stage, id);
        !tap.is_running()
    })
    .unwrap();
    let printed = tap.output();
    drop(tap);
    std::fs::remove_file(&output).unwrap();
    assert!(printed.contains("GET") && printed.contains(HOST), "{printed}");
}
