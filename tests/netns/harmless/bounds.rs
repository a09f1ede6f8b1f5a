//! What the daemon may cost: memory under pressure, processor time at rest.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use mirror_tests::bpf;
use mirror_tests::client::Connection;
use mirror_tests::client::load::Load;
use mirror_tests::daemon::Daemon;
use mirror_tests::netns::Role;
use mirror_tests::privilege::root_or_skip;
use mirror_tests::server::{Behaviour, LogMode, TestApp};
use mirror_tests::wait;

use super::{head, wait_until_mirrored};
use crate::stage::{HOST, QUIET_LIMIT, Stage, Wish, gateway, one_at_a_time, quiet_books, wait_for_metric};

/// Anonymous memory at its highest, and all kernel maps.
pub(super) const MEMORY_BOUND_BYTES: u64 = 64 * 1024 * 1024;

/// See [`MEMORY_BOUND_BYTES`].
pub(super) fn memory_bytes(daemon: &Daemon) -> u64 {
    daemon.peak_rss_anon_bytes() + bpf::map_bytes(daemon.pid()).unwrap()
}

fn assert_memory_is_bounded(daemon: &Daemon, what: &str) {
    let (bytes, maps) = (memory_bytes(daemon), bpf::map_bytes(daemon.pid()).unwrap());
    let rss = daemon.peak_rss_anon_bytes();
    eprintln!("{what}: peak RssAnon {} KiB, maps {} KiB", rss / 1024, maps / 1024);
    assert!(bytes < MEMORY_BOUND_BYTES, "{what}: {bytes} bytes");
}

#[test]
fn memory_is_bounded_while_a_shadow_never_answers() {
    if !root_or_skip("memory_is_bounded_while_a_shadow_never_answers") {
        return;
    }
    let _alone = one_at_a_time();
    let stage = Stage::new(&LogMode::Count);
    stage.shadow.behave(Behaviour::Silent);
    let daemon = stage.daemon();
    let requests = 10_000;
    let load = Load { body_bytes: 2000, ..Load::new(gateway(), HOST, requests) };
    let report = load.run(&stage.lab.client).unwrap();
    assert_eq!((report.good, report.failed), (requests, 0), "{:?}", report.first_failure);
    wait_for_metric(&daemon, "some are shed", |metrics| {
        metrics.sum("mirror_copies_total", &[("outcome", "shed")]) > 0.0
    });
    assert_memory_is_bounded(&daemon, "a shadow that never answers");
}

#[test]
fn memory_is_bounded_with_two_thousand_half_sent_bodies() {
    if !root_or_skip("memory_is_bounded_with_two_thousand_half_sent_bodies") {
        return;
    }
    let _alone = one_at_a_time();
    let stage = Stage::new(&LogMode::Count);
    // In the gateway's place, for nginx would write a gigabyte of bodies to its disk.
    let port = 8082;
    let sink = TestApp::start(&stage.lab.gateway, Role::Gateway.at(port), LogMode::Count).unwrap();
    let wish = Wish { ports: vec![crate::stage::PORT, port], ..Wish::default() };
    let daemon = stage.daemon_with(&wish);
    let mut half = head("POST", "/", "Content-Length: 1048576\r\n\r\n");
    half.resize(half.len() + 512 * 1024, b'h');
    let open: Vec<Connection> = (0..2000)
        .map(|_| {
            let mut connection = Connection::open(&stage.lab.client, sink.address()).unwrap();
            connection.send(&half).unwrap();
            connection
        })
        .collect();
    wait_for_metric(&daemon, "all are followed", |metrics| metrics.sum("mirror_flows", &[]) >= 1000.0);
    wait_until_mirrored(&stage, 0);
    assert_memory_is_bounded(&daemon, "2,000 half bodies");
    drop(open);
    let books = quiet_books(&daemon, 0);
    books.assert_balanced();
    assert!(books.shadow("app", "shed") + books.shadow("app", "dropped") > 0, "{}", books.page());
    assert_memory_is_bounded(&daemon, "2,000 half bodies, closed");
}

/// Of one core, at rest.
const IDLE_SHARE: f64 = 0.005;
/// How long a quiet time is looked for: other tests run beside this one for minutes.
const QUIET_TIME_LIMIT: Duration = Duration::from_secs(120);

#[test]
fn idle_daemon_costs_next_to_nothing() {
    if !root_or_skip("idle_daemon_costs_next_to_nothing") {
        return;
    }
    let stage = Stage::new(&LogMode::Count);
    let daemon = stage.daemon();
    // Idle after some traffic, with open connections: not only before the first.
    let load = Load { rate: None, ..Load::new(gateway(), HOST, 200) };
    load.run(&stage.lab.client).unwrap();
    quiet_books(&daemon, 200);
    let mut idle_connection = stage.connect();
    idle_connection.exchange(&head("GET", "/", "\r\n")).unwrap();
    // Whoever makes files in /tmp wakes it, for its configuration is below: the quietest time counts.
    let (begun, mut quietest) = (Instant::now(), f64::MAX);
    while quietest >= IDLE_SHARE && begun.elapsed() < QUIET_TIME_LIMIT {
        let (seconds, before) = (5, busy(&daemon.pids()));
        std::thread::sleep(Duration::from_secs(seconds));
        let after = busy(&daemon.pids());
        let spent: Duration =
            after.keys().map(|thread| after[thread] - before.get(thread).copied().unwrap_or_default()).sum();
        let share = spent.as_secs_f64() / seconds as f64;
        eprintln!("idle: {:.3} % of a core", share * 100.0);
        quietest = quietest.min(share);
    }
    assert!(quietest < IDLE_SHARE, "{quietest}\n{}", daemon.output());
}

/// Processor time of each thread, user and system, to the nanosecond.
fn busy(pids: &[u32]) -> BTreeMap<String, Duration> {
    let mut threads = BTreeMap::new();
    let tasks = |pid| std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    for task in pids.iter().flat_map(tasks) {
        let path = task.unwrap().path();
        let schedstat = std::fs::read_to_string(path.join("schedstat")).unwrap();
        let name = std::fs::read_to_string(path.join("comm")).unwrap();
        let ns = schedstat.split(' ').next().unwrap().parse().unwrap();
        threads.insert(format!("{} {}", name.trim(), path.display()), Duration::from_nanos(ns));
    }
    threads
}

#[test]
fn slow_heads_on_a_thousand_connections_hold_nobody_up() {
    if !root_or_skip("slow_heads_on_a_thousand_connections_hold_nobody_up") {
        return;
    }
    let _alone = one_at_a_time();
    let stage = Stage::new(&LogMode::Count);
    let daemon = stage.daemon();
    let request = head("GET", "/?id=7", &format!("X: {}\r\n\r\n", "s".repeat(40)));
    let mut slow: Vec<Connection> = (0..1000).map(|_| stage.connect()).collect();
    let (last, most) = request.split_last().unwrap();
    for byte in most {
        // A segment each, on every connection in turn.
        for connection in &mut slow {
            connection.send(&[*byte]).unwrap();
        }
    }
    wait_until_mirrored(&stage, 100);
    assert_memory_is_bounded(&daemon, "1,000 slow heads");
    // The copies of the last ones before may still be under way.
    let before = stage.production.log().summary().requests;
    let are_mirrored = || stage.shadow.log().summary().requests == before;
    wait::until_true("all so far are mirrored", QUIET_LIMIT, are_mirrored).unwrap();
    for connection in &mut slow {
        assert_eq!(connection.exchange(&[*last]).unwrap().status, 200);
    }
    let books = quiet_books(&daemon, before + 1000);
    assert_eq!(stage.shadow.log().summary().requests, before + 1000, "{}", books.page());
    assert!(books.kernel_complete(), "{}", books.page());
    books.assert_balanced();
    assert_eq!(stage.shadow.log().summary().broken, 0);
}
