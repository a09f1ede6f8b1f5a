//! Selection by the gateway's cgroup: as the capture point itself, and by `sockops` beside interfaces.

use mirror_tests::cgroup::Cgroup;
use mirror_tests::client::Connection;
use mirror_tests::netns::Role;
use mirror_tests::nginx::{Nginx, NginxConfig};
use mirror_tests::privilege::root_or_skip;
use mirror_tests::server::{LogMode, TestApp};

use super::capture_points::send_some;
use super::corpus::{Ids, Sent};
use super::expected::{assert_mirrored, assert_same_as_production, assert_subset};
use super::rig::{GATEWAY_PORT, LIMIT, PRODUCTION_PORT, World};

/// Where the other gateway listens, which is not to be mirrored.
const OTHER_PORT: u16 = 8081;

fn nginx_in(world: &World, cgroup: &Cgroup, change: impl FnOnce(&mut NginxConfig)) -> Nginx {
    let listen = [Role::Gateway.at(GATEWAY_PORT), Role::Gateway.at_v6(GATEWAY_PORT)];
    let mut config = NginxConfig::new(listen, world.production.address());
    change(&mut config);
    Nginx::start_in_cgroup(&world.lab.gateway, &config, cgroup).unwrap()
}

#[test]
fn cgroup_of_nginx_mirrors_both_legs_across_namespaces() {
    if !root_or_skip("cgroup_of_nginx_mirrors_both_legs_across_namespaces") {
        return;
    }
    let world = World::new();
    let cgroup = Cgroup::new().unwrap();
    let downstream = nginx_in(&world, &cgroup, |_| {});
    let place = format!("cgroups = [\"{}\"]", cgroup.path().display());
    let mut ids = Ids::default();
    let watch = world.mirror_all(&format!("{place}\nports = [8080]")).also_at(cgroup.path());
    let mut sent = send_some(&world.lab.client, Role::Gateway.at(GATEWAY_PORT), &mut ids);
    sent.extend(send_some(&world.lab.client, Role::Gateway.at_v6(GATEWAY_PORT), &mut ids));
    assert_mirrored(&world, &watch, &sent);
    watch.end();

    drop(downstream);
    world.forget();
    let _upstream = nginx_in(&world, &cgroup, |_| {});
    let upstream = format!("{place}\nports = [8000]\nleg = \"upstream\"");
    let watch = world.mirror_all(&upstream).also_at(cgroup.path());
    let sent = send_some(&world.lab.client, Role::Gateway.at(GATEWAY_PORT), &mut ids);
    world.shadow.wait_for_requests(sent.len(), LIMIT).unwrap();
    assert_same_as_production(&world.production.requests(), &world.shadow.requests());
    watch.all_replayed(sent.len() as u64);
    watch.end();
}

#[test]
fn cgroup_of_nginx_mirrors_both_legs_over_the_loopback() {
    if !root_or_skip("cgroup_of_nginx_mirrors_both_legs_over_the_loopback") {
        return;
    }
    let mut world = World::new();
    let local = |port: u16| std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let cgroup = Cgroup::new().unwrap();
    world.production = TestApp::start(&world.lab.gateway, local(PRODUCTION_PORT), LogMode::Full).unwrap();
    let nginx = || nginx_in(&world, &cgroup, |config| config.listen = vec![local(GATEWAY_PORT)]);
    let downstream = nginx();
    // A second one in the same cgroup in front of the first: both ends of a connection are in the cgroup.
    let _front = nginx_in(&world, &cgroup, |config| {
        config.listen = vec![local(OTHER_PORT)];
        config.upstream = local(GATEWAY_PORT);
    });
    let place = format!("cgroups = [\"{}\"]", cgroup.path().display());
    let mut ids = Ids::default();
    let watch = world.mirror_all(&format!("{place}\nports = [8080]")).also_at(cgroup.path());
    let sent = send_some(&world.lab.gateway, local(GATEWAY_PORT), &mut ids);
    assert_mirrored(&world, &watch, &sent);
    world.forget();
    let count = sent.len();
    let sent = send_some(&world.lab.gateway, local(OTHER_PORT), &mut ids);
    let got = world.shadow.wait_for_requests(sent.len(), LIMIT).unwrap();
    assert_same_as_production(&world.production.requests(), &got);
    watch.all_replayed((count + sent.len()) as u64);
    watch.end();

    drop(downstream);
    world.forget();
    let _upstream = nginx();
    let upstream = format!("{place}\nports = [8000]\nleg = \"upstream\"");
    let watch = world.mirror_all(&upstream).also_at(cgroup.path());
    let sent = send_some(&world.lab.gateway, local(OTHER_PORT), &mut ids);
    world.shadow.wait_for_requests(sent.len(), LIMIT).unwrap();
    assert_same_as_production(&world.production.requests(), &world.shadow.requests());
    watch.all_replayed(sent.len() as u64);
    watch.end();
}

#[test]
fn only_the_gateway_of_the_cgroup_is_mirrored_beside_another_one() {
    if !root_or_skip("only_the_gateway_of_the_cgroup_is_mirrored_beside_another_one") {
        return;
    }
    let world = World::new();
    let cgroup = Cgroup::new().unwrap();
    let _nginx = nginx_in(&world, &cgroup, |_| {});
    let _other = world.nginx(|config| {
        config.listen = vec![Role::Gateway.at(OTHER_PORT), Role::Gateway.at_v6(OTHER_PORT)];
    });
    let capture = format!(
        "interfaces = [\"eth0\"]\nports = [8080, 8081]\ngateway_cgroups = [\"{}\"]",
        cgroup.path().display()
    );
    let watch = world.mirror_all(&capture).also_at(cgroup.path());
    let mut ids = Ids::default();
    let mut sent = send_some(&world.lab.client, Role::Gateway.at(GATEWAY_PORT), &mut ids);
    send_some(&world.lab.client, Role::Gateway.at(OTHER_PORT), &mut ids);
    // Many young connections of both, for the first data may come before the gateway has accepted.
    for round in 0..50 {
        let at = |port| if round % 2 == 0 { Role::Gateway.at(port) } else { Role::Gateway.at_v6(port) };
        let open = |port| Connection::open(&world.lab.client, at(port)).unwrap();
        let (mut ours, mut others) = (open(GATEWAY_PORT), open(OTHER_PORT));
        for _ in 0..2 {
            let (wanted, unwanted) = (Sent::get(ids.next()), Sent::post(ids.next(), 100));
            others.send(&unwanted.wire).unwrap();
            wanted.exchange(&mut ours);
            assert_eq!(others.read_answer().unwrap().status, 200);
            sent.push(wanted);
        }
    }
    assert_mirrored(&world, &watch, &sent);
    watch.end();
}

#[test]
fn only_connections_that_the_gateway_opens_are_mirrored_on_the_upstream_leg() {
    if !root_or_skip("only_connections_that_the_gateway_opens_are_mirrored_on_the_upstream_leg") {
        return;
    }
    let world = World::new();
    let cgroup = Cgroup::new().unwrap();
    let _nginx = nginx_in(&world, &cgroup, |config| config.upstream_keepalive = 1);
    let capture = format!(
        "interfaces = [\"eth0\"]\nports = [8000]\nleg = \"upstream\"\ngateway_cgroups = [\"{}\"]",
        cgroup.path().display()
    );
    let watch = world.mirror_all(&capture).also_at(cgroup.path());
    let mut ids = Ids::default();
    let through = send_some(&world.lab.client, Role::Gateway.at(GATEWAY_PORT), &mut ids);
    let by_gateway = world.production.requests();
    // Somebody else in the gateway's namespace, who is not the gateway.
    send_some(&world.lab.gateway, world.production.address(), &mut ids);
    world.shadow.wait_for_requests(through.len(), LIMIT).unwrap();
    watch.all_replayed(through.len() as u64);
    assert_same_as_production(&by_gateway, &world.shadow.requests());
    watch.end();
}

#[test]
fn connection_older_than_the_daemon_is_joined_and_does_not_disturb_young_ones() {
    if !root_or_skip("connection_older_than_the_daemon_is_joined_and_does_not_disturb_young_ones") {
        return;
    }
    let world = World::new();
    let cgroup = Cgroup::new().unwrap();
    let _nginx = nginx_in(&world, &cgroup, |_| {});
    let mut old = Connection::open(&world.lab.client, Role::Gateway.at(GATEWAY_PORT)).unwrap();
    let mut ids = Ids::default();
    Sent::get(ids.next()).exchange(&mut old);
    let capture = format!(
        "interfaces = [\"eth0\"]\nports = [8080]\ngateway_cgroups = [\"{}\"]",
        cgroup.path().display()
    );
    let watch = world.mirror_all(&capture).also_at(cgroup.path());
    let mut young = Connection::open(&world.lab.client, Role::Gateway.at(GATEWAY_PORT)).unwrap();
    let (mut of_old, mut of_young) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        for (connection, sent) in [(&mut old, &mut of_old), (&mut young, &mut of_young)] {
            let request = Sent::get(ids.next());
            request.exchange(connection);
            sent.push(request);
        }
    }
    // The old one was found among the gateway's sockets; a join spends two exchanges on its proof.
    let expected = of_young.len() + of_old.len() - 2;
    let got = world.shadow.wait_for_requests(expected, LIMIT).unwrap();
    let came = |sent: &Sent| got.iter().any(|request| request.id() == Some(sent.id));
    assert!(of_young.iter().all(came));
    assert!(of_old[2..].iter().all(came));
    assert_subset(&[of_young, of_old].concat(), &got);
    watch.end();
}
