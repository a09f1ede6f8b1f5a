//! More than is held, and things that are no objects.

use super::*;
use crate::kube::Reason;

#[tokio::test]
async fn long_list_is_read_page_by_page() {
    let fake = cluster().await;
    for index in 0..450 {
        fake.put(SERVICES, service("shop", &format!("s{index:03}")));
    }
    let rules = follow(&fake);
    rules.changed().await;
    assert_eq!(status(&rules, Kind::Service).objects, 450);
    let lists = fake.requests(&format!("LIST {SERVICES}"));
    assert_eq!(lists.len(), 3, "{lists:?}");
    assert!(lists[1].ends_with("?limit=200&continue=200"), "{lists:?}");
}

#[tokio::test]
async fn page_that_is_too_long_is_asked_for_in_smaller_ones() {
    let fake = cluster().await;
    let text = "x".repeat(300_000);
    for index in 0..40 {
        let mut large = service("shop", &format!("s{index}"));
        large["metadata"]["annotations"] = json!({ "a": text });
        fake.put(SERVICES, large);
    }
    let rules = follow(&fake);
    rules.changed().await;
    assert_eq!(status(&rules, Kind::Service).objects, 40);
    assert!(failures(&rules, Kind::Service, "too_large") >= 3, "12 MB fit in none of 200, 100 and 50");
    assert!(rules.status().object_bytes < 100_000, "annotations are not held");
}

#[tokio::test]
async fn objects_beyond_the_bound_are_left_out_and_counted() {
    let fake = cluster().await;
    for index in 0..30 {
        fake.put(SERVICES, service("shop", &format!("s{index:02}")));
    }
    let limits = Limits { objects: 20, refused: 5, ..Limits::default() };
    let rules = follow_with(&fake, Terms::default(), limits);
    rules.changed().await;
    let found = status(&rules, Kind::Service);
    assert_eq!((found.objects, found.refused), (20, 10));
    assert_eq!(findings(&rules, Reason::LimitExceeded), 5);
    for index in 0..20 {
        fake.delete(SERVICES, "shop", &format!("s{index:02}"));
    }
    fake.put(SERVICES, service("shop", "s25"));
    until(|| status(&rules, Kind::Service).objects == 1, || format!("{:?}", rules.status())).await;
}

#[tokio::test]
async fn objects_that_are_none_spoil_no_others() {
    let fake = cluster().await;
    fake.put(ROUTES, route("cart", "shop/shadow", 100));
    fake.put(SERVICES, service("shop", "shadow"));
    fake.put(SERVICES, json!({ "metadata": {}, "spec": {} }));
    fake.put(SERVICES, json!({ "metadata": { "name": 7, "namespace": [] }, "spec": 9 }));
    fake.put(
        ROUTES,
        json!({ "metadata": { "name": "wrong", "namespace": "shop" }, "spec": { "rules": "none" } }),
    );
    let rules = follow(&fake);
    rules.changed().await;
    assert!(toml(&rules).contains("cart.example"));
    assert_eq!(findings(&rules, Reason::InvalidField), 1);
    fake.put(ROUTES, json!({ "metadata": { "name": "none", "namespace": "shop" } }));
    fake.put(ROUTES, route("wrong", "shop/shadow", 5));
    until_rules(&rules, |toml| toml.contains("wrong.example")).await;
    until(|| status(&rules, Kind::HttpRoute).refused == 1, || format!("{:?}", rules.status())).await;
}
