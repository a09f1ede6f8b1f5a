//! Pods of a node, as an API server and the cgroup tree tell of them, and what the daemon does about them.

mod churn;
mod life;
mod modes;

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mirror_tests::apiserver::{ApiServer, pod};
use mirror_tests::bpf::HeldObjects;
use mirror_tests::cgroup::Cgroup;
use mirror_tests::client;
use mirror_tests::daemon::Daemon;
use mirror_tests::netns::Role;
use mirror_tests::nginx::{Nginx, NginxConfig};
use mirror_tests::wait;
use serde_json::Value;

use crate::faithful::rig::{GATEWAY_PORT, World, all_to};

const NODE: &str = "node-1";
const NAMESPACE: &str = "infra";
const HOST: &str = "shadowing.example";
/// How long anything may take here. Never reached where all goes well.
const LIMIT: Duration = Duration::from_secs(120);
const BY_CGROUP: &str = "ports = [8080]\nkubernetes = { namespace = \"infra\", selector = \"app=gateway\" }";

/// A node with a kubelet's part of the cgroup tree, an API server that knows its pods, and a daemon on it.
struct Node {
    world: World,
    api: ApiServer,
    tree: Cgroup,
    /// Makes its pods' UIDs others than those of tests that run at the same time: a daemon sees their cgroups too.
    serial: u32,
}

impl Node {
    fn new() -> Self {
        let world = World::new();
        let api = ApiServer::start(&world.lab.node).unwrap();
        let tree = Cgroup::new().unwrap();
        drop(tree.below("kubepods/burstable").unwrap());
        std::fs::create_dir_all(tree.path().join("kubepods/burstable")).unwrap();
        static NODES: AtomicU32 = AtomicU32::new(0);
        Self { world, api, tree, serial: NODES.fetch_add(1, Ordering::Relaxed) }
    }

    /// A daemon that mirrors all that it captures.
    fn daemon(&self, capture: &str) -> Daemon {
        self.daemon_with(&all_to(self.world.shadow.address(), capture))
    }

    fn daemon_with(&self, toml: &str) -> Daemon {
        let kubeconfig = self.api.kubeconfig();
        let change = |launch: mirror_tests::process::Launch| {
            launch.env("KUBECONFIG", kubeconfig).env("NODE_NAME", NODE)
        };
        Daemon::start_with(&self.world.lab.node, toml, change).unwrap()
    }

    fn uid(&self, number: usize) -> String {
        format!("{:08x}-{:04x}-4000-8000-{number:012x}", std::process::id(), self.serial)
    }

    /// Pod `number` of this node.
    fn pod(&self, number: usize) -> Value {
        pod(NAMESPACE, &name(number), &self.uid(number), NODE)
    }

    /// What a kubelet makes for a pod: its cgroup, and one for a container.
    fn cgroup(&self, number: usize) -> PodCgroup {
        let pod = self.tree.below(&format!("kubepods/burstable/pod{}", self.uid(number))).unwrap();
        let container = pod.below("c0ffee").unwrap();
        PodCgroup { container, pod }
    }

    /// A gateway in that pod.
    fn gateway(&self, cgroup: &PodCgroup, port: u16) -> Nginx {
        let config = NginxConfig::new([Role::Gateway.at(port)], self.world.production.address());
        Nginx::start_in_cgroup(&self.world.lab.gateway, &config, &cgroup.container).unwrap()
    }

    /// Sends one request through the gateway on `port`.
    #[track_caller]
    fn send(&self, port: u16, path: &str) {
        let answer = client::get(&self.world.lab.client, Role::Gateway.at(port), HOST, path).unwrap();
        assert_eq!(answer.status, 200);
    }

    /// Sends a request, and waits until the shadow has it. Another one is sent only where the kernel has left flows
    /// out, for the daemon got no processor time: that is counted, and not what is looked at here.
    #[track_caller]
    fn mirrors(&self, daemon: &Daemon, path: &str) {
        let lost = || metric(daemon, "mirror_kernel_losses_total", &[]);
        let mut lost_before = lost();
        self.send(GATEWAY_PORT, path);
        let arrived = wait::until_true(&format!("the shadow gets {path}"), LIMIT, || {
            if lost() > lost_before {
                lost_before = lost();
                self.send(GATEWAY_PORT, path);
            }
            self.has_copy(path)
        });
        if let Err(error) = arrived {
            let (books, metrics) = (daemon.ledger().unwrap(), daemon.metrics().unwrap());
            panic!("{error:#}\n{books:#}\n{}\n{}", metrics.text(), daemon.output());
        }
    }

    fn has_copy(&self, path: &str) -> bool {
        self.world.shadow.requests().iter().any(|request| request.target() == path)
    }
}

/// A pod's cgroup and a container's in it; gone when dropped, in this order.
struct PodCgroup {
    container: Cgroup,
    pod: Cgroup,
}

impl PodCgroup {
    fn path(&self) -> &Path {
        self.pod.path()
    }
}

fn name(number: usize) -> String {
    format!("gw-{number}")
}

/// A metric now. None is NaN, when the page could not be had: a busy machine lets go of a system call.
fn metric(daemon: &Daemon, name: &str, labels: &[(&str, &str)]) -> f64 {
    daemon.metrics().map_or(f64::NAN, |metrics| metrics.sum(name, labels))
}

#[track_caller]
fn wait_for_pods(daemon: &Daemon, state: &str, count: usize) {
    let there = wait::until_true(&format!("{count} pods {state}"), LIMIT, || {
        metric(daemon, "mirror_pods", &[("state", state)]) == count as f64
    });
    if let Err(error) = there {
        panic!("{error:#}\n{}\n{}", daemon.metrics().unwrap().text(), daemon.output());
    }
}

#[track_caller]
fn wait_for_metric(daemon: &Daemon, name: &str, labels: &[(&str, &str)], value: f64) {
    let there = wait::until_true(name, LIMIT, || metric(daemon, name, labels) == value);
    if let Err(error) = there {
        panic!("{error:#}\n{}", daemon.output());
    }
}

/// Waits until the daemon holds exactly the programs, links and maps of `before` again, or as many.
#[track_caller]
fn wait_for_as_few(daemon: &Daemon, before: &HeldObjects) {
    let count = |held: &HeldObjects| (held.links.len(), held.maps.len());
    let freed = wait::until_true("links and maps are let go of", LIMIT, || {
        count(&daemon.held_objects().unwrap()) == count(before)
    });
    if freed.is_err() {
        panic!("{:?}, before: {before:?}", daemon.held_objects().unwrap());
    }
}
