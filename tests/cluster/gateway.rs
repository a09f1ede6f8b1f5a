//! Gateways in pods: production's side of the guide, whichever gateway serves it.

use anyhow::{Context as _, Result, ensure};
use mirror_tests::client;
use mirror_tests::kube::{Cluster, Pod};

use crate::guide;

/// Where gateways listen.
const PORT: u16 = 8080;

/// Makes sure of a gateway on every node, and gives its pods in the order of nodes.
pub(crate) fn start(cluster: &Cluster, gateway: &str) -> Result<Vec<Pod>> {
    guide::httpbin(cluster)?;
    let manifest = match gateway {
        "nginx" => include_str!("manifests/nginx.yaml"),
        _ => include_str!("manifests/envoy.yaml"),
    };
    cluster.apply(manifest)?;
    cluster.rolled_out("gloo-system", &format!("daemonset/{gateway}"))?;
    let mut pods = cluster.pods("gloo-system", &format!("gateway={gateway}"))?;
    pods.sort_by(|one, other| one.node.cmp(&other.node));
    ensure!(pods.len() == cluster.nodes as usize, "{} gateways on {} nodes", pods.len(), cluster.nodes);
    Ok(pods)
}

#[test]
fn nginx_answers_the_guides_curl_from_every_node_to_every_node() -> Result<()> {
    answers_everywhere("nginx_answers_the_guides_curl_from_every_node_to_every_node", "nginx")
}

#[test]
fn envoy_answers_the_guides_curl_from_every_node_to_every_node() -> Result<()> {
    answers_everywhere("envoy_answers_the_guides_curl_from_every_node_to_every_node", "envoy")
}

fn answers_everywhere(test: &str, gateway: &str) -> Result<()> {
    let Some(cluster) = Cluster::with_gateway_or_skip(test, gateway) else { return Ok(()) };
    guide::manifests(&cluster)?;
    let pods = start(&cluster, gateway)?;
    let service = cluster.service("gloo-system", gateway)?;
    for from in 1..=cluster.nodes {
        let netns = cluster.node(from);
        let places = pods.iter().map(|pod| pod.at(PORT)).chain([service]);
        for to in places {
            // A Service is programmed some moments after its pods are ready.
            cluster.eventually(&format!("node-{from} gets an answer from {to}"), || {
                let answer = client::get(&netns, to, "shadowing.example", "/headers")?;
                ensure!(answer.status == 200, "{to} answers {}", answer.status);
                let seen = String::from_utf8_lossy(&answer.body).into_owned();
                ensure!(seen.contains("shadowing.example"), "the app saw another host: {seen}");
                Ok(Some(()))
            })?;
        }
    }
    let asked = pods.iter().map(|pod| cluster.logs(pod, "gateway")).collect::<Result<Vec<_>>>()?;
    assert!(asked.iter().all(|log| log.contains("\"/headers\"")), "a gateway has no log: {asked:?}");
    assert!(pods.iter().all(|pod| pod.restarts == 0), "a gateway was started again: {pods:?}");
    Ok(())
}

#[test]
fn pod_on_another_node_reaches_services_by_name() -> Result<()> {
    let test = "pod_on_another_node_reaches_services_by_name";
    let Some(cluster) = Cluster::with_gateway_or_skip(test, "nginx") else { return Ok(()) };
    // nginx looks its upstream up by the Service's name when it starts.
    let pods = start(&cluster, "nginx")?;
    let app = cluster.pods("httpbin", "app=httpbin")?.pop().context("production runs")?;
    let other = pods.iter().find(|pod| pod.node != app.node).context("there is another node")?;
    let answer =
        client::get(&cluster.node(other.node_number()?), other.at(PORT), "shadowing.example", "/get")?;
    assert_eq!(answer.status, 200);
    Ok(())
}
