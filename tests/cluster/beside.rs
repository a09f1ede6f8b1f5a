//! The daemon's mirroring beside that of the gateway itself: the same rule, the same requests, both shadows compared.

mod compare;
mod kinds;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use mirror_tests::client;
use mirror_tests::kube::Cluster;
use mirror_tests::server::{LogMode, TestApp};
use serde_json::json;

use crate::gateway::{Gateway, Kind};
use compare::{Copies, Differences};
use kinds::KINDS;

/// Requests of every kind, for each of both.
const REQUESTS: u64 = 1000;

const NAMESPACE: &str = "beside";
const ENVOYS_HOST: &str = "envoy.beside.example";
const DAEMONS_HOST: &str = "daemon.beside.example";

/// What is deployed, as it is applied by `kubectl apply -k`.
const OVERLAY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/overlays/cgroup");

#[test]
fn copies_differ_from_envoy_gateways_own_only_as_documented() -> Result<()> {
    let test = "copies_differ_from_envoy_gateways_own_only_as_documented";
    let Some(cluster) = Cluster::with_gateway_or_skip(test, "envoy-gateway") else { return Ok(()) };
    let gateway = Kind::EnvoyGateway.start(&cluster)?;
    let scene = Scene::new(&cluster, &gateway)?;
    let mut found = Differences::new();
    for kind in KINDS {
        for host in [ENVOYS_HOST, DAEMONS_HOST] {
            kind.send(&cluster.node(1), scene.gateway, host, REQUESTS)?;
        }
        scene.settle()?;
        let (envoys, daemons) = (copies(&scene.envoys, kind.name), copies(&scene.daemons, kind.name));
        compare::compare(&mut found, kind.name, REQUESTS, &envoys, &daemons);
    }
    let table = compare::table()?;
    let (unexplained, gone) = (compare::not_in(&found, &table), compare::not_in(&table, &found));
    assert!(unexplained.is_empty(), "not in docs/BESIDE_ENVOY_GATEWAY.md: {unexplained:#?}\n{}", scene.told()?);
    assert!(gone.is_empty(), "in docs/BESIDE_ENVOY_GATEWAY.md, and not found: {gone:#?}");
    Ok(())
}

/// Three apps, the routes to them, and a daemon of deploy/ in a namespace of the test's own.
struct Scene<'a> {
    cluster: &'a Cluster,
    _production: TestApp,
    envoys: TestApp,
    daemons: TestApp,
    /// The gateway's pod on the first node.
    gateway: SocketAddr,
}

impl<'a> Scene<'a> {
    fn new(cluster: &'a Cluster, gateway: &Gateway) -> Result<Self> {
        let pod = gateway.pods.first().context("a gateway on the first node")?;
        let node = cluster.node(pod.node_number()?);
        let address = cluster.get(&["node", &pod.node])?;
        let address = address["status"]["addresses"][0]["address"].as_str().context("no address")?.to_owned();
        let app = |log| TestApp::start(&node, SocketAddr::new(address.parse()?, 0), log);
        let (production, envoys, daemons) = (app(LogMode::None)?, app(LogMode::Full)?, app(LogMode::Full)?);
        let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } });
        cluster.apply(&namespace.to_string())?;
        let port = |app: &TestApp| app.address().port().to_string();
        let manifest = include_str!("manifests/beside.yaml")
            .replace("@ADDRESS@", &address)
            .replace("@PRODUCTION@", &port(&production))
            .replace("@ENVOYS@", &port(&envoys))
            .replace("@DAEMONS@", &port(&daemons));
        cluster.apply(&manifest)?;
        let scene = Self { cluster, _production: production, envoys, daemons, gateway: pod.at(gateway.port) };
        scene.install_daemon()?;
        scene.wait_until_mirrored()?;
        Ok(scene)
    }

    /// Both shadows get copies, and what was sent to find out is forgotten.
    fn wait_until_mirrored(&self) -> Result<()> {
        let netns = self.cluster.node(1);
        for (host, app) in [(ENVOYS_HOST, &self.envoys), (DAEMONS_HOST, &self.daemons)] {
            self.cluster
                .eventually(&format!("requests for {host} are mirrored"), || {
                    let answer = client::get(&netns, self.gateway, host, "/first")?;
                    ensure!(answer.status == 200, "the gateway answers {}", answer.status);
                    Ok((!app.requests().is_empty()).then_some(()))
                })
                .with_context(|| self.told().unwrap_or_default())?;
        }
        self.settle()
    }

    /// Waits until no copy has come for a second: some are never made.
    fn settle(&self) -> Result<()> {
        let count = || self.envoys.log().summary().requests + self.daemons.log().summary().requests;
        let mut last = (count(), std::time::Instant::now());
        self.cluster.eventually("no more copies come", || {
            let now = count();
            if now != last.0 {
                last = (now, std::time::Instant::now());
            }
            Ok((last.1.elapsed().as_secs() >= 1).then_some(()))
        })
    }

    /// The overlay as it is, but for names, so that it is beside a daemon that other tests have, and its rules.
    fn install_daemon(&self) -> Result<()> {
        let manifest = self.cluster.kubectl(["kustomize", OVERLAY])?;
        let manifest = manifest
            .replace("mirror-system", NAMESPACE)
            .replace("name: mirror-daemon-", "name: beside-mirror-daemon-")
            .replace("image: mirror-daemon\n", "image: localhost/mirror-daemon:dev\n");
        self.cluster.apply(&manifest)?;
        let toml = "[capture]\nports = [8080]\nring_bytes = \"32MiB\"\n\
             [admin]\nlisten = \"0.0.0.0:9900\"\n\
             [kubernetes]\ngateway_api = true\n\
             [[kubernetes.gateway]]\nname = \"nobodys\"\nnamespace = \"beside\"\n\
             pods = { namespace = \"envoy-gateway-system\", \
             selector = \"gateway.envoyproxy.io/owning-gateway-name=production\" }\n";
        let config = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": { "name": "mirror-daemon", "namespace": NAMESPACE },
            "data": { "mirror.toml": toml }
        });
        self.cluster.apply(&config.to_string())?;
        self.cluster.rolled_out(NAMESPACE, "daemonset/mirror-daemon")
    }

    /// The daemon's log, for messages.
    fn told(&self) -> Result<String> {
        let label = "app.kubernetes.io/name=mirror-daemon";
        self.cluster.kubectl(["logs", "-n", NAMESPACE, "-l", label, "--tail=40", "--prefix"])
    }
}

impl Drop for Scene<'_> {
    fn drop(&mut self) {
        let mut all = vec!["delete", "--ignore-not-found", "--wait=false", "namespace/beside"];
        let names = ["pods", "routes", "events"].map(|what| format!("beside-mirror-daemon-{what}"));
        let own: Vec<String> = names
            .iter()
            .flat_map(|name| [format!("clusterrole/{name}"), format!("clusterrolebinding/{name}")])
            .collect();
        all.extend(own.iter().map(String::as_str));
        drop(self.cluster.kubectl(all));
    }
}

/// By number, what an app got of one kind.
fn copies(app: &TestApp, kind: &str) -> Copies {
    let mut copies = BTreeMap::new();
    for request in app.requests() {
        let of_kind = request.target().trim_start_matches('/').split(['/', '?']).next();
        if let (Some(true), Some(id)) = (of_kind.map(|of| of == kind), request.id()) {
            copies.entry(id).or_insert_with(Vec::new).push(request);
        }
    }
    copies
}
