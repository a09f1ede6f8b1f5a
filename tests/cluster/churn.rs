//! Many pods in a short time: nothing of those that are gone may stay with the daemon.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use mirror_tests::cgroup::Cgroup;
use mirror_tests::daemon::{Daemon, attach_times_ms, percentile};
use mirror_tests::footprint::Footprint;
use mirror_tests::kube::{Cluster, is_long_run};
use mirror_tests::wait;
use serde_json::{Value, json};

/// How long a wave may take to come or to go, on a machine that is busy.
const LIMIT: Duration = Duration::from_secs(180);

/// The node that has no kubelet. Without the label that DaemonSets ask for, and tainted, so that no pod of another
/// test comes to it.
const NODE: &str = "churn";

/// Of each of the tests here.
const OBJECTS: &str = "churn-objects";
const KUBELET: &str = "churn-kubelet";

/// One wave every three seconds is 200 pods a minute.
const WAVE: usize = 10;
const PACE: Duration = Duration::from_secs(3);

/// Pods in all: in every run, and in the long one.
const PODS: usize = 60;
const PODS_LONG: usize = 600;

/// How many pods of the kubelet's there are at once, wave by wave.
const WAVES: [usize; 3] = [4, 8, 12];
const WAVES_LONG: [usize; 3] = [20, 40, 60];

#[test]
fn pods_at_two_hundred_a_minute_leave_nothing_behind() -> Result<()> {
    let test = "pods_at_two_hundred_a_minute_leave_nothing_behind";
    let Some(cluster) = Cluster::or_skip(test) else { return Ok(()) };
    let pods = if is_long_run() { PODS_LONG } else { PODS };
    let scene = Objects::new(&cluster)?;
    let daemon = daemon(&cluster, NODE, OBJECTS, "")?;
    // The first wave, so that all is there that a daemon keeps.
    scene.wave(&daemon, 0..WAVE)?;
    let before = Footprint::of(&daemon.pids())?;
    let begun = Instant::now();
    for (number, first) in (WAVE..WAVE + pods).step_by(WAVE).enumerate() {
        let due = PACE * number as u32;
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
        scene.wave(&daemon, first..first + WAVE)?;
    }
    let per_minute = pods as f64 / begun.elapsed().as_secs_f64() * 60.0;
    as_before(&daemon, &before)?;
    report(&daemon, &format!("{pods} pods without a kubelet, {per_minute:.0} a minute"), pods + WAVE);
    Ok(())
}

#[test]
fn waves_of_pods_of_a_kubelet_leave_nothing_behind_at_cgroups() -> Result<()> {
    let test = "waves_of_pods_of_a_kubelet_leave_nothing_behind_at_cgroups";
    waves_of_pods(test, &format!("{KUBELET}-cgroup"), "")
}

#[test]
fn waves_of_pods_of_a_kubelet_leave_nothing_behind_at_interfaces() -> Result<()> {
    let test = "waves_of_pods_of_a_kubelet_leave_nothing_behind_at_interfaces";
    waves_of_pods(test, &format!("{KUBELET}-interface"), ", attach = \"interface\"")
}

/// Pods come in waves until all are there at once, are rolled out anew, and go.
fn waves_of_pods(test: &str, namespace: &str, how: &str) -> Result<()> {
    let Some(cluster) = Cluster::or_skip(test) else { return Ok(()) };
    let waves = if is_long_run() { WAVES_LONG } else { WAVES };
    let scene = Namespace::new(&cluster, namespace)?;
    cluster.apply(&deployment(namespace))?;
    let daemon = daemon(&cluster, "node-1", namespace, how)?;
    let scale = |pods: usize| {
        cluster.kubectl(["scale", "-n", namespace, "deployment/gateway", &format!("--replicas={pods}")])
    };
    scale(1)?;
    attached(&daemon, 1)?;
    scale(0)?;
    attached(&daemon, 0)?;
    let before = Footprint::of(&daemon.pids())?;
    for pods in waves {
        scale(pods)?;
        attached(&daemon, pods)?;
    }
    let [.., all] = waves;
    cluster.kubectl(["rollout", "restart", "-n", namespace, "deployment/gateway"])?;
    wait::until_true("new pods have taken the places of all", LIMIT, || {
        attach_times_ms(&daemon.output()).len() > 2 * all
    })?;
    attached(&daemon, all)?;
    scale(0)?;
    attached(&daemon, 0)?;
    as_before(&daemon, &before)?;
    report(&daemon, &format!("{} pods of a kubelet, {all} at once", 2 * all + 1), 2 * all + 1);
    drop(scene);
    Ok(())
}

/// A daemon for the pods of one node, with the cluster's API server; it mirrors to nowhere.
fn daemon(cluster: &Cluster, node: &str, namespace: &str, how: &str) -> Result<Daemon> {
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
    let toml = format!(
        "[capture]\nports = [8080]\npod_silent_after = \"1h\"\n\
         kubernetes = {{ namespace = \"{namespace}\", selector = \"app=gateway\"{how} }}\n\
         [[shadow]]\nname = \"nowhere\"\nurl = \"http://{nowhere}\"\n\
         [[route]]\n[[route.rule]]\nmirror = [{{ shadow = \"nowhere\" }}]\n"
    );
    Daemon::start_with(&cluster.node(1), &toml, |launch| {
        launch.env("KUBECONFIG", cluster.kubeconfig()).env("NODE_NAME", node)
    })
}

/// Waits until the daemon has so many pods attached, and no other.
fn attached(daemon: &Daemon, pods: usize) -> Result<()> {
    let of = |state: &str| Ok::<_, anyhow::Error>(daemon.metrics()?.sum("mirror_pods", &[("state", state)]));
    let there = wait::until(&format!("{pods} pods are attached"), LIMIT, || {
        let others = of("waiting")? + of("wanted")? + of("failed")?;
        Ok((of("attached")? == pods as f64 && others == 0.0).then_some(()))
    });
    there.with_context(|| daemon.output())
}

/// Waits until the daemon holds what it held before.
fn as_before(daemon: &Daemon, before: &Footprint) -> Result<()> {
    let is_same = || Ok((Footprint::of(&daemon.pids())? == *before).then_some(()));
    if let Err(late) = wait::until("nothing is left", Duration::from_secs(60), is_same) {
        bail!("{late}\nbefore {before:#?}\nnow {:#?}", Footprint::of(&daemon.pids())?);
    }
    Ok(())
}

/// Says how long it took from when a pod could be attached until it was.
fn report(daemon: &Daemon, what: &str, pods: usize) {
    let took = attach_times_ms(&daemon.output());
    assert!(took.len() >= pods, "{} of {pods} were captured:\n{}", took.len(), daemon.output());
    let (p50, p99) = (percentile(&took, 50), percentile(&took, 99));
    println!("{what}: attached after {p50} ms (p50), {p99} ms (p99)");
}

/// A namespace of a test's own; deleted on Drop, which nobody waits for.
struct Namespace<'a> {
    cluster: &'a Cluster,
    name: String,
}

impl<'a> Namespace<'a> {
    fn new(cluster: &'a Cluster, name: &str) -> Result<Self> {
        // One that a former run has left may still be going.
        cluster.kubectl(["delete", "namespace", name, "--ignore-not-found", "--wait", "--timeout=120s"])?;
        let object = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
        cluster.apply(&object.to_string())?;
        let namespace = Self { cluster, name: name.to_owned() };
        cluster.eventually("the namespace has its ServiceAccount", || {
            cluster.get(&["serviceaccount", "-n", name, "default"]).map(Some)
        })?;
        Ok(namespace)
    }
}

impl Drop for Namespace<'_> {
    fn drop(&mut self) {
        let delete = ["delete", "namespace", &self.name, "--ignore-not-found", "--wait=false"];
        drop(self.cluster.kubectl(delete));
    }
}

/// Pods that are objects and no more, on a node that is one, with cgroups of the test's own.
struct Objects<'a> {
    cluster: &'a Cluster,
    namespace: Namespace<'a>,
    tree: Cgroup,
}

impl<'a> Objects<'a> {
    fn new(cluster: &'a Cluster) -> Result<Self> {
        let namespace = Namespace::new(cluster, OBJECTS)?;
        let node = json!({
            "apiVersion": "v1", "kind": "Node", "metadata": { "name": NODE },
            "spec": { "taints": [{ "key": "mirror.test/no-kubelet", "effect": "NoSchedule" }] }
        });
        cluster.apply(&node.to_string())?;
        let tree = Cgroup::new()?;
        std::fs::create_dir_all(tree.path().join("kubepods/burstable"))?;
        Ok(Self { cluster, namespace, tree })
    }

    /// These pods come, are attached, and go: half of them lose their cgroup before their object.
    fn wave(&self, daemon: &Daemon, numbers: Range<usize>) -> Result<()> {
        let count = numbers.len();
        let name = &self.namespace.name;
        let mut manifest = String::new();
        for number in numbers {
            writeln!(manifest, "---\n{}", pod(name, number))?;
        }
        self.cluster.apply(&manifest)?;
        let pods = self.cluster.get(&["pods", "-n", name])?;
        let uids: Vec<&str> =
            pods["items"].as_array().into_iter().flatten().filter_map(|pod| pod["metadata"]["uid"].as_str()).collect();
        if uids.len() != count {
            bail!("{} pods instead of {count}: {pods:#}", uids.len());
        }
        let mut cgroups: Vec<(Cgroup, Cgroup)> = uids
            .iter()
            .map(|uid| {
                let pod = self.tree.below(&format!("kubepods/burstable/pod{uid}"))?;
                Ok((pod.below("c0ffee")?, pod))
            })
            .collect::<Result<_>>()?;
        attached(daemon, count)?;
        let later = cgroups.split_off(count / 2);
        drop(cgroups);
        self.cluster.kubectl([
            "delete", "pods", "-n", name, "--all", "--grace-period=0", "--force", "--wait=false",
        ])?;
        drop(later);
        attached(daemon, 0)
    }
}

impl Drop for Objects<'_> {
    fn drop(&mut self) {
        drop(self.cluster.kubectl(["delete", "node", NODE, "--ignore-not-found", "--wait=false"]));
    }
}

fn pod(namespace: &str, number: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "namespace": namespace, "name": format!("gw-{number}"), "labels": { "app": "gateway" } },
        "spec": {
            "nodeName": NODE, "automountServiceAccountToken": false,
            "tolerations": [{ "operator": "Exists" }],
            "containers": [{ "name": "gateway", "image": "localhost/pause:dev" }]
        }
    })
}

/// Gateways that do nothing, on the first node.
fn deployment(namespace: &str) -> String {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "namespace": namespace, "name": "gateway" },
        "spec": {
            "replicas": 0,
            "selector": { "matchLabels": { "app": "gateway" } },
            // All of them may be new at once.
            "strategy": { "rollingUpdate": { "maxSurge": "50%", "maxUnavailable": "50%" } },
            "template": {
                "metadata": { "labels": { "app": "gateway" } },
                "spec": {
                    "nodeSelector": { "kubernetes.io/hostname": "node-1" },
                    "automountServiceAccountToken": false,
                    "terminationGracePeriodSeconds": 0,
                    "containers": [{
                        "name": "gateway", "image": "localhost/pause:dev", "imagePullPolicy": "Never",
                        "resources": { "requests": { "cpu": "1m", "memory": "1Mi" } }
                    }]
                }
            }
        }
    })
    .to_string()
}
