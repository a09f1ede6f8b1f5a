//! Whether every request arrives, and whether the books say which did not and why.

use mirror_tests::daemon::Daemon;
use mirror_tests::loadtool::{H2Load, ToolReport};
use mirror_tests::netns::Role;
use mirror_tests::privilege::root_or_skip;
use mirror_tests::server::{LogMode, TestApp};

use super::rig::HOST;
use crate::complete::{assert_differences_are_explained, requests_or};
use crate::stage::{
    APP_PORT, Books, PORT, Stage, Stalled, Wish, again_if_stalled, books_unless_stalled, gateway,
    one_at_a_time, quiet_books,
};

/// Requests of each test when nobody says otherwise.
const REQUESTS: u64 = 20_000;
/// Of `h2load -c 8`.
const CONNECTIONS: u64 = 8;
/// Requests a second.
const FIXED_RATE: u32 = 2000;
/// Not production's, so that the upstream leg's ports do not name it too.
const SHADOW_PORT: u16 = 9000;

/// nginx opens a connection to its upstream for each stream that is open, and these are `-c 8 -m 32` and some: with fewer
/// kept, it closes and opens connections all the time, and in a long run has no port left to open one from.
const UPSTREAM_KEEPALIVE: u32 = 512;
/// What it closes all the same soon gives its port back.
const PORTS: [(&str, &str); 2] =
    [("net.ipv4.ip_local_port_range", "10000 65535"), ("net.ipv4.tcp_tw_reuse", "1")];
/// A queue that sheds nothing, however slowly the copies go out.
const ENDLESS_QUEUE: &str = "queue_items = 1000000\nqueue_bytes = \"1GiB\"";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leg {
    Downstream,
    Upstream,
}

/// nginx that speaks HTTP/2 on the captured leg, and a daemon on it. Fields end in this order.
struct Loaded {
    daemon: Daemon,
    shadow: TestApp,
    stage: Stage,
    requests: u64,
}

impl Loaded {
    /// The shadow has these lines besides.
    fn new(leg: Leg, lines: &'static str) -> Self {
        let stage = Stage::with_nginx(&LogMode::Count, |nginx| {
            nginx.http2 = true;
            nginx.http2_upstream = leg == Leg::Upstream;
            nginx.upstream_keepalive = UPSTREAM_KEEPALIVE;
        });
        for (name, value) in PORTS {
            stage.lab.gateway.sysctl(name, value).unwrap();
        }
        let place = (stage.lab.shadow.clone(), Role::Shadow.at(SHADOW_PORT));
        let shadow = TestApp::start(&place.0, place.1, LogMode::Count).unwrap();
        let mut wish = Wish::shadow_at(SHADOW_PORT, lines);
        if leg == Leg::Upstream {
            wish.ports = vec![APP_PORT];
            wish.capture = "leg = \"upstream\"".to_owned();
        }
        let daemon = stage.daemon_with(&wish);
        assert_eq!(gateway().port(), PORT);
        let requests = requests_or(REQUESTS) / CONNECTIONS * CONNECTIONS;
        Self { daemon, shadow, stage, requests }
    }

    /// `h2load -c 8 -m 32`; production answers all.
    #[track_caller]
    fn load(&self, rate: Option<u32>) -> ToolReport {
        let load = H2Load { rate, ..H2Load::new(gateway(), HOST, self.requests) };
        let report = load.run(&self.stage.lab.client).unwrap();
        let is_good = (report.answers, report.bad, report.errors) == (self.requests, 0, 0);
        assert!(
            is_good,
            "the gateway did not answer every one of {} requests with 2xx, so this run says nothing of the mirror: \
             {report:?}; nginx said:\n{}",
            self.requests,
            last_lines(&self.stage.nginx.error_log())
        );
        assert_eq!(self.stage.production.log().summary().requests, self.requests);
        report
    }

    fn print(&self, what: &str, report: &ToolReport, books: &Books) {
        eprintln!(
            "{what}: {:.0} answers a second, {} of {} replayed, complete in the kernel: {}, peak RssAnon {} KiB",
            report.per_second,
            books.shadow("app", "replayed"),
            self.requests,
            books.kernel_complete(),
            self.daemon.peak_rss_anon_bytes() / 1024
        );
        for (what, counts) in books.reasons("app") {
            eprintln!("  {what}: {counts:?}");
        }
    }
}

/// As much of a log as a person reads.
fn last_lines(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}

#[track_caller]
fn assert_nothing_is_missing(leg: Leg) {
    let _alone = one_at_a_time();
    again_if_stalled(&format!("{leg:?}"), || play_fixed_rate(leg));
}

#[track_caller]
fn play_fixed_rate(leg: Leg) -> Result<(), Stalled> {
    let loaded = Loaded::new(leg, "");
    let report = loaded.load(Some(FIXED_RATE));
    let books = books_unless_stalled(&loaded.daemon, loaded.requests)?;
    loaded.print(&format!("{leg:?} at {FIXED_RATE} a second"), &report, &books);
    assert!(books.kernel_complete(), "{}", books.page());
    assert_all_arrived(&loaded, &books);
    Ok(())
}

#[track_caller]
fn assert_all_arrived(loaded: &Loaded, books: &Books) {
    let (production, shadow) = (loaded.stage.production.log().summary(), loaded.shadow.log().summary());
    // Every number as often, and nothing else.
    assert_eq!(shadow, production, "{}", books.page());
    assert_eq!(shadow.distinct, loaded.requests / CONNECTIONS);
    assert_eq!(books.seen(), loaded.requests);
    assert_eq!(books.shadow("app", "replayed"), loaded.requests, "{}", books.page());
    assert_eq!(books.gap_bytes(), 0, "{}", books.page());
    books.assert_balanced();
}

#[test]
fn nothing_is_missing_downstream_at_two_thousand_a_second_over_http2() {
    if !root_or_skip("nothing_is_missing_downstream_at_two_thousand_a_second_over_http2") {
        return;
    }
    assert_nothing_is_missing(Leg::Downstream);
}

#[test]
fn nothing_is_missing_upstream_at_two_thousand_a_second_over_http2() {
    if !root_or_skip("nothing_is_missing_upstream_at_two_thousand_a_second_over_http2") {
        return;
    }
    assert_nothing_is_missing(Leg::Upstream);
}

/// All that is missing was shed because the queue was full: closed-loop load goes as fast as production answers, and the
/// copies as fast as what is left of the machine lets them.
#[test]
fn at_full_speed_over_http2_the_books_explain_every_difference() {
    if !root_or_skip("at_full_speed_over_http2_the_books_explain_every_difference") {
        return;
    }
    let _alone = one_at_a_time();
    for leg in [Leg::Downstream, Leg::Upstream] {
        let loaded = Loaded::new(leg, "");
        let report = loaded.load(None);
        let books = quiet_books(&loaded.daemon, 0);
        loaded.print(&format!("{leg:?} at full speed"), &report, &books);
        assert_differences_are_explained(&loaded.shadow, &books, loaded.requests);
        if books.kernel_complete() {
            let shed = books.at(&["shadows", "app", "shed_by_reason", "queue_full"]);
            assert_eq!(books.shadow("app", "replayed") + shed, loaded.requests, "{}", books.page());
        }
    }
}

#[test]
fn at_full_speed_over_http2_nothing_is_missing_where_the_queue_has_room() {
    if !root_or_skip("at_full_speed_over_http2_nothing_is_missing_where_the_queue_has_room") {
        return;
    }
    let _alone = one_at_a_time();
    for leg in [Leg::Downstream, Leg::Upstream] {
        let loaded = Loaded::new(leg, ENDLESS_QUEUE);
        let report = loaded.load(None);
        let books = quiet_books(&loaded.daemon, 0);
        loaded.print(&format!("{leg:?} at full speed, with an endless queue"), &report, &books);
        match books.kernel_complete() {
            true => assert_all_arrived(&loaded, &books),
            false => assert_differences_are_explained(&loaded.shadow, &books, loaded.requests),
        }
    }
}
