//! What users change takes effect while requests pass: routes, percentages and grants in the cluster, and the
//! ConfigMap with the daemon's own file.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};
use mirror_tests::kube::pod::Pod;
use mirror_tests::kube::say;
use mirror_tests::kube::{Cluster, LIMIT};
use mirror_tests::wait;
use serde_json::{Value, json};

use super::probe::{Change, Share, all_fare, takes_effect};
use super::{ALL, Life};
use crate::{daemon, guide};

/// How often a kubelet is asked to look at the volumes of a pod.
const POKE_EVERY: Duration = Duration::from_secs(2);

#[test]
fn routes_percentages_and_grants_take_effect_within_two_seconds() -> Result<()> {
    let test = "routes_percentages_and_grants_take_effect_within_two_seconds";
    let Some(cluster) = Cluster::alone_or_skip(test) else { return Ok(()) };
    guide::manifests(&cluster)?;
    let life = Life::start(&cluster)?;
    cluster.apply(include_str!("../manifests/life-routes.yaml"))?;
    let daemons = life.deploy(ALL)?;
    rules_are_known(&life, &daemons)?;

    let (none, some, all) = (Share::None, Share::Some, Share::All);
    let filter = |name, before, after| Change { name, host: "filter.example", before, after };
    let option = |name, before, after| Change { name, host: "option.example", before, after };
    let effect = |change, make: &dyn Fn() -> Result<()>| {
        takes_effect(&life, &daemons, change, || {
            make()?;
            Ok(vec![Instant::now(); daemons.len()])
        })
    };
    let grants = include_str!("../manifests/life-routes.yaml");
    let upstream_grant = ["delete", "referencegrant", "-n", "life-shadow", "upstream"];
    let service_grant = ["delete", "referencegrant", "-n", "life-shadow", "service"];

    effect(filter("route-mirrors", none, all), &|| set_mirror(&cluster, 100))?;
    effect(filter("filter-at-30-percent", all, some), &|| set_mirror(&cluster, 30))?;
    effect(filter("filter-at-100-percent", some, all), &|| set_mirror(&cluster, 100))?;
    effect(filter("service-grant-deleted", all, none), &|| cluster.kubectl(service_grant).map(drop))?;
    effect(filter("service-grant-made-again", none, all), &|| cluster.apply(last_document(grants)))?;
    effect(filter("route-deleted", all, none), &|| {
        cluster.kubectl(["delete", "httproute", "-n", "life", "filter"]).map(drop)
    })?;
    effect(option("option-at-30-percent", all, some), &|| set_percentage(&cluster, 30))?;
    effect(option("option-at-0-percent", some, none), &|| set_percentage(&cluster, 0))?;
    effect(option("option-at-100-percent", none, all), &|| set_percentage(&cluster, 100))?;
    effect(option("upstream-grant-deleted", all, none), &|| cluster.kubectl(upstream_grant).map(drop))
}

#[test]
fn config_map_takes_effect_within_two_seconds_of_the_kubelets_update_and_a_wrong_one_is_refused() -> Result<()>
{
    let test = "config_map_takes_effect_within_two_seconds_of_the_kubelets_update_and_a_wrong_one_is_refused";
    let Some(cluster) = Cluster::alone_or_skip(test) else { return Ok(()) };
    guide::manifests(&cluster)?;
    let life = Life::start(&cluster)?;
    let daemons = life.deploy(ALL)?;
    rules_are_known(&life, &daemons)?;
    let host = "life.example";
    let nothing = ALL.replace(r#"shadow = "life""#, r#"shadow = "life", percentage = 0"#);
    let wrong = ALL.replace(r#"shadow = "life""#, r#"shadow = "life", percentage = 101"#);

    let change = Change { name: "config-map-at-0-percent", host, before: Share::All, after: Share::None };
    takes_effect(&life, &daemons, change, || update(&life, &daemons, &nothing))?;

    update(&life, &daemons, &wrong)?;
    for daemon in &daemons {
        is_refused(&life, daemon)?;
    }
    let change = Change { name: "config-map-is-wrong", host, before: Share::None, after: Share::None };
    all_fare(&life, &daemons, change)?;

    let change = Change { name: "config-map-is-right-again", host, before: Share::None, after: Share::All };
    takes_effect(&life, &daemons, change, || update(&life, &daemons, ALL))?;
    for daemon in &daemons {
        let metrics = daemon::metrics(&cluster, daemon)?;
        let state = ["mirror_config_last_reload_ok", "mirror_config_reload_failures_total"];
        assert_eq!(state.map(|name| metrics.sum(name, &[])), [1.0, 1.0], "{}", metrics.text());
    }
    assert_eq!(life.daemons()?, daemons, "the same pods, never started again");
    Ok(())
}

/// Waits until the daemons run with the cluster's rules.
pub(super) fn rules_are_known(life: &Life<'_>, daemons: &[Pod]) -> Result<()> {
    for daemon in daemons {
        life.cluster.eventually(&format!("{} knows the cluster's rules", daemon.node), || {
            let log = daemon::log(life.cluster, daemon)?;
            let is_taken = |line: &str| line.contains("configuration taken") && line.contains("the cluster");
            ensure!(log.lines().any(is_taken), "{log}");
            Ok(Some(()))
        })?;
    }
    Ok(())
}

/// Gives the route a mirror by a filter of the Gateway API.
pub(super) fn set_mirror(cluster: &Cluster, percent: u32) -> Result<()> {
    let backend = json!({ "name": "shadow", "namespace": "life-shadow", "port": 8080 });
    let mirror = json!({ "backendRef": backend, "percent": percent });
    let filters = json!([{ "type": "RequestMirror", "requestMirror": mirror }]);
    patch(
        cluster,
        "httproute",
        "filter",
        &json!([{ "op": "add", "path": "/spec/rules/0/filters", "value": filters }]),
    )
}

/// Changes the percentage of the route by a RouteOption.
pub(super) fn set_percentage(cluster: &Cluster, percentage: u32) -> Result<()> {
    let path = "/spec/options/shadowing/percentage";
    patch(cluster, "routeoption", "shadowing", &json!([{ "op": "add", "path": path, "value": percentage }]))
}

fn patch(cluster: &Cluster, kind: &str, name: &str, patch: &Value) -> Result<()> {
    let patch = patch.to_string();
    cluster.kubectl(["patch", kind, "-n", "life", name, "--type=json", "-p", &patch]).map(drop)
}

fn last_document(manifest: &str) -> &str {
    manifest.rsplit("\n---\n").next().unwrap_or(manifest)
}

/// Changes the ConfigMap. Gives the moments at which the kubelets have changed the files, in the order of nodes.
fn update(life: &Life<'_>, daemons: &[Pod], toml: &str) -> Result<Vec<Instant>> {
    let before: Vec<(PathBuf, PathBuf)> =
        daemons.iter().map(|pod| volume(life.cluster, pod)).collect::<Result<_>>()?;
    let metadata = json!({ "name": "mirror-daemon", "namespace": daemon::NAMESPACE });
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": { "mirror.toml": toml }
    });
    life.cluster.apply(&map.to_string())?;
    std::thread::scope(|scope| {
        let watched: Vec<_> =
            before.iter().map(|(link, target)| scope.spawn(move || swapped(link, target))).collect();
        while watched.iter().any(|thread| !thread.is_finished()) {
            // A kubelet looks at a pod's volumes once a minute, and whenever the pod changes.
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis();
            let poke = format!("life/poked={now}");
            let words =
                ["annotate", "pods", "-n", daemon::NAMESPACE, "-l", daemon::LABEL, "--overwrite", &poke];
            life.cluster.kubectl(words)?;
            let all = || watched.iter().all(std::thread::ScopedJoinHandle::is_finished);
            drop(wait::until_true("kubelets look", POKE_EVERY, all));
        }
        watched.into_iter().map(|thread| thread.join().ok().context("a watcher has panicked")?).collect()
    })
}

/// The link that a kubelet swaps, and where it leads now.
fn volume(cluster: &Cluster, pod: &Pod) -> Result<(PathBuf, PathBuf)> {
    let volumes =
        cluster.node_var(pod.node_number()?, "lib").join("kubelet/pods").join(&pod.uid).join("volumes");
    let link = volumes.join("kubernetes.io~configmap/config/..data");
    let target = std::fs::read_link(&link).with_context(|| link.display().to_string())?;
    Ok((link, target))
}

fn swapped(link: &Path, before: &Path) -> Result<Instant> {
    wait::until("the kubelet changes the file", LIMIT, || {
        Ok((std::fs::read_link(link)? != before).then(Instant::now))
    })
}

fn is_refused(life: &Life<'_>, daemon: &Pod) -> Result<()> {
    life.cluster.eventually(&format!("{} has refused a wrong configuration", daemon.node), || {
        let metrics = daemon::metrics(life.cluster, daemon)?;
        let ok = metrics.sum("mirror_config_last_reload_ok", &[]);
        let failures = metrics.sum("mirror_config_reload_failures_total", &[]);
        Ok((ok == 0.0 && failures == 1.0).then_some(()))
    })?;
    let line = life.cluster.eventually(&format!("{} says so", daemon.node), || {
        let log = daemon::log(life.cluster, daemon)?;
        let line = log.lines().find(|line| line.contains("configuration refused, the running one stays"));
        Ok(line.map(str::to_owned))
    })?;
    ensure!(line.contains("percentage") && line.contains("101"), "{line}");
    say(&format!("{}: {line}", daemon.node));
    Ok(())
}
