//! Daemons that are deleted, rolled out, killed and removed under load: production does not notice, and the node keeps
//! nothing of them.

use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use mirror_tests::bpf::{self, HeldObjects};
use mirror_tests::client::load::LoadReport;
use mirror_tests::kube::Cluster;
use mirror_tests::kube::pod::Pod;
use mirror_tests::kube::say;
use rustix::process::{Pid, Signal, kill_process};

use super::gateways::balanced;
use super::{ALL, Life, load};
use crate::{daemon, guide};

/// To each gateway.
const PER_SECOND: f64 = 100.0;

/// Requests to each gateway before the daemon is there.
const UNDISTURBED: u64 = 500;

/// A daemon's pod, and what is left to be asked of it when it is gone.
struct Witness {
    pod: Pod,
    held: HeldObjects,
    log: File,
}

impl Witness {
    fn of(cluster: &Cluster, pod: Pod) -> Result<Self> {
        let held = bpf::held_by(attacher(&pod)?)?;
        ensure!(!held.programs.is_empty() && !held.links.is_empty(), "{} holds {held:?}", pod.name);
        let Pod { namespace, name, uid, restarts, .. } = &pod;
        let dir = format!("{namespace}_{name}_{uid}/mirror-daemon/{restarts}.log");
        let log: PathBuf = cluster.node_var(pod.node_number()?, "log").join("pods").join(dir);
        let log = File::open(&log).with_context(|| log.display().to_string())?;
        Ok(Self { pod, held, log })
    }

    /// Waits until the kernel has nothing of it.
    fn left_nothing(&self, cluster: &Cluster) -> Result<()> {
        cluster.eventually(&format!("nothing is left of {}", self.pod.name), || {
            let left = bpf::still_loaded(&self.held);
            ensure!(left.is_empty(), "{left:?}");
            Ok(Some(()))
        })
    }

    /// The line by which it has closed its books.
    fn last_words(mut self) -> Result<String> {
        let mut log = String::new();
        self.log.read_to_string(&mut log)?;
        let line = log.lines().find(|line| line.contains("the books are closed"));
        Ok(line.with_context(|| format!("{} has not closed its books:\n{log}", self.pod.name))?.to_owned())
    }
}

#[test]
fn daemons_that_are_deleted_rolled_killed_and_removed_leave_production_alone_and_nothing_behind() -> Result<()>
{
    let test = "daemons_that_are_deleted_rolled_killed_and_removed_leave_production_alone_and_nothing_behind";
    let Some(cluster) = Cluster::alone_or_skip(test) else { return Ok(()) };
    guide::manifests(&cluster)?;
    let life = Life::start(&cluster)?;
    for gateway in &life.gateways {
        let mut alone = load(gateway.at(8080), PER_SECOND);
        alone.requests = UNDISTURBED;
        unharmed(gateway, "before there is a daemon", &alone.run(&cluster.node(1))?)?;
    }
    life.deploy(ALL)?;
    under_load(&life, "while a daemon is deleted", || is_deleted(&life, 1))?;
    under_load(&life, "while daemons are rolled out", || are_rolled(&life))?;
    under_load(&life, "while a daemon is killed", || is_killed(&life, 2))?;
    under_load(&life, "while daemons are removed", || are_removed(&life))?;
    assert_eq!(life.gateways_now()?, life.gateways, "the same gateways, never started again");
    Ok(())
}

/// Does it under load, and looks how production fared.
fn under_load(life: &Life<'_>, what: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let netns = life.cluster.node(1);
    let start = |pod: &Pod| load(pod.at(8080), PER_SECOND).start(&netns);
    let running: Vec<_> = life.gateways.iter().map(start).collect();
    let done = work();
    for (gateway, running) in life.gateways.iter().zip(running) {
        unharmed(gateway, what, &running.stop()?)?;
    }
    done
}

/// Each answer is 200, and no connection broke.
fn unharmed(gateway: &Pod, when: &str, report: &LoadReport) -> Result<()> {
    let [p50, p99, worst] = [0.5, 0.99, 1.0].map(|share| report.percentile_ms(share));
    say(&format!(
        "{} {when}: {} requests, p50 {p50:.1} ms, p99 {p99:.1} ms, at most {worst:.1} ms",
        gateway.node, report.sent
    ));
    ensure!(report.good == report.sent && report.sent > 0, "{when}: {}", report.to_json());
    Ok(())
}

fn witnesses(life: &Life<'_>) -> Result<Vec<Witness>> {
    life.daemons()?.into_iter().map(|pod| Witness::of(life.cluster, pod)).collect()
}

/// The daemon of a node captures, and sees what comes.
fn works(life: &Life<'_>, node: u32) -> Result<Pod> {
    let pod = daemon::on_node(life.cluster, node)?;
    life.captures(&pod, 1)?;
    let begun = mirrored(life, &pod)?;
    life.cluster
        .eventually(&format!("{} mirrors", pod.name), || Ok((mirrored(life, &pod)? > begun).then_some(())))?;
    Ok(pod)
}

fn mirrored(life: &Life<'_>, pod: &Pod) -> Result<f64> {
    Ok(daemon::metrics(life.cluster, pod)?.sum("mirror_answers_total", &[("result", "2xx")]))
}

fn is_deleted(life: &Life<'_>, node: u32) -> Result<()> {
    let witness = Witness::of(life.cluster, works(life, node)?)?;
    life.cluster.kubectl(["delete", "pod", "-n", daemon::NAMESPACE, &witness.pod.name, "--wait"])?;
    witness.left_nothing(life.cluster)?;
    say(&format!("deleted: {}", witness.last_words()?));
    daemon::ready(life.cluster)?;
    works(life, node).map(drop)
}

fn are_rolled(life: &Life<'_>) -> Result<()> {
    let before = witnesses(life)?;
    life.cluster.kubectl(["rollout", "restart", "-n", daemon::NAMESPACE, daemon::DAEMON_SET])?;
    daemon::ready(life.cluster)?;
    for witness in before {
        let after = works(life, witness.pod.node_number()?)?;
        ensure!(after.uid != witness.pod.uid && after.restarts == 0, "{after:?}");
        witness.left_nothing(life.cluster)?;
        say(&format!("rolled: {}", witness.last_words()?));
    }
    Ok(())
}

/// SIGKILL of what holds the links.
fn is_killed(life: &Life<'_>, node: u32) -> Result<()> {
    let witness = Witness::of(life.cluster, works(life, node)?)?;
    let pid = i32::try_from(attacher(&witness.pod)?).ok().and_then(Pid::from_raw).context("no process id")?;
    kill_process(pid, Signal::KILL)?;
    witness.left_nothing(life.cluster)?;
    let pod = life.cluster.eventually("the kubelet starts it again", || {
        let pod = daemon::on_node(life.cluster, node)?;
        Ok((pod.restarts == 1 && daemon::page(life.cluster, &pod, "/readyz")?.0 == 200).then_some(pod))
    })?;
    ensure!(pod.uid == witness.pod.uid, "another pod has taken its place");
    works(life, node).map(drop)
}

fn are_removed(life: &Life<'_>) -> Result<()> {
    for node in 1..=life.cluster.nodes {
        balanced(life, &works(life, node)?)?;
    }
    let last = witnesses(life)?;
    daemon::remove(life.cluster)?;
    for witness in last {
        witness.left_nothing(life.cluster)?;
        say(&format!("removed: {}", witness.last_words()?));
    }
    for gateway in &life.gateways {
        let attached = bpf::attached_to_cgroup(&gateway.cgroup()?)?;
        let ours: Vec<_> = attached.iter().filter(|line| !line.contains("cgroup_device")).collect();
        ensure!(ours.is_empty(), "{ours:?}");
    }
    Ok(())
}

/// The process that holds programs and links, by this machine's process ids.
fn attacher(pod: &Pod) -> Result<u32> {
    let is_attacher = |pid: &u32| {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "mirror-daemon")
    };
    pod.pids()?.into_iter().find(is_attacher).with_context(|| format!("{} has no attacher", pod.name))
}
