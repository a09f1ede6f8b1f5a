//! The upstream leg: what the gateway sent to production is what the shadow gets.

use mirror_tests::haproxy::{Haproxy, Sides};
use mirror_tests::netns::Role;
use mirror_tests::privilege::root_or_skip;

use super::corpus::{Ids, Sent, chunked, keep_alive, pipelined, shapes, shapes_for_haproxy, sizes};
use super::expected::assert_same_as_production;
use super::rig::{GATEWAY_PORT, LIMIT, World};

const UPSTREAM: &str = "interfaces = [\"eth0\"]\nports = [8000]\nleg = \"upstream\"\nring_bytes = \"32MiB\"";

/// Sends a bit of everything through the gateway, and compares the two logs.
#[track_caller]
fn assert_logs_agree(world: &World, shapes: fn(&mut Ids) -> Vec<Sent>) {
    world.forget();
    let watch = world.mirror_all(UPSTREAM);
    let to = Role::Gateway.at(GATEWAY_PORT);
    let ids = &mut Ids::default();
    let sent = [shapes(ids), chunked(ids), sizes(ids)].concat();
    keep_alive(&world.lab.client, to, &sent);
    let burst: Vec<Sent> = (0..10).map(|_| Sent::get(ids.next())).collect();
    pipelined(&world.lab.client, to, &burst);

    let production = world.production.requests();
    assert_eq!(production.len(), sent.len() + burst.len());
    if world.shadow.wait_for_requests(production.len(), LIMIT).is_err() {
        eprintln!("{:#}\n{}", watch.daemon.ledger().unwrap(), watch.daemon.output());
    }
    assert_same_as_production(&production, &world.shadow.requests());
    watch.all_replayed(production.len() as u64);
    watch.end();
}

#[test]
fn what_nginx_sends_to_production_is_what_the_shadow_gets() {
    if !root_or_skip("what_nginx_sends_to_production_is_what_the_shadow_gets") {
        return;
    }
    let world = World::new();
    for stream_bodies in [false, true] {
        let _nginx = world.nginx(|config| config.stream_bodies = stream_bodies);
        assert_logs_agree(&world, shapes);
    }
}

#[test]
fn what_haproxy_sends_to_production_is_what_the_shadow_gets() {
    if !root_or_skip("what_haproxy_sends_to_production_is_what_the_shadow_gets") {
        return;
    }
    let world = World::new();
    let (listen, production) = (Role::Gateway.at(GATEWAY_PORT), world.production.address());
    let _haproxy = Haproxy::start(&world.lab.gateway, listen, production, Sides::default()).unwrap();
    assert_logs_agree(&world, shapes_for_haproxy);
}
