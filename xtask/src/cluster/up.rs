//! Brings a cluster up.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use super::control_plane::{self, kubectl};
use super::layout::{DNS, Layout, MAX_NODES, node_name};
use super::node::Node;
use super::process::{self, Process};
use super::{binaries, down, images, network};
use crate::setup::{self, Impossible, Need};
use crate::{interrupt, run, wait};

const COREDNS: &str = include_str!("files/coredns.yaml");

/// How long nodes may take to be ready, on a machine that is busy.
const NODES_LIMIT: Duration = Duration::from_secs(180);

/// The same for DNS.
const DNS_LIMIT: Duration = Duration::from_secs(180);

/// Makes sure of everything that a cluster needs, with a line for each step.
///
/// # Errors
/// [`Impossible`] where this machine cannot have one; else when a step fails.
pub(crate) fn prepare(with_envoy_gateway: bool) -> Result<()> {
    setup::setup(&[Need::Kernel, Need::Cluster])?;
    check_namespaces()?;
    println!("cluster's programs");
    binaries::build(with_envoy_gateway)
}

/// Brings it up, in the place of one that may be there. One that does not come up is left for its logs to be read.
///
/// # Errors
/// When a step fails; the log that says why is named.
pub(crate) fn up(layout: &Layout, nodes: u32) -> Result<()> {
    if !(1..=MAX_NODES).contains(&nodes) {
        bail!("a cluster has 1 to {MAX_NODES} nodes here, and not {nodes}");
    }
    println!("cluster");
    if down::is_there(layout) {
        step("taking down the one that is there", || down::down(layout))?;
    }
    for dir in ["log", "processes", "images", "certs"] {
        let dir = layout.state().join(dir);
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    step("network", || network::make(layout, nodes))?;
    let started = step("containerd", || start_nodes(layout, nodes))?;
    step("control plane", || control_plane::start(layout))?;
    step("images", || load_into(layout, &started, &images::BASE))?;
    step("nodes", || {
        started.iter().try_for_each(Node::join)?;
        wait_for_nodes(layout, &started)
    })?;
    step("DNS", || start_dns(layout))?;
    write_record(layout, nodes)
}

/// Makes images and puts them into every node.
///
/// # Errors
/// When one can't be made, or a node does not take it.
pub(crate) fn load(layout: &Layout, names: &[&str]) -> Result<()> {
    load_into(layout, &recorded_nodes(layout)?, names)
}

/// Puts an archive that is there into every node.
///
/// # Errors
/// When a node does not take it.
pub(crate) fn load_archive(layout: &Layout, archive: &Path) -> Result<()> {
    recorded_nodes(layout)?.iter().try_for_each(|node| node.load(archive))
}

/// Applies a manifest.
///
/// # Errors
/// When the API server refuses it.
pub(crate) fn apply(layout: &Layout, manifest: &str) -> Result<()> {
    use std::io::Write as _;

    let mut command = kubectl(layout)?;
    command.args(["apply", "--server-side", "-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.stderr(Stdio::piped()).spawn().context("cannot start kubectl")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(manifest.as_bytes())?;
    }
    let done = child.wait_with_output()?;
    if !done.status.success() {
        bail!("the API server refuses a manifest: {}", String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(())
}

/// What a step takes, said when it is done.
pub(crate) fn step<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    interrupt::check()?;
    let begun = Instant::now();
    let done = work().with_context(|| format!("{name}: failed"))?;
    println!("  {:<10} {name} ({:.1} s)", "up", begun.elapsed().as_secs_f64());
    Ok(done)
}

fn recorded_nodes(layout: &Layout) -> Result<Vec<Node<'_>>> {
    let is_there = |node: &u32| layout.processes().join(node_name(*node)).exists();
    (1..=MAX_NODES).take_while(is_there).map(|node| Node::recorded(layout, node)).collect()
}

fn start_nodes(layout: &Layout, nodes: u32) -> Result<Vec<Node<'_>>> {
    let started: Vec<Node<'_>> = (1..=nodes).map(|node| Node::start(layout, node)).collect::<Result<_>>()?;
    started.iter().try_for_each(Node::wait_for_containerd)?;
    Ok(started)
}

fn load_into(layout: &Layout, nodes: &[Node<'_>], names: &[&str]) -> Result<()> {
    for name in names {
        let archive = images::write(layout, name)?;
        for node in nodes {
            interrupt::check()?;
            node.load(&archive)?;
        }
        // The nodes have it; it can be as large as a hundred megabytes.
        std::fs::remove_file(archive)?;
    }
    Ok(())
}

fn wait_for_nodes(layout: &Layout, nodes: &[Node<'_>]) -> Result<()> {
    let processes: Vec<Process> = nodes
        .iter()
        .flat_map(Node::process_names)
        .map(|name| Process::recorded(layout, &name))
        .collect::<Result<_>>()?;
    let template = "jsonpath={.items[*].status.conditions[?(@.type==\"Ready\")].status}";
    let waited = wait::until("all nodes are ready", NODES_LIMIT, || {
        interrupt::check()?;
        processes.iter().try_for_each(|process| process.still_runs())?;
        let said = run::ask(kubectl(layout)?.args(["get", "nodes", "-o", template])).unwrap_or_default();
        let ready = said.split_whitespace().filter(|word| *word == "True").count();
        Ok((ready == nodes.len()).then_some(()))
    });
    process::explained(waited, || {
        let ended: Vec<&Process> = processes.iter().filter(|process| !process.is_running()).collect();
        let kubelets = processes.iter().filter(|process| process.name.starts_with("kubelet"));
        let telling = if ended.is_empty() { kubelets.collect() } else { ended };
        telling.iter().map(|process| process.log_end(layout)).collect::<Vec<_>>().join("\n")
    })
}

fn start_dns(layout: &Layout) -> Result<()> {
    let manifest = COREDNS.replace("@DNS@", DNS).replace("@COREDNS@", &images::reference("coredns"));
    apply(layout, &manifest)?;
    let makers = ["kube-controller-manager", "kube-scheduler"].map(|name| Process::recorded(layout, name));
    let makers = makers.into_iter().collect::<Result<Vec<_>>>()?;
    let template = "jsonpath={.status.readyReplicas}";
    let waited = wait::until("CoreDNS is ready", DNS_LIMIT, || {
        interrupt::check()?;
        makers.iter().try_for_each(|process| process.still_runs())?;
        let mut ask = kubectl(layout)?;
        ask.args(["-n", "kube-system", "get", "deployment", "coredns", "-o", template]);
        Ok((run::ask(&mut ask).as_deref() == Some("1")).then_some(()))
    });
    process::explained(waited, || match makers.iter().find(|process| !process.is_running()) {
        Some(ended) => ended.log_end(layout),
        None => dns_events(layout).unwrap_or_default(),
    })
}

/// Why pods do not come up is in their events.
fn dns_events(layout: &Layout) -> Option<String> {
    let described = run::ask(kubectl(layout).ok()?.args(["-n", "kube-system", "describe", "pods"]))?;
    let events = described.lines().skip_while(|line| !line.starts_with("Events:"));
    Some(events.collect::<Vec<_>>().join("\n"))
}

/// What tests read to find their way, written last: so it says, too, that the cluster is up.
fn write_record(layout: &Layout, nodes: u32) -> Result<()> {
    let record = json!({
        "prefix": layout.prefix(),
        "nodes": nodes,
        "kubectl": binaries::dir()?.join("kubectl"),
        "kubeconfig": layout.kubeconfig(),
        "xtask": own_program()?,
        "gateway_api": binaries::gateway_api()?,
    });
    Ok(std::fs::write(layout.record(), format!("{record:#}\n"))?)
}

/// This program, also when a newer one has taken its place.
fn own_program() -> Result<String> {
    let path = std::env::current_exe()?.display().to_string();
    Ok(path.trim_end_matches(" (deleted)").to_owned())
}

/// A machine can be root's and still not allow this: a container without privileges.
fn check_namespaces() -> Result<()> {
    let mut trial = Command::new("unshare");
    trial.args(["--mount", "--uts", "--net", "true"]);
    if run::ask(&mut trial).is_some() {
        return Ok(());
    }
    let what = "this machine does not let root make mount, UTS and network namespaces";
    Err(Impossible::new(what, "run it on a machine, or in a container with all privileges").into())
}
