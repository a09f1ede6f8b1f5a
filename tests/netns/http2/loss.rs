//! What is mirrored when segments are lost on the wire, which TCP repairs, and when records are lost on the way to
//! user space, which nothing repairs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mirror_daemon::capture::TestKnobs;
use mirror_tests::h2tools::{OddClient, OddRequest};
use mirror_tests::loadtool::H2Load;
use mirror_tests::netns::{Lab, Role};
use mirror_tests::peers::peers_or_skip;
use mirror_tests::server::{LogMode, TestApp};
use mirror_tests::weather::{Forecast, Side, Weather};

use super::expected::{Parts, assert_arrived, assert_subset};
use super::rig::{DOWNSTREAM, GATEWAY, Gateway, HOST, Kind, send_odd, to_shadow};
use crate::faithful::rig::World;
use crate::in_process::InProcess;
use crate::stage::one_at_a_time;

/// The 2 % of the acceptance.
const TWO_PERCENT: Forecast = Forecast { lose_one_in: 50, double_one_in: 0, delay_one_in: 0 };
const ARRIVAL_LIMIT: Duration = Duration::from_secs(120);

#[test]
fn what_tcp_repairs_is_mirrored_whole_over_http2() {
    if !peers_or_skip("what_tcp_repairs_is_mirrored_whole_over_http2") {
        return;
    }
    let _alone = one_at_a_time();
    let world = World::new();
    let _gateway = Gateway::start(&world.lab, Kind::Nginx, world.production.address(), false);
    let mut watch = world.watch(&world.lab.gateway, &to_shadow(world.shadow.address(), DOWNSTREAM, ""));
    let (mut wanted, mut seen) = (Vec::new(), 0);
    for (side, first_id) in [(Side::BeforeCapture, 0), (Side::AfterCapture, 1_000_000)] {
        let weather = Weather::start(&world.lab.gateway, TWO_PERCENT, side).unwrap();
        let sent = send_odd(&world, GATEWAY, Kind::Nginx, first_id);
        eprintln!("{side:?}: lost, doubled, delayed: {:?}", weather.fallen().unwrap());
        drop(weather);
        seen += sent.len() as u64;
        let whole = sent.iter().filter(|request| !request.was_cut);
        wanted.extend(whole.map(|request| Parts::of_sent(request).mirrored()));
    }
    if let Err(few) = world.shadow.wait_for_requests(wanted.len(), ARRIVAL_LIMIT) {
        eprintln!("{few:#}\n{:#}\n{}", watch.daemon.ledger().unwrap(), watch.daemon.output());
    }
    assert_arrived(wanted, &world.shadow.requests());
    // Many streams at once, too.
    world.forget();
    let weather = Weather::start(&world.lab.gateway, TWO_PERCENT, Side::BeforeCapture).unwrap();
    let load = H2Load::new(GATEWAY, HOST, 4000);
    assert_eq!(load.run(&world.lab.client).unwrap().answers, 4000);
    drop(weather);
    world.shadow.wait_for_requests(4000, ARRIVAL_LIMIT).unwrap();
    let books = watch.books(seen + 4000);
    assert_eq!(books["kernel_complete"], true, "{books:#}");
    // With clsact the weather's own filter stays until the namespace goes.
    watch.daemon.stop(ARRIVAL_LIMIT).unwrap();
}

const CONFIG: &str = r#"
[capture]
interfaces = ["eth0"]
ports = [8080]

[[shadow]]
name = "new"
url = "http://10.77.0.4:9000"

[[route]]
[[route.rule]]
mirror = [{ shadow = "new" }]
"#;

#[test]
fn records_lost_on_purpose_leave_only_whole_true_requests_over_http2() {
    if !peers_or_skip("records_lost_on_purpose_leave_only_whole_true_requests_over_http2") {
        return;
    }
    let _alone = one_at_a_time();
    let lab = Lab::new().unwrap();
    let app = TestApp::start(&lab.gateway, Role::Gateway.at(8080), LogMode::None).unwrap();
    for drop_one_in in [50, 200, 1000] {
        let mut place = InProcess::attach(&lab, CONFIG, TestKnobs { drop_one_in });
        let sent: Vec<OddRequest> = std::thread::scope(|scope| {
            let sending = scope.spawn(|| send_on_connections(&lab, app.address()));
            place.run_until(|_| sending.is_finished());
            sending.join().unwrap()
        });
        let (whole, books) = place.finish();
        assert!(books.dropped_records > 0 && books.gaps > 0, "{books:?}");
        let got: Vec<Parts> = whole.iter().map(Parts::of_http2).collect();
        let ids: BTreeSet<u64> = got.iter().filter_map(Parts::id).collect();
        let wanted = sent.iter().filter(|request| !request.was_cut);
        let count = assert_subset(wanted.map(|request| Parts::of_sent(request).mirrored()), got);
        print_resynchronisation(drop_one_in, &sent, &ids);
        // Each loss costs a good part of what a connection carries here.
        assert!(count > 0 || drop_one_in < 200, "none of {}", sent.len());
        assert_eq!(books.seen, count as u64 + books.lost);
    }
}

/// Three connections at once, each with every odd scene twice.
fn send_on_connections(lab: &Lab, to: std::net::SocketAddr) -> Vec<OddRequest> {
    std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..3)
            .map(|lane| {
                let client =
                    OddClient { to, authority: HOST, first_id: lane * 1_000_000, repeat: 2, scenes: &[] };
                scope.spawn(move || client.run(&lab.client).unwrap())
            })
            .collect();
        lanes.into_iter().flat_map(|lane| lane.join().unwrap()).collect()
    })
}

/// After a loss, how many requests of a connection pass until one is mirrored again.
fn print_resynchronisation(drop_one_in: u32, sent: &[OddRequest], mirrored: &BTreeSet<u64>) {
    let mut lanes: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for id in sent.iter().filter(|request| !request.was_cut).filter_map(|one| Parts::of_sent(one).id()) {
        lanes.entry(id / 1_000_000).or_default().push(id);
    }
    let mut runs: Vec<usize> = Vec::new();
    for ids in lanes.values_mut() {
        ids.sort_unstable();
        let missing: String = ids.iter().map(|id| if mirrored.contains(id) { '+' } else { '-' }).collect();
        runs.extend(missing.split('+').filter(|run| !run.is_empty()).map(str::len));
    }
    runs.sort_unstable();
    let total: usize = lanes.values().map(Vec::len).sum();
    let share = mirrored.len() as f64 * 100.0 / total as f64;
    eprintln!(
        "one record in {drop_one_in} lost: {} of {total} mirrored ({share:.1} %); {} losses cost {} requests in the \
         median, {} at most",
        mirrored.len(),
        runs.len(),
        runs.get(runs.len() / 2).unwrap_or(&0),
        runs.last().unwrap_or(&0)
    );
}
