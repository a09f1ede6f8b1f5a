//! The HTTP/2 harness itself, without a daemon: peers understand each other, and their logs agree.

use std::net::SocketAddr;

use mirror_tests::envoy::{Envoy, EnvoyConfig};
use mirror_tests::grpc::{self, Call, End, GrpcServer};
use mirror_tests::h2tools::{self, OddClient};
use mirror_tests::loadtool::{self, H2Load};
use mirror_tests::netns::{Lab, Role};
use mirror_tests::nginx::{Nginx, NginxConfig};
use mirror_tests::peers::peers_or_skip;
use mirror_tests::privilege::root_or_skip;
use mirror_tests::server::answer::pattern;
use mirror_tests::server::{LogMode, TestApp};
use mirror_tests::wire::{body_hash, latin1};
use serde_json::json;

use crate::faithful::rig::LIMIT;

const HOST: &str = "shadowing.example";

#[test]
fn app_speaks_both_versions_on_one_port() {
    if !root_or_skip("app_speaks_both_versions_on_one_port") {
        return;
    }
    let lab = Lab::new().unwrap();
    let app = TestApp::start(&lab.production, Role::Production.at(8000), LogMode::Full).unwrap();
    let url = |path: &str| format!("http://{}{path}", app.address());
    let curl = |args: &[&str]| h2tools::curl(&lab.client, args).unwrap();
    assert_eq!(curl(&[&url("/bytes/70000?id=1"), "-H", "X-A: 1"]).as_bytes(), pattern(70_000));
    assert_eq!(curl(&["--http1.1", &url("/bytes/3?id=2")]).as_bytes(), pattern(3));
    assert_eq!(curl(&[&url("/echo?id=3"), "-d", "hello"]), "hello");
    assert!(curl(&["-I", &url("/bytes/9?id=4")]).contains("content-length: 9"));
    let noted = app.requests();
    assert_eq!(
        noted.iter().map(|one| (one.version(), one.id())).collect::<Vec<_>>(),
        [("HTTP/2", Some(1)), ("HTTP/1.1", Some(2)), ("HTTP/2", Some(3)), ("HTTP/2", Some(4))]
    );
    assert_eq!(noted[0].host(), Some(app.address().to_string()));
    assert_eq!(noted[0].field("x-a").as_deref(), Some("1"));
    assert_eq!((noted[2].body_bytes, &noted[2].body_hash), (5, &body_hash(b"hello")));
    assert_eq!(app.log().faults(), Vec::<String>::new());
}

#[test]
fn app_notes_trailers_and_does_not_note_what_was_reset() {
    if !peers_or_skip("app_notes_trailers_and_does_not_note_what_was_reset") {
        return;
    }
    let lab = Lab::new().unwrap();
    let app = TestApp::start(&lab.production, Role::Production.at(8000), LogMode::Full).unwrap();
    let scenes = ["trailers", "resets"];
    let client = OddClient { to: app.address(), authority: HOST, first_id: 0, repeat: 1, scenes: &scenes };
    let sent = client.run(&lab.client).unwrap();
    let (cut, whole): (Vec<_>, Vec<_>) = sent.into_iter().partition(|request| request.was_cut);
    assert_eq!((cut.len(), whole.len()), (4, 7));
    let noted = app.requests();
    assert_eq!(noted.len(), whole.len());
    for (sent, noted) in whole.iter().zip(&noted) {
        assert_eq!((noted.method(), noted.target()), (sent.method.as_str(), sent.target.as_str()));
        assert_eq!(noted.body_hash, body_hash(&sent.body));
        let trailers: String =
            sent.trailers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        assert_eq!(latin1(&noted.trailers), trailers);
    }
    assert_eq!(app.log().summary().broken, 4);
}

#[test]
fn app_keeps_up_with_load_over_http2() {
    if !root_or_skip("app_keeps_up_with_load_over_http2") {
        return;
    }
    let lab = Lab::new().unwrap();
    let app = TestApp::start(&lab.gateway, Role::Gateway.at(8080), LogMode::Count).unwrap();
    let load = H2Load::new(app.address(), HOST, 20_000);
    let report = load.run(&lab.client).unwrap();
    assert_eq!((report.answers, report.bad, report.errors), (20_000, 0, 0));
    let summary = app.log().summary();
    assert_eq!((summary.requests, summary.distinct, summary.broken), (20_000, 2500, 0));
    eprintln!("the app answered {:.0} a second", report.per_second);
    let report = loadtool::h2load_h1(&lab.client, app.address(), HOST, (4, 1000)).unwrap();
    assert_eq!((report.answers, report.bad, report.errors), (1000, 0, 0));
}

#[test]
fn nginx_and_envoy_pass_every_odd_request_on() {
    if !peers_or_skip("nginx_and_envoy_pass_every_odd_request_on") {
        return;
    }
    let lab = Lab::new().unwrap();
    let app = TestApp::start(&lab.production, Role::Production.at(8000), LogMode::Full).unwrap();
    for (port, http2_upstream) in [(8080, false), (8081, true)] {
        let listen = Role::Gateway.at(port);
        let config = NginxConfig { http2: true, http2_upstream, ..NginxConfig::new([listen], app.address()) };
        let _nginx = Nginx::start(&lab.gateway, &config).unwrap();
        // Two names for one host are one too many for it.
        assert_passed_on(&lab, &app, (listen, h2tools::SCENES_FOR_NGINX), (http2_upstream, &["both_hosts"]));
    }
    for (port, http2_upstream) in [(8082, false), (8083, true)] {
        let listen = Role::Gateway.at(port);
        let config = EnvoyConfig { http2_upstream, ..EnvoyConfig::new([listen], app.address()) };
        let _envoy = Envoy::start(&lab.gateway, &config).unwrap();
        assert_passed_on(&lab, &app, (listen, &[]), (http2_upstream, &[]));
    }
}

/// What was sent in `scenes` came whole, but for as many requests as there are `refused` ones.
fn assert_passed_on(
    lab: &Lab,
    app: &TestApp,
    (to, scenes): (SocketAddr, &[&str]),
    (over_http2, refused): (bool, &[&str]),
) {
    app.log().clear();
    let sent = OddClient { to, authority: HOST, first_id: 0, repeat: 1, scenes }.run(&lab.client).unwrap();
    let whole: Vec<_> = sent.iter().filter(|request| !request.was_cut).collect();
    let good: Vec<_> = whole.iter().filter(|request| request.status == Some(200)).collect();
    assert_eq!(whole.len() - good.len(), refused.len(), "{to}");
    let noted = app.requests();
    assert_eq!(noted.len(), good.len(), "{to}");
    let version = if over_http2 { "HTTP/2" } else { "HTTP/1.1" };
    for request in &good {
        let found = noted.iter().find(|noted| noted.target() == request.target).unwrap();
        assert_eq!(found.version(), version);
        assert_eq!(found.body_hash, body_hash(&request.body), "{to} {}", request.target);
    }
    assert!(good.len() > 200, "{}", good.len());
}

#[test]
fn every_kind_of_grpc_call_passes_nginx_and_envoy() {
    if !peers_or_skip("every_kind_of_grpc_call_passes_nginx_and_envoy") {
        return;
    }
    let lab = Lab::new().unwrap();
    let server = GrpcServer::start(&lab.production, Role::Production.at(8001)).unwrap();
    let (front, other) = (Role::Gateway.at(8080), Role::Gateway.at(8081));
    let config =
        NginxConfig { http2: true, http2_upstream: true, ..NginxConfig::new([front], server.address()) };
    let _nginx = Nginx::start(&lab.gateway, &config).unwrap();
    let _envoy = Envoy::start(&lab.gateway, &EnvoyConfig::new([other], server.address())).unwrap();
    for to in [server.address(), front, other] {
        server.forget().unwrap();
        let batches = [
            json!({ "kind": "Unary", "first_id": 0, "calls": 5, "bytes": 5000 }),
            json!({ "kind": "ClientStream", "first_id": 10, "calls": 3, "messages": 20, "bytes": 300 }),
            json!({ "kind": "ServerStream", "first_id": 20, "calls": 3, "replies": 20 }),
            json!({ "kind": "Bidi", "first_id": 30, "calls": 2, "messages": 5, "bytes": 1_000_000 }),
            json!({ "kind": "Bidi", "first_id": 40, "messages": 3, "cancel": true }),
            json!({ "kind": "ClientStream", "first_id": 41, "messages": 3, "cancel": true }),
        ];
        grpc::make_calls(&lab.client, to, HOST, &batches).unwrap();
        let calls = server.wait_for_ended(15, LIMIT).unwrap();
        assert_eq!(calls.len(), 15);
        assert!(calls.values().all(|call: &Call| call.times == 1 && call.authority == HOST), "{calls:?}");
        let messages = |name: &str| calls[name].messages.len();
        assert_eq!([messages("call-0"), messages("call-10"), messages("call-20")], [1, 20, 1]);
        assert_eq!((messages("call-30"), calls["call-30"].messages[0].0), (5, 1_000_000));
        assert_eq!(calls["call-40"].end, Some(End::Cancelled), "{to}");
        assert_eq!(calls["call-41"].end, Some(End::Cancelled), "{to}");
        assert_eq!(messages("call-41"), 3);
    }
}

#[test]
fn nghttp_pads_and_sends_trailers() {
    if !root_or_skip("nghttp_pads_and_sends_trailers") {
        return;
    }
    let lab = Lab::new().unwrap();
    let app = TestApp::start(&lab.production, Role::Production.at(8000), LogMode::Full).unwrap();
    let body = lab.dir().join("body");
    std::fs::write(&body, pattern(5000)).unwrap();
    let url = format!("http://{}/odd?id=1", app.address());
    let args = ["-d", body.to_str().unwrap(), "-b", "100", "--trailer", "x-sum: 1", "--continuation", &url];
    h2tools::nghttp(&lab.client, &args).unwrap();
    let noted = &app.requests()[0];
    assert_eq!((noted.body_bytes, latin1(&noted.trailers).as_str()), (5000, "x-sum: 1\r\n"));
}
