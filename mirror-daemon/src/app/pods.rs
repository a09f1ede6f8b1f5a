//! The capture points of this node's pods, beside those of the configuration file.

use super::Failure;
use super::stats::ShardStats;
use crate::capture::{AttacherClient, Expected, PointState, PointStatus};
use crate::cli::RunArgs;
use crate::cluster::ClusterThread;
use crate::cluster::client::Access;
use crate::cluster::discovery::{Discovery, Outcome, PodPoint, Reading, Selection};
use crate::config::{CaptureConfig, CapturePoint, Config, PodAttach, PointGateways};
use crate::kube;
use crate::telemetry::logging::in_words;
use anyhow::{Context, anyhow};
use mirror_common::MAX_CAPTURE_POINTS;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// The variable that says which node this is, as a DaemonSet sets it (`fieldRef: spec.nodeName`).
const NODE_VARIABLE: &str = "NODE_NAME";

/// What the command line says of the cluster.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    /// `None`: not known.
    node: Option<String>,
    kubeconfig: Option<PathBuf>,
}

/// Looks for pods until it is dropped.
#[derive(Debug)]
pub(super) struct Pods {
    discovery: Discovery,
    /// Last, so that it ends after what runs on it.
    _thread: ClusterThread,
}

impl Place {
    pub(super) fn of(args: &RunArgs) -> Self {
        Self { node: node(args.node_name.as_deref()), kubeconfig: args.kubeconfig.clone() }
    }

    /// The file that leads to the API server, where one was given.
    pub(super) fn kubeconfig(&self) -> Option<&Path> {
        self.kubeconfig.as_deref()
    }

    /// Whether pods are to be looked for. Those of `[[kubernetes.gateway]]` alone are only where the node is known:
    /// with points of its own in the file, the daemon may run outside of the cluster.
    pub(super) fn wants_pods(&self, config: &Config) -> bool {
        !config.pods.selections.is_empty() || (config.selects_pods() && self.node.is_some())
    }

    /// Starts to look for pods, if the configuration wants some.
    pub(super) fn find_pods(&self, config: &Config) -> Result<Option<Pods>, Failure> {
        if !self.wants_pods(config) {
            return Ok(None);
        }
        let node = self.node.clone().with_context(|| {
            format!(
                "capture.kubernetes needs to know which node this is: set {NODE_VARIABLE}, or --node-name"
            )
        });
        let node = node.map_err(Failure::Usage)?;
        if !kube::is_subdomain(&node) {
            return Err(Failure::usage(anyhow!("{node:?} is no name of a node")));
        }
        if config.capture.ports.is_empty() {
            return Err(Failure::usage(anyhow!("capture.ports is missing; write the gateway's ports")));
        }
        let access = Access::find(self.kubeconfig.as_deref()).map_err(Failure::usage)?;
        let thread = ClusterThread::start().context("no thread for the cluster").map_err(Failure::Running)?;
        tracing::info!(node, "pods of this node are looked for");
        let discovery = Discovery::start(thread.handle(), access, node, Selection::of(config));
        Ok(Some(Pods { discovery, _thread: thread }))
    }
}

/// The node's name: the one given, else that of the environment.
pub(super) fn node(given: Option<&str>) -> Option<String> {
    let variable = || std::env::var(NODE_VARIABLE).ok().filter(|name| !name.is_empty());
    given.map(str::to_owned).or_else(variable)
}

/// Has the kernel verify beforehand what pods will be attached with, so that the first does not wait for it.
pub(super) fn get_ready(attacher: &mut AttacherClient, config: &Config) {
    let mut expected = Expected::default();
    for attach in config.pod_attachments() {
        match attach {
            PodAttach::Cgroup => expected.cgroups = true,
            PodAttach::Interface(_) => expected.interfaces = true,
        }
    }
    if let Err(error) = attacher.get_ready(expected) {
        tracing::warn!(why = in_words(&error), "the programs for pods can't be loaded");
    }
}

impl Pods {
    /// From now on the pods are wanted that `config` says.
    pub(super) fn select(&self, config: &Config) {
        self.discovery.select(Selection::of(config));
    }

    /// The points that are wanted now, and how to wait for others.
    pub(super) fn points(&self) -> watch::Receiver<Arc<Vec<PodPoint>>> {
        self.discovery.points()
    }

    /// Tells what became of the wanted points.
    pub(super) fn report(&self, statuses: &[PointStatus]) {
        self.discovery.handle_outcome(Instant::now(), |point| {
            let status = statuses.iter().find(|status| status.point == *point)?;
            Some(match &status.state {
                PointState::Attached(_) => Outcome::Attached(status.number),
                PointState::Failed(why) => Outcome::Failed(why.clone()),
            })
        });
    }

    /// Tells how much was captured at each point.
    pub(super) fn listen(&self, after: Option<Duration>, shards: &[Arc<ShardStats>]) {
        self.discovery.handle_segments(Instant::now(), after, |number| {
            shards.iter().map(|stats| stats.segments.of(number)).fold(0, u64::saturating_add)
        });
    }

    pub(super) fn reading(&self) -> Reading {
        self.discovery.reading()
    }

    /// The pod whose point this is.
    pub(super) fn pod_at(&self, point: &CapturePoint) -> Option<String> {
        let points = self.discovery.points();
        points.borrow().iter().find(|one| one.point == *point).map(|one| one.pod.clone())
    }
}

/// `capture` with the points of pods, of which those wanted for longest come first; what is beyond
/// [`MAX_CAPTURE_POINTS`] is left out.
pub(super) fn joined(capture: &CaptureConfig, pods: &[PodPoint]) -> CaptureConfig {
    let mut joined = capture.clone();
    for pod in pods {
        let is_there = joined.points.contains(&pod.point);
        if !is_there && joined.points.len() >= MAX_CAPTURE_POINTS {
            continue;
        }
        if !is_there {
            joined.points.push(pod.point.clone());
        }
        let names = pod.gateways.iter();
        match joined.gateways.iter_mut().find(|carried| carried.point == pod.point) {
            Some(carried) => {
                let more: Vec<_> = names.filter(|name| !carried.names.contains(name)).cloned().collect();
                carried.names.extend(more);
            }
            None if pod.gateways.is_empty() => {}
            None => joined
                .gateways
                .push(PointGateways { point: pod.point.clone(), names: names.cloned().collect() }),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cgroup(name: &str) -> CapturePoint {
        CapturePoint::Cgroup { path: PathBuf::from("/cg").join(name) }
    }

    fn pod(name: &str, gateways: &[&str]) -> PodPoint {
        let gateways = gateways.iter().map(|name| (*name).to_owned()).collect();
        PodPoint { pod: format!("ns/{name}"), point: cgroup(name), gateways }
    }

    #[test]
    fn points_of_the_file_come_first_and_none_comes_twice() {
        let carried = PointGateways { point: cgroup("a"), names: vec!["ns/x".into()] };
        let file =
            CaptureConfig { points: vec![cgroup("a")], gateways: vec![carried], ..CaptureConfig::default() };
        let all = joined(&file, &[pod("a", &["ns/x", "ns/y"]), pod("b", &["ns/z"]), pod("c", &[])]);
        assert_eq!(all.points, [cgroup("a"), cgroup("b"), cgroup("c")]);
        assert_eq!(all.gateways_at(&cgroup("a")), ["ns/x", "ns/y"]);
        assert_eq!(all.gateways_at(&cgroup("b")), ["ns/z"]);
        assert!(all.gateways_at(&cgroup("c")).is_empty());
        assert_eq!(joined(&file, &[]), file);
    }

    #[test]
    fn latest_pods_are_left_out_beyond_the_bound() {
        let pods: Vec<_> = (0..MAX_CAPTURE_POINTS + 2).map(|number| pod(&number.to_string(), &[])).collect();
        let all = joined(&CaptureConfig::default(), &pods);
        assert_eq!(all.points.len(), MAX_CAPTURE_POINTS);
        assert_eq!(all.points.first(), Some(&cgroup("0")));
    }

    #[test]
    fn gateways_alone_are_looked_for_only_where_the_node_is_known() {
        let bound = "[[kubernetes.gateway]]\nname = 'a'\nnamespace = 'b'\npods = { selector = 'c' }";
        let chosen = "[capture]\nports = [80]\nkubernetes = { namespace = 'a', selector = 'b' }";
        let wants = |toml: &str, node: Option<&str>| {
            let place = Place { node: node.map(str::to_owned), kubeconfig: None };
            place.wants_pods(&Config::from_toml(toml, "t").unwrap())
        };
        assert!(!wants("", Some("n")) && !wants(bound, None));
        assert!(wants(bound, Some("n")) && wants(chosen, None));
        let nowhere = Place::default().find_pods(&Config::from_toml(chosen, "t").unwrap()).unwrap_err();
        assert!(matches!(nowhere, Failure::Usage(error) if error.to_string().contains(NODE_VARIABLE)));
    }
}
