//! The daemon of `deploy/` beside gateways of the test's own that come, go and carry load; their access logs are on the
//! nodes, and so outlive them.

mod api_server;
mod changes;
mod gateways;
mod nodes;
mod probe;
mod restarts;

use anyhow::{Context as _, Result, ensure};
use mirror_tests::client::Connection;
use mirror_tests::client::load::Load;
use mirror_tests::kube::Cluster;
use mirror_tests::kube::pod::Pod;
use mirror_tests::process::Launch;

use crate::{daemon, dns};

/// All requests for `life.example`, and what the cluster's routes say.
const ALL: &str = r#"
[capture]
kubernetes = { namespace = "life", selector = "app=gateway" }
ports = [8080]

[admin]
listen = "0.0.0.0:9900"

[kubernetes]
gateway_api = true

[[shadow]]
name = "life"
url = "http://shadow.life-shadow.svc.cluster.local:8080"

[[route]]
hosts = ["life.example"]
[[route.rule]]
mirror = [{ shadow = "life" }]
"#;

/// Gateways, app and shadow; they go at Drop.
struct Life<'a> {
    cluster: &'a Cluster,
    /// In the order of nodes: one on each.
    gateways: Vec<Pod>,
}

/// A request as an nginx has written it down.
#[derive(Debug)]
struct Logged {
    /// When its first byte was read, in seconds since 1970.
    began_s: f64,
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
        life.gateways = life.gateways_now()?;
        let nodes: Vec<&str> = life.gateways.iter().map(|pod| pod.node.as_str()).collect();
        ensure!(nodes == ["node-1", "node-2"], "gateways are on {nodes:?}");
        life.services_answer()?;
        Ok(life)
    }

    /// A Service is programmed some moments after its pods are ready, on each node; and its name may be known with the
    /// address that it had in another test.
    fn services_answer(&self) -> Result<()> {
        for (namespace, name) in [("life", "gateway"), ("life-shadow", "shadow")] {
            let service = self.cluster.service(namespace, name)?;
            for node in 1..=self.cluster.nodes {
                let netns = self.cluster.node(node);
                self.cluster.eventually(&format!("node-{node} reaches {name}"), || {
                    Connection::open(&netns, service).map(|_| Some(()))
                })?;
                dns::knows(self.cluster, node, (namespace, name), service.ip())?;
            }
        }
        Ok(())
    }

    /// Those that run now, in the order of nodes.
    fn gateways_now(&self) -> Result<Vec<Pod>> {
        let mut pods = self.cluster.pods("life", "app=gateway")?;
        pods.sort_by(|one, other| one.node.cmp(&other.node));
        Ok(pods)
    }

    /// Applies the daemon, and waits until every gateway is captured. Gives the daemons in the order of nodes.
    fn deploy(&self, toml: &str) -> Result<Vec<Pod>> {
        daemon::apply(self.cluster, "cgroup", toml)?;
        let daemons = self.daemons()?;
        for daemon in &daemons {
            self.captures(daemon, 1)?;
        }
        Ok(daemons)
    }

    /// In the order of nodes.
    fn daemons(&self) -> Result<Vec<Pod>> {
        (1..=self.cluster.nodes).map(|node| daemon::on_node(self.cluster, node)).collect()
    }

    /// Waits until a daemon captures so many gateways.
    fn captures(&self, pod: &Pod, gateways: usize) -> Result<()> {
        self.cluster.eventually(&format!("{gateways} gateways of {} are captured", pod.node), || {
            let metrics = daemon::metrics(self.cluster, pod)?;
            let attached = metrics.sum("mirror_capture_points", &[("state", "attached")]);
            ensure!(attached == gateways as f64, "{attached} are");
            Ok(Some(()))
        })
    }

    /// What this pod's nginx was asked.
    fn requests_at(&self, pod: &Pod) -> Result<Vec<Logged>> {
        self.requests_on(pod.node_number()?, &pod.name)
    }

    /// As [`Self::requests_at`], also of a pod that is no more.
    fn requests_on(&self, node: u32, pod: &str) -> Result<Vec<Logged>> {
        let text = std::fs::read_to_string(self.logs_of(node).join(pod).join("access"))?;
        text.lines().map(|line| Logged::of(line).with_context(|| line.to_owned())).collect()
    }

    fn requests_at_shadow(&self) -> Result<Vec<Logged>> {
        let pod = self.cluster.pods("life-shadow", "app=shadow")?.pop().context("the shadow runs")?;
        self.requests_at(&pod)
    }

    /// As [`Self::requests_at_shadow`], once all that it has answered is written down. `daemons`: all that there have been.
    fn all_requests_at_shadow(&self, daemons: &[Pod]) -> Result<Vec<Logged>> {
        self.cluster.eventually("the shadow has written all of its answers down", || {
            let answers = |pod| Ok(daemon::metrics(self.cluster, pod)?.sum("mirror_answers_total", &[]));
            let answered: f64 = daemons.iter().map(answers).sum::<Result<f64>>()?;
            let logged = self.requests_at_shadow()?;
            ensure!(logged.len() as f64 >= answered, "{answered} answers, {} are logged", logged.len());
            Ok(Some(logged))
        })
    }

    fn logs_of(&self, node: u32) -> std::path::PathBuf {
        self.cluster.node_var(node, "log").join("life")
    }
}

impl Drop for Life<'_> {
    fn drop(&mut self) {
        let overlay = format!("{}/cgroup", daemon::OVERLAYS);
        drop(daemon::remove(self.cluster));
        // With its roles; all namespaces end at the same time.
        drop(self.cluster.kubectl(["delete", "-k", &overlay, "--ignore-not-found", "--wait=false"]));
        let names = ["delete", "namespace", daemon::NAMESPACE, "life", "life-shadow", "--ignore-not-found"];
        drop(self.cluster.kubectl(names));
        for node in 1..=self.cluster.nodes {
            drop(std::fs::remove_dir_all(self.logs_of(node)));
        }
    }
}

impl Logged {
    /// `$msec $request_time $status $http_host $request_uri $http_x_user`.
    fn of(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split(' ').collect();
        let [ended, took, _status, host, target, user] = words.as_slice() else { return None };
        Some(Self {
            began_s: ended.parse::<f64>().ok()? - took.parse::<f64>().ok()?,
            host: (*host).to_owned(),
            target: (*target).to_owned(),
            user: (*user).to_owned(),
        })
    }
}

/// GETs of `/load?id=N` without end, so many a second, on a few connections that are kept.
fn load(to: std::net::SocketAddr, per_second: f64) -> Load {
    let shape = Load::new(to, "life.example", u64::MAX);
    Load { path: "/load".to_owned(), rate: Some(per_second), connections: 4, ..shape }
}

/// The time of a line of the daemon's log, in seconds since 1970.
fn time_of(line: &str) -> Result<f64> {
    let time = line.split_whitespace().next().context("an empty line")?;
    let seconds = Launch::new("date").args(["-u", "-d", time, "+%s.%N"]).run()?;
    seconds.trim().parse().with_context(|| line.to_owned())
}
