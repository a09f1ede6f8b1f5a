//! Events, on one node and on several.

use super::*;
use crate::kube::Reason;

fn events(fake: &Fake) -> Vec<Value> {
    fake.with(|state| state.events.values().cloned().collect())
}

fn outcome(rules: &ClusterRules, label: &str) -> u64 {
    rules.status().events.into_iter().find(|(own, _)| *own == label).unwrap().1
}

#[tokio::test]
async fn reference_that_leads_nowhere_is_told_once_by_all_nodes() {
    let fake = cluster().await;
    fake.put(ROUTES, route("cart", "shadow/httpbin", 100));
    fake.put(SERVICES, service("shadow", "httpbin"));
    let nodes = [follow(&fake), follow(&fake), follow(&fake)];
    let sum = |label: &str| nodes.iter().map(|rules| outcome(rules, label)).sum::<u64>();
    until(|| sum("created") + sum("exists") == 3, || format!("{:?}", nodes[0].status())).await;
    assert_eq!(sum("created"), 1);
    let told = events(&fake);
    let [event] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!(event["reason"], Reason::RefNotPermitted.label());
    assert_eq!(event["regarding"]["uid"], "uid-cart");
    assert_eq!((&event["regarding"]["kind"], &event["type"]), (&json!("HTTPRoute"), &json!("Warning")));
    let note = event["note"].as_str().unwrap();
    assert!(note.contains("no ReferenceGrant in shadow allows"), "{note}");

    fake.put(GRANTS, grant("shadow"));
    until_rules(&nodes[0], |toml| toml.contains("shadow.httpbin")).await;
    assert_eq!(fake.requests("POST").len(), 3);
    assert_eq!(fake.requests("PATCH").len() + fake.requests("PUT").len(), 0, "no route is ever written to");
}

#[tokio::test]
async fn account_that_may_not_write_events_is_no_obstacle() {
    let fake = cluster().await;
    fake.with(|state| {
        state.forbidden.insert("/apis/events.k8s.io/v1/namespaces/shop/events".to_owned());
    });
    fake.put(ROUTES, route("cart", "shop/none", 100));
    fake.put(ROUTES, route("good", "shop/shadow", 100));
    fake.put(SERVICES, service("shop", "shadow"));
    let rules = follow(&fake);
    until(|| outcome(&rules, "forbidden") == 1, || format!("{:?}", rules.status())).await;
    assert!(toml(&rules).contains("good.example"));
    assert_eq!(events(&fake).len(), 0);
}
