//! Changes in the cluster, and what of them is told.

use super::*;
use crate::config::KubernetesConfig;
use crate::kube::{LabelSelector, Reason};

#[tokio::test]
async fn nothing_is_taken_before_every_kind_was_listed() {
    let fake = cluster().await;
    fake.put(ROUTES, route("cart", "shop/shadow", 100));
    fake.put(SERVICES, service("shop", "shadow"));
    fake.with(|state| state.held_back.insert(SERVICES.to_owned()));
    let rules = follow(&fake);
    until_state(&rules, Kind::HttpRoute, WatchState::Watching).await;
    until_state(&rules, Kind::Upstream, WatchState::Absent).await;
    assert!(rules.resolve(&Terms::default()).is_none());
    assert!(!rules.status().is_synced);
    fake.with(|state| state.held_back.clear());
    rules.changed().await;
    assert!(rules.status().is_synced);
    assert!(toml(&rules).contains("shop.shadow.80"), "{}", toml(&rules));
    assert_eq!(status(&rules, Kind::Service).objects, 1);
}

#[tokio::test]
async fn cluster_without_any_route_is_known_too() {
    let fake = Fake::start().await;
    let rules = follow(&fake);
    rules.changed().await;
    let resolved = rules.resolve(&Terms::default()).unwrap();
    assert_eq!(resolved.mirror_count(), 0);
}

#[tokio::test]
async fn rules_change_with_the_objects_and_nothing_else_is_told() {
    let fake = cluster().await;
    fake.put(ROUTES, route("cart", "shop/shadow", 100));
    fake.put(SERVICES, service("shop", "shadow"));
    let rules = follow(&fake);
    rules.changed().await;

    fake.put(ROUTES, route("cart", "shop/shadow", 25));
    rules.changed().await;
    assert!(toml(&rules).contains("percentage = 25"), "{}", toml(&rules));

    // Unrelated objects, and a change that rules do not look at.
    for index in 0..50 {
        fake.put(SERVICES, service("other", &format!("s{index}")));
    }
    let mut annotated = route("cart", "shop/shadow", 25);
    annotated["metadata"]["annotations"] = json!({ "a": "b" });
    fake.put(ROUTES, annotated);
    let is_told = |count: u64| status(&rules, Kind::Service).changes >= count;
    until(|| is_told(50) && status(&rules, Kind::HttpRoute).changes >= 2, || format!("{:?}", rules.status()))
        .await;
    fake.delete(SERVICES, "shop", "shadow");
    rules.changed().await;
    assert!(
        !toml(&rules).contains("shop.shadow.80"),
        "told of the change that matters only: {}",
        toml(&rules)
    );
    until(|| findings(&rules, Reason::BackendNotFound) == 1, || format!("{:?}", rules.status())).await;

    fake.delete(ROUTES, "shop", "cart");
    until(|| findings(&rules, Reason::BackendNotFound) == 0, || format!("{:?}", rules.status())).await;
}

#[tokio::test]
async fn rules_that_run_already_are_not_told_again() {
    let fake = cluster().await;
    fake.put(ROUTES, route("cart", "shop/shadow", 100));
    fake.put(SERVICES, service("shop", "shadow"));
    let rules = follow(&fake);
    rules.changed().await;
    let settings =
        KubernetesConfig { cluster_domain: "corp.example".to_owned(), ..KubernetesConfig::default() };
    let settings = Terms { settings, ..Terms::default() };
    let resolved = rules.resolve(&settings).unwrap();
    assert!(resolved.to_toml().contains("shadow.shop.svc.corp.example"));
    rules.taken(&settings, Some(&resolved));
    fake.put(ROUTES, route("cart", "shop/shadow", 1));
    rules.changed().await;
    assert!(
        toml(&rules).contains("percentage = 1 ") && toml(&rules).contains("corp.example"),
        "{}",
        toml(&rules)
    );
}

#[tokio::test]
async fn grant_permits_and_its_removal_revokes() {
    let fake = cluster().await;
    fake.put(ROUTES, route("cart", "shadow/httpbin", 100));
    fake.put(SERVICES, service("shadow", "httpbin"));
    let rules = follow(&fake);
    rules.changed().await;
    assert_eq!(toml(&rules), "");
    assert_eq!(findings(&rules, Reason::RefNotPermitted), 1);
    fake.put(GRANTS, grant("shadow"));
    rules.changed().await;
    assert!(toml(&rules).contains("shadow.httpbin.80"), "{}", toml(&rules));
    fake.delete(GRANTS, "shadow", "g");
    rules.changed().await;
    assert_eq!(toml(&rules), "");
}

#[tokio::test]
async fn gateway_takes_routes_and_lets_go_of_them_when_it_or_their_namespace_changes() {
    let fake = cluster().await;
    fake.put(ROUTES, route("cart", "shop/shadow", 100));
    fake.put(SERVICES, service("shop", "shadow"));
    let rules = follow(&fake);
    until_rules(&rules, |toml| toml.contains("cart.example")).await;
    fake.put(GATEWAYS, gateway("Selector"));
    until_rules(&rules, str::is_empty).await;
    until(|| findings(&rules, Reason::NotAdmitted) == 1, || format!("{:?}", rules.status())).await;
    let namespace = |label: &str| json!({ "metadata": { "name": "shop", "labels": { "mirrored": label } } });
    fake.put(NAMESPACES, namespace("yes"));
    until_rules(&rules, |toml| toml.contains("cart.example")).await;
    fake.put(NAMESPACES, namespace("no"));
    until_rules(&rules, str::is_empty).await;
    fake.put(GATEWAYS, gateway("All"));
    until_rules(&rules, |toml| toml.contains("cart.example")).await;
    fake.delete(GATEWAYS, "shop", "gw");
    until_rules(&rules, str::is_empty).await;
    until(|| findings(&rules, Reason::NotAdmitted) == 1, || format!("{:?}", rules.status())).await;
}

#[tokio::test]
async fn selector_and_a_gateways_own_mirroring_hold_for_routes_that_change() {
    let fake = cluster().await;
    fake.put(SERVICES, service("shop", "shadow"));
    fake.put(ROUTES, route("cart", "shop/shadow", 100));
    let route_selector = LabelSelector::parse("mirror=yes").unwrap();
    let settings = KubernetesConfig { route_selector, ..KubernetesConfig::default() };
    let settings = Terms { settings, ..Terms::default() };
    let rules = follow_with(&fake, settings, Limits::default());
    rules.changed().await;
    assert!(!toml(&rules).contains("[[shadow]]"), "{}", toml(&rules));
    let mut labelled = route("cart", "shop/shadow", 100);
    labelled["metadata"]["labels"] = json!({ "mirror": "yes" });
    fake.put(ROUTES, labelled.clone());
    rules.changed().await;
    assert!(toml(&rules).contains("[[shadow]]"), "{}", toml(&rules));
    labelled["status"] = json!({ "parents": [{
        "controllerName": "gateway.example/c", "conditions": [{ "type": "Accepted", "status": "True" }]
    }] });
    fake.put(ROUTES, labelled);
    rules.changed().await;
    assert!(!toml(&rules).contains("[[shadow]]"), "{}", toml(&rules));
}

#[tokio::test]
async fn rules_of_the_guide_are_made_of_what_a_cluster_holds() {
    let fake = Fake::start().await;
    let guide = include_str!("../../../../../tests/fixtures/k8sgateway-shadowing.yaml");
    let parent = include_str!("../../../../../tests/cluster/manifests/parent.yaml");
    for mut object in kube::documents(&format!("{guide}\n---\n{parent}"), "guide").unwrap() {
        let path = match object["kind"].as_str().unwrap() {
            "HTTPRoute" => ROUTES,
            "Gateway" => GATEWAYS,
            "RouteOption" => OPTIONS,
            "Upstream" => UPSTREAMS,
            "ReferenceGrant" => OLD_GRANTS,
            _ => continue,
        };
        if object["metadata"]["namespace"].is_null() {
            object["metadata"]["namespace"] = "default".into();
        }
        fake.put(path, object);
    }
    fake.put(SERVICES, json!({ "metadata": { "name": "httpbin", "namespace": "shadow" }, "spec": { "ports": [{ "port": 8000 }] } }));
    // An API server that knows ReferenceGrants in their former version only.
    fake.with(|state| state.unknown.insert(GRANTS.to_owned()));
    let rules = follow(&fake);
    until_rules(&rules, |toml| toml.contains("httpbin.shadow.svc.cluster.local:8000")).await;
    assert_eq!(fake.requests("WATCH /apis/gateway.networking.k8s.io/v1beta1/referencegrants").len(), 1);
}
