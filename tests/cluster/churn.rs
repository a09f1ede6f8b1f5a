//! Many pods in a short time: nothing of those that are gone may stay with the daemon.

mod kubelet;
mod objects;

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use mirror_tests::daemon::{Metrics, percentile};
use mirror_tests::footprint::Footprint;
use mirror_tests::kube::{Cluster, say};
use mirror_tests::wait;
use serde_json::json;

/// How long what is left of pods that are gone may take to go: connections that wait for more, for one.
/// A connection to the API server is kept for a minute after its last use.
const LEFT_LIMIT: Duration = Duration::from_secs(180);

/// How often a footprint is looked at; each time is a few dozen processes.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How long a pod may take to be captured when it can be, in milliseconds: far beyond what it takes on a machine that
/// is busy.
const ATTACH_LIMIT_MS: u64 = 60_000;

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
        Ok(Self { cluster, name: name.to_owned() })
    }
}

impl Drop for Namespace<'_> {
    fn drop(&mut self) {
        let delete = ["delete", "namespace", &self.name, "--ignore-not-found", "--wait=false"];
        drop(self.cluster.kubectl(delete));
    }
}

/// How a daemon's pods stand.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Pods {
    attached: f64,
    /// Neither attached nor gone.
    others: f64,
    /// How many have ever been attached.
    ever: f64,
}

impl Pods {
    fn of(metrics: &Metrics) -> Self {
        let count = |state: &str| metrics.sum("mirror_pods", &[("state", state)]);
        Self {
            attached: count("attached"),
            others: count("waiting") + count("wanted") + count("failed") + count("left_out"),
            ever: metrics.sum("mirror_pod_attach_seconds_count", &[]),
        }
    }
}

/// What these processes hold when no pod is left; their links are taken off some moments after a pod is gone, and who
/// has just asked for a page may have a connection still.
fn without_pods(pids: &[u32]) -> Result<Footprint> {
    let mut last = None;
    wait::until("no link is left, and nothing changes", LEFT_LIMIT, || {
        std::thread::sleep(LOOK_EVERY);
        let now = Footprint::of(pids)?;
        let [links, _, _] = now.objects;
        let is_same = last.replace(now.clone()).as_ref() == Some(&now);
        Ok((links == 0 && is_same).then_some(now))
    })
}

/// Waits until these processes hold what they held before.
fn as_before(pids: &[u32], before: &Footprint) -> Result<()> {
    let mut now = Footprint::default();
    let same = wait::until("nothing is left of pods that are gone", LEFT_LIMIT, || {
        now = Footprint::of(pids)?;
        if now == *before {
            return Ok(Some(()));
        }
        std::thread::sleep(LOOK_EVERY);
        Ok(None)
    });
    if let Err(late) = same {
        bail!("{late:#}\nbefore {before:#?}\nnow {now:#?}");
    }
    Ok(())
}

/// Says how long it took from when a pod could be attached until it was, and that it took no longer than it may.
fn report(what: &str, pods: usize, took_ms: &[u64]) -> Result<()> {
    ensure!(took_ms.len() >= pods, "{} of {pods} pods were captured", took_ms.len());
    let (p50, p99) = (percentile(took_ms, 50), percentile(took_ms, 99));
    let longest = took_ms.last().context("no pods")?;
    say(&format!("{what}: attached after {p50} ms (p50), {p99} ms (p99), {longest} ms (longest)"));
    ensure!(p99 <= ATTACH_LIMIT_MS, "a pod may take {ATTACH_LIMIT_MS} ms");
    Ok(())
}
