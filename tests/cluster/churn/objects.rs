//! Pods that are objects and no more, on a node that is one, with cgroups of the test's own: as fast as an API server
//! takes them.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use mirror_tests::cgroup::Cgroup;
use mirror_tests::daemon::{Daemon, attach_times_ms};
use mirror_tests::kube::{Cluster, LIMIT, is_long_run};
use mirror_tests::wait;
use serde_json::{Value, json};

use super::{Namespace, Pods, as_before, report, without_pods};

/// The node. Without the label that DaemonSets ask for, and tainted, so that no pod of another test comes to it.
const NODE: &str = "churn";

const NAMESPACE: &str = "churn-objects";

/// One wave every three seconds is 200 pods a minute.
const WAVE: usize = 10;
const PACE: Duration = Duration::from_secs(3);

/// Pods in all: in every run, and in the long one.
const PODS: usize = 60;
const PODS_LONG: usize = 400;

struct Objects<'a> {
    cluster: &'a Cluster,
    namespace: Namespace<'a>,
    tree: Cgroup,
}

impl<'a> Objects<'a> {
    fn new(cluster: &'a Cluster) -> Result<Self> {
        let namespace = Namespace::new(cluster, NAMESPACE)?;
        let node = json!({
            "apiVersion": "v1", "kind": "Node", "metadata": { "name": NODE },
            "spec": { "taints": [{ "key": "mirror.test/no-kubelet", "effect": "NoSchedule" }] }
        });
        cluster.apply(&node.to_string())?;
        let tree = Cgroup::new()?;
        std::fs::create_dir_all(tree.path().join("kubepods/burstable"))?;
        Ok(Self { cluster, namespace, tree })
    }

    /// A daemon of this machine for that node, with the cluster's API server; it mirrors to nowhere.
    fn daemon(&self) -> Result<Daemon> {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
        let toml = format!(
            "[capture]\nports = [8080]\n\
             kubernetes = {{ namespace = \"{NAMESPACE}\", selector = \"app=gateway\" }}\n\
             [[shadow]]\nname = \"nowhere\"\nurl = \"http://{nowhere}\"\n\
             [[route]]\n[[route.rule]]\nmirror = [{{ shadow = \"nowhere\" }}]\n"
        );
        let kubeconfig = self.cluster.kubeconfig();
        Daemon::start_with(&self.cluster.node(1), &toml, |launch| {
            launch.args(["--node-name", NODE]).env("KUBECONFIG", kubeconfig)
        })
    }

    /// These pods come, are attached, and go: half of them lose their cgroup before their object.
    fn wave(&self, daemon: &Daemon, numbers: Range<usize>) -> Result<()> {
        let mut manifest = String::new();
        for number in numbers.clone() {
            writeln!(manifest, "---\n{}", pod(number))?;
        }
        self.cluster.apply(&manifest)?;
        let mut cgroups: Vec<_> =
            self.uids()?.iter().map(|uid| self.cgroups_of(uid)).collect::<Result<_>>()?;
        ensure!(cgroups.len() == numbers.len(), "{} pods instead of {numbers:?}", cgroups.len());
        attached(daemon, numbers.len())?;
        let later = cgroups.split_off(numbers.len() / 2);
        drop(cgroups);
        let names = ["-n", &self.namespace.name, "--all", "--grace-period=0", "--force", "--wait=false"];
        self.cluster.kubectl(["delete", "pods"].iter().chain(&names))?;
        drop(later);
        attached(daemon, 0)
    }

    fn uids(&self) -> Result<Vec<String>> {
        let pods = self.cluster.get(&["pods", "-n", &self.namespace.name])?;
        let uid = |pod: &Value| pod["metadata"]["uid"].as_str().map(str::to_owned);
        Ok(pods["items"].as_array().into_iter().flatten().filter_map(uid).collect())
    }

    /// A container's and its pod's, which a kubelet would make.
    fn cgroups_of(&self, uid: &str) -> Result<(Cgroup, Cgroup)> {
        let pod = self.tree.below(&format!("kubepods/burstable/pod{uid}"))?;
        Ok((pod.below("c0ffee")?, pod))
    }
}

impl Drop for Objects<'_> {
    fn drop(&mut self) {
        drop(self.cluster.kubectl(["delete", "node", NODE, "--ignore-not-found", "--wait=false"]));
    }
}

#[test]
fn pods_at_two_hundred_a_minute_leave_nothing_behind() -> Result<()> {
    let test = "pods_at_two_hundred_a_minute_leave_nothing_behind";
    let Some(cluster) = Cluster::or_skip(test) else { return Ok(()) };
    let pods = if is_long_run() { PODS_LONG } else { PODS };
    let scene = Objects::new(&cluster)?;
    let daemon = scene.daemon()?;
    // The first wave, so that all is there that a daemon keeps.
    scene.wave(&daemon, 0..WAVE)?;
    let before = without_pods(&daemon.pids())?;
    let begun = Instant::now();
    for (number, first) in (WAVE..WAVE + pods).step_by(WAVE).enumerate() {
        // Not faster than that; a machine that is busy is slower.
        std::thread::sleep((PACE * number as u32).saturating_sub(begun.elapsed()));
        scene.wave(&daemon, first..first + WAVE)?;
    }
    let elapsed = begun.elapsed().max(PACE * (pods / WAVE) as u32);
    let per_minute = pods as f64 / elapsed.as_secs_f64() * 60.0;
    as_before(&daemon.pids(), &before)?;
    let took_ms = attach_times_ms(&daemon.output());
    report(&format!("{pods} pods without a kubelet, {per_minute:.0} a minute"), pods + WAVE, &took_ms)
}

/// Waits until the daemon has so many pods attached, and no other.
fn attached(daemon: &Daemon, pods: usize) -> Result<()> {
    let mut now = Pods::default();
    let there = wait::until(&format!("{pods} pods are attached"), LIMIT, || {
        now = Pods::of(&daemon.metrics()?);
        Ok((now.attached == pods as f64 && now.others == 0.0).then_some(()))
    });
    there.with_context(|| format!("{now:?}\n{}", daemon.output()))
}

fn pod(number: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "namespace": NAMESPACE, "name": format!("gw-{number}"), "labels": { "app": "gateway" } },
        "spec": {
            "nodeName": NODE, "automountServiceAccountToken": false,
            "tolerations": [{ "operator": "Exists" }],
            "containers": [{ "name": "gateway", "image": "localhost/pause:dev" }]
        }
    })
}
