//! The daemon of `deploy/` beside gateways of the test's own, whose access logs are on the nodes.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use mirror_tests::client::Connection;
use mirror_tests::kube::Cluster;
use mirror_tests::kube::pod::Pod;

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

/// Gateways, app and shadow; they go at Drop.
struct Life<'a> {
    cluster: &'a Cluster,
    /// In the order of nodes: one on each.
    gateways: Vec<Pod>,
}

/// A request as an nginx has written it down.
#[derive(Debug)]
struct Logged {
    host: String,
    target: String,
    user: String,
}

impl<'a> Life<'a> {
    fn start(cluster: &'a Cluster) -> Result<Self> {
        let mut life = Self { cluster, gateways: Vec::new() };
        cluster.apply(include_str!("manifests/life.yaml"))?;
        cluster.rolled_out("life", "deployment/gateway")?;
        cluster.rolled_out("life-shadow", "deployment/shadow")?;
        life.gateways = cluster.pods("life", "app=gateway")?;
        life.gateways.sort_by(|one, other| one.node.cmp(&other.node));
        let nodes: Vec<&str> = life.gateways.iter().map(|pod| pod.node.as_str()).collect();
        ensure!(nodes == ["node-1", "node-2"], "gateways are on {nodes:?}");
        Ok(life)
    }

    /// What this pod's nginx was asked.
    fn requests_at(&self, pod: &Pod) -> Result<Vec<Logged>> {
        let dir = self.cluster.node_var(pod.node_number()?, "log").join("life").join(&pod.name);
        let text = std::fs::read_to_string(dir.join("access"))?;
        text.lines().map(|line| Logged::of(line).with_context(|| line.to_owned())).collect()
    }

    fn requests_at_shadow(&self) -> Result<Vec<Logged>> {
        let pod = self.cluster.pods("life-shadow", "app=shadow")?.pop().context("the shadow runs")?;
        self.requests_at(&pod)
    }
}

impl Drop for Life<'_> {
    fn drop(&mut self) {
        let names = ["delete", "namespace", daemon::NAMESPACE, "life", "life-shadow", "--ignore-not-found"];
        drop(daemon::remove(self.cluster));
        drop(self.cluster.kubectl(names));
        for node in 1..=self.cluster.nodes {
            drop(std::fs::remove_dir_all(self.cluster.node_var(node, "log").join("life")));
        }
    }
}

impl Logged {
    /// `$msec $request_time $status $http_host $request_uri $http_x_user`.
    fn of(line: &str) -> Option<Self> {
        let mut words = line.split(' ').skip(3).map(str::to_owned);
        Some(Self { host: words.next()?, target: words.next()?, user: words.next()? })
    }
}

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
    let logged: usize =
        life.gateways.iter().map(|pod| life.requests_at(pod).map(|all| all.len())).sum::<Result<_>>()?;
    assert_eq!((seen, logged), (2 * USERS as u64, 2 * USERS), "both ledgers, both access logs");

    let at_shadow = life.requests_at_shadow()?;
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
    println!("{} of {USERS} users are mirrored, the same on both nodes", one.len());
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
