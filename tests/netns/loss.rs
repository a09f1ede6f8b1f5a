//! What is mirrored when segments are lost on the wire, which TCP repairs, and when records are lost on the way to
//! user space, which nothing repairs.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mirror_daemon::capture::TestKnobs;
use mirror_tests::client::Connection;
use mirror_tests::daemon::{Daemon, Metrics};
use mirror_tests::netns::{Lab, Role};
use mirror_tests::nginx::{Nginx, NginxConfig};
use mirror_tests::numbered::Numbered;
use mirror_tests::outlet::Sent;
use mirror_tests::privilege::root_or_skip;
use mirror_tests::server::{LogMode, LoggedRequest, TestApp};
use mirror_tests::wait;
use mirror_tests::weather::{Forecast, Side, Weather};
use mirror_tests::wire::body_hash;

use crate::in_process::InProcess;
use crate::stage::{STOP_LIMIT, Stalled, again_if_stalled};

const ARRIVAL_LIMIT: Duration = Duration::from_secs(120);
/// Between two requests of an endless connection: the machine has other work, too.
const PAUSE: Duration = Duration::from_millis(3);
/// The 2 % of the acceptance.
const TWO_PERCENT: Forecast = Forecast { lose_one_in: 50, double_one_in: 0, delay_one_in: 0 };

const CONFIG: &str = r#"
[capture]
interfaces = ["eth0"]
ports = [8080]

[[shadow]]
name = "new"
url = "http://10.77.0.4:9000"
queue_items = 10000
max_in_flight = 64

[[route]]
hosts = ["shadowing.example"]
  [[route.rule]]
  mirror = [{ shadow = "new" }]
"#;

/// A gateway under a real daemon.
struct Mirrored {
    daemon: Daemon,
    shadow: TestApp,
    _nginx: Nginx,
    _production: TestApp,
    lab: Lab,
}

impl Mirrored {
    fn new() -> Self {
        let lab = Lab::new().unwrap();
        let production = TestApp::start(&lab.production, Role::Production.at(8000), LogMode::None).unwrap();
        let nginx =
            Nginx::start(&lab.gateway, &NginxConfig::new([Role::Gateway.at(8080)], production.address()))
                .unwrap();
        let shadow = TestApp::start(&lab.shadow, Role::Shadow.at(9000), LogMode::Full).unwrap();
        let daemon = Daemon::start(&lab.gateway, CONFIG).unwrap();
        Self { daemon, shadow, _nginx: nginx, _production: production, lab }
    }

    /// Sends requests with these numbers under this weather, and expects each at the shadow once, whole.
    fn all_are_mirrored(
        &self,
        traffic: Numbered,
        ids: std::ops::Range<u64>,
        (forecast, side): (Forecast, Side),
    ) -> Result<(), Stalled> {
        let weather = Weather::start(&self.lab.gateway, forecast, side).unwrap();
        traffic.run(&self.lab.client, 24, ids.clone()).unwrap();
        eprintln!("{side:?}: lost, doubled, delayed: {:?}", weather.fallen().unwrap());
        let count = (ids.end - ids.start) as usize;
        let arrived = match self.shadow.wait_for_requests(count, ARRIVAL_LIMIT) {
            Ok(arrived) => arrived,
            Err(_) if self.stalled() > 0 => return Err(Stalled(self.stalled())),
            Err(few) => {
                panic!("{few:#}\n{}\n{}", self.daemon.page("/ledger").unwrap().1, self.daemon.output())
            }
        };
        drop(weather);
        assert_eq!(verified(traffic, &arrived), ids.collect());
        self.shadow.log().clear();
        Ok(())
    }

    /// Packets that came while the heartbeat was stale.
    fn stalled(&self) -> u64 {
        let metrics = self.daemon.metrics().unwrap();
        metrics.sum("mirror_kernel_losses_total", &[("counter", "stalled")]) as u64
    }

    fn assert_nothing_was_lost(&self, seen: u64) {
        // A copy is booked when its answer was read, a moment after it was seen by the shadow.
        let replayed = |metrics: &Metrics| metrics.sum("mirror_copies_total", &[("outcome", "replayed")]);
        let is_quiet = || self.daemon.metrics().is_ok_and(|metrics| replayed(&metrics) == seen as f64);
        let _ = wait::until_true("every copy is booked", ARRIVAL_LIMIT, is_quiet);
        let metrics = self.daemon.metrics().unwrap();
        assert_eq!(metrics.sum("mirror_requests_total", &[("outcome", "matched")]), seen as f64);
        assert_eq!(metrics.sum("mirror_requests_total", &[]), seen as f64);
        assert_eq!(replayed(&metrics), seen as f64);
        assert_eq!(metrics.sum("mirror_kernel_lost_bytes_total", &[]), 0.0);
    }
}

/// The numbers of requests that arrived; every one must be true and whole, and come once.
fn verified(traffic: Numbered, arrived: &[LoggedRequest]) -> BTreeSet<u64> {
    let mut ids = BTreeSet::new();
    for request in arrived {
        let id = traffic.verify(request.target(), &request.body_hash).unwrap();
        assert!(ids.insert(id), "{id} came twice");
    }
    ids
}

fn to_gateway(filling_bytes: usize) -> Numbered {
    Numbered { to: Role::Gateway.at(8080), filling_bytes }
}

#[test]
fn what_tcp_repairs_is_mirrored_whole() {
    if !root_or_skip("what_tcp_repairs_is_mirrored_whole") {
        return;
    }
    again_if_stalled("what TCP repairs", || {
        let place = Mirrored::new();
        for (side, first) in [(Side::BeforeCapture, 0), (Side::AfterCapture, 10_000)] {
            let weather = (TWO_PERCENT, side);
            place.all_are_mirrored(to_gateway(0), first..first + 1300, weather)?;
            place.all_are_mirrored(to_gateway(65_536), first + 5000..first + 5200, weather)?;
        }
        place.assert_nothing_was_lost(3000);
        Ok(())
    });
}

#[test]
fn doubled_and_overtaken_segments_change_nothing() {
    if !root_or_skip("doubled_and_overtaken_segments_change_nothing") {
        return;
    }
    let forecast = Forecast { lose_one_in: 200, double_one_in: 10, delay_one_in: 5 };
    let weather = (forecast, Side::BeforeCapture);
    again_if_stalled("doubled and overtaken segments", || {
        let place = Mirrored::new();
        place.all_are_mirrored(to_gateway(0), 0..1000, weather)?;
        place.all_are_mirrored(to_gateway(65_536), 5000..5200, weather)?;
        place.assert_nothing_was_lost(1200);
        Ok(())
    });
}

#[test]
fn daemon_started_amid_uploads_mirrors_only_true_requests() {
    if !root_or_skip("daemon_started_amid_uploads_mirrors_only_true_requests") {
        return;
    }
    let lab = Lab::new().unwrap();
    let _gateway = TestApp::start(&lab.gateway, Role::Gateway.at(8080), LogMode::None).unwrap();
    let shadow = TestApp::start(&lab.shadow, Role::Shadow.at(9000), LogMode::Full).unwrap();
    let traffic = to_gateway(0);
    let endless = Endless::start(&lab, traffic);
    let mut daemon = Daemon::start(&lab.gateway, CONFIG).unwrap();
    let arrived = shadow.wait_for_requests(300, ARRIVAL_LIMIT);
    endless.stop();
    let arrived = arrived.unwrap_or_else(|few| panic!("{few:#}\n{}", daemon.page("/ledger").unwrap().1));
    daemon.stop(STOP_LIMIT).unwrap();
    verified(traffic, &arrived);
}

/// Four connections that send numbered requests until they are told to stop.
struct Endless {
    ends: Arc<AtomicBool>,
    lanes: Vec<std::thread::JoinHandle<u64>>,
}

impl Endless {
    fn start(lab: &Lab, traffic: Numbered) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let lane = |lane: u64| {
            let (ends, netns) = (Arc::clone(&ends), lab.client.clone());
            std::thread::spawn(move || {
                let mut connection = Connection::open(&netns, traffic.to).unwrap();
                let mut sent = 0;
                while !ends.load(Ordering::Relaxed) {
                    traffic.exchange(&mut connection, lane * 10_000_000 + sent).unwrap();
                    sent += 1;
                    std::thread::sleep(PAUSE);
                }
                sent
            })
        };
        let lanes = (0..4).map(lane).collect();
        Self { ends, lanes }
    }

    /// How many requests there were in all.
    fn stop(mut self) -> u64 {
        self.ends.store(true, Ordering::Relaxed);
        std::mem::take(&mut self.lanes).into_iter().map(|lane| lane.join().unwrap()).sum()
    }
}

impl Drop for Endless {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
    }
}

/// The numbers of what would have been sent; each must be true and whole, and come once.
fn true_ids(traffic: Numbered, whole: Vec<Sent>) -> BTreeSet<u64> {
    let mut ids = BTreeSet::new();
    for sent in whole {
        let target = sent.head.split(' ').nth(1).unwrap();
        let id = traffic.verify(target, &body_hash(&sent.body)).unwrap();
        assert!(ids.insert(id), "{id} came twice");
    }
    ids
}

#[test]
fn records_lost_on_purpose_leave_only_whole_true_requests() {
    if !root_or_skip("records_lost_on_purpose_leave_only_whole_true_requests") {
        return;
    }
    let lab = Lab::new().unwrap();
    let _gateway = TestApp::start(&lab.gateway, Role::Gateway.at(8080), LogMode::None).unwrap();
    for (filling_bytes, count) in [(0, 3000), (200_000, 300)] {
        let traffic = to_gateway(filling_bytes);
        let mut place = InProcess::attach(&lab, CONFIG, TestKnobs { drop_one_in: 100 });
        std::thread::scope(|scope| {
            let sending = scope.spawn(|| traffic.run(&lab.client, 6, 0..count));
            place.run_until(|_| sending.is_finished());
            sending.join().unwrap().unwrap();
        });
        let (whole, books) = place.finish();
        let ids = true_ids(traffic, whole);
        assert!(books.dropped_records > 0 && books.gaps > 0, "{books:?}");
        assert!(ids.len() as u64 * 10 > count * 5, "{} of {count}", ids.len());
        assert_eq!(books.seen, ids.len() as u64 + books.lost);
    }
}

#[test]
fn captures_joined_at_any_time_that_lose_records_see_only_true_requests() {
    if !root_or_skip("captures_joined_at_any_time_that_lose_records_see_only_true_requests") {
        return;
    }
    let lab = Lab::new().unwrap();
    let _gateway = TestApp::start(&lab.gateway, Role::Gateway.at(8080), LogMode::None).unwrap();
    let traffic = to_gateway(300);
    let endless = Endless::start(&lab, traffic);
    let mut mirrored = 0;
    for round in 0..8 {
        let knobs = TestKnobs { drop_one_in: if round % 2 == 0 { 0 } else { 30 } };
        let mut place = InProcess::attach(&lab, CONFIG, knobs);
        place.run_until(|place| place.ledger.seen() > 400);
        mirrored += true_ids(traffic, place.finish().0).len();
    }
    let sent = endless.stop();
    assert!(mirrored > 800, "{mirrored} of {sent}");
}
