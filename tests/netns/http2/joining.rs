//! Connections that are older than the daemon: how much of them is mirrored, and that none of it is wrong.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use mirror_tests::grpc::{Call, GrpcServer, make_calls};
use mirror_tests::h2tools::{OddClient, OddRequest};
use mirror_tests::loadtool::H2Load;
use mirror_tests::netns::Role;
use mirror_tests::peers::peers_or_skip;
use mirror_tests::privilege::root_or_skip;
use mirror_tests::process::Process;
use mirror_tests::server::LoggedRequest;
use mirror_tests::wait;
use serde_json::json;

use super::expected::{Parts, assert_subset};
use super::rig::{
    DOWNSTREAM, GATEWAY, GRPC_PORT, Gateway, HOST, Kind, SHADOW_GRPC_PORT, UPSTREAM, to_shadow,
};
use crate::faithful::rig::{LIMIT, Watch, World};
use crate::stage::one_at_a_time;

/// What connections have carried when the daemon starts.
const BEFORE: u64 = 1000;
/// Requests of a scene: where the daemon was ready too late to see any, there is another with more.
const REQUESTS: [u64; 3] = [4000, 8000, 16_000];
/// Requests a second of all connections.
const RATE: u32 = 800;
const CONNECTIONS: u32 = 4;

/// Of the requests that came once the daemon was ready, how many were mirrored.
fn print_share(what: &str, watch: &Watch, mirrored: u64, of: u64) {
    let books = watch.daemon.ledger().unwrap();
    let reasons = books["requests"]["dropped_by_reason"].as_object().unwrap();
    let reasons: Vec<_> = reasons.iter().filter(|(_, count)| **count != 0).collect();
    eprintln!("{what}: dropped {reasons:?}");
    eprintln!("{what}: {mirrored} of {of} mirrored before reconnecting ({:.1} %)", {
        mirrored as f64 * 100.0 / of.max(1) as f64
    });
}

/// Slow h2load through a gateway; the daemon is started in the middle.
#[track_caller]
fn assert_joined(kind: Kind, capture: &str, what: &str) -> u64 {
    let _alone = one_at_a_time();
    for requests in REQUESTS {
        match joined_in_the_middle(kind, capture, what, requests) {
            Ok(joined) => return joined,
            Err(TooLate(ready_at)) => eprintln!(
                "{what}: the daemon was ready after {ready_at} of {requests} requests: nothing was tested, so again"
            ),
        }
    }
    panic!("{what}: the daemon started too late each time");
}

/// So many requests were over when the daemon was ready: too few came later.
struct TooLate(u64);

/// One scene of so many requests. How many of them were mirrored.
#[track_caller]
fn joined_in_the_middle(kind: Kind, capture: &str, what: &str, requests: u64) -> Result<u64, TooLate> {
    let world = World::new();
    let gateway = Gateway::start(&world.lab, kind, world.production.address(), true);
    let load = H2Load {
        connections: CONNECTIONS,
        streams: 8,
        rate: Some(RATE),
        ..H2Load::new(GATEWAY, HOST, requests)
    };
    let toml = to_shadow(world.shadow.address(), capture, "");
    let noted = || world.production.log().summary().requests;
    let (watch, ready_at) = std::thread::scope(|scope| {
        let loading = scope.spawn(|| load.run(&world.lab.client).unwrap());
        wait::until_true("connections are used", LIMIT, || noted() >= BEFORE).unwrap();
        let watch = world.watch(&world.lab.gateway, &toml);
        let ready_at = noted();
        assert_eq!(loading.join().unwrap().answers, requests);
        (watch, ready_at)
    });
    if ready_at >= requests * 9 / 10 {
        watch.end_under_load();
        return Err(TooLate(ready_at));
    }
    let joined = settled_shadow(&world, &watch);
    print_share(what, &watch, joined, requests - ready_at);
    let got = world.shadow.requests();
    // New connections, also of the gateway to production.
    world.production.close_connections();
    if capture != DOWNSTREAM {
        drop(gateway);
        let _gateway = Gateway::start(&world.lab, kind, world.production.address(), true);
        assert_all_after_reconnect(&world, &watch, joined);
    } else {
        assert_all_after_reconnect(&world, &watch, joined);
    }
    assert_true_copies(&world, &got);
    watch.end();
    Ok(joined)
}

/// None is wrong: each is one that production got, with that head.
#[track_caller]
fn assert_true_copies(world: &World, got: &[LoggedRequest]) {
    let mut sent: BTreeMap<String, usize> = BTreeMap::new();
    for request in world.production.requests() {
        *sent.entry(request.target().to_owned()).or_default() += 1;
    }
    let like = |request: &LoggedRequest| {
        let mut parts = Parts::of_noted(request);
        parts.target.clear();
        // Envoy names each request anew; and where that is wished, what is unknown is left out.
        parts.fields.remove("x-request-id");
        parts
    };
    let true_one = like(world.shadow.requests().last().unwrap());
    for request in got {
        let left = sent.get_mut(request.target()).unwrap_or_else(|| panic!("{request:?} was not sent"));
        assert!(*left > 0, "{} came too often", request.target());
        *left -= 1;
        assert_eq!(like(request), true_one);
    }
}

/// How many the shadow has when nothing more comes.
#[track_caller]
fn settled_shadow(world: &World, watch: &Watch) -> u64 {
    let mut last = None;
    let settled = wait::until("the daemon is at rest", LIMIT, || {
        std::thread::sleep(Duration::from_millis(200));
        let books = watch.daemon.ledger()?;
        let is_same = last.replace(books.clone()) == Some(books.clone());
        Ok((is_same && books["shadows"]["v2"]["open"] == 0).then_some(()))
    });
    settled.unwrap_or_else(|failure| panic!("{failure:#}\n{last:#?}"));
    world.shadow.log().summary().requests
}

#[track_caller]
fn assert_all_after_reconnect(world: &World, watch: &Watch, already: u64) {
    let load = H2Load { connections: CONNECTIONS, ..H2Load::new(GATEWAY, HOST, 1000) };
    assert_eq!(load.run(&world.lab.client).unwrap().answers, 1000);
    if let Err(few) = world.shadow.wait_for_requests(already as usize + 1000, LIMIT) {
        panic!("{few:#}\n{:#}\n{}", watch.daemon.ledger().unwrap(), watch.daemon.output());
    }
}

#[test]
fn h2load_joined_late_is_mirrored_truly_and_wholly_after_a_reconnect() {
    if !root_or_skip("h2load_joined_late_is_mirrored_truly_and_wholly_after_a_reconnect") {
        return;
    }
    assert_joined(Kind::Nginx, DOWNSTREAM, "h2load to nginx");
}

#[test]
fn envoys_upstream_joined_late_is_mirrored_truly_and_wholly_after_a_reconnect() {
    if !peers_or_skip("envoys_upstream_joined_late_is_mirrored_truly_and_wholly_after_a_reconnect") {
        return;
    }
    assert_joined(Kind::Envoy, UPSTREAM, "Envoy to production");
    // Its x-request-id is new in each request and turns the table over; but the name of that field is only ever said
    // by reference to the entry before.
    let tolerant = format!("{UPSTREAM}\nhttp2_tolerate_unknown_headers = true");
    let joined = assert_joined(Kind::Envoy, &tolerant, "Envoy to production, unknown headers left out");
    assert!(joined > 0);
}

#[test]
fn grpc_channel_joined_late_is_mirrored_truly_and_wholly_after_a_reconnect() {
    if !peers_or_skip("grpc_channel_joined_late_is_mirrored_truly_and_wholly_after_a_reconnect") {
        return;
    }
    let _alone = one_at_a_time();
    let world = World::new();
    let production = GrpcServer::start(&world.lab.production, Role::Production.at(GRPC_PORT)).unwrap();
    let shadow = GrpcServer::start(&world.lab.shadow, Role::Shadow.at(SHADOW_GRPC_PORT)).unwrap();
    let _gateway = Gateway::start(&world.lab, Kind::Envoy, production.address(), true);
    let rated = |kind: &str, first_id: u64, calls: u64| json!({ "kind": kind, "first_id": first_id, "calls": calls, "rate": 400, "bytes": 300, "messages": 3 });
    let batches = [rated("Unary", 0, 1200), rated("Unary", 2000, 800), rated("Bidi", 4000, 400)];
    let netns = &world.lab.client;
    let (watch, ready_at) = std::thread::scope(|scope| {
        let calling = scope.spawn(|| make_calls(netns, GATEWAY, HOST, &batches).unwrap());
        let many = |calls: &BTreeMap<String, Call>| calls.len() as u64 >= BEFORE;
        production.wait_for_calls("the channel is used", LIMIT, many).unwrap();
        let toml = to_shadow(shadow.address(), DOWNSTREAM, "");
        let watch = world.watch(&world.lab.gateway, &toml);
        let ready_at = production.calls().unwrap().len();
        calling.join().unwrap();
        (watch, ready_at)
    });
    settled_shadow(&world, &watch);
    let joined = shadow.calls().unwrap();
    print_share("grpcio to Envoy", &watch, joined.len() as u64, (2400 - ready_at) as u64);
    let again = [rated("Unary", 10_000, 200), rated("Bidi", 20_000, 50)];
    make_calls(netns, GATEWAY, HOST, &again).unwrap();
    let reconnected = |calls: &BTreeMap<String, Call>| calls.len() == joined.len() + 250;
    if let Err(few) = shadow.wait_for_calls("all come after a reconnect", LIMIT, reconnected) {
        panic!("{few:#}\n{:#}", watch.daemon.ledger().unwrap());
    }
    let (sent, got) =
        (production.calls().unwrap(), shadow.wait_for_ended(joined.len() + 250, LIMIT).unwrap());
    for (name, copy) in &got {
        let original = &sent[name];
        assert_eq!((copy.times, &copy.method), (1, &original.method), "{name}");
        assert_eq!(copy.messages, original.messages, "{name}");
        assert_eq!(copy.authority, format!("{HOST}-shadow"), "{name}");
    }
    watch.end();
}

/// Joins by a daemon, one after the other.
const JOINS: usize = 4;
/// How long a join may take until boundaries and table are known, on a machine that others use too.
const JOIN_LIMIT: Duration = Duration::from_secs(60);
const CLIENTS: u64 = 3;

#[test]
fn frames_embedded_in_uploads_never_arrive_whenever_they_are_joined() {
    if !peers_or_skip("frames_embedded_in_uploads_never_arrive_whenever_they_are_joined") {
        return;
    }
    let world = World::new();
    let _gateway = Gateway::start(&world.lab, Kind::Nginx, world.production.address(), false);
    let mut clients: Vec<Uploads> = (0..CLIENTS).map(|client| Uploads::start(&world, client)).collect();
    for _ in 0..JOINS {
        let goal = world.shadow.log().summary().requests + 40;
        let watch = world.watch(&world.lab.gateway, &to_shadow(world.shadow.address(), DOWNSTREAM, ""));
        let arrived = || world.shadow.log().summary().requests >= goal;
        wait::until_true("what joined is known again", JOIN_LIMIT, arrived)
            .unwrap_or_else(|late| panic!("{late:#}\n{:#}", watch.daemon.ledger().unwrap()));
        watch.end_under_load();
    }
    let sent: Vec<OddRequest> = clients.iter_mut().flat_map(Uploads::end).collect();
    let wanted = sent.iter().map(|request| Parts::of_sent(request).mirrored());
    let got = world.shadow.requests();
    assert!(got.iter().all(|request| !request.target().contains("evil")));
    let got: Vec<Parts> = got.iter().map(Parts::of_noted).collect();
    // What was on its way when the clients were ended is not in their reports.
    let last_ids: Vec<u64> = (0..CLIENTS).map(|client| last_id(&sent, client)).collect();
    let reported = |parts: &Parts| {
        let id = parts.id().unwrap();
        id <= last_ids[(id / IDS_OF_ONE) as usize]
    };
    let got = got.into_iter().filter(reported).collect();
    let count = assert_subset(wanted, got);
    eprintln!("embedded frames: {count} true ones of {} sent, over {JOINS} joins", sent.len());
    assert!(count > JOINS * 20, "{count}");
}

/// Numbers of one client.
const IDS_OF_ONE: u64 = 1_000_000;

fn last_id(sent: &[OddRequest], client: u64) -> u64 {
    let ids = sent.iter().filter_map(|request| Parts::of_sent(request).id());
    ids.filter(|id| id / IDS_OF_ONE == client).max().unwrap_or(client * IDS_OF_ONE)
}

/// A client that uploads frames until it is ended.
struct Uploads {
    process: Process,
}

impl Uploads {
    fn start(world: &World, client: u64) -> Self {
        let scenes = ["embedded", "fresh_table", "interleaved"];
        let client_of = OddClient {
            to: GATEWAY,
            authority: HOST,
            first_id: client * IDS_OF_ONE,
            repeat: 1000,
            scenes: &scenes,
        };
        let output = world.lab.dir().join(format!("uploads-{client}"));
        let launch = client_of.launch().unwrap().output_to(Path::new(&output));
        Self { process: launch.in_netns(&world.lab.client).spawn().unwrap() }
    }

    /// What it sent and saw answered.
    fn end(&mut self) -> Vec<OddRequest> {
        self.process.still_runs().unwrap();
        self.process.kill();
        let output = self.process.output();
        // The last line may be half written.
        let whole = output.rfind('\n').map_or("", |end| &output[..end]);
        whole.lines().map(|line| OddRequest::read(line).unwrap()).collect()
    }
}
