//! More than one ring and capture thread: every connection belongs to exactly one of them.

use mirror_tests::cgroup::Cgroup;
use mirror_tests::client::Connection;
use mirror_tests::netns::Role;
use mirror_tests::nginx::{Nginx, NginxConfig};
use mirror_tests::privilege::root_or_skip;
use mirror_tests::wait;

use super::corpus::{Ids, Sent};
use super::expected::assert_mirrored;
use super::rig::{GATEWAY_PORT, LIMIT, Watch, World};

/// Open at the same time.
const CONNECTIONS: usize = 300;

#[test]
fn with_two_shards_a_cgroups_connections_are_each_in_one() {
    if !root_or_skip("with_two_shards_a_cgroups_connections_are_each_in_one") {
        return;
    }
    let cgroup = Cgroup::new().unwrap();
    each_connection_is_in_one_shard(&cgroup, &format!("cgroups = [\"{}\"]", cgroup.path().display()));
}

#[test]
fn with_two_shards_selected_connections_are_each_in_one_whichever_interface_has_them() {
    if !root_or_skip("with_two_shards_selected_connections_are_each_in_one_whichever_interface_has_them") {
        return;
    }
    let cgroup = Cgroup::new().unwrap();
    let selected = format!("gateway_cgroups = [\"{}\"]", cgroup.path().display());
    each_connection_is_in_one_shard(&cgroup, &format!("interfaces = [\"eth0\"]\n{selected}"));
}

/// Opens and closes are told apart from the segments: each must reach the shard that has the segments, and no
/// other, or a connection would be known twice.
#[track_caller]
fn each_connection_is_in_one_shard(cgroup: &Cgroup, places: &str) {
    let world = World::new();
    let config = NginxConfig::new([Role::Gateway.at(GATEWAY_PORT)], world.production.address());
    let _nginx = Nginx::start_in_cgroup(&world.lab.gateway, &config, cgroup).unwrap();
    let capture = format!("{places}\nports = [8080]\nshards = 2");
    let watch = world.mirror_all(&capture).also_at(cgroup.path());
    let (mut ids, mut sent) = (Ids::default(), Vec::new());
    let mut connections: Vec<Connection> = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut connection = Connection::open(&world.lab.client, Role::Gateway.at(GATEWAY_PORT)).unwrap();
        for request in [Sent::get(ids.next()), Sent::post(ids.next(), 2000)] {
            request.exchange(&mut connection);
            sent.push(request);
        }
        connections.push(connection);
    }
    assert_mirrored(&world, &watch, &sent);
    wait_for_flows(&watch, CONNECTIONS, CONNECTIONS, 0);
    drop(connections);
    // An ended flow is remembered for a moment.
    wait_for_flows(&watch, 0, CONNECTIONS, CONNECTIONS);
    let books = watch.daemon.ledger().unwrap();
    let kernel = |counter: &str| books["kernel"][counter].as_u64().unwrap();
    assert_eq!((kernel("opened"), kernel("closed")), (CONNECTIONS as u64, CONNECTIONS as u64), "{books:#}");
    watch.end();
}

/// Waits until so many flows are known, so many were opened and so many finished.
#[track_caller]
fn wait_for_flows(watch: &Watch, known: usize, opened: usize, finished: usize) {
    let mut last = String::new();
    let waited = wait::until_true("the flows are counted", LIMIT, || {
        let (books, metrics) = (watch.daemon.ledger().unwrap(), watch.daemon.metrics().unwrap());
        let flow = |counter: &str| books["flow"][counter].as_u64().unwrap_or(u64::MAX);
        let counts = [metrics.sum("mirror_flows", &[]) as u64, flow("flows_opened"), flow("closed_finished")];
        last = format!("{counts:?} of {known}, {opened}, {finished}");
        counts == [known, opened, finished].map(|count| count as u64)
    });
    waited.unwrap_or_else(|failure| panic!("{failure:#}: {last}\n{}", watch.daemon.output()));
}
