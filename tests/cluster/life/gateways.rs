//! Gateways that come, move, go and are rolled out under load: what of it no daemon has seen.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mirror_tests::client::load::Load;
use mirror_tests::kube::Cluster;
use mirror_tests::kube::pod::Pod;
use mirror_tests::kube::say;

use super::probe::losses;
use super::{ALL, Life, load, time_of};
use crate::{daemon, guide};

/// Of the load; each request is looked for.
const PER_SECOND: f64 = 100.0;

/// A pod that has just gone answers nothing, and refuses nothing.
const PATIENCE: Duration = Duration::from_millis(500);

/// What one gateway was asked, by when its capture began.
#[derive(Debug)]
struct Books {
    /// From its capture to its first request, in seconds.
    margin_s: f64,
    before: usize,
    after: usize,
    /// Those after it that the shadow does not have.
    missing: Vec<String>,
}

/// Makes nodes take pods again at Drop.
struct Cordoned<'a>(&'a Cluster, &'a str);

impl Drop for Cordoned<'_> {
    fn drop(&mut self) {
        drop(self.0.kubectl(["uncordon", self.1]));
    }
}

#[test]
fn gateways_come_move_go_and_are_rolled_out_and_no_request_is_missing_once_they_are_captured() -> Result<()> {
    let test = "gateways_come_move_go_and_are_rolled_out_and_no_request_is_missing_once_they_are_captured";
    let Some(cluster) = Cluster::alone_or_skip(test) else { return Ok(()) };
    guide::manifests(&cluster)?;
    let life = Life::start(&cluster)?;
    let daemons = life.deploy(ALL)?;
    let service = cluster.service("life", "gateway")?;
    let steady = load(service, PER_SECOND);
    let shape = Load { connections: 16, connection_requests: Some(5), patience: PATIENCE, ..steady };
    let running = shape.start(&cluster.node(1));

    scale(&life, 4)?;
    move_away_and_back(&life, "node-2")?;
    let victim = life.gateways_now()?.pop().context("gateways run")?;
    cluster.kubectl(["delete", "pod", "-n", "life", &victim.name, "--force", "--grace-period=0"])?;
    gateways_run(&life, 4)?;
    cluster.kubectl(["rollout", "restart", "-n", "life", "deployment/gateway"])?;
    cluster.rolled_out("life", "deployment/gateway")?;
    scale(&life, 2)?;
    for daemon in &daemons {
        life.captures(daemon, life.gateways_now()?.iter().filter(|pod| pod.node == daemon.node).count())?;
    }

    let report = running.stop()?;
    let books = all_books(&life, &daemons)?;
    let sum = |of: fn(&Books) -> usize| books.values().map(of).sum::<usize>();
    let (before, after, missing) =
        (sum(|one| one.before), sum(|one| one.after), sum(|one| one.missing.len()));
    say(&format!(
        "{} gateways: {} requests sent, {} without an answer; {before} before their gateway was captured, {after} \
         after, of which {missing} are not at the shadow",
        books.len(),
        report.sent,
        report.failed + report.bad,
    ));
    let margin = books.values().map(|one| one.margin_s).fold(f64::INFINITY, f64::min);
    say(&format!("the first request of a gateway came {:.0} ms after its capture at least", margin * 1000.0));
    assert!(books.len() >= 10, "{books:?}");
    let dropped = told_losses(&life, &daemons)?;
    say(&format!("requests that ledgers have as lost: {dropped}"));
    assert!(missing as f64 <= dropped, "no ledger has {missing} requests: {books:#?}");
    assert_eq!(life.daemons()?, daemons, "the same daemons, never started again");
    Ok(())
}

fn scale(life: &Life<'_>, replicas: usize) -> Result<()> {
    let words = format!("--replicas={replicas}");
    life.cluster.kubectl(["scale", "-n", "life", "deployment/gateway", &words])?;
    gateways_run(life, replicas)
}

/// Waits until there are so many gateways, and all are ready. A roll-out's status alone may be that of before: it is told
/// by a controller that has not looked yet.
fn gateways_run(life: &Life<'_>, count: usize) -> Result<()> {
    life.cluster.eventually(&format!("{count} gateways run"), || {
        let running = life.gateways_now()?.len();
        ensure!(running == count, "{running} do");
        Ok(Some(()))
    })?;
    life.cluster.rolled_out("life", "deployment/gateway")
}

/// Makes the gateways of a node go to the other one, and come back.
fn move_away_and_back(life: &Life<'_>, node: &str) -> Result<()> {
    let cordoned = Cordoned(life.cluster, node);
    life.cluster.kubectl(["cordon", node])?;
    takes_pods(life, node, false)?;
    delete_on(life, |pod| pod.node == node)?;
    let left = life.gateways_now()?.into_iter().filter(|pod| pod.node == node).count();
    ensure!(left == 0, "{left} gateways are on {node} still");
    drop(cordoned);
    takes_pods(life, node, true)?;
    let mut half = 0;
    delete_on(life, |_| {
        half += 1;
        half % 2 == 0
    })?;
    let back = life.gateways_now()?.into_iter().filter(|pod| pod.node == node).count();
    ensure!(back > 0, "none has come back to {node}");
    Ok(())
}

/// Waits until the scheduler sees whether a node takes pods: a controller taints it, some moments after `kubectl cordon`.
fn takes_pods(life: &Life<'_>, node: &str, are_taken: bool) -> Result<()> {
    life.cluster.eventually(&format!("{node} is tainted, or no longer"), || {
        let found = life.cluster.get(&["node", node])?;
        let mut taints = found["spec"]["taints"].as_array().into_iter().flatten();
        let is_tainted = taints.any(|taint| taint["key"] == "node.kubernetes.io/unschedulable");
        Ok((is_tainted != are_taken).then_some(()))
    })
}

fn delete_on(life: &Life<'_>, mut chosen: impl FnMut(&Pod) -> bool) -> Result<()> {
    let all = life.gateways_now()?;
    let count = all.len();
    let names: Vec<String> = all.into_iter().filter(|pod| chosen(pod)).map(|pod| pod.name).collect();
    let words = ["delete", "pod", "-n", "life", "--wait"].map(str::to_owned);
    life.cluster.kubectl(words.into_iter().chain(names))?;
    gateways_run(life, count)
}

/// Waits until all copies are answered, then compares the access logs of all gateways that ever were with the shadow's.
fn all_books(life: &Life<'_>, daemons: &[Pod]) -> Result<BTreeMap<String, Books>> {
    for daemon in daemons {
        quiet(life, daemon)?;
    }
    let logged = life.all_requests_at_shadow(daemons)?;
    let at_shadow: BTreeSet<String> = logged.into_iter().map(|request| request.target).collect();
    let mut all = BTreeMap::new();
    for daemon in daemons {
        let captured = captured_at(&daemon::log(life.cluster, daemon)?)?;
        let node = daemon.node_number()?;
        for entry in std::fs::read_dir(life.logs_of(node))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if !name.starts_with("gateway-") {
                continue;
            }
            let since = captured.get(&name).with_context(|| format!("{name} was never captured"))?;
            let mut books = Books { margin_s: f64::INFINITY, before: 0, after: 0, missing: Vec::new() };
            for request in life.requests_on(node, &name)? {
                books.margin_s = books.margin_s.min(request.began_s - since);
                if request.began_s < *since {
                    books.before += 1;
                    continue;
                }
                books.after += 1;
                if !at_shadow.contains(&request.target) {
                    books.missing.push(format!("{request:?}"));
                }
            }
            all.insert(name, books);
        }
    }
    Ok(all)
}

/// Waits until no copy is under way.
pub(super) fn quiet(life: &Life<'_>, daemon: &Pod) -> Result<()> {
    let mut last = None;
    life.cluster.eventually(&format!("all copies of {} are answered", daemon.node), || {
        let metrics = daemon::metrics(life.cluster, daemon)?;
        let replayed = metrics.sum("mirror_copies_total", &[("outcome", "replayed")]);
        let answers = metrics.sum("mirror_answers_total", &[]);
        let seen = metrics.sum("mirror_requests_total", &[]);
        let is_quiet = metrics.sum("mirror_copies_open", &[]) == 0.0 && answers == replayed;
        let is_same = last.replace(seen) == Some(seen);
        Ok((is_quiet && is_same).then_some(()))
    })?;
    balanced(life, daemon)
}

/// The books of a daemon add up, and the kernel has lost nothing of them.
pub(super) fn balanced(life: &Life<'_>, daemon: &Pod) -> Result<()> {
    let ledger = daemon::ledger(life.cluster, daemon)?;
    ensure!(ledger["balanced"] == true && ledger["kernel_complete"] == true, "{}: {ledger:#}", daemon.node);
    Ok(())
}

/// When each pod was captured, by its name, in seconds since 1970.
fn captured_at(log: &str) -> Result<BTreeMap<String, f64>> {
    let mut all = BTreeMap::new();
    for line in log.lines().filter(|line| line.contains("pod is captured")) {
        let (_, rest) = line.split_once("pod=\"life/").with_context(|| line.to_owned())?;
        let (name, _) = rest.split_once('"').with_context(|| line.to_owned())?;
        all.insert(name.to_owned(), time_of(line)?);
    }
    Ok(all)
}

/// Requests and copies that the ledgers have, but not as mirrored.
pub(super) fn told_losses(life: &Life<'_>, daemons: &[Pod]) -> Result<f64> {
    let of = |daemon| daemon::metrics(life.cluster, daemon).map(|metrics| losses(&metrics));
    daemons.iter().map(of).sum()
}
