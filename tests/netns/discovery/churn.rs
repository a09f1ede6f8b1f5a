//! Many pods in a short time.

use std::time::Instant;

use mirror_tests::daemon::{attach_times_ms, percentile};
use mirror_tests::privilege::root_or_skip;

use super::{BY_CGROUP, NAMESPACE, Node, name, wait_for_as_few, wait_for_metric, wait_for_pods};

/// Pods in all, and how many of them are there at once.
const PODS: usize = 200;
const AT_ONCE: usize = 40;

#[test]
fn two_hundred_pods_leave_nothing_behind() {
    if !root_or_skip("two_hundred_pods_leave_nothing_behind") {
        return;
    }
    let node = Node::new();
    let daemon = node.daemon(BY_CGROUP);
    let before = daemon.held_objects().unwrap();
    // The first ones, so that all is there that a daemon keeps.
    wave(&node, &daemon, 0..AT_ONCE);
    wait_for_as_few(&daemon, &before);
    let (programs, fds) = (daemon.held_objects().unwrap().programs, fds(&daemon));
    let begun = Instant::now();
    let mut done = AT_ONCE;
    while done < PODS + AT_ONCE {
        let next = (done + AT_ONCE).min(PODS + AT_ONCE);
        wave(&node, &daemon, done..next);
        done = next;
    }
    let per_minute = PODS as f64 / begun.elapsed().as_secs_f64() * 60.0;
    wait_for_as_few(&daemon, &before);
    assert_eq!(daemon.held_objects().unwrap().programs, programs);
    wait_for_metric(&daemon, "process_open_fds", &[], fds);
    let took = attach_times_ms(&daemon.output());
    assert_eq!(took.len(), done);
    let (p50, p99) = (percentile(&took, 50), percentile(&took, 99));
    println!("{PODS} pods, {per_minute:.0} a minute: attached after {p50} ms (p50), {p99} ms (p99)");
}

/// These pods come, are attached, and go.
fn wave(node: &Node, daemon: &mirror_tests::daemon::Daemon, numbers: std::ops::Range<usize>) {
    let count = numbers.len();
    let cgroups: Vec<_> = numbers
        .clone()
        .map(|number| {
            // In both orders.
            if number % 2 == 0 {
                node.api.apply("pods", node.pod(number));
            }
            let cgroup = node.cgroup(number);
            node.api.apply("pods", node.pod(number));
            cgroup
        })
        .collect();
    wait_for_pods(daemon, "attached", count);
    for number in numbers.clone().filter(|number| number % 2 == 0) {
        node.api.delete("pods", NAMESPACE, &name(number));
    }
    drop(cgroups);
    wait_for_pods(daemon, "attached", 0);
    for number in numbers {
        node.api.delete("pods", NAMESPACE, &name(number));
    }
    wait_for_pods(daemon, "waiting", 0);
}

fn fds(daemon: &mirror_tests::daemon::Daemon) -> f64 {
    super::metric(daemon, "process_open_fds", &[])
}
