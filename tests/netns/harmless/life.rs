//! The daemon absent, running, stopped, going on, killed.

use std::time::{Duration, Instant};

use mirror_common::KernelCounter;
use mirror_tests::client::load::Load;
use mirror_tests::privilege::root_or_skip;
use mirror_tests::server::LogMode;
use mirror_tests::{bpf, wait};
use rustix::process::Signal;

use super::{ask, production_answers, wait_until_mirrored};
use crate::stage::{Books, HOST, Stage, Wish, books_unless_stalled, gateway, one_at_a_time, quiet_books};

#[test]
fn production_answers_alike_whether_the_daemon_is_absent_runs_is_stopped_or_killed() {
    if !root_or_skip("production_answers_alike_whether_the_daemon_is_absent_runs_is_stopped_or_killed") {
        return;
    }
    let stage = Stage::new(&LogMode::Count);
    let absent = production_answers(&stage);
    let mut daemon = stage.daemon();
    let held = daemon.held_objects().unwrap();
    assert_eq!(production_answers(&stage), absent, "running");
    let seen = Books::of(&daemon).seen();
    daemon.signal(Signal::STOP).unwrap();
    assert_eq!(production_answers(&stage), absent, "stopped just now");
    let inert = || bpf::kernel_counters(&held).unwrap().of(KernelCounter::Stalled);
    let before = inert();
    let stopped = Instant::now();
    wait::until_true("the programs do nothing", Duration::from_secs(60), || {
        ask(&stage, 1);
        inert() > before
    })
    .unwrap();
    eprintln!("inert {:?} after the last requests were copied", stopped.elapsed());
    let copied = || bpf::kernel_counters(&held).unwrap().of(KernelCounter::TriedRecords);
    let copied_before = copied();
    assert_eq!(production_answers(&stage), absent, "stopped for long");
    assert_eq!(copied(), copied_before, "nothing is copied for a daemon that is stopped");
    daemon.signal(Signal::CONT).unwrap();
    wait_until_mirrored(&stage, 1000);
    assert_eq!(production_answers(&stage), absent, "going on");
    let books = quiet_books(&daemon, seen);
    books.assert_balanced();
    assert!(!books.kernel_complete(), "what it slept through is a loss: {}", books.page());
    assert!(books_unless_stalled(&daemon, u64::MAX).is_err(), "and can be told: {}", books.page());
    daemon.kill();
    assert_eq!(production_answers(&stage), absent, "killed");
}

/// Enough to fill the ring several times over while its reader is stopped.
const UPLOADS: u64 = 400;
const UPLOAD_BYTES: usize = 20_000;

#[test]
fn full_ring_costs_production_nothing() {
    if !root_or_skip("full_ring_costs_production_nothing") {
        return;
    }
    let _alone = one_at_a_time();
    let stage = Stage::new(&LogMode::Count);
    let absent = production_answers(&stage);
    let wish = Wish {
        capture: "ring_bytes = \"64KiB\"".to_owned(),
        limits: "idle_timeout = \"2s\"\nhole_timeout = \"1s\"",
        ..Wish::default()
    };
    let daemon = stage.daemon_with(&wish);
    let held = daemon.held_objects().unwrap();
    daemon.signal(Signal::STOP).unwrap();
    let load = Load { rate: None, body_bytes: UPLOAD_BYTES, ..Load::new(gateway(), HOST, UPLOADS) };
    let report = load.run(&stage.lab.client).unwrap();
    assert_eq!((report.good, report.failed), (UPLOADS, 0), "{:?}", report.first_failure);
    assert_eq!(production_answers(&stage), absent);
    let counters = bpf::kernel_counters(&held).unwrap();
    assert!(counters.of(KernelCounter::RingFullBytes) > 0, "{counters:?}");
    assert_eq!(counters.unbalanced_bytes(), 0, "{counters:?}");
    daemon.signal(Signal::CONT).unwrap();
    wait_until_mirrored(&stage, 100_000);
    let books = quiet_books(&daemon, 0);
    assert!(!books.kernel_complete());
    books.assert_balanced();
    assert_eq!(stage.shadow.log().summary().broken, 0);
}
