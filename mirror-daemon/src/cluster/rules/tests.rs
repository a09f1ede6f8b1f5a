//! Tests against an API server that misbehaves: what is known when, what is told, and how often is asked.

mod events;
mod fake;
mod life;
mod limits;
mod live;

use super::*;
use crate::telemetry::snapshot::{WatchState, WatchStatus};
use fake::{
    Fake, GATEWAYS, GRANTS, NAMESPACES, OLD_GATEWAYS, OLD_GRANTS, OLD_ROUTES, OPTIONS, ROUTES, SERVICES,
    UPSTREAMS,
};
use serde_json::{Value, json};
use std::time::Instant;

/// Long enough for a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);

const PACE: Pace = Pace {
    unreachable: Duration::from_millis(100),
    refused: Duration::from_millis(100),
    absent: [Duration::from_millis(20), Duration::from_millis(100)],
    watch: Duration::from_secs(60),
    collect: Duration::from_millis(20),
    report: Duration::from_millis(50),
};

/// A cluster with the Gateway API, without K8sGateway, and with the Gateway that its routes name.
async fn cluster() -> Fake {
    let fake = Fake::start().await;
    fake.with(|state| {
        let unknown = [OPTIONS, UPSTREAMS, OLD_ROUTES, OLD_GRANTS, OLD_GATEWAYS];
        state.unknown.extend(unknown.map(str::to_owned));
    });
    fake.put(GATEWAYS, gateway("Same"));
    fake
}

fn follow(fake: &Fake) -> ClusterRules {
    follow_with(fake, Terms::default(), Limits::default())
}

fn follow_with(fake: &Fake, terms: Terms, limits: Limits) -> ClusterRules {
    let config = ::kube::Config::new(format!("http://{}", fake.address).parse().unwrap());
    let client = crate::cluster::client::client(config).unwrap();
    let books = Books::new(terms, limits);
    ClusterRules::start_with(&Handle::current(), client, books, Arc::default(), PACE)
}

/// Waits until `holds`; what `tell` says when it never does.
async fn until(mut holds: impl FnMut() -> bool, tell: impl Fn() -> String) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "{}", tell());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

impl ClusterRules {
    /// Waits until they have changed.
    async fn changed(&self) {
        self.shared.has_changed.notified().await;
    }
}

/// Waits until the rules are as wanted.
async fn until_rules(rules: &ClusterRules, holds: impl Fn(&str) -> bool) {
    until(|| holds(&toml(rules)), || format!("{}\n{:?}", toml(rules), rules.status())).await;
}

async fn until_state(rules: &ClusterRules, kind: Kind, state: WatchState) {
    until(|| status(rules, kind).state == state, || format!("{state:?}: {:?}", rules.status())).await;
}

/// The rules as they would be taken now; empty before anything is known.
fn toml(rules: &ClusterRules) -> String {
    let settings = rules.shared.books().terms.clone();
    rules.resolve(&settings).map(|resolved| resolved.to_toml()).unwrap_or_default()
}

fn status(rules: &ClusterRules, kind: Kind) -> WatchStatus {
    rules.status().kinds.into_iter().find(|status| status.kind == kind.name()).unwrap()
}

fn failures(rules: &ClusterRules, kind: Kind, label: &str) -> u64 {
    status(rules, kind).failures.into_iter().find(|(own, _)| *own == label).unwrap().1
}

fn findings(rules: &ClusterRules, reason: kube::Reason) -> u64 {
    let all = rules.status().findings;
    all.into_iter().find(|(label, _)| *label == reason.label()).unwrap().1
}

/// A route in `shop` that mirrors to port 80 of `to`, which is a Service as `namespace/name`.
fn route(name: &str, to: &str, percent: u32) -> Value {
    let (namespace, service) = to.split_once('/').unwrap();
    let backend = json!({ "namespace": namespace, "name": service, "port": 80 });
    json!({
        "metadata": { "name": name, "namespace": "shop", "uid": format!("uid-{name}") },
        "spec": {
            "parentRefs": [{ "name": "gw" }],
            "hostnames": [format!("{name}.example")],
            "rules": [{ "filters": [{
                "type": "RequestMirror", "requestMirror": { "backendRef": backend, "percent": percent }
            }] }]
        }
    })
}

/// The Gateway of `shop`, which takes routes from there.
fn gateway(from: &str) -> Value {
    let selector = json!({ "matchLabels": { "mirrored": "yes" } });
    let namespaces = json!({ "from": from, "selector": selector });
    let listener = json!({
        "name": "http", "protocol": "HTTP", "port": 80, "allowedRoutes": { "namespaces": namespaces }
    });
    json!({ "metadata": { "name": "gw", "namespace": "shop", "uid": "gw" }, "spec": { "listeners": [listener] } })
}

fn service(namespace: &str, name: &str) -> Value {
    json!({ "metadata": { "name": name, "namespace": namespace, "uid": name }, "spec": { "ports": [{ "port": 80 }] } })
}

/// Allows routes of `shop` to name Services of `namespace`.
fn grant(namespace: &str) -> Value {
    json!({
        "metadata": { "name": "g", "namespace": namespace },
        "spec": {
            "from": [{ "group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "shop" }],
            "to": [{ "group": "", "kind": "Service" }]
        }
    })
}
