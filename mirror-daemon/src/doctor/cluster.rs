//! PURE. Judges what a node of a cluster is asked for: its name, its API server, its pods and their namespaces.

use super::{Capability, Facts, Finding, State, finding};
use crate::cluster::probe::{Answers, NodePod};
use crate::kube::Kind;

/// Pods that are named one by one.
const NAMED_PODS: usize = 5;

pub(super) fn node(facts: &Facts) -> Option<Finding> {
    match &facts.node {
        Some(name) => finding("node", State::Good, name, ""),
        // Where there is no cluster, that is said.
        None if facts.cluster.is_none() => None,
        None => finding(
            "node",
            State::Limited,
            "which node this is is not known: `capture.kubernetes` can't be used",
            "set NODE_NAME (in a pod by fieldRef: spec.nodeName), or --node-name",
        ),
    }
}

pub(super) fn api_server(facts: &Facts) -> Option<Finding> {
    match &facts.cluster {
        None => finding(
            "api server",
            State::Limited,
            "no way to one is known: `capture.kubernetes` and `kubernetes.gateway_api` can't be used",
            "in a pod it is the ServiceAccount's token; elsewhere set KUBECONFIG, or --kubeconfig",
        ),
        Some(Err(why)) => finding(
            "api server",
            State::Limited,
            why,
            "without it no pods and routes are found: see the ServiceAccount's token and NetworkPolicies",
        ),
        Some(Ok(answers)) => finding("api server", State::Good, format!("{} answers", answers.server), ""),
    }
}

pub(super) fn rights(facts: &Facts) -> Option<Finding> {
    let answers = answers(facts)?;
    if answers.refused.is_empty() {
        return finding("rights", State::Good, "all that finding pods, rules and telling of them takes", "");
    }
    let refused: Vec<_> = answers.refused.iter().map(ToString::to_string).collect();
    finding(
        "rights",
        State::Limited,
        format!("may not {}", refused.join(", ")),
        "pods are for `capture.kubernetes`, events for Events, all else for `kubernetes.gateway_api`: \
         deploy/base/rbac.yaml has the roles",
    )
}

pub(super) fn gateway_api(facts: &Facts) -> Option<Finding> {
    let absent = &answers(facts)?.absent;
    let names: Vec<_> = absent.iter().map(|kind| kind.name()).collect();
    let absent_names = names.join(", ");
    if absent.contains(&Kind::HttpRoute) {
        return finding(
            "gateway api",
            State::Limited,
            format!("not installed: {absent_names}; `kubernetes.gateway_api` finds no rules"),
            "install the kinds of the Gateway API, or write rules as [[route]]",
        );
    }
    let lacking = if absent.is_empty() { String::new() } else { format!("; not installed: {absent_names}") };
    finding("gateway api", State::Good, format!("HTTPRoute is there{lacking}"), "")
}

pub(super) fn pods(facts: &Facts) -> Option<Finding> {
    let count = facts.pods.len();
    if count == 0 {
        let found =
            "no pod's cgroup found: this is no Kubernetes node, or its /sys/fs/cgroup is not mounted here";
        let advice = "on a node, mount the host's /sys/fs/cgroup read-only";
        return finding("pods", State::Limited, found, advice);
    }
    let has_cgroup = |pod: &&NodePod| facts.pods.iter().any(|one| one.uid == pod.cgroup_uid);
    let Some(told) = answers(facts).and_then(|answers| answers.pods.as_ref()) else {
        let uids = named(facts.pods.iter().map(|pod| pod.uid.as_str()));
        return finding("pods", State::Good, format!("{count} pods with a cgroup: {uids}"), "");
    };
    let (with, without): (Vec<_>, Vec<_>) = told.iter().partition(has_cgroup);
    if without.is_empty() {
        let names = named(with.iter().map(|pod| pod.name.as_str()));
        return finding("pods", State::Good, format!("{} pods with a cgroup: {names}", with.len()), "");
    }
    let names = named(without.iter().map(|pod| pod.name.as_str()));
    finding(
        "pods",
        State::Limited,
        format!("{} of {} pods have no cgroup here: {names}", without.len(), told.len()),
        "a pod that starts gets one in a moment; else mount the host's /sys/fs/cgroup read-only",
    )
}

/// What `attach = "interface"` takes.
pub(super) fn namespaces(facts: &Facts) -> Option<Finding> {
    if facts.cluster.is_none() && facts.pods.is_empty() {
        return None;
    }
    let may = |capability| facts.capabilities.contains(&capability);
    let advice = "deploy/overlays/interface has what it takes; `attach = \"cgroup\"` takes none of it";
    if !may(Capability::SysAdmin) {
        let found = "`attach = \"interface\"` can't be used: lacking CAP_SYS_ADMIN";
        return finding("namespaces", State::Limited, found, advice);
    }
    if facts.sees_processes && may(Capability::SysPtrace) {
        return finding("namespaces", State::Good, "those of pods are found by the pods' processes", "");
    }
    match facts.namespaces {
        0 => {
            let found = "`attach = \"interface\"` can't find pods: nothing is in /run/netns";
            finding("namespaces", State::Limited, found, advice)
        }
        count => finding("namespaces", State::Good, format!("{count} in /run/netns"), ""),
    }
}

/// A network plugin by its pods on the node.
pub(super) fn network_plugin(facts: &Facts) -> Option<&'static str> {
    const NAMES: [(&str, &str); 8] = [
        ("cilium-", super::CILIUM),
        ("calico-node-", "Calico"),
        ("kube-flannel-", "Flannel"),
        ("weave-net-", "Weave"),
        ("antrea-agent-", "Antrea"),
        ("aws-node-", "the plugin of AWS"),
        ("kindnet-", "kindnet"),
        ("ovnkube-node-", "OVN-Kubernetes"),
    ];
    let pods = answers(facts)?.pods.as_ref()?;
    let names: Vec<_> = pods.iter().filter_map(|pod| Some(pod.name.split_once('/')?.1)).collect();
    let found = NAMES.iter().find(|(prefix, _)| names.iter().any(|name| name.starts_with(prefix)));
    found.map(|(_, plugin)| *plugin)
}

fn answers(facts: &Facts) -> Option<&Answers> {
    facts.cluster.as_ref()?.as_ref().ok()
}

/// The first few of them.
fn named<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let more = if names.len() > NAMED_PODS { ", ..." } else { "" };
    let first: Vec<_> = names.take(NAMED_PODS).collect();
    format!("{}{more}", first.join(", "))
}
