//! A changed configuration is taken as a whole, or refused as a whole; and shadows that have names.

use mirror_tests::bpf::{self, HeldObjects};
use mirror_tests::cleanup::RunDir;
use mirror_tests::client::Connection;
use mirror_tests::netns::Role;
use mirror_tests::privilege::root_or_skip;
use mirror_tests::server::{LogMode, TestApp};
use mirror_tests::wait;
use rustix::process::Signal;
use std::time::Duration;

use super::corpus::Sent;
use super::expected::{assert_mirrored, assert_same};
use super::rig::{DOWNSTREAM, GATEWAY_PORT, LIMIT, Watch, World, all_to};
use super::tls;

/// Waits until the daemon has said `word` so many times.
#[track_caller]
fn wait_for_words(watch: &Watch, word: &str, times: usize) {
    let said = || watch.daemon.output().matches(word).count() >= times;
    if wait::until_true("the daemon says so", LIMIT, said).is_err() {
        panic!("it did not say {word:?} {times} times:\n{}", watch.daemon.output());
    }
}

/// Some hundreds of requests a second while a reload is waited for: this is about what a reload does to them, and not
/// about how many a daemon that was built for tests keeps up with.
const BETWEEN_REQUESTS: Duration = Duration::from_millis(1);

#[test]
fn changed_file_is_taken_when_it_is_right_and_refused_when_it_is_wrong() {
    if !root_or_skip("changed_file_is_taken_when_it_is_right_and_refused_when_it_is_wrong") {
        return;
    }
    let world = World::new();
    let _nginx = world.nginx(|config| config.listen.push(Role::Gateway.at(8081)));
    let other = TestApp::start(&world.lab.shadow, Role::Shadow.at(9001), LogMode::Full).unwrap();
    let watch = world.mirror_downstream();
    let mut connection = Connection::open(&world.lab.client, Role::Gateway.at(GATEWAY_PORT)).unwrap();
    let mut second = Connection::open(&world.lab.client, Role::Gateway.at(8081)).unwrap();
    let mut number = 0;
    let mut send = |connection: &mut Connection| {
        number += 1;
        let request = Sent::post(number, 50);
        assert_eq!(request.exchange(connection).status, 200);
        request
    };
    let first = [send(&mut connection)];
    assert_same(&first, &world.shadow.wait_for_requests(1, LIMIT).unwrap());

    // Wrong: the running one stays, with all it does.
    watch.daemon.reconfigure(&all_to(other.address(), "interfaces = [\"eth0\"]\nports = [0]")).unwrap();
    wait_for_words(&watch, "configuration refused", 1);
    assert!(watch.daemon.output().contains("capture.ports"), "{}", watch.daemon.output());
    let second_request = send(&mut connection);
    world.shadow.wait_for_requests(2, LIMIT).unwrap();
    assert_same(&[first[0].clone(), second_request], &world.shadow.requests());
    assert_eq!(other.requests(), []);

    // Right: another shadow and one more port, on connections that are open already.
    let ports = DOWNSTREAM.replace("[8080]", "[8080, 8081]");
    watch.daemon.reconfigure(&all_to(other.address(), &ports)).unwrap();
    wait_for_words(&watch, "configuration taken", 1);
    let mut third = vec![send(&mut connection)];
    let mut young = Connection::open(&world.lab.client, Role::Gateway.at(8081)).unwrap();
    third.push(send(&mut young));
    send(&mut second);
    assert_same(&third, &other.wait_for_requests(2, LIMIT).unwrap());
    assert_eq!(world.shadow.requests().len(), 2);
    watch.books(5);
    watch.end();
}

/// What a reload can change, but for the rules.
fn standing(world: &World, watch: &Watch) -> (Vec<String>, HeldObjects, Vec<String>, f64) {
    let attached = bpf::attached_in(&world.lab.gateway).unwrap();
    let books = watch.daemon.ledger().unwrap();
    let shadows = books["shadows"].as_object().unwrap().keys().cloned().collect();
    let generation = watch.daemon.metrics().unwrap().sum("mirror_config_generation", &[]);
    (attached, watch.daemon.held_objects().unwrap(), shadows, generation)
}

#[test]
fn reload_that_fails_half_way_leaves_everything_as_it_was() {
    if !root_or_skip("reload_that_fails_half_way_leaves_everything_as_it_was") {
        return;
    }
    let world = World::new();
    let _nginx = world.nginx(|config| config.listen.push(Role::Gateway.at(8081)));
    let other = TestApp::start(&world.lab.shadow, Role::Shadow.at(9001), LogMode::Full).unwrap();
    let watch = world.mirror_downstream();
    let before = standing(&world, &watch);
    let dir = RunDir::new().unwrap();
    let authorities = dir.path().join("ca.pem");
    // Each would change ports, rules, shadows and places, all of which is right but for the last.
    let places = |places: &str| {
        let capture = format!("{places}\nports = [8080, 8081]\nring_bytes = \"32MiB\"");
        all_to(other.address(), &capture).replace("\"v2\"", "\"v3\"")
    };
    let tls = format!("https://{}\"\ntls = {{ ca_file = \"{}\" }}", other.address(), authorities.display());
    let unreadable = places("interfaces = [\"lo\"]").replace(&format!("http://{}\"", other.address()), &tls);
    let refused = [
        (places("interfaces = [\"lo\", \"eth7\"]"), "eth7"),
        (places("interfaces = [\"eth0\"]\ncgroups = [\"/sys/fs/cgroup/gone\"]"), "/sys/fs/cgroup/gone"),
        (
            places("interfaces = [\"eth0\", { name = \"eth0\", netns = \"/proc/self/ns/net\" }]"),
            "same connections",
        ),
        (unreadable, "ca.pem"),
    ];
    let open = |port| Connection::open(&world.lab.client, Role::Gateway.at(port)).unwrap();
    let (mut connection, mut unwanted) = (open(GATEWAY_PORT), open(8081));
    let mut sent = Vec::new();
    for (times, (toml, word)) in (1..).zip(&refused) {
        watch.daemon.reconfigure(toml).unwrap();
        while watch.daemon.output().matches("configuration refused").count() < times {
            let request = Sent::post(sent.len() as u64 + 1, 2000);
            request.exchange(&mut connection);
            sent.push(request);
            std::thread::sleep(BETWEEN_REQUESTS);
        }
        assert!(watch.daemon.output().contains(word), "{word}:\n{}", watch.daemon.output());
        Sent::get(10_000).exchange(&mut unwanted);
        assert_eq!(standing(&world, &watch), before, "after {word}");
    }
    let request = Sent::post(sent.len() as u64 + 1, 2000);
    request.exchange(&mut connection);
    sent.push(request);
    // Not one was lost or doubled while it was tried.
    assert_mirrored(&world, &watch, &sent);
    assert_eq!(other.requests(), []);

    // What was in the way is gone: now it is taken.
    std::fs::write(&authorities, tls::authority().pem()).unwrap();
    watch.daemon.signal(Signal::HUP).unwrap();
    wait_for_words(&watch, "configuration taken", 1);
    let attached = bpf::attached_in(&world.lab.gateway).unwrap();
    assert!(attached.iter().all(|line| !line.contains("eth0")), "{attached:?}");
    watch.end();
}

#[test]
fn sighup_reads_the_file_again() {
    if !root_or_skip("sighup_reads_the_file_again") {
        return;
    }
    let world = World::new();
    let _nginx = world.nginx(|_| {});
    let watch = world.mirror_downstream();
    let generation = || watch.daemon.metrics().unwrap().sum("mirror_config_generation", &[]);
    let before = generation();
    watch.daemon.signal(Signal::HUP).unwrap();
    wait_for_words(&watch, "configuration taken", 1);
    assert!(generation() > before || before == 0.0);
    let mut connection = Connection::open(&world.lab.client, Role::Gateway.at(GATEWAY_PORT)).unwrap();
    let sent: Vec<Sent> = (1..=3).map(Sent::get).collect();
    for request in &sent {
        request.exchange(&mut connection);
    }
    assert_same(&sent, &world.shadow.wait_for_requests(3, LIMIT).unwrap());
    watch.all_replayed(3);
    watch.end();
}

#[test]
fn requests_under_way_at_a_reload_are_neither_lost_nor_doubled() {
    if !root_or_skip("requests_under_way_at_a_reload_are_neither_lost_nor_doubled") {
        return;
    }
    let world = World::new();
    let _nginx = world.nginx(|_| {});
    let watch = world.mirror_downstream();
    let config = |timeout: usize| {
        all_to(world.shadow.address(), DOWNSTREAM)
            .replace("queue_bytes", &format!("timeout = \"{timeout}s\"\nqueue_bytes"))
    };
    let mut connection = Connection::open(&world.lab.client, Role::Gateway.at(GATEWAY_PORT)).unwrap();
    let mut sent = Vec::new();
    for reload in 1..=5 {
        watch.daemon.reconfigure(&config(9 + reload)).unwrap();
        while watch.daemon.output().matches("configuration taken").count() < reload {
            let request = Sent::post(sent.len() as u64 + 1, 2000);
            request.exchange(&mut connection);
            sent.push(request);
            std::thread::sleep(BETWEEN_REQUESTS);
        }
    }
    world.shadow.wait_for_requests(sent.len(), LIMIT).unwrap();
    assert_same(&sent, &world.shadow.requests());
    watch.all_replayed(sent.len() as u64);
    watch.end();
}

#[test]
fn shadow_is_found_by_its_name_whichever_of_its_addresses_answers() {
    if !root_or_skip("shadow_is_found_by_its_name_whichever_of_its_addresses_answers") {
        return;
    }
    let world = World::new();
    let _nginx = world.nginx(|_| {});
    // "localhost" is both families by most hosts files; only one of them has a listener.
    let local = std::net::SocketAddr::from(([127, 0, 0, 1], 9005));
    let shadow = TestApp::start(&world.lab.gateway, local, LogMode::Full).unwrap();
    let config = all_to(local, DOWNSTREAM).replace("http://127.0.0.1:9005", "http://localhost:9005");
    assert!(config.contains("localhost"));
    let watch = world.watch(&world.lab.gateway, &config);
    let mut connection = Connection::open(&world.lab.client, Role::Gateway.at(GATEWAY_PORT)).unwrap();
    let sent: Vec<Sent> = (1..=3).map(Sent::get).collect();
    for request in &sent {
        request.exchange(&mut connection);
    }
    assert_same(&sent, &shadow.wait_for_requests(3, LIMIT).unwrap());
    watch.all_replayed(3);
    watch.end();
}
