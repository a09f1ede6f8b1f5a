//! The API server goes away under load, or refuses: capture goes on, and what changes afterwards is taken.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use mirror_tests::daemon::Metrics;
use mirror_tests::kube::Cluster;
use mirror_tests::kube::pod::Pod;
use mirror_tests::kube::say;
use mirror_tests::wait;
use serde_json::{Value, json};

use super::changes::{rules_are_known, set_mirror, set_percentage};
use super::gateways::{balanced, quiet, told_losses};
use super::probe::{Change, Share, all_fare, takes_effect};
use super::{ALL, Life, load};
use crate::{daemon, guide};

/// To each gateway.
const PER_SECOND: f64 = 50.0;

/// How long the API server is away once all watches have noticed.
const AWAY: Duration = Duration::from_secs(10);

/// How long it refuses once all watches have noticed.
const REFUSED: Duration = Duration::from_secs(5);

/// What allows the daemon to watch.
const BINDINGS: [&str; 2] = ["mirror-daemon-pods", "mirror-daemon-routes"];

/// The kinds that rules are made of.
const KINDS: [&str; 5] = ["HTTPRoute", "ReferenceGrant", "RouteOption", "Upstream", "Service"];

#[test]
fn api_server_is_killed_under_load_and_capture_goes_on_and_changes_are_taken_afterwards() -> Result<()> {
    let test = "api_server_is_killed_under_load_and_capture_goes_on_and_changes_are_taken_afterwards";
    let Some(cluster) = Cluster::alone_or_skip(test) else { return Ok(()) };
    let (life, daemons) = start(&cluster)?;
    let away = under_load(&life, &daemons, || {
        cluster.kill("kube-apiserver")?;
        let away = goes_on(&life, &daemons, AWAY, |metrics| watches_are(metrics, "unreachable", "failing"));
        cluster.start("kube-apiserver")?;
        away?;
        watches_resume(&life, &daemons)
    });
    away?;
    changes_are_taken(&life, &daemons)
}

#[test]
fn rights_are_taken_away_and_given_back_and_the_daemon_says_so_and_goes_on() -> Result<()> {
    let test = "rights_are_taken_away_and_given_back_and_the_daemon_says_so_and_goes_on";
    let Some(cluster) = Cluster::alone_or_skip(test) else { return Ok(()) };
    let (life, daemons) = start(&cluster)?;
    let bindings: Vec<Value> = BINDINGS.iter().map(|name| binding(&cluster, name)).collect::<Result<_>>()?;
    under_load(&life, &daemons, || {
        for name in BINDINGS {
            cluster.kubectl(["delete", "clusterrolebinding", name])?;
        }
        // Rights are looked at when a watch begins: the API server ends those that run when it ends.
        cluster.kill("kube-apiserver")?;
        cluster.start("kube-apiserver")?;
        let refused =
            goes_on(&life, &daemons, REFUSED, |metrics| watches_are(metrics, "forbidden", "forbidden"));
        let said = refused.and_then(|()| daemons.iter().try_for_each(|daemon| is_told(&life, daemon)));
        for binding in &bindings {
            cluster.apply(&binding.to_string())?;
        }
        said?;
        watches_resume(&life, &daemons)
    })?;
    changes_are_taken(&life, &daemons)
}

fn start(cluster: &Cluster) -> Result<(Life<'_>, Vec<Pod>)> {
    guide::manifests(cluster)?;
    let life = Life::start(cluster)?;
    cluster.apply(include_str!("../manifests/life-routes.yaml"))?;
    let daemons = life.deploy(ALL)?;
    rules_are_known(&life, &daemons)?;
    // The shadow is known by its address from now on: name servers follow the API server, too, in their own time.
    let (before, after) = (Share::All, Share::All);
    all_fare(
        &life,
        &daemons,
        Change { name: "option-to-begin-with", host: "option.example", before, after },
    )?;
    Ok((life, daemons))
}

/// Each request to each gateway is answered, and its copy by the shadow.
fn under_load(life: &Life<'_>, daemons: &[Pod], work: impl FnOnce() -> Result<()>) -> Result<()> {
    let netns = life.cluster.node(1);
    let running: Vec<_> =
        life.gateways.iter().map(|pod| load(pod.at(8080), PER_SECOND).start(&netns)).collect();
    let done = work();
    let mut sent = 0;
    for running in running {
        let report = running.stop()?;
        ensure!(report.good == report.sent, "{}", report.to_json());
        sent += report.sent;
    }
    done?;
    for daemon in daemons {
        quiet(life, daemon)?;
    }
    let copies = life
        .all_requests_at_shadow(daemons)?
        .iter()
        .filter(|request| request.target.starts_with("/load"))
        .count();
    let lost = told_losses(life, daemons)?;
    say(&format!("{sent} requests under load, {copies} at the shadow, {lost} lost by the ledgers"));
    ensure!(copies as u64 == sent && lost == 0.0, "{copies} of {sent} are at the shadow, {lost} lost");
    Ok(())
}

/// Waits until the watches of each daemon are in a state, and then so long while its ledger grows.
fn goes_on(
    life: &Life<'_>,
    daemons: &[Pod],
    lasting: Duration,
    are_seen: impl Fn(&Metrics) -> Result<()>,
) -> Result<()> {
    for daemon in daemons {
        life.cluster.eventually(&format!("{} tells how its watches are", daemon.node), || {
            are_seen(&daemon::metrics(life.cluster, daemon)?).map(Some)
        })?;
    }
    let metrics = |pod| daemon::metrics(life.cluster, pod);
    let before: Vec<Metrics> = daemons.iter().map(metrics).collect::<Result<_>>()?;
    let begun = Instant::now();
    let is_over = || begun.elapsed() >= lasting;
    wait::until_true("the API server is away for some time", lasting * 2, is_over)?;
    for (daemon, before) in daemons.iter().zip(before) {
        let now = metrics(daemon)?;
        let grown = |name| now.sum(name, &[]) - before.sum(name, &[]);
        let (requests, answers) = (grown("mirror_requests_total"), grown("mirror_answers_total"));
        let attached = now.sum("mirror_capture_points", &[("state", "attached")]);
        let tries = grown("mirror_rules_failures_total") + grown("mirror_pod_watch_failures_total");
        say(&format!(
            "{} for {lasting:?}: {requests} requests, {answers} answers of the shadow, {tries} tries",
            daemon.node
        ));
        ensure!(requests > 0.0 && answers > 0.0 && attached == 1.0, "{}", now.text());
        // Six watches, which wait for longer each time.
        ensure!(tries <= 6.0 * lasting.as_secs_f64(), "{tries} tries in {lasting:?}");
        balanced(life, daemon)?;
    }
    Ok(())
}

/// In these states are the watch of pods, and those of rules.
fn watches_are(metrics: &Metrics, pods: &str, rules: &str) -> Result<()> {
    ensure!(metrics.sum("mirror_pod_watch", &[("state", pods)]) == 1.0, "pods are not {pods}");
    for kind in KINDS {
        let state = [("kind", kind), ("state", rules)];
        ensure!(metrics.sum("mirror_rules_watch", &state) == 1.0, "{kind} is not {rules}");
    }
    Ok(())
}

fn watches_resume(life: &Life<'_>, daemons: &[Pod]) -> Result<()> {
    let begun = Instant::now();
    for daemon in daemons {
        life.cluster.eventually(&format!("{} watches again", daemon.node), || {
            watches_are(&daemon::metrics(life.cluster, daemon)?, "synchronised", "watching").map(Some)
        })?;
        say(&format!("{} watches again after {:.1} s", daemon.node, begun.elapsed().as_secs_f64()));
        let status = daemon::page(life.cluster, daemon, "/readyz")?;
        ensure!(status.0 == 200, "{status:?}");
    }
    Ok(())
}

/// Both rights are named, each once.
fn is_told(life: &Life<'_>, daemon: &Pod) -> Result<()> {
    let log = daemon::log(life.cluster, daemon)?;
    for words in [
        "give the daemon's ServiceAccount `list` and `watch` of pods",
        "may not watch httproutes of the API group \"gateway.networking.k8s.io\": give it a ClusterRole",
    ] {
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(words)).collect();
        ensure!(lines.len() == 1, "{words:?} is said {} times:\n{log}", lines.len());
        say(&format!("{}: {}", daemon.node, lines[0]));
    }
    Ok(())
}

/// Rules that change, and a gateway that comes, after all of it.
fn changes_are_taken(life: &Life<'_>, daemons: &[Pod]) -> Result<()> {
    let effect = |change, make: &dyn Fn() -> Result<()>| {
        takes_effect(life, daemons, change, || {
            make()?;
            Ok(vec![Instant::now(); daemons.len()])
        })
    };
    let (before, after) = (Share::None, Share::All);
    let filter = Change { name: "route-mirrors-afterwards", host: "filter.example", before, after };
    effect(filter, &|| set_mirror(life.cluster, 100))?;
    let (before, after) = (after, before);
    let option = Change { name: "option-at-0-percent-afterwards", host: "option.example", before, after };
    effect(option, &|| set_percentage(life.cluster, 0))?;

    life.cluster.kubectl(["rollout", "restart", "-n", "life", "deployment/gateway"])?;
    life.cluster.rolled_out("life", "deployment/gateway")?;
    for gateway in life.gateways_now()? {
        let there =
            daemons.iter().find(|daemon| daemon.node == gateway.node).context("a daemon on each node")?;
        let name = format!("pod=\"life/{}\"", gateway.name);
        life.cluster.eventually(&format!("{} is captured", gateway.name), || {
            let log = daemon::log(life.cluster, there)?;
            let is_told = log.lines().any(|line| line.contains("pod is captured") && line.contains(&name));
            Ok(is_told.then_some(()))
        })?;
    }
    assert_eq!(life.daemons()?, daemons, "the same daemons, never started again");
    Ok(())
}

/// A binding as it can be applied again.
fn binding(cluster: &Cluster, name: &str) -> Result<Value> {
    let found = cluster.get(&["clusterrolebinding", name])?;
    Ok(json!({
        "apiVersion": found["apiVersion"], "kind": found["kind"], "metadata": { "name": name },
        "roleRef": found["roleRef"], "subjects": found["subjects"]
    }))
}
