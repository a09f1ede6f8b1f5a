//! The ways to attach, the gateways that pods carry, and pods without traffic.

use mirror_tests::apiserver::ready;
use mirror_tests::daemon::attach_times_ms;
use mirror_tests::netns::{Netns, Role};
use mirror_tests::privilege::root_or_skip;
use mirror_tests::process::Launch;
use mirror_tests::{bpf, wait};
use serde_json::json;

use super::{BY_CGROUP, LIMIT, Node, wait_for_metric, wait_for_pods};
use crate::faithful::rig::{GATEWAY_PORT, all_to};

const BY_INTERFACE: &str = "ports = [8080]\n\
    kubernetes = { namespace = \"infra\", selector = \"app=gateway\", attach = \"interface\" }";

/// An address that no other namespace of this machine has.
fn own_address(netns: &Netns) -> String {
    let pid = std::process::id();
    let address = format!("fd77:d15c::{:x}:{:x}", pid >> 16, pid & 0xffff);
    let change = ["addr", "add", &format!("{address}/128"), "dev", "eth0", "nodad"];
    Launch::new("ip").args(change).in_netns(netns).run().unwrap();
    address
}

#[test]
fn interface_of_a_pod_is_found_by_its_address() {
    if !root_or_skip("interface_of_a_pod_is_found_by_its_address") {
        return;
    }
    let node = Node::new();
    let address = own_address(&node.world.lab.gateway);
    // Nothing runs in its cgroup: only the address can tell.
    let _cgroup = node.cgroup(1);
    let config = mirror_tests::nginx::NginxConfig::new(
        [Role::Gateway.at(GATEWAY_PORT)],
        node.world.production.address(),
    );
    let _gateway = mirror_tests::nginx::Nginx::start(&node.world.lab.gateway, &config).unwrap();
    node.api.apply("pods", node.pod(1));
    let daemon = node.daemon(BY_INTERFACE);
    wait_for_pods(&daemon, "failed", 1);
    // A pod that is just starting is nothing to warn of; who asks is told.
    assert!(!daemon.output().contains("gw-1"), "{}", daemon.output());
    let (_, page) = daemon.page("/readyz").unwrap();
    assert!(page.contains("not attached: pod infra/gw-1"), "{page}");
    node.api.apply("pods", ready(node.pod(1), &address));
    wait_for_pods(&daemon, "attached", 1);
    node.mirrors(&daemon, "/by-address");
    assert!(!bpf::attached_in(&node.world.lab.gateway).unwrap().is_empty());
    assert!(bpf::attached_in(&node.world.lab.node).unwrap().is_empty());
}

#[test]
fn programs_for_pods_are_verified_before_there_is_one() {
    if !root_or_skip("programs_for_pods_are_verified_before_there_is_one") {
        return;
    }
    // On an interface come small entry points, one for each direction, of its own.
    for (capture, of_its_own) in [(BY_CGROUP, 0), (BY_INTERFACE, 2)] {
        let node = Node::new();
        let daemon = node.daemon(capture);
        let before = daemon.held_objects().unwrap();
        assert!(!before.programs.is_empty() && before.links.is_empty(), "{before:?}");
        let cgroup = node.cgroup(1);
        let _gateway = node.gateway(&cgroup, GATEWAY_PORT);
        node.api.apply("pods", node.pod(1));
        wait_for_pods(&daemon, "attached", 1);
        let after = daemon.held_objects().unwrap();
        assert!(after.programs.is_superset(&before.programs));
        assert_eq!(after.programs.len(), before.programs.len() + of_its_own);
        println!("the first pod was attached after {:?} ms: {capture:?}", attach_times_ms(&daemon.output()));
    }
}

#[test]
fn interface_of_a_pod_is_found_by_its_process_before_it_has_an_address() {
    if !root_or_skip("interface_of_a_pod_is_found_by_its_process_before_it_has_an_address") {
        return;
    }
    let node = Node::new();
    let cgroup = node.cgroup(1);
    let gateway = node.gateway(&cgroup, GATEWAY_PORT);
    node.api.apply("pods", node.pod(1));
    let daemon = node.daemon(BY_INTERFACE);
    wait_for_pods(&daemon, "attached", 1);
    node.mirrors(&daemon, "/by-process");
    // Its address, told later, changes nothing.
    let links = daemon.held_objects().unwrap().links;
    node.api.apply("pods", ready(node.pod(1), "fd77:d15c::ffff"));
    node.mirrors(&daemon, "/by-process-still");
    assert_eq!(daemon.held_objects().unwrap().links, links);
    drop((gateway, cgroup));
    wait_for_pods(&daemon, "attached", 0);
    let gone = || bpf::attached_in(&node.world.lab.gateway).unwrap().is_empty();
    wait::until_true("it is detached", LIMIT, gone).unwrap();
}

#[test]
fn host_network_pod_is_captured_by_its_cgroup_whatever_was_asked() {
    if !root_or_skip("host_network_pod_is_captured_by_its_cgroup_whatever_was_asked") {
        return;
    }
    let node = Node::new();
    let cgroup = node.cgroup(1);
    let _gateway = node.gateway(&cgroup, GATEWAY_PORT);
    let mut host = node.pod(1);
    host["spec"]["hostNetwork"] = json!(true);
    node.api.apply("pods", host);
    let daemon = node.daemon(BY_INTERFACE);
    wait_for_pods(&daemon, "attached", 1);
    node.mirrors(&daemon, "/host-network");
    assert!(!bpf::attached_to_cgroup(cgroup.path()).unwrap().is_empty());
    assert!(daemon.output().contains("its cgroup is captured instead"), "{}", daemon.output());
}

#[test]
fn static_pod_is_known_by_the_hash_of_its_file() {
    if !root_or_skip("static_pod_is_known_by_the_hash_of_its_file") {
        return;
    }
    let node = Node::new();
    let hash = format!("{:016x}{:016x}", std::process::id(), node.serial);
    let pod = node.tree.below(&format!("kubepods/burstable/pod{hash}")).unwrap();
    let mut mirror = node.pod(1);
    mirror["metadata"]["annotations"] = json!({ "kubernetes.io/config.mirror": hash });
    node.api.apply("pods", mirror);
    let daemon = node.daemon(BY_CGROUP);
    wait_for_pods(&daemon, "attached", 1);
    assert!(!bpf::attached_to_cgroup(pod.path()).unwrap().is_empty());
}

#[test]
fn rule_of_a_gateway_holds_at_its_own_pods_only() {
    if !root_or_skip("rule_of_a_gateway_holds_at_its_own_pods_only") {
        return;
    }
    let node = Node::new();
    let cgroups = [node.cgroup(1), node.cgroup(2)];
    let ports = [8080, 8081];
    let _gateways = [node.gateway(&cgroups[0], ports[0]), node.gateway(&cgroups[1], ports[1])];
    let mut second = node.pod(2);
    second["metadata"]["labels"]["app"] = json!("second");
    node.api.apply("pods", node.pod(1));
    node.api.apply("pods", second);
    let bound = |name: &str, app: &str| {
        format!(
            "[[kubernetes.gateway]]\nname = \"{name}\"\nnamespace = \"infra\"\n\
             pods = {{ selector = \"app={app}\" }}\n"
        )
    };
    let toml = all_to(node.world.shadow.address(), "ports = [8080, 8081]");
    let toml = toml.replace("[[route]]\n", "[[route]]\ngateways = [\"infra/first\"]\n");
    let toml = format!("{toml}{}{}", bound("first", "gateway"), bound("other", "second"));
    let daemon = node.daemon_with(&toml);
    wait_for_pods(&daemon, "attached", 2);
    node.send(ports[1], "/second");
    node.mirrors(&daemon, "/first");
    let seen = || daemon.ledger().unwrap()["requests"]["seen"] == 2;
    wait::until_true("both requests are seen", LIMIT, seen).unwrap();
    assert_eq!(daemon.ledger().unwrap()["requests"]["unmatched"], 1);
    assert!(!node.has_copy("/second"));
}

#[test]
fn ready_pod_without_traffic_is_told_until_it_has_some() {
    if !root_or_skip("ready_pod_without_traffic_is_told_until_it_has_some") {
        return;
    }
    let node = Node::new();
    let cgroup = node.cgroup(1);
    let _gateway = node.gateway(&cgroup, GATEWAY_PORT);
    let daemon = node.daemon(&format!("{BY_CGROUP}\npod_silent_after = \"1s\""));
    node.api.apply("pods", ready(node.pod(1), &Role::Gateway.v4().to_string()));
    wait_for_pods(&daemon, "attached", 1);
    wait_for_metric(&daemon, "mirror_points_silent", &[], 1.0);
    assert!(daemon.output().contains("has had no traffic that is captured"), "{}", daemon.output());
    wait::until_true("its Event is posted", LIMIT, || !node.api.posted().is_empty()).unwrap();
    let event = node.api.posted().remove(0);
    assert_eq!((&event["reason"], &event["regarding"]["name"]), (&json!("NoTrafficSeen"), &json!("gw-1")));
    node.mirrors(&daemon, "/at-last");
    wait_for_metric(&daemon, "mirror_points_silent", &[], 0.0);
}
