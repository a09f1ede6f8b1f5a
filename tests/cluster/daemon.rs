//! The daemon as its users apply it: `kubectl apply -k` of an overlay, with a `mirror.toml` of the test's own.
//!
//! There is one in the cluster: tests that apply it are alone ([`Cluster::alone_or_skip`]).

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use mirror_tests::cleanup::RunDir;
use mirror_tests::client;
use mirror_tests::daemon::Metrics;
use mirror_tests::kube::Cluster;
use mirror_tests::kube::pod::Pod;
use serde_json::Value;

/// Where the daemon's objects are.
pub(crate) const NAMESPACE: &str = "mirror-system";

/// What its pods carry.
pub(crate) const LABEL: &str = "app.kubernetes.io/name=mirror-daemon";

/// What its DaemonSet is called.
pub(crate) const DAEMON_SET: &str = "daemonset/mirror-daemon";

/// Where its pages are.
const ADMIN_PORT: u16 = 9900;

/// Ways to capture.
pub(crate) const OVERLAYS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/overlays");

/// Applies an overlay (`cgroup`, `interface`) with this `mirror.toml`, and waits until every node's daemon is rolled
/// out and ready. Daemons that run are ended before, so that all of them begin with it.
pub(crate) fn apply(cluster: &Cluster, overlay: &str, toml: &str) -> Result<()> {
    remove(cluster)?;
    let dir = RunDir::new()?;
    std::fs::write(dir.path().join("mirror.toml"), toml)?;
    std::fs::write(dir.path().join("kustomization.yaml"), kustomization(dir.path(), overlay)?)?;
    let path = dir.path().to_str().context("the path is no text")?;
    cluster.kubectl(["apply", "-k", path])?;
    ready(cluster)
}

/// Applies an overlay as it is, and waits as [`apply`] does.
pub(crate) fn apply_unchanged(cluster: &Cluster, overlay: &str) -> Result<()> {
    remove(cluster)?;
    let path = Path::new(OVERLAYS).join(overlay);
    cluster.kubectl(["apply", "-k", path.to_str().context("the path is no text")?])?;
    ready(cluster)
}

/// Waits until every node's daemon is rolled out and ready.
pub(crate) fn ready(cluster: &Cluster) -> Result<()> {
    let done = cluster.rolled_out(NAMESPACE, DAEMON_SET);
    done.with_context(|| {
        cluster.kubectl(["logs", "-n", NAMESPACE, "-l", LABEL, "--prefix", "--tail=20"]).unwrap_or_default()
    })
}

/// Ends all daemons, and waits until their pods are gone.
pub(crate) fn remove(cluster: &Cluster) -> Result<()> {
    let words =
        ["delete", DAEMON_SET, "-n", NAMESPACE, "--ignore-not-found", "--cascade=foreground", "--wait"];
    cluster.kubectl(words).map(drop)
}

/// Takes away everything that an overlay has brought, its namespace included, and waits until it is gone.
pub(crate) fn remove_all(cluster: &Cluster, overlay: &str) -> Result<()> {
    let path = Path::new(OVERLAYS).join(overlay);
    let path = path.to_str().context("the path is no text")?;
    cluster.kubectl(["delete", "-k", path, "--ignore-not-found", "--wait"]).map(drop)
}

/// The daemon's pod on a node.
pub(crate) fn on_node(cluster: &Cluster, number: u32) -> Result<Pod> {
    let node = format!("node-{number}");
    let found = cluster.pods(NAMESPACE, LABEL)?.into_iter().find(|pod| pod.node == node);
    found.with_context(|| format!("no daemon runs on {node}"))
}

/// A page of a daemon's pod: status and body.
pub(crate) fn page(cluster: &Cluster, pod: &Pod, path: &str) -> Result<(u16, String)> {
    let answer = client::get(&cluster.node(pod.node_number()?), pod.at(ADMIN_PORT), "localhost", path)?;
    Ok((answer.status, String::from_utf8_lossy(&answer.body).into_owned()))
}

/// Its metrics.
pub(crate) fn metrics(cluster: &Cluster, pod: &Pod) -> Result<Metrics> {
    let (status, text) = page(cluster, pod, "/metrics")?;
    ensure!(status == 200, "/metrics answers {status}");
    Ok(Metrics::of(text))
}

/// Its ledger.
pub(crate) fn ledger(cluster: &Cluster, pod: &Pod) -> Result<Value> {
    let (status, text) = page(cluster, pod, "/ledger")?;
    ensure!(status == 200, "/ledger answers {status}");
    serde_json::from_str(&text).with_context(|| text.clone())
}

/// What it has logged.
pub(crate) fn log(cluster: &Cluster, pod: &Pod) -> Result<String> {
    cluster.logs(pod, "mirror-daemon")
}

/// The objects of an overlay with a component.
pub(crate) fn with_component(cluster: &Cluster, overlay: &str, component: &str) -> Result<String> {
    let dir = RunDir::new()?;
    let overlay = relative(dir.path(), &Path::new(OVERLAYS).join(overlay))?;
    let component = relative(dir.path(), &Path::new(OVERLAYS).join("../components").join(component))?;
    let text = format!("resources: [{overlay}]\ncomponents: [{component}]\n");
    std::fs::write(dir.path().join("kustomization.yaml"), text)?;
    cluster.kubectl(["kustomize", dir.path().to_str().context("the path is no text")?])
}

/// The overlay as it is, with another file in its ConfigMap.
fn kustomization(dir: &Path, overlay: &str) -> Result<String> {
    let base = relative(dir, &Path::new(OVERLAYS).join(overlay))?;
    Ok(format!(
        "resources: [{base}]\nconfigMapGenerator:\n  - name: mirror-daemon\n    namespace: {NAMESPACE}\n    \
         behavior: replace\n    files: [mirror.toml]\ngeneratorOptions:\n  disableNameSuffixHash: true\n"
    ))
}

/// A directory as it is named from another one, as kustomize demands.
fn relative(from: &Path, to: &Path) -> Result<String> {
    let to = to.canonicalize().with_context(|| to.display().to_string())?;
    let up = "../".repeat(from.canonicalize()?.components().count().saturating_sub(1));
    Ok(format!("{up}{}", to.strip_prefix("/")?.display()))
}
