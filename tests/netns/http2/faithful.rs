//! Whether the shadow gets what was on the wire, on both legs, in each version that it may be spoken to in.

use std::collections::BTreeSet;
use std::time::Duration;

use mirror_tests::cgroup::Cgroup;
use mirror_tests::client::Connection;
use mirror_tests::envoy::{Envoy, EnvoyConfig};
use mirror_tests::h2tools;
use mirror_tests::loadtool::H2Load;
use mirror_tests::netns::Role;
use mirror_tests::nginx::NginxConfig;
use mirror_tests::peers::peers_or_skip;
use mirror_tests::privilege::root_or_skip;
use mirror_tests::server::LoggedRequest;
use mirror_tests::server::answer::pattern;

use super::expected::{Parts, assert_arrived};
use super::rig::{DOWNSTREAM, GATEWAY, Gateway, HOST, Kind, UPSTREAM, send_odd, to_shadow};
use crate::faithful::rig::{GATEWAY_PORT, LIMIT, Watch, World};

const VERSIONS: [(&str, &str); 2] = [("same", "HTTP/2"), ("http1", "HTTP/1.1")];

/// Waits until so many requests came, and says what the daemon knows when they do not.
#[track_caller]
fn wait_for(world: &World, watch: &Watch, count: usize) {
    if world.shadow.wait_for_requests(count, LIMIT).is_err() {
        eprintln!("{:#}\n{}", watch.daemon.ledger().unwrap(), watch.daemon.output());
    }
}

/// What clients send arrives, in each version, whatever the gateway makes of it.
#[track_caller]
fn assert_downstream(kind: Kind) {
    let world = World::new();
    let _gateway = Gateway::start(&world.lab, kind, world.production.address(), true);
    for (protocol, version) in VERSIONS {
        world.forget();
        let lines = format!("protocol = \"{protocol}\"");
        let toml = to_shadow(world.shadow.address(), DOWNSTREAM, &lines);
        let watch = world.watch(&world.lab.gateway, &toml);
        let mut sent = send_odd(&world, GATEWAY, kind, 0);
        sent.extend(send_odd(&world, Role::Gateway.at_v6(GATEWAY_PORT), kind, 1_000_000));
        let whole: Vec<Parts> = sent
            .iter()
            .filter(|request| !request.was_cut)
            .map(|request| Parts::of_sent(request).mirrored())
            .collect();
        assert!(sent.len() > whole.len() && whole.len() > 400, "{} of {}", whole.len(), sent.len());
        let replayed = whole.len();
        wait_for(&world, &watch, replayed);
        let got = world.shadow.requests();
        assert!(got.iter().all(|request| request.version() == version), "{protocol}");
        assert_arrived(whole, &got);
        let books = watch.books(sent.len() as u64);
        assert_eq!(books["shadows"]["v2"]["replayed"], replayed as u64, "{books:#}");
        assert_eq!(books["kernel_complete"], true, "{books:#}");
        watch.end();
    }
}

#[test]
fn what_clients_send_to_nginx_over_http2_arrives_in_both_versions() {
    if !peers_or_skip("what_clients_send_to_nginx_over_http2_arrives_in_both_versions") {
        return;
    }
    assert_downstream(Kind::Nginx);
}

#[test]
fn what_clients_send_to_envoy_over_http2_arrives_in_both_versions() {
    if !peers_or_skip("what_clients_send_to_envoy_over_http2_arrives_in_both_versions") {
        return;
    }
    assert_downstream(Kind::Envoy);
}

/// What a gateway sends to production is what the shadow gets, in every version on either side.
#[track_caller]
fn assert_upstream(kind: Kind) {
    let world = World::new();
    let cases = [(true, "same", "HTTP/2"), (true, "http1", "HTTP/1.1"), (false, "http2", "HTTP/2")];
    for (http2_upstream, protocol, version) in cases {
        world.forget();
        // Before the gateway, whose connections to production it would join otherwise.
        let lines = format!("protocol = \"{protocol}\"");
        let toml = to_shadow(world.shadow.address(), UPSTREAM, &lines);
        let watch = world.watch(&world.lab.gateway, &toml);
        let _gateway = Gateway::start(&world.lab, kind, world.production.address(), http2_upstream);
        send_odd(&world, GATEWAY, kind, 0);
        let production = settled(&world);
        assert!(production.len() > 200, "{}", production.len());
        let captured = if http2_upstream { "HTTP/2" } else { "HTTP/1.1" };
        assert!(production.iter().all(|request| request.version() == captured));
        wait_for(&world, &watch, production.len());
        let got = world.shadow.requests();
        assert!(got.iter().all(|request| request.version() == version), "{captured} to {protocol}");
        assert_arrived(production.iter().map(|request| Parts::of_noted(request).mirrored()), &got);
        watch.end();
    }
}

/// Production's log when nothing more comes.
fn settled(world: &World) -> Vec<LoggedRequest> {
    let mut last = 0;
    mirror_tests::wait::until("production's log is complete", LIMIT, || {
        std::thread::sleep(Duration::from_millis(100));
        let count = world.production.log().summary().requests;
        let is_same = count > 0 && std::mem::replace(&mut last, count) == count;
        Ok(is_same.then(|| world.production.requests()))
    })
    .unwrap()
}

#[test]
fn what_nginx_sends_arrives_from_either_version_in_either() {
    if !peers_or_skip("what_nginx_sends_arrives_from_either_version_in_either") {
        return;
    }
    assert_upstream(Kind::Nginx);
}

#[test]
fn what_envoy_sends_arrives_from_either_version_in_either() {
    if !peers_or_skip("what_envoy_sends_arrives_from_either_version_in_either") {
        return;
    }
    assert_upstream(Kind::Envoy);
}

#[test]
fn requests_of_curl_nghttp_and_h2load_arrive_whole() {
    if !root_or_skip("requests_of_curl_nghttp_and_h2load_arrive_whole") {
        return;
    }
    let world = World::new();
    let _gateway = Gateway::start(&world.lab, Kind::Nginx, world.production.address(), false);
    let watch = world.watch(&world.lab.gateway, &to_shadow(world.shadow.address(), DOWNSTREAM, ""));
    let body = world.lab.dir().join("body");
    std::fs::write(&body, pattern(300_000)).unwrap();
    let (netns, body) = (&world.lab.client, body.to_str().unwrap());
    let url = |path: &str| format!("http://{GATEWAY}{path}");
    h2tools::curl(netns, &[&url("/get?id=1"), "-H", "Cookie: a=b; c=d", "-H", "X-A: 1"]).unwrap();
    h2tools::curl(netns, &[&url("/post?id=2"), "--data-binary", &format!("@{body}")]).unwrap();
    h2tools::curl(netns, &["-I", &url("/head?id=3")]).unwrap();
    // Without a length.
    h2tools::curl(netns, &["-T", "-", &url("/put?id=4")]).unwrap();
    let uri = url("/nghttp?id=5");
    h2tools::nghttp(netns, &["-n", "-d", body, "-b", "200", "--continuation", "-H", "x-b: 2", &uri]).unwrap();
    h2tools::nghttp(netns, &["-n", "--no-content-length", "-d", body, &url("/nghttp?id=6")]).unwrap();
    let load = H2Load { connections: 1, ..H2Load::new(GATEWAY, HOST, 500) };
    assert_eq!(load.run(netns).unwrap().answers, 500);
    wait_for(&world, &watch, 506);
    let got: Vec<Parts> = world.shadow.requests().iter().map(Parts::of_noted).collect();
    let upload = mirror_tests::wire::body_hash(&pattern(300_000));
    for (target, method, authority) in [
        ("/get?id=1", "GET", "10.77.0.2-shadow:8080"),
        ("/post?id=2", "POST", "10.77.0.2-shadow:8080"),
        ("/head?id=3", "HEAD", "10.77.0.2-shadow:8080"),
        ("/put?id=4", "PUT", "10.77.0.2-shadow:8080"),
        ("/nghttp?id=5", "POST", "10.77.0.2-shadow:8080"),
        ("/nghttp?id=6", "POST", "10.77.0.2-shadow:8080"),
        ("/?id=499", "GET", "shadowing.example-shadow"),
    ] {
        let found = got.iter().filter(|parts| parts.target == target).collect::<Vec<_>>();
        let [found] = found[..] else { panic!("{target} came {} times", found.len()) };
        assert_eq!((found.method.as_str(), found.authority.as_str()), (method, authority));
        if method == "POST" {
            assert_eq!(found.body_hash, upload, "{target}");
        }
    }
    assert_eq!(got[0].fields["cookie"], ["a=b; c=d"]);
    watch.all_replayed(506);
    watch.end();
}

#[test]
fn requests_over_http1_arrive_at_a_shadow_that_is_spoken_http2_to() {
    if !root_or_skip("requests_over_http1_arrive_at_a_shadow_that_is_spoken_http2_to") {
        return;
    }
    let world = World::new();
    // What nginx passes on is what came, but for its own Connection and Host.
    let config = NginxConfig::new([GATEWAY], world.production.address());
    let _nginx = mirror_tests::nginx::Nginx::start(&world.lab.gateway, &config).unwrap();
    let toml = to_shadow(world.shadow.address(), DOWNSTREAM, "protocol = \"http2\"");
    let watch = world.watch(&world.lab.gateway, &toml);
    let mut connection = Connection::open(&world.lab.client, GATEWAY).unwrap();
    let heads = [
        "GET /a?id=1 HTTP/1.1\r\nHost: shadowing.example:8080\r\nX-Odd:  1 \r\nConnection: keep-alive\r\n\r\n",
        "GET http://other.example/b?id=2 HTTP/1.1\r\nHost: other.example\r\nCookie: a=1; b=2\r\n\r\n",
        "HEAD /c?id=3 HTTP/1.1\r\nHost: shadowing.example\r\nTE: trailers\r\nConnection: TE\r\n\r\n",
        "POST /d?id=4 HTTP/1.1\r\nHost: [fd77::9]:80\r\nContent-Length: 5\r\n\r\nhello",
        "POST /e?id=5 HTTP/1.1\r\nHost: [fd77::9]\r\nContent-Length: 0\r\n\r\n",
        "PUT /f?id=6 HTTP/1.1\r\nHost: shadowing.example\r\nTransfer-Encoding: chunked\r\n\r\n\
         5\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 11\r\n\r\n",
    ];
    for head in heads {
        assert_eq!(connection.exchange(head.as_bytes()).unwrap().status, 200, "{head}");
    }
    wait_for(&world, &watch, heads.len());
    let got = world.shadow.requests();
    assert!(got.iter().all(|request| request.version() == "HTTP/2"));
    let mut got: Vec<Parts> = got.iter().map(Parts::of_noted).collect();
    got.sort_by_key(Parts::id);
    let one = |at: usize| (got[at].method.as_str(), got[at].target.as_str(), got[at].authority.as_str());
    assert_eq!(one(0), ("GET", "/a?id=1", "shadowing.example-shadow:8080"));
    assert_eq!(one(1), ("GET", "/b?id=2", "other.example-shadow"));
    assert_eq!(one(2), ("HEAD", "/c?id=3", "shadowing.example-shadow"));
    assert_eq!(one(3), ("POST", "/d?id=4", "[fd77::9]-shadow:80"));
    assert_eq!(one(4), ("POST", "/e?id=5", "[fd77::9]-shadow"));
    assert_eq!(one(5), ("PUT", "/f?id=6", "shadowing.example-shadow"));
    assert_eq!(got[0].fields["x-odd"], ["1"]);
    assert_eq!(got[1].fields["cookie"], ["a=1; b=2"]);
    assert_eq!(got[3].body_hash, mirror_tests::wire::body_hash(b"hello"));
    assert_eq!(got[5].body_hash, mirror_tests::wire::body_hash(b"hello world"));
    assert_eq!(got[5].trailers["x-sum"], ["11"]);
    assert!(got.iter().all(|parts| !parts.fields.contains_key("connection")));
    watch.all_replayed(heads.len() as u64);
    watch.end();
}

#[test]
fn cgroup_of_envoy_mirrors_both_legs() {
    if !peers_or_skip("cgroup_of_envoy_mirrors_both_legs") {
        return;
    }
    let world = World::new();
    let cgroup = Cgroup::new().unwrap();
    let place = format!("cgroups = [\"{}\"]\nring_bytes = \"128MiB\"", cgroup.path().display());
    let legs = [format!("{place}\nports = [8080]"), format!("{place}\nports = [8000]\nleg = \"upstream\"")];
    for capture in legs {
        world.forget();
        let toml = to_shadow(world.shadow.address(), &capture, "");
        let watch = world.watch(&world.lab.gateway, &toml).also_at(cgroup.path());
        let config =
            EnvoyConfig { http2_upstream: true, ..EnvoyConfig::new([GATEWAY], world.production.address()) };
        let _envoy = Envoy::start_in_cgroup(&world.lab.gateway, &config, &cgroup).unwrap();
        send_odd(&world, GATEWAY, Kind::Envoy, 0);
        let production = settled(&world);
        assert!(production.len() > 200, "{}", production.len());
        wait_for(&world, &watch, production.len());
        let sent: BTreeSet<_> = production.iter().map(LoggedRequest::id).collect();
        let got = world.shadow.requests();
        assert_eq!(got.iter().map(LoggedRequest::id).collect::<BTreeSet<_>>(), sent, "{capture}");
        assert_eq!(got.len(), production.len(), "{capture}");
        watch.end();
    }
}
