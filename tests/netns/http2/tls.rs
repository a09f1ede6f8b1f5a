//! Shadows behind TLS: the version of HTTP is the one that ALPN names.

use mirror_tests::netns::Role;
use mirror_tests::nghttpx::{Nghttpx, NghttpxConfig};
use mirror_tests::peers::peers_or_skip;

use super::expected::{Parts, assert_arrived};
use super::rig::{DOWNSTREAM, GATEWAY, Gateway, Kind, send_odd, to_shadow};
use crate::faithful::rig::{LIMIT, SHADOW_PORT, World};
use crate::faithful::tls::{authority, certificate};

const TLS_PORT: u16 = 9443;

#[test]
fn shadow_behind_tls_is_spoken_to_in_the_version_that_alpn_names() {
    if !peers_or_skip("shadow_behind_tls_is_spoken_to_in_the_version_that_alpn_names") {
        return;
    }
    let world = World::new();
    let authority = authority();
    let (certificate, key) = certificate(&authority);
    let file = |name: &str, pem: String| {
        let file = world.lab.dir().join(name);
        std::fs::write(&file, pem).unwrap();
        file
    };
    let ca_file = file("ca.pem", authority.pem());
    let config = NghttpxConfig {
        listen: Role::Shadow.at(TLS_PORT),
        upstream: Role::Shadow.at(SHADOW_PORT),
        http2_upstream: true,
        tls: Some((file("key.pem", key.serialize_pem()), file("certificate.pem", certificate.pem()))),
    };
    let _gateway = Gateway::start(&world.lab, Kind::Nginx, world.production.address(), true);
    let toml = |protocol: &str| {
        let lines = format!("protocol = \"{protocol}\"\n[shadow.tls]\nca_file = \"{}\"", ca_file.display());
        let plain = to_shadow(config.listen, DOWNSTREAM, &lines);
        plain.replace("url = \"http://", "url = \"https://")
    };
    for (protocol, agreed) in [("same", "h2"), ("http1", "http/1.1")] {
        world.forget();
        let front = Nghttpx::start(&world.lab.shadow, &config).unwrap();
        let watch = world.watch(&world.lab.gateway, &toml(protocol));
        let sent = send_odd(&world, GATEWAY, Kind::Nginx, 0);
        let whole: Vec<_> = sent.iter().filter(|request| !request.was_cut).collect();
        let got = world.shadow.wait_for_requests(whole.len(), LIMIT);
        let said = || format!("{:#}\n{:#?}", watch.daemon.ledger().unwrap(), front.access_log());
        let got = got.unwrap_or_else(|few| panic!("{few:#}\n{}", said()));
        assert_arrived(whole.iter().map(|request| Parts::of_sent(request).mirrored()), &got);
        let books = watch.books(sent.len() as u64);
        assert_eq!(books["shadows"]["v2"]["replayed"], whole.len() as u64, "{books:#}");
        let log = front.access_log();
        assert!(log.iter().all(|line| line.starts_with(&format!("{agreed} "))), "{protocol}: {log:#?}");
        watch.end();
    }
}
