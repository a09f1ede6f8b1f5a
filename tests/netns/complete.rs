//! Whether every request arrives, and whether the books say which did not and why.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mirror_tests::client::load::Load;
use mirror_tests::daemon::Daemon;
use mirror_tests::loadtool;
use mirror_tests::privilege::root_or_skip;
use mirror_tests::server::{LogMode, TestApp};
use rustix::process::Signal;

use crate::stage::{
    Books, HOST, Stage, Stalled, Wish, again_if_stalled, books_unless_stalled, gateway, one_at_a_time,
    quiet_books,
};

/// Requests of the fixed-rate test when nobody says otherwise: ten seconds' worth.
const FIXED_RATE_REQUESTS: u64 = 20_000;
/// Requests of the test at full speed.
const FULL_SPEED_REQUESTS: u64 = 100_000;
/// The variable that asks for another number of requests in both, say 200000: it reaches the tests through
/// `cargo xtask test complete` as well.
const REQUESTS_VARIABLE: &str = "MIRROR_COMPLETE_REQUESTS";

pub(crate) fn requests_or(usual: u64) -> u64 {
    std::env::var(REQUESTS_VARIABLE).map_or(usual, |text| text.parse().expect("a number of requests"))
}

#[test]
fn nothing_is_missing_at_two_thousand_requests_a_second() {
    if !root_or_skip("nothing_is_missing_at_two_thousand_requests_a_second") {
        return;
    }
    let _alone = one_at_a_time();
    again_if_stalled("fixed rate", assert_nothing_is_missing);
}

#[track_caller]
fn assert_nothing_is_missing() -> Result<(), Stalled> {
    let stage = Stage::new(&LogMode::Count);
    let daemon = stage.daemon();
    let requests = requests_or(FIXED_RATE_REQUESTS);
    let report = Load::new(gateway(), HOST, requests).run(&stage.lab.client).unwrap();
    assert_eq!((report.good, report.failed), (requests, 0), "{:?}", report.first_failure);
    let books = books_unless_stalled(&daemon, requests)?;
    eprintln!("{}, peak RssAnon {} KiB", report.to_json(), daemon.peak_rss_anon_bytes() / 1024);
    let (production, shadow) = (stage.production.log().summary(), stage.shadow.log().summary());
    assert!(books.kernel_complete(), "{}", books.page());
    assert_eq!(stage.shadow.log().missing(requests), [0_u64; 0], "{}", books.page());
    assert_eq!((shadow.requests, shadow.duplicates, shadow.broken), (requests, 0, 0));
    assert_eq!((production.requests, books.seen()), (requests, requests));
    assert_eq!(books.shadow("app", "replayed"), requests);
    assert_eq!(books.gap_bytes(), 0, "{}", books.page());
    books.assert_balanced();
    Ok(())
}

#[test]
fn at_full_speed_the_books_explain_every_difference() {
    if !root_or_skip("at_full_speed_the_books_explain_every_difference") {
        return;
    }
    let _alone = one_at_a_time();
    let stage = Stage::new(&LogMode::Count);
    let daemon = stage.daemon();
    let requests = requests_or(FULL_SPEED_REQUESTS);
    let report = loadtool::h2load_h1(&stage.lab.client, gateway(), HOST, (32, requests)).unwrap();
    assert_eq!((report.answers, report.bad, report.errors), (requests, 0, 0));
    assert_eq!(stage.production.log().summary().requests, requests);
    let books = quiet_books(&daemon, 0);
    eprintln!(
        "full speed: {:.0} answers a second, {} of {requests} replayed, complete in the kernel: {}, peak RssAnon {} KiB",
        report.per_second,
        books.shadow("app", "replayed"),
        books.kernel_complete(),
        daemon.peak_rss_anon_bytes() / 1024
    );
    assert_differences_are_explained(&stage.shadow, &books, requests);
}

/// While the kernel lost nothing, the books explain every difference to the request; otherwise the loss shows
/// in bytes, in the kernel and in the flows.
#[track_caller]
pub(crate) fn assert_differences_are_explained(shadow: &TestApp, books: &Books, requests: u64) {
    books.assert_balanced();
    let shadow = shadow.log().summary();
    assert_eq!((shadow.broken, shadow.requests), (0, books.shadow("app", "replayed")), "{}", books.page());
    if books.kernel_complete() {
        assert_eq!((books.seen(), books.gap_bytes()), (requests, 0), "{}", books.page());
    } else {
        assert!(books.seen() <= requests, "{}", books.page());
        assert!(books.kernel("ring_full_bytes") + books.kernel("shed_bytes") > 0, "{}", books.page());
        assert!(books.gap_bytes() > 0, "{}", books.page());
    }
}

#[test]
fn metrics_can_be_read_and_balance_after_a_busy_time() {
    if !root_or_skip("metrics_can_be_read_and_balance_after_a_busy_time") {
        return;
    }
    let _alone = one_at_a_time();
    let stage = Stage::new(&LogMode::Count);
    let daemon = stage.daemon();
    let (gets, posts) = (3000, 1000);
    let load = Load { rate: None, ..Load::new(gateway(), HOST, gets) };
    assert_eq!(load.run(&stage.lab.client).unwrap().good, gets);
    let load = Load { rate: None, first_id: gets, body_bytes: 30_000, ..Load::new(gateway(), HOST, posts) };
    assert_eq!(load.run(&stage.lab.client).unwrap().good, posts);
    let books = quiet_books(&daemon, 0);
    assert_differences_are_explained(&stage.shadow, &books, gets + posts);
    let metrics = daemon.metrics().unwrap();
    assert_is_openmetrics(metrics.text());
    let sum = |name: &str, labels: &[(&str, &str)]| metrics.sum(name, labels) as u64;
    assert_eq!(sum("mirror_requests_total", &[]), books.seen());
    for counter in ["mirror_copies_owed_total", "mirror_copies_total"] {
        assert_eq!(sum(counter, &[]), books.shadow("app", "owed"), "{counter}");
    }
    assert_eq!(sum("mirror_copies_open", &[]), 0);
    // A connection that has lost bytes may be looking for its next request.
    assert!(!books.kernel_complete() || sum("mirror_flow_buffered_bytes", &[]) == 0);
    for counter in ["copied_bytes", "payload_bytes", "snapped_bytes"] {
        let label = counter.trim_end_matches("_bytes");
        assert_eq!(sum("mirror_kernel_bytes_total", &[("counter", label)]), books.kernel(counter));
    }
    let received = sum("mirror_flow_bytes_total", &[("counter", "received")]);
    assert_eq!(received, sum("mirror_kernel_bytes_total", &[("counter", "copied")]));
    let lost = sum("mirror_kernel_losses_total", &[]) + sum("mirror_kernel_lost_bytes_total", &[]);
    assert_eq!(lost == 0, books.kernel_complete());
}

/// Every line is a comment of a known kind or a sample of a family that was described above it (OpenMetrics 1.0).
fn assert_is_openmetrics(page: &str) {
    let body = page.strip_suffix("# EOF\n").expect("an end");
    let mut families = BTreeSet::new();
    let mut series = BTreeSet::new();
    for line in body.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.split(' ');
            let (kind, family) = (words.next().unwrap(), words.next().expect("a family"));
            assert!(["HELP", "TYPE", "UNIT"].contains(&kind), "{line}");
            families.insert(family);
            continue;
        }
        let (name, value) = line.rsplit_once(' ').expect("a value");
        assert!(value.parse::<f64>().is_ok_and(f64::is_finite), "{line}");
        assert!(series.insert(name), "twice: {line}");
        let bare = name.split('{').next().unwrap();
        let described = ["", "_total", "_info", "_sum", "_count", "_bucket"]
            .iter()
            .any(|suffix| bare.strip_suffix(suffix).is_some_and(|family| families.contains(family)));
        assert!(described, "{line}");
        assert!(name == bare || name.ends_with("\"}"), "{line}");
    }
    assert!(series.len() > 50, "{page}");
}

/// Numbered uploads on connections whose numbers are known.
const UPLOADS: u64 = 3000;
const UPLOAD_BYTES: usize = 4000;

#[test]
fn lost_copies_are_marked_with_their_bytes_on_every_affected_flow() {
    if !root_or_skip("lost_copies_are_marked_with_their_bytes_on_every_affected_flow") {
        return;
    }
    let _alone = one_at_a_time();
    let stage = Stage::with_nginx(&LogMode::Full, |nginx| nginx.access_log = true);
    // Some twelve uploads fill this ring.
    let wish = Wish {
        capture: "ring_bytes = \"64KiB\"".to_owned(),
        limits: "idle_timeout = \"2s\"\nhole_timeout = \"1s\"",
        ..Wish::default()
    };
    let marks = |launch: mirror_tests::process::Launch| {
        launch.env("MIRROR_LOG", "info,mirror_daemon::app::control=debug").env("NO_COLOR", "1")
    };
    let daemon = Daemon::start_with(&stage.lab.gateway, &wish.toml(), marks).unwrap();
    let load = Load { rate: Some(1000.0), body_bytes: UPLOAD_BYTES, ..Load::new(gateway(), HOST, UPLOADS) };
    let report = std::thread::scope(|scope| {
        let loading = scope.spawn(|| load.run(&stage.lab.client).unwrap());
        // Short of the two seconds after which the kernel programs would do nothing at all.
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(400));
            daemon.signal(Signal::STOP).unwrap();
            std::thread::sleep(Duration::from_millis(300));
            daemon.signal(Signal::CONT).unwrap();
        }
        loading.join().unwrap()
    });
    assert_eq!((report.good, report.failed), (UPLOADS, 0), "{:?}", report.first_failure);
    let books = quiet_books(&daemon, 0);
    assert!(!books.kernel_complete() && books.kernel("ring_full_bytes") > 0, "{}", books.page());
    assert_differences_are_explained(&stage.shadow, &books, UPLOADS);
    assert_replayed_are_whole(&stage);
    assert_missing_are_marked(&stage, &daemon, &books);
}

/// Every request at the shadow was sent, whole, and came once.
fn assert_replayed_are_whole(stage: &Stage) {
    let mut sent: BTreeMap<_, _> = BTreeMap::new();
    for request in stage.production.requests() {
        sent.insert(request.target().to_owned(), (request.method().to_owned(), request.body_hash));
    }
    for request in stage.shadow.requests() {
        let original = sent.remove(request.target());
        let copy = (request.method().to_owned(), request.body_hash.clone());
        assert_eq!(original, Some(copy), "{}", request.target());
    }
}

/// Every flow of which a request is missing has a mark, and the marks hold all lost bytes.
fn assert_missing_are_marked(stage: &Stage, daemon: &Daemon, books: &Books) {
    let output = daemon.output();
    let marks: Vec<Mark> = output.lines().filter_map(Mark::read).collect();
    let marked_ports: BTreeSet<u64> = marks.iter().map(|mark| mark.client_port).collect();
    let replayed: BTreeSet<String> =
        stage.shadow.requests().iter().map(|request| request.target().to_owned()).collect();
    let logged = stage.nginx.access_log().unwrap();
    assert_eq!(logged.len() as u64, UPLOADS);
    let missing = logged.iter().filter(|line| !replayed.contains(line["target"].as_str().unwrap()));
    let affected: BTreeSet<u64> = missing.map(|line| line["client_port"].as_u64().unwrap()).collect();
    let lost = books.kernel("ring_full_bytes") + books.kernel("shed_bytes");
    eprintln!(
        "{} of {UPLOADS} replayed; {} marks on {} flows, {lost} bytes lost, {} bytes in gaps, {} marks lost",
        replayed.len(),
        marks.len(),
        marked_ports.len(),
        books.gap_bytes(),
        books.kernel("control_full"),
    );
    if books.kernel("control_full") == 0 {
        assert_eq!(marks.iter().map(|mark| mark.bytes).sum::<u64>(), lost);
        assert!(affected.is_subset(&marked_ports), "{affected:?} {marked_ports:?}\n{}", books.page());
    }
    assert!(!marks.is_empty());
}

/// A loss mark as the log shows it.
struct Mark {
    client_port: u64,
    bytes: u64,
}

impl Mark {
    fn read(line: &str) -> Option<Self> {
        line.contains("bytes were lost in the kernel").then_some(())?;
        let number = |key: &str| {
            let rest = line.split_once(key)?.1;
            rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
        };
        Some(Self { client_port: number("remote_port: ")?, bytes: number("bytes=")? })
    }
}
