//! `Upgrade: h2c`, by clients that ask for it and a gateway that grants it.

use std::collections::BTreeMap;

use mirror_tests::h2tools;
use mirror_tests::nghttpx::{Nghttpx, NghttpxConfig};
use mirror_tests::privilege::root_or_skip;
use mirror_tests::server::answer::pattern;
use mirror_tests::wire::body_hash;

use super::rig::{DOWNSTREAM, GATEWAY, to_shadow};
use crate::faithful::rig::{LIMIT, World};

/// GETs that curl sends on one connection.
const GETS: usize = 100;
const UPLOAD_BYTES: usize = 200_000;

#[test]
fn request_that_upgrades_to_http2_and_all_after_it_are_mirrored() {
    if !root_or_skip("request_that_upgrades_to_http2_and_all_after_it_are_mirrored") {
        return;
    }
    let world = World::new();
    let config = NghttpxConfig {
        listen: GATEWAY,
        upstream: world.production.address(),
        http2_upstream: false,
        tls: None,
    };
    let gateway = Nghttpx::start(&world.lab.gateway, &config).unwrap();
    let watch = world.watch(&world.lab.gateway, &to_shadow(world.shadow.address(), DOWNSTREAM, ""));
    let body = world.lab.dir().join("body");
    std::fs::write(&body, pattern(UPLOAD_BYTES)).unwrap();
    let body = body.to_str().unwrap();
    let client = &world.lab.client;
    // The first with HTTP/1.1, all others with HTTP/2.
    h2tools::upgrading_curl(client, &[&format!("http://{GATEWAY}/get?id=[1-{GETS}]"), "-H", "X-A: 1"])
        .unwrap();
    // With a body, which is HTTP/1.1's too.
    let upload = format!("http://{GATEWAY}/upload?id=0");
    h2tools::upgrading_curl(client, &[&upload, "--data-binary", &format!("@{body}")]).unwrap();
    // Upgrades with `OPTIONS *`, and uploads with HTTP/2.
    let [first, second] = [1, 2].map(|id| format!("http://{GATEWAY}/nghttp?id={id}"));
    h2tools::nghttp(client, &["-n", "-u", "-d", body, &first, &second]).unwrap();

    let total = GETS + 4;
    if world.shadow.wait_for_requests(total, LIMIT).is_err() {
        eprintln!("{:#}\n{:#?}", watch.daemon.ledger().unwrap(), gateway.access_log());
    }
    watch.all_replayed(total as u64);
    let granted = gateway.access_log().iter().filter(|line| line.starts_with("h2c ")).count();
    assert_eq!(granted, total, "{:?}", gateway.access_log());
    let got: BTreeMap<String, _> =
        world.shadow.requests().into_iter().map(|request| (request.target().to_owned(), request)).collect();
    assert_eq!(got.len(), total, "each once");
    for id in 1..=GETS {
        let copy = &got[&format!("/get?id={id}")];
        assert_eq!(copy.version(), if id == 1 { "HTTP/1.1" } else { "HTTP/2" }, "{id}");
        assert_eq!(copy.host().as_deref(), Some("10.77.0.2-shadow:8080"), "{id}");
        assert_eq!(copy.field("x-a").as_deref(), Some("1"), "{id}");
    }
    for (target, version, body_bytes) in [
        ("/get?id=1", "HTTP/1.1", 0),
        ("*", "HTTP/1.1", 0),
        ("/upload?id=0", "HTTP/1.1", UPLOAD_BYTES),
        ("/nghttp?id=1", "HTTP/2", UPLOAD_BYTES),
        ("/nghttp?id=2", "HTTP/2", UPLOAD_BYTES),
    ] {
        let copy = &got[target];
        assert_eq!((copy.version(), copy.body_bytes), (version, body_bytes as u64), "{target}");
        assert_eq!(copy.body_hash, body_hash(&pattern(body_bytes)), "{target}");
        for gone in ["upgrade", "http2-settings", "connection"] {
            assert_eq!(copy.field(gone), None, "{target}");
        }
    }
    watch.end();
}
