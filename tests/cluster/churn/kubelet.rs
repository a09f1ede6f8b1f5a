//! Pods of real kubelets, on all nodes, beside the daemons of `deploy/`.

use std::time::Instant;

use anyhow::{Result, ensure};
use mirror_tests::daemon::attach_times_ms;
use mirror_tests::footprint::Footprint;
use mirror_tests::kube::pod::Pod;
use mirror_tests::kube::{Cluster, is_long_run, say};
use serde_json::json;

use super::{Namespace, Pods, as_before, report, without_pods};
use crate::daemon;

/// Waves, each on all nodes; one comes while the one before goes.
const WAVES: usize = 4;

/// Pods of a wave: in every run (20 in all), and in the long one (60 in all).
const WAVE: usize = 5;
const WAVE_LONG: usize = 15;

/// What the daemons' processes are called; the others of their pods are the sandbox's.
const PROCESSES: [&str; 2] = ["mirror-daemon", "mirror-parser"];

#[test]
fn waves_of_pods_of_kubelets_leave_nothing_behind_at_cgroups() -> Result<()> {
    let test = "waves_of_pods_of_kubelets_leave_nothing_behind_at_cgroups";
    let Some(cluster) = Cluster::alone_or_skip(test) else { return Ok(()) };
    waves_of_pods(&cluster, "cgroup")
}

#[test]
fn waves_of_pods_of_kubelets_leave_nothing_behind_at_interfaces() -> Result<()> {
    let test = "waves_of_pods_of_kubelets_leave_nothing_behind_at_interfaces";
    if !is_long_run() {
        say(&format!("skipped {test}: it is for --long"));
        return Ok(());
    }
    let Some(cluster) = Cluster::alone_or_skip(test) else { return Ok(()) };
    waves_of_pods(&cluster, "interface")
}

fn waves_of_pods(cluster: &Cluster, overlay: &str) -> Result<()> {
    let wave = if is_long_run() { WAVE_LONG } else { WAVE };
    let scene = Scene::new(cluster, overlay)?;
    // A first pod on each node, so that all is there that a daemon keeps.
    scene.scale("first", cluster.nodes as usize)?;
    scene.attached(cluster.nodes as usize, 0)?;
    scene.scale("first", 0)?;
    scene.attached(0, cluster.nodes as usize)?;
    let before = scene.footprints()?;
    let begun = Instant::now();
    let mut ever = cluster.nodes as usize;
    for number in 0..WAVES {
        if let Some(last) = number.checked_sub(1) {
            scene.scale(&last.to_string(), 0)?;
        }
        scene.scale(&number.to_string(), wave)?;
        scene.attached(wave, ever)?;
        ever += wave;
    }
    scene.scale(&(WAVES - 1).to_string(), 0)?;
    scene.attached(0, ever)?;
    let elapsed = begun.elapsed();
    for (pids, before) in &before {
        as_before(pids, before)?;
    }
    ensure!(scene.daemons()? == scene.daemons, "the daemons' pods are others, or were started again");
    let what = format!(
        "{} pods of kubelets in {WAVES} waves, {:.0} s ({overlay})",
        WAVES * wave,
        elapsed.as_secs_f64()
    );
    report(&what, ever, &scene.attach_times_ms()?)
}

/// The daemons and the namespace of their gateways; all of it goes at Drop.
struct Scene<'a> {
    cluster: &'a Cluster,
    overlay: &'a str,
    namespace: Namespace<'a>,
    daemons: Vec<Pod>,
}

impl<'a> Scene<'a> {
    fn new(cluster: &'a Cluster, overlay: &'a str) -> Result<Self> {
        let namespace = Namespace::new(cluster, &format!("churn-{overlay}"))?;
        let mut scene = Self { cluster, overlay, namespace, daemons: Vec::new() };
        for wave in (0..WAVES).map(|number| number.to_string()).chain(["first".to_owned()]) {
            cluster.apply(&scene.deployment(&wave))?;
        }
        let toml = format!(
            "[capture]\nports = [8080]\n\
             kubernetes = {{ namespace = \"{}\", selector = \"app=gateway\", attach = \"{overlay}\" }}\n\
             [admin]\nlisten = \"0.0.0.0:9900\"\n\
             [[shadow]]\nname = \"nowhere\"\nurl = \"http://127.0.0.1:9\"\n\
             [[route]]\n[[route.rule]]\nmirror = [{{ shadow = \"nowhere\" }}]\n",
            scene.namespace.name
        );
        daemon::apply(cluster, overlay, &toml)?;
        scene.daemons = scene.daemons()?;
        Ok(scene)
    }

    fn daemons(&self) -> Result<Vec<Pod>> {
        (1..=self.cluster.nodes).map(|node| daemon::on_node(self.cluster, node)).collect()
    }

    fn scale(&self, wave: &str, pods: usize) -> Result<()> {
        let (deployment, replicas) = (format!("deployment/gateway-{wave}"), format!("--replicas={pods}"));
        self.cluster.kubectl(["scale", "-n", &self.namespace.name, &deployment, &replicas]).map(drop)
    }

    /// Waits until all daemons together have so many pods attached, these new since so many ever were, and no other.
    fn attached(&self, pods: usize, ever: usize) -> Result<()> {
        self.cluster.eventually(&format!("{pods} pods are attached"), || {
            let mut sum = Pods::default();
            for pod in &self.daemons {
                let own = Pods::of(&daemon::metrics(self.cluster, pod)?);
                sum.attached += own.attached;
                sum.others += own.others;
                sum.ever += own.ever;
            }
            let is_so = sum.attached == pods as f64 && sum.others == 0.0 && sum.ever >= (ever + pods) as f64;
            ensure!(is_so, "{sum:?}, and {ever} were before");
            Ok(Some(()))
        })
    }

    /// What each daemon's processes hold, the attacher's first.
    fn footprints(&self) -> Result<Vec<(Vec<u32>, Footprint)>> {
        let of = |pod: &Pod| {
            let pids = processes(pod)?;
            let footprint = without_pods(&pids)?;
            Ok((pids, footprint))
        };
        self.daemons.iter().map(of).collect()
    }

    fn attach_times_ms(&self) -> Result<Vec<u64>> {
        let mut all = Vec::new();
        for pod in &self.daemons {
            all.extend(attach_times_ms(&daemon::log(self.cluster, pod)?));
        }
        all.sort_unstable();
        Ok(all)
    }

    /// Gateways that do nothing, as many on each node.
    fn deployment(&self, wave: &str) -> String {
        let labels = json!({ "app": "gateway", "wave": wave });
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": { "namespace": self.namespace.name, "name": format!("gateway-{wave}") },
            "spec": {
                "replicas": 0,
                "selector": { "matchLabels": labels },
                "template": {
                    "metadata": { "labels": labels },
                    "spec": {
                        "topologySpreadConstraints": [{
                            "maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
                            "whenUnsatisfiable": "DoNotSchedule",
                            "labelSelector": { "matchLabels": labels }
                        }],
                        "automountServiceAccountToken": false,
                        "terminationGracePeriodSeconds": 1,
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
}

impl Drop for Scene<'_> {
    fn drop(&mut self) {
        drop(daemon::remove_all(self.cluster, self.overlay));
    }
}

/// A daemon's processes, the attacher first.
fn processes(pod: &Pod) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for pid in pod.pids()? {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let place = PROCESSES.iter().position(|known| *known == name.trim());
        found.extend(place.map(|place| (place, pid)));
    }
    found.sort_unstable();
    let places: Vec<usize> = found.iter().map(|(place, _)| *place).collect();
    ensure!(places == [0, 1], "processes of {}: {found:?}", pod.name);
    Ok(found.into_iter().map(|(_, pid)| pid).collect())
}
