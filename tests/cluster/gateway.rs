//! Gateways in pods: production's side of the guide, whichever gateway serves it.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use mirror_tests::client;
use mirror_tests::kube::Cluster;
use mirror_tests::kube::pod::Pod;

use crate::guide;

/// A gateway to test with, on every node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A DaemonSet of nginx.
    Nginx,
    /// A DaemonSet of Envoy.
    Envoy,
    /// Envoys that Envoy Gateway keeps.
    EnvoyGateway,
}

/// A gateway that runs.
#[derive(Debug)]
pub(crate) struct Gateway {
    /// In the order of nodes.
    pub(crate) pods: Vec<Pod>,
    /// The container that is the gateway.
    pub(crate) container: &'static str,
    /// Where it listens, in the pod and at its Service.
    pub(crate) port: u16,
    /// Its Service.
    pub(crate) service: SocketAddr,
}

impl Kind {
    /// As `--gateway` names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Envoy => "envoy",
            Self::EnvoyGateway => "envoy-gateway",
        }
    }

    /// Makes sure of it, with everything of the guide, and waits until it runs.
    pub(crate) fn start(self, cluster: &Cluster) -> Result<Gateway> {
        guide::manifests(cluster)?;
        let (namespace, label, container, name) = match self {
            Self::Nginx => {
                cluster.apply(include_str!("manifests/nginx.yaml"))?;
                ("gloo-system", "gateway=nginx", "gateway", "nginx".to_owned())
            }
            Self::Envoy => {
                cluster.apply(include_str!("manifests/envoy.yaml"))?;
                ("gloo-system", "gateway=envoy", "gateway", "envoy".to_owned())
            }
            Self::EnvoyGateway => {
                cluster.apply(include_str!("manifests/envoy-gateway.yaml"))?;
                let namespace = "envoy-gateway-system";
                let label = "gateway.envoyproxy.io/owning-gateway-name=production";
                (namespace, label, "envoy", made(cluster, "daemonset", namespace, label)?)
            }
        };
        cluster.rolled_out(namespace, &format!("daemonset/{name}"))?;
        let mut pods = cluster.pods(namespace, label)?;
        pods.sort_by(|one, other| one.node.cmp(&other.node));
        ensure!(pods.len() == cluster.nodes as usize, "{} gateways on {} nodes", pods.len(), cluster.nodes);
        Ok(Gateway { pods, container, port: 8080, service: cluster.service(namespace, &name)? })
    }
}

/// The name of the one object with this label, which a controller is about to make.
fn made(cluster: &Cluster, kind: &str, namespace: &str, label: &str) -> Result<String> {
    cluster.eventually(&format!("there is a {kind} with {label}"), || {
        let list = cluster.get(&[kind, "-n", namespace, "-l", label])?;
        Ok(list["items"][0]["metadata"]["name"].as_str().map(str::to_owned))
    })
}

#[test]
fn nginx_answers_the_guides_curl_from_every_node_to_every_node() -> Result<()> {
    answers_everywhere("nginx_answers_the_guides_curl_from_every_node_to_every_node", Kind::Nginx)
}

#[test]
fn envoy_answers_the_guides_curl_from_every_node_to_every_node() -> Result<()> {
    answers_everywhere("envoy_answers_the_guides_curl_from_every_node_to_every_node", Kind::Envoy)
}

#[test]
fn envoy_gateway_answers_the_guides_curl_from_every_node_to_every_node() -> Result<()> {
    let test = "envoy_gateway_answers_the_guides_curl_from_every_node_to_every_node";
    answers_everywhere(test, Kind::EnvoyGateway)
}

fn answers_everywhere(test: &str, kind: Kind) -> Result<()> {
    let Some(cluster) = Cluster::with_gateway_or_skip(test, kind.name()) else { return Ok(()) };
    let gateway = kind.start(&cluster)?;
    for from in 1..=cluster.nodes {
        let netns = cluster.node(from);
        let places = gateway.pods.iter().map(|pod| pod.at(gateway.port)).chain([gateway.service]);
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
    for pod in &gateway.pods {
        // Envoy writes its log down every few seconds.
        cluster.eventually(&format!("{} has logged the request", pod.name), || {
            Ok(cluster.logs(pod, gateway.container)?.contains("/headers").then_some(()))
        })?;
        assert_eq!(pod.restarts, 0, "{pod:?}");
    }
    Ok(())
}

#[test]
fn pod_on_another_node_reaches_services_by_name() -> Result<()> {
    let test = "pod_on_another_node_reaches_services_by_name";
    let Some(cluster) = Cluster::with_gateway_or_skip(test, "nginx") else { return Ok(()) };
    // nginx looks its upstream up by the Service's name when it starts.
    let gateway = Kind::Nginx.start(&cluster)?;
    let app = cluster.pods("httpbin", "app=httpbin")?.pop().context("production runs")?;
    let other = gateway.pods.iter().find(|pod| pod.node != app.node).context("there is another node")?;
    let (netns, place) = (cluster.node(other.node_number()?), other.at(gateway.port));
    // The Service of the app is programmed some moments after its pod is ready.
    cluster.eventually(&format!("{} answers", other.name), || {
        let answer = client::get(&netns, place, "shadowing.example", "/get")?;
        ensure!(answer.status == 200, "it answers {}", answer.status);
        Ok(Some(()))
    })
}
