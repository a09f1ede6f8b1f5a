//! The cluster itself does what other tests build on.

use anyhow::{Context as _, Result, ensure};
use mirror_tests::client;
use mirror_tests::kube::Cluster;
use serde_json::Value;

use crate::{dns, guide};

#[test]
fn nodes_are_ready() -> Result<()> {
    let Some(cluster) = Cluster::or_skip("nodes_are_ready") else { return Ok(()) };
    let is_ready = |node: &Value| {
        let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
    };
    assert!(cluster.nodes >= 2, "these tests are about two nodes");
    cluster.eventually("all nodes are ready", || {
        let nodes = cluster.get(&["nodes"])?;
        let ready =
            nodes["items"].as_array().context("no nodes")?.iter().filter(|node| is_ready(node)).count();
        ensure!(ready == cluster.nodes as usize, "{nodes:#}");
        Ok(Some(()))
    })?;
    Ok(())
}

#[test]
fn nothing_outside_is_reached_from_a_node() -> Result<()> {
    let Some(cluster) = Cluster::or_skip("nothing_outside_is_reached_from_a_node") else { return Ok(()) };
    for node in 1..=cluster.nodes {
        let routes = cluster.node(node).run(|| std::fs::read_to_string("/proc/thread-self/net/route"))??;
        let defaults = routes.lines().filter(|line| line.split('\t').nth(1) == Some("00000000"));
        assert_eq!(defaults.count(), 0, "{routes}");
    }
    Ok(())
}

#[test]
fn services_answer_by_their_address_and_their_name_is_found() -> Result<()> {
    let test = "services_answer_by_their_address_and_their_name_is_found";
    let Some(cluster) = Cluster::or_skip(test) else { return Ok(()) };
    guide::httpbin(&cluster)?;
    for namespace in ["httpbin", "shadow"] {
        let service = cluster.service(namespace, "httpbin")?;
        for node in 1..=cluster.nodes {
            let netns = cluster.node(node);
            cluster.eventually(&format!("{namespace} answers node-{node}"), || {
                let answer = client::get(&netns, service, "httpbin", "/status/200")?;
                Ok((answer.status == 200).then_some(()))
            })?;
            dns::knows(&cluster, node, (namespace, "httpbin"), service.ip())?;
        }
    }
    Ok(())
}

#[test]
fn cgroup_of_a_pod_is_found_by_doctor_with_the_privileges_of_the_daemon() -> Result<()> {
    let test = "cgroup_of_a_pod_is_found_by_doctor_with_the_privileges_of_the_daemon";
    let Some(cluster) = Cluster::or_skip(test) else { return Ok(()) };
    guide::httpbin(&cluster)?;
    cluster.kubectl(["delete", "pod", "-n", "doctor", "doctor", "--ignore-not-found", "--wait"]).ok();
    cluster.apply(include_str!("manifests/doctor.yaml"))?;
    let report = cluster.eventually("doctor has looked", || {
        let pod = cluster.get(&["pod", "-n", "doctor", "doctor"])?;
        let ended = pod["status"]["phase"] == "Succeeded" || pod["status"]["phase"] == "Failed";
        ended.then(|| cluster.kubectl(["logs", "-n", "doctor", "doctor"])).transpose()
    })?;
    let report: Value = serde_json::from_str(&report).with_context(|| report.clone())?;
    let findings = report["findings"].as_array().context("no findings")?;
    let bad: Vec<_> = findings.iter().filter(|finding| finding["state"] == "bad").collect();
    assert!(bad.is_empty(), "{bad:#?}");
    let pods = findings.iter().find(|finding| finding["topic"] == "pods").context("no pods")?;
    assert_eq!(pods["state"], "good", "{pods}");
    let found = pods["found"].as_str().unwrap_or_default();
    let count: usize =
        found.split(' ').next().unwrap_or_default().parse().with_context(|| found.to_owned())?;
    // httpbin twice and CoreDNS are there for as long as the cluster is.
    assert!(count >= 3, "{found}");
    for pod in cluster.pods("httpbin", "app=httpbin")? {
        assert!(!pod.pids()?.is_empty(), "no process in the cgroup of {pod:?}");
    }
    Ok(())
}

#[test]
fn api_server_is_killed_and_started_again_and_pods_run_on() -> Result<()> {
    let test = "api_server_is_killed_and_started_again_and_pods_run_on";
    let Some(cluster) = Cluster::alone_or_skip(test) else { return Ok(()) };
    guide::httpbin(&cluster)?;
    let before = cluster.pods("httpbin", "app=httpbin")?;
    let pod = before.first().context("production runs")?.clone();
    cluster.kill("kube-apiserver")?;
    let refused = cluster.kubectl(["get", "nodes"]);
    let answered = client::get(&cluster.node(1), pod.at(8080), "httpbin", "/status/200");
    cluster.start("kube-apiserver")?;
    assert!(refused.is_err(), "killed, it answers: {refused:?}");
    assert_eq!(answered?.status, 200);
    assert_eq!(cluster.pods("httpbin", "app=httpbin")?, before);
    Ok(())
}
