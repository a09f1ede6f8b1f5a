//! Interfaces: the loopback, several at once, another namespace's, and the host's side of a pod.

use mirror_tests::netns::{Netns, Role};
use mirror_tests::privilege::root_or_skip;
use mirror_tests::server::{LogMode, TestApp};
use mirror_tests::wait;

use super::corpus::{Ids, Sent, chunked, keep_alive, pipelined, shapes, sizes};
use super::expected::{assert_mirrored, assert_same_as_production};
use super::rig::{GATEWAY_PORT, LIMIT, PRODUCTION_PORT, World, all_to};

/// A bit of everything, on two connections.
#[track_caller]
pub(super) fn send_some(netns: &Netns, to: std::net::SocketAddr, ids: &mut Ids) -> Vec<Sent> {
    let mut sent = chunked(ids);
    sent.extend(sizes(ids).into_iter().take(5));
    keep_alive(netns, to, &sent);
    let burst = shapes(ids);
    pipelined(netns, to, &burst);
    [sent, burst].concat()
}

#[test]
fn request_over_the_loopback_is_mirrored_once() {
    if !root_or_skip("request_over_the_loopback_is_mirrored_once") {
        return;
    }
    let mut world = World::new();
    let local = |port: u16| std::net::SocketAddr::from(([127, 0, 0, 1], port));
    world.production = TestApp::start(&world.lab.gateway, local(PRODUCTION_PORT), LogMode::Full).unwrap();
    let v6 = std::net::SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, GATEWAY_PORT));
    let nginx = || world.nginx(|config| config.listen = vec![local(GATEWAY_PORT), v6]);
    let downstream = nginx();

    let watch = world.mirror_all("interfaces = [\"lo\"]\nports = [8080]");
    let mut ids = Ids::default();
    let mut sent = send_some(&world.lab.gateway, local(GATEWAY_PORT), &mut ids);
    sent.extend(send_some(&world.lab.gateway, v6, &mut ids));
    assert_mirrored(&world, &watch, &sent);
    watch.end();

    drop(downstream);
    world.forget();
    let _upstream = nginx();
    let watch = world.mirror_all("interfaces = [\"lo\"]\nports = [8000]\nleg = \"upstream\"");
    let sent = send_some(&world.lab.gateway, local(GATEWAY_PORT), &mut ids);
    world.shadow.wait_for_requests(sent.len(), LIMIT).unwrap();
    assert_same_as_production(&world.production.requests(), &world.shadow.requests());
    watch.all_replayed(sent.len() as u64);
    watch.end();
}

#[test]
fn two_interfaces_at_once_mirror_each_request_once() {
    if !root_or_skip("two_interfaces_at_once_mirror_each_request_once") {
        return;
    }
    let world = World::new();
    let local = std::net::SocketAddr::from(([127, 0, 0, 1], GATEWAY_PORT));
    let outer = Role::Gateway.at(GATEWAY_PORT);
    let _nginx = world.nginx(|config| config.listen = vec![outer, local]);
    let watch = world.mirror_all("interfaces = [\"eth0\", \"lo\"]\nports = [8080]");
    let mut ids = Ids::default();
    let mut sent = send_some(&world.lab.client, outer, &mut ids);
    sent.extend(send_some(&world.lab.gateway, local, &mut ids));
    // The gateway's own outer address, from inside: the kernel takes that over lo.
    sent.extend(send_some(&world.lab.gateway, outer, &mut ids));
    assert_mirrored(&world, &watch, &sent);
    watch.end();
}

#[test]
fn host_side_of_a_pod_mirrors_both_legs() {
    if !root_or_skip("host_side_of_a_pod_mirrors_both_legs") {
        return;
    }
    let world = World::new();
    let downstream = world.nginx(|_| {});
    let host_side = "interfaces = [{ name = \"gateway0\", side = \"host\" }]";
    let config = all_to(world.shadow.address(), &format!("{host_side}\nports = [8080]"));
    let watch = world.watch(&world.lab.node, &config);
    let mut ids = Ids::default();
    let mut sent = send_some(&world.lab.client, Role::Gateway.at(GATEWAY_PORT), &mut ids);
    sent.extend(send_some(&world.lab.client, Role::Gateway.at_v6(GATEWAY_PORT), &mut ids));
    assert_mirrored(&world, &watch, &sent);
    watch.end();

    drop(downstream);
    world.forget();
    let _upstream = world.nginx(|_| {});
    let config = all_to(world.shadow.address(), &format!("{host_side}\nports = [8000]\nleg = \"upstream\""));
    let watch = world.watch(&world.lab.node, &config);
    let sent = send_some(&world.lab.client, Role::Gateway.at(GATEWAY_PORT), &mut ids);
    world.shadow.wait_for_requests(sent.len(), LIMIT).unwrap();
    assert_same_as_production(&world.production.requests(), &world.shadow.requests());
    watch.all_replayed(sent.len() as u64);
    watch.end();
}

#[test]
fn interface_in_another_namespace_is_captured_from_outside() {
    if !root_or_skip("interface_in_another_namespace_is_captured_from_outside") {
        return;
    }
    let world = World::new();
    let _nginx = world.nginx(|_| {});
    let netns = world.lab.gateway.path().unwrap().display();
    let capture = format!("interfaces = [\"eth0\"]\nnetns = \"{netns}\"\nports = [8080]");
    let watch = world.watch(&world.lab.node, &all_to(world.shadow.address(), &capture));
    let sent = send_some(&world.lab.client, Role::Gateway.at(GATEWAY_PORT), &mut Ids::default());
    assert_mirrored(&world, &watch, &sent);
    let points = mirror_tests::bpf::attached_in(&world.lab.gateway).unwrap();
    assert!(points.len() >= 2, "{points:?}");
    wait::until_true("the node has none", LIMIT, || {
        mirror_tests::bpf::attached_in(&world.lab.node).unwrap().is_empty()
    })
    .unwrap();
    watch.end();
}
