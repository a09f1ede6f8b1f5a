//! The daemon's mirroring beside that of the gateway itself: the same rules, the same requests, both shadows compared.

mod compare;
mod kinds;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use mirror_tests::client;
use mirror_tests::kube::{Cluster, say};
use mirror_tests::netns::Netns;
use mirror_tests::server::{LogMode, TestApp};

use crate::daemon;
use crate::gateway::{Gateway, Kind};
use compare::{Copies, Differences};
use kinds::{Errand, KINDS};

/// Requests of every kind, for each of both.
const REQUESTS: u64 = 1000;

/// The same on the upstream leg: there is little that differs, and nothing that differs by chance.
const REQUESTS_UPSTREAM: u64 = 100;

/// Copies at one half of [`REQUESTS`] are so many more or fewer at most: six standard deviations.
const HALF_TOLERANCE: u64 = 95;

/// How long no copy may have come before none is waited for.
const QUIET: Duration = Duration::from_secs(3);

const ENVOYS_HOST: &str = "envoy.beside.example";
const DAEMONS_HOST: &str = "daemon.beside.example";

/// The daemon has only the rules of a Gateway that nobody serves, at the pods of the one that Envoy Gateway does.
const DAEMONS_CONFIG: &str = r#"
[capture]
leg = "@LEG@"
ports = [@PORT@]

[admin]
listen = "0.0.0.0:9900"

[kubernetes]
gateway_api = true

[[kubernetes.gateway]]
name = "nobodys"
namespace = "beside"
pods = { namespace = "envoy-gateway-system", selector = "gateway.envoyproxy.io/owning-gateway-name=production" }
"#;

/// Where the daemon takes its copies from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leg {
    /// What clients send to the gateway.
    Downstream,
    /// What the gateway sends to production.
    Upstream,
}

impl Leg {
    /// Of the document.
    fn chapter(self) -> &'static str {
        match self {
            Self::Downstream => "Differences",
            Self::Upstream => "Differences on the upstream leg",
        }
    }
}

#[test]
fn copies_differ_from_envoy_gateways_own_only_as_documented() -> Result<()> {
    let test = "copies_differ_from_envoy_gateways_own_only_as_documented";
    copies_differ_only_as_documented(test, Leg::Downstream, REQUESTS)
}

#[test]
fn copies_of_the_upstream_leg_differ_from_envoy_gateways_own_only_as_documented() -> Result<()> {
    let test = "copies_of_the_upstream_leg_differ_from_envoy_gateways_own_only_as_documented";
    copies_differ_only_as_documented(test, Leg::Upstream, REQUESTS_UPSTREAM)
}

fn copies_differ_only_as_documented(test: &str, leg: Leg, count: u64) -> Result<()> {
    let Some(cluster) = Cluster::alone_with_gateway_or_skip(test, "envoy-gateway") else { return Ok(()) };
    let table = compare::table(leg.chapter())?;
    let gateway = Kind::EnvoyGateway.start(&cluster)?;
    let scene = Scene::new(&cluster, &gateway, leg)?;
    let mut found = Differences::new();
    for kind in KINDS {
        let begun = Instant::now();
        let mut answered = Vec::new();
        for (host, app) in scene.shadows() {
            answered.push(kind.send(scene.errand(host, count), &|| app.log().summary().requests)?);
        }
        scene.settle(count)?;
        let (envoys, daemons) = (copies(&scene.envoys, kind.name), copies(&scene.daemons, kind.name));
        ensure!(answered[0] == answered[1], "production answered {}: {answered:?}", kind.name);
        let (took, copied) = (begun.elapsed().as_secs_f64(), (envoys.len(), daemons.len()));
        println!("{}: {count} for each, {:?}, copied {copied:?}, {took:.1} s", kind.name, answered[0]);
        compare::compare(&mut found, kind.name, count, &envoys, &daemons);
        scene.forget();
    }
    let (unexplained, gone) = (compare::not_in(&found, &table), compare::not_in(&table, &found));
    let told = || scene.told().unwrap_or_default();
    assert!(unexplained.is_empty(), "not in docs/BESIDE_ENVOY_GATEWAY.md: {unexplained:#?}\n{}", told());
    assert!(gone.is_empty(), "in docs/BESIDE_ENVOY_GATEWAY.md, and not found: {gone:#?}");
    let (kinds, differences) = (KINDS.len(), found.len());
    say(&format!(
        "{kinds} kinds of {count} requests ({leg:?}): {differences} differences, all of them documented"
    ));
    Ok(())
}

#[test]
fn half_of_the_requests_is_half_here_and_at_envoy_gateway() -> Result<()> {
    let test = "half_of_the_requests_is_half_here_and_at_envoy_gateway";
    let Some(cluster) = Cluster::alone_with_gateway_or_skip(test, "envoy-gateway") else { return Ok(()) };
    let gateway = Kind::EnvoyGateway.start(&cluster)?;
    let scene = Scene::new(&cluster, &gateway, Leg::Downstream)?;
    for (host, _) in scene.shadows() {
        kinds::HALF.send(scene.errand(host, REQUESTS), &|| 0)?;
    }
    scene.settle(REQUESTS)?;
    let counts = scene.shadows().map(|(_, app)| app.log().summary().requests);
    let [envoys, daemons] = counts;
    say(&format!("copies at 50 % of {REQUESTS}: {envoys} by Envoy, {daemons} by the daemon"));
    for count in counts {
        assert!(count.abs_diff(REQUESTS / 2) <= HALF_TOLERANCE, "{counts:?} of {REQUESTS}");
    }
    Ok(())
}

/// Three apps, the routes to them, and the daemon; all of it goes at Drop.
struct Scene<'a> {
    cluster: &'a Cluster,
    /// It is only asked.
    _production: TestApp,
    envoys: TestApp,
    daemons: TestApp,
    netns: Netns,
    /// The gateway's pod on the first node.
    gateway: SocketAddr,
}

impl<'a> Scene<'a> {
    fn new(cluster: &'a Cluster, gateway: &Gateway, leg: Leg) -> Result<Self> {
        let pod = gateway.pods.first().context("a gateway on the first node")?;
        let address = cluster.get(&["node", &pod.node])?;
        let address = address["status"]["addresses"][0]["address"].as_str().context("no address")?.to_owned();
        let netns = cluster.node(pod.node_number()?);
        let app = |log| TestApp::start(&netns, SocketAddr::new(address.parse()?, 0), log);
        let scene = Self {
            cluster,
            _production: app(LogMode::None)?,
            envoys: app(LogMode::Full)?,
            daemons: app(LogMode::Full)?,
            gateway: pod.at(gateway.port),
            netns: netns.clone(),
        };
        let port = |app: &TestApp| app.address().port().to_string();
        let manifest = include_str!("manifests/beside.yaml")
            .replace("@ADDRESS@", &address)
            .replace("@PRODUCTION@", &port(&scene._production))
            .replace("@ENVOYS@", &port(&scene.envoys))
            .replace("@DAEMONS@", &port(&scene.daemons));
        cluster.apply(&manifest)?;
        let (leg, ports) = match leg {
            Leg::Downstream => ("downstream", gateway.port.to_string()),
            Leg::Upstream => ("upstream", port(&scene._production)),
        };
        let config = DAEMONS_CONFIG.replace("@LEG@", leg).replace("@PORT@", &ports);
        daemon::apply(cluster, "cgroup", &config)?;
        scene.wait_until_mirrored()?;
        Ok(scene)
    }

    fn shadows(&self) -> [(&'static str, &TestApp); 2] {
        [(ENVOYS_HOST, &self.envoys), (DAEMONS_HOST, &self.daemons)]
    }

    fn errand(&self, host: &'static str, count: u64) -> Errand<'_> {
        Errand { netns: &self.netns, gateway: self.gateway, host, count }
    }

    /// Both shadows get copies, and what was sent to find out is forgotten.
    fn wait_until_mirrored(&self) -> Result<()> {
        for (host, app) in self.shadows() {
            self.cluster
                .eventually(&format!("requests for {host} are mirrored"), || {
                    let answer = client::get(&self.netns, self.gateway, host, "/first")?;
                    ensure!(answer.status == 200, "the gateway answers {}", answer.status);
                    Ok((!app.requests().is_empty()).then_some(()))
                })
                .with_context(|| self.told().unwrap_or_default())?;
        }
        self.settle(u64::MAX)?;
        self.forget();
        Ok(())
    }

    /// Waits until so many copies have come to each, or none has come for a while: some are never made.
    fn settle(&self, count: u64) -> Result<()> {
        let counts = || self.shadows().map(|(_, app)| app.log().summary().requests);
        let mut last = (counts(), Instant::now());
        self.cluster.eventually("no more copies come", || {
            let now = counts();
            if now != last.0 {
                last = (now, Instant::now());
            }
            Ok((now.iter().all(|copies| *copies >= count) || last.1.elapsed() > QUIET).then_some(()))
        })
    }

    fn forget(&self) {
        self.envoys.log().clear();
        self.daemons.log().clear();
    }

    /// What the daemon says of itself, for messages.
    fn told(&self) -> Result<String> {
        let pod = daemon::on_node(self.cluster, 1)?;
        let (log, ledger) = (daemon::log(self.cluster, &pod)?, daemon::ledger(self.cluster, &pod)?);
        Ok(format!("{log}\n{ledger:#}"))
    }
}

impl Drop for Scene<'_> {
    fn drop(&mut self) {
        drop(daemon::remove_all(self.cluster, "cgroup"));
        drop(self.cluster.kubectl(["delete", "namespace", "beside", "--ignore-not-found"]));
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
