//! A gateway on each node: each daemon sees its own, and both decide alike.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use mirror_tests::client::Connection;
use mirror_tests::kube::Cluster;
use mirror_tests::kube::pod::Pod;
use mirror_tests::kube::say;

use super::Life;
use crate::daemon;

/// Half of the users, the same half wherever they arrive.
const HALF_OF_THE_USERS: &str = r#"
[capture]
kubernetes = { namespace = "life", selector = "app=gateway" }
ports = [8080]

[admin]
listen = "0.0.0.0:9900"

[[shadow]]
name = "life"
url = "http://shadow.life-shadow.svc.cluster.local:8080"

[[route]]
hosts = ["life.example"]
[[route.rule]]
mirror = [{ shadow = "life", percentage = 50, key = "header:X-User" }]
"#;

/// Requests to each gateway, each by a user of its own.
const USERS: usize = 200;

#[test]
fn each_nodes_daemon_captures_its_own_gateway_and_both_pick_the_same_users() -> Result<()> {
    let test = "each_nodes_daemon_captures_its_own_gateway_and_both_pick_the_same_users";
    let Some(cluster) = Cluster::alone_or_skip(test) else { return Ok(()) };
    let life = Life::start(&cluster)?;
    daemon::apply(&cluster, "cgroup", HALF_OF_THE_USERS)?;
    for gateway in &life.gateways {
        only_its_own_gateway_is_captured(&life, gateway)?;
        one_request_of_each_user(&cluster, gateway)?;
    }
    let mut seen = 0;
    for gateway in &life.gateways {
        seen += all_are_in_the_ledger(&cluster, gateway.node_number()?)?;
    }
    assert_eq!(seen, 2 * USERS as u64, "both ledgers");
    cluster.eventually("both gateways have written all requests down", || {
        let logged = life.gateways.iter().map(|pod| life.requests_at(pod).map(|all| all.len()));
        let logged: usize = logged.sum::<Result<_>>()?;
        ensure!(logged == 2 * USERS, "{logged} are");
        Ok(Some(()))
    })?;
    let at_shadow = life.all_requests_at_shadow(&life.daemons()?)?;
    let of_node = |node: &str| -> BTreeSet<&str> {
        let target = format!("/{node}");
        let asked = at_shadow.iter().filter(|request| request.target == target);
        asked.map(|request| request.user.as_str()).collect()
    };
    let (one, other) = (of_node("node-1"), of_node("node-2"));
    assert!(at_shadow.iter().all(|request| request.host == "life.example-shadow"), "{at_shadow:?}");
    assert_eq!(one, other, "the same users");
    assert_eq!(at_shadow.len(), one.len() + other.len(), "each once");
    // 200 tries at one half: six standard deviations are 42.
    assert!((58..=142).contains(&one.len()), "{} of {USERS} users", one.len());
    say(&format!("{} of {USERS} users are mirrored, the same on both nodes", one.len()));
    Ok(())
}

fn only_its_own_gateway_is_captured(life: &Life<'_>, gateway: &Pod) -> Result<()> {
    let (cluster, number) = (life.cluster, gateway.node_number()?);
    let what = format!("the gateway of node-{number} is captured");
    let pod = daemon::on_node(cluster, number)?;
    cluster.eventually(&what, || {
        let metrics = daemon::metrics(cluster, &pod)?;
        let points = metrics.sum("mirror_capture_points", &[("state", "attached")]);
        let pods = metrics.sum("mirror_pods", &[]);
        ensure!(points <= 1.0 && pods <= 1.0, "{points} points, {pods} pods");
        Ok((points == 1.0).then_some(()))
    })?;
    let log = daemon::log(cluster, &pod)?;
    for other in &life.gateways {
        let is_told = log.contains(&format!("pod=\"life/{}\"", other.name));
        ensure!(is_told == (other.uid == gateway.uid), "{} in the log of node-{number}:\n{log}", other.name);
    }
    ensure!(pod.restarts == 0, "the daemon was started again");
    Ok(())
}

fn one_request_of_each_user(cluster: &Cluster, gateway: &Pod) -> Result<()> {
    let mut connection = Connection::open(&cluster.node(gateway.node_number()?), gateway.at(8080))?;
    for user in 0..USERS {
        let target = &gateway.node;
        let head = format!("GET /{target} HTTP/1.1\r\nHost: life.example\r\nX-User: u{user}\r\n\r\n");
        let status = connection.exchange(head.as_bytes())?.status;
        ensure!(status == 200, "the gateway answers {status}");
    }
    Ok(())
}

/// Waits until a node's ledger has all its users' requests, each decided; gives the requests that it has seen.
fn all_are_in_the_ledger(cluster: &Cluster, number: u32) -> Result<u64> {
    let pod = daemon::on_node(cluster, number)?;
    let ledger = cluster.eventually(&format!("node-{number} has decided on all requests"), || {
        let ledger = daemon::ledger(cluster, &pod)?;
        let books = &ledger["shadows"]["life"];
        let count = |key: &str| books[key].as_u64().unwrap_or(0);
        let decided = count("replayed") + count("sampled_out");
        let answered = books["answered"]["2xx"].as_u64().unwrap_or(0);
        ensure!(count("dropped") + count("shed") == 0, "copies are missing: {books}");
        Ok((decided == USERS as u64 && answered == count("replayed")).then_some(ledger))
    })?;
    ensure!(ledger["balanced"] == true && ledger["kernel_complete"] == true, "{ledger:#}");
    let metrics = daemon::metrics(cluster, &pod)?;
    let seen = ledger["requests"]["seen"].as_u64().context("no count")?;
    ensure!(metrics.sum("mirror_requests_total", &[]) == seen as f64, "{}", metrics.text());
    Ok(seen)
}
