//! Pods come and go; the API server goes, comes back, refuses, forgets.

use mirror_tests::apiserver::ready;
use mirror_tests::bpf;
use mirror_tests::netns::Role;
use mirror_tests::privilege::root_or_skip;
use mirror_tests::wait;
use serde_json::json;

use super::{BY_CGROUP, LIMIT, NAMESPACE, Node, name, wait_for_as_few, wait_for_metric, wait_for_pods};
use crate::faithful::rig::GATEWAY_PORT;

#[test]
fn pod_is_captured_from_its_cgroup_on_until_that_vanishes() {
    if !root_or_skip("pod_is_captured_from_its_cgroup_on_until_that_vanishes") {
        return;
    }
    let node = Node::new();
    // There is no pod at all when the daemon starts.
    let daemon = node.daemon(BY_CGROUP);
    let before = daemon.held_objects().unwrap();
    node.api.apply("pods", node.pod(1));
    wait_for_pods(&daemon, "waiting", 1);
    let cgroup = node.cgroup(1);
    wait_for_pods(&daemon, "attached", 1);
    let gateway = node.gateway(&cgroup, GATEWAY_PORT);
    node.mirrors(&daemon, "/not-yet-ready");
    node.api.apply("pods", ready(node.pod(1), &Role::Gateway.v4().to_string()));
    node.mirrors(&daemon, "/ready");

    let mut terminating = ready(node.pod(1), &Role::Gateway.v4().to_string());
    terminating["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    node.api.apply("pods", terminating);
    node.mirrors(&daemon, "/terminating");
    node.api.delete("pods", NAMESPACE, &name(1));
    node.mirrors(&daemon, "/deleted");
    wait_for_pods(&daemon, "attached", 1);

    drop((gateway, cgroup));
    wait_for_pods(&daemon, "attached", 0);
    wait_for_as_few(&daemon, &before);
    wait_for_metric(&daemon, "mirror_pod_attach_seconds_count", &[], 1.0);
}

#[test]
fn only_pods_of_this_node_that_are_chosen_are_captured() {
    if !root_or_skip("only_pods_of_this_node_that_are_chosen_are_captured") {
        return;
    }
    let node = Node::new();
    let mut others = [node.pod(1), node.pod(2), node.pod(3)];
    others[0]["spec"]["nodeName"] = json!("node-2");
    others[1]["metadata"]["labels"]["app"] = json!("backend");
    others[2]["metadata"]["namespace"] = json!("elsewhere");
    for other in others {
        node.api.apply("pods", other);
    }
    let cgroups: Vec<_> = (1..=4).map(|number| node.cgroup(number)).collect();
    let daemon = node.daemon(BY_CGROUP);
    node.api.apply("pods", node.pod(4));
    wait_for_pods(&daemon, "attached", 1);
    let attached: Vec<bool> =
        cgroups.iter().map(|cgroup| !bpf::attached_to_cgroup(cgroup.path()).unwrap().is_empty()).collect();
    assert_eq!(attached, [false, false, false, true]);
    // Nor was the server asked for others: one namespace, one node.
    let asked = node.api.requests();
    assert!(!asked.is_empty());
    for request in asked {
        assert!(request.starts_with("GET /api/v1/namespaces/infra/pods?"), "{request}");
        assert!(request.contains("fieldSelector=spec.nodeName%3Dnode-1"), "{request}");
    }
}

#[test]
fn capture_goes_on_while_the_api_server_is_away_and_the_watch_resumes() {
    if !root_or_skip("capture_goes_on_while_the_api_server_is_away_and_the_watch_resumes") {
        return;
    }
    let mut node = Node::new();
    node.api.apply("pods", node.pod(1));
    let cgroup = node.cgroup(1);
    let _gateway = node.gateway(&cgroup, GATEWAY_PORT);
    let daemon = node.daemon(BY_CGROUP);
    wait_for_pods(&daemon, "attached", 1);
    node.mirrors(&daemon, "/before");
    let state = |state| [("state", state)];

    node.api.stop();
    wait_for_metric(&daemon, "mirror_pod_watch", &state("unreachable"), 1.0);
    node.mirrors(&daemon, "/away");
    // What happened meanwhile is told by the list that follows, for the server has forgotten the changes.
    node.api.apply("pods", node.pod(2));
    node.api.compact();
    let second = node.cgroup(2);
    node.api.start_again().unwrap();
    wait_for_metric(&daemon, "mirror_pod_watch", &state("synchronised"), 1.0);
    wait_for_pods(&daemon, "attached", 2);
    node.mirrors(&daemon, "/back");

    node.api.refuse(Some(403));
    wait_for_metric(&daemon, "mirror_pod_watch", &state("forbidden"), 1.0);
    node.mirrors(&daemon, "/forbidden");
    wait::until_true("the refusal is told", LIMIT, || daemon.output().contains("`watch` of pods")).unwrap();
    drop(second);
    wait_for_pods(&daemon, "attached", 1);
    node.api.delete("pods", NAMESPACE, &name(2));
    node.api.refuse(None);
    wait_for_metric(&daemon, "mirror_pod_watch", &state("synchronised"), 1.0);
    node.mirrors(&daemon, "/allowed");
    wait_for_pods(&daemon, "waiting", 0);
    assert!(super::metric(&daemon, "mirror_pod_watch_failures_total", &[]) >= 2.0);
    assert_eq!(daemon.output().matches("refuses to tell").count(), 1, "{}", daemon.output());
}

#[test]
fn change_of_the_selection_is_taken_while_it_runs() {
    if !root_or_skip("change_of_the_selection_is_taken_while_it_runs") {
        return;
    }
    let node = Node::new();
    let mut other = node.pod(2);
    other["metadata"]["labels"]["app"] = json!("other");
    node.api.apply("pods", node.pod(1));
    node.api.apply("pods", other);
    let cgroups = [node.cgroup(1), node.cgroup(2)];
    let is_attached =
        || cgroups.each_ref().map(|cgroup| !bpf::attached_to_cgroup(cgroup.path()).unwrap().is_empty());
    let daemon = node.daemon(BY_CGROUP);
    wait::until_true("the first", LIMIT, || is_attached() == [true, false]).unwrap();
    let shadow = node.world.shadow.address();
    let changed = crate::faithful::rig::all_to(shadow, &BY_CGROUP.replace("app=gateway", "app=other"));
    daemon.reconfigure(&changed).unwrap();
    wait::until_true("the second", LIMIT, || is_attached() == [false, true]).unwrap();
    wait_for_pods(&daemon, "attached", 1);
}
