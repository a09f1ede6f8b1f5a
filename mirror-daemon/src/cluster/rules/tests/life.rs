//! An API server that comes, goes, forgets and refuses.

use super::*;

/// Rules that mirror one route, watched.
async fn mirroring() -> (Fake, ClusterRules) {
    let fake = cluster().await;
    fake.put(ROUTES, route("cart", "shop/shadow", 100));
    fake.put(SERVICES, service("shop", "shadow"));
    let rules = follow(&fake);
    rules.changed().await;
    for kind in [Kind::HttpRoute, Kind::ReferenceGrant, Kind::Service] {
        until_state(&rules, kind, WatchState::Watching).await;
    }
    (fake, rules)
}

fn lists(fake: &Fake) -> usize {
    fake.requests(&format!("LIST {ROUTES}")).len()
}

#[tokio::test]
async fn watch_that_is_cut_goes_on_where_it_was_without_another_list() {
    let (fake, rules) = mirroring().await;
    fake.put(ROUTES, route("cart", "shop/shadow", 50));
    rules.changed().await;
    fake.cut_and_wait().await;
    fake.put(ROUTES, route("cart", "shop/shadow", 10));
    rules.changed().await;
    assert!(toml(&rules).contains("percentage = 10 "), "{}", toml(&rules));
    let watches = fake.requests(&format!("WATCH {ROUTES}"));
    assert_eq!((lists(&fake), watches.len()), (1, 2), "{watches:?}");
    assert!(watches[1].ends_with("resourceVersion=4"), "{watches:?}");
    assert!(watches[1].contains("allowWatchBookmarks=true"), "{watches:?}");
}

#[tokio::test]
async fn bookmarks_move_the_place_where_a_watch_goes_on() {
    let (fake, rules) = mirroring().await;
    fake.say(ROUTES, json!({ "type": "BOOKMARK", "object": { "metadata": { "resourceVersion": "4" } } }));
    fake.put(ROUTES, route("other", "shop/shadow", 50));
    until_rules(&rules, |toml| toml.contains("other.example")).await;
    assert_eq!(status(&rules, Kind::HttpRoute).changes, 1, "a bookmark is no change");
    fake.say(ROUTES, json!({ "type": "BOOKMARK", "object": { "metadata": { "resourceVersion": "77" } } }));
    let watches = || fake.requests(&format!("WATCH {ROUTES}"));
    // The cut may come before the bookmark was read; then the next watch is told it again.
    until(
        || {
            fake.cut();
            watches().last().is_some_and(|last| last.ends_with("resourceVersion=77"))
        },
        || format!("{:?}", watches()),
    )
    .await;
}

#[tokio::test]
async fn server_that_is_away_takes_nothing_away_and_is_found_again() {
    let (mut fake, rules) = mirroring().await;
    let before = toml(&rules);
    fake.stop();
    until_state(&rules, Kind::HttpRoute, WatchState::Failing).await;
    until_state(&rules, Kind::Service, WatchState::Failing).await;
    assert_eq!(toml(&rules), before);
    assert!(rules.status().is_synced);
    assert!(failures(&rules, Kind::HttpRoute, "unreachable") > 0);
    fake.put(ROUTES, route("cart", "shop/shadow", 5));
    fake.start_again().await;
    rules.changed().await;
    assert!(toml(&rules).contains("percentage = 5 "), "{}", toml(&rules));
    assert_eq!(lists(&fake), 1);
    until_state(&rules, Kind::HttpRoute, WatchState::Watching).await;
}

#[tokio::test]
async fn server_that_is_away_at_the_start_is_waited_for() {
    let mut fake = cluster().await;
    fake.stop();
    let rules = follow(&fake);
    until_state(&rules, Kind::Upstream, WatchState::Failing).await;
    assert!(rules.resolve(&Terms::default()).is_none());
    fake.start_again().await;
    rules.changed().await;
    assert!(rules.status().is_synced);
}

#[tokio::test]
async fn what_was_missed_while_versions_were_gone_is_listed_anew() {
    let (fake, rules) = mirroring().await;
    fake.put(ROUTES, route("other", "shop/shadow", 7));
    rules.changed().await;
    fake.with(|state| {
        state.compact();
    });
    fake.delete(ROUTES, "shop", "cart");
    fake.with(|state| state.compact());
    fake.cut();
    until_rules(&rules, |toml| !toml.contains("cart.example") && toml.contains("other.example")).await;
    assert_eq!(lists(&fake), 2);
    assert_eq!(failures(&rules, Kind::HttpRoute, "gone"), 1);
}

#[tokio::test]
async fn error_within_a_watch_has_everything_listed_anew() {
    let (fake, rules) = mirroring().await;
    let gone = json!({ "type": "ERROR", "object": { "kind": "Status", "code": 410, "message": "gone" } });
    fake.say(ROUTES, gone);
    until(|| lists(&fake) == 2, || format!("{:?}", rules.status())).await;
    fake.put(ROUTES, route("cart", "shop/shadow", 5));
    until_rules(&rules, |toml| toml.contains("percentage = 5 ")).await;
}

#[tokio::test]
async fn line_that_can_not_be_read_is_not_passed_over() {
    let (fake, rules) = mirroring().await;
    for (index, line) in
        ["{\"type\":\"ADDED\"", "\u{0}\u{1}", "{\"type\":\"ADDED\",\"object\":{\"metadata\":{}}}", "7"]
            .into_iter()
            .enumerate()
    {
        fake.say(ROUTES, line.into());
        until(|| lists(&fake) == index + 2, || format!("{line}: {:?}", rules.status())).await;
        until_state(&rules, Kind::HttpRoute, WatchState::Watching).await;
    }
    assert_eq!(failures(&rules, Kind::HttpRoute, "garbage"), 4);
    assert!(toml(&rules).contains("cart.example"));
}

#[tokio::test]
async fn list_that_can_not_be_read_is_tried_again() {
    let fake = cluster().await;
    fake.with(|state| state.garbage.insert(ROUTES.to_owned()));
    let rules = follow(&fake);
    until(|| failures(&rules, Kind::HttpRoute, "garbage") >= 2, || format!("{:?}", rules.status())).await;
    assert_eq!(status(&rules, Kind::HttpRoute).state, WatchState::Failing);
    fake.with(|state| state.garbage.clear());
    rules.changed().await;
}

#[tokio::test]
async fn server_that_ends_every_watch_at_once_is_not_asked_without_a_pause() {
    let fake = cluster().await;
    fake.with(|state| state.ends_watches = true);
    let begun = Instant::now();
    let config = ::kube::Config::new(format!("http://{}", fake.address).parse().unwrap());
    let client = crate::cluster::client::client(config).unwrap();
    let settings = Terms::default();
    let rules = ClusterRules::start(&Handle::current(), client, settings, Arc::default());
    let watches = || fake.requests(&format!("WATCH {ROUTES}")).len();
    until(|| watches() >= 4, || format!("{:?}", rules.status())).await;
    // Pauses of at least 125, 250 and 500 ms were between them.
    assert!(begun.elapsed() >= Duration::from_millis(800), "{:?}", begun.elapsed());
    assert_eq!(lists(&fake), 1);
}

#[tokio::test]
async fn right_that_is_missing_is_waited_for() {
    let fake = cluster().await;
    fake.put(ROUTES, route("cart", "shop/shadow", 100));
    fake.put(SERVICES, service("shop", "shadow"));
    fake.with(|state| state.forbidden.insert(SERVICES.to_owned()));
    let rules = follow(&fake);
    until_state(&rules, Kind::Service, WatchState::Forbidden).await;
    until(|| failures(&rules, Kind::Service, "forbidden") >= 2, || format!("{:?}", rules.status())).await;
    assert_eq!(status(&rules, Kind::Service).state, WatchState::Forbidden);
    assert!(rules.resolve(&Terms::default()).is_none(), "without Services there is no rule");
    fake.with(|state| state.forbidden.clear());
    rules.changed().await;
    assert!(toml(&rules).contains("cart.example"));
}

#[tokio::test]
async fn right_that_is_taken_away_and_given_back_leaves_the_rules_as_they_are() {
    let (fake, rules) = mirroring().await;
    let before = toml(&rules);
    fake.with(|state| state.forbidden.extend([ROUTES, SERVICES].map(str::to_owned)));
    fake.cut();
    until_state(&rules, Kind::HttpRoute, WatchState::Forbidden).await;
    until_state(&rules, Kind::Service, WatchState::Forbidden).await;
    assert_eq!(toml(&rules), before);
    fake.put(ROUTES, route("cart", "shop/shadow", 3));
    fake.with(|state| state.forbidden.clear());
    rules.changed().await;
    assert!(toml(&rules).contains("percentage = 3 "));
}

#[tokio::test]
async fn kinds_of_a_gateway_that_is_not_used_may_be_forbidden() {
    let fake = cluster().await;
    fake.with(|state| {
        state.unknown.clear();
        state.forbidden.extend([OPTIONS, UPSTREAMS, NAMESPACES].map(str::to_owned));
    });
    let rules = follow(&fake);
    rules.changed().await;
    assert!(rules.status().is_synced);
    until_state(&rules, Kind::Upstream, WatchState::Forbidden).await;
}

#[tokio::test]
async fn kind_that_is_installed_later_is_found_and_given_up_when_it_is_removed() {
    let fake = cluster().await;
    fake.with(|state| state.unknown.extend([ROUTES, GRANTS].map(str::to_owned)));
    fake.put(SERVICES, service("shop", "shadow"));
    let rules = follow(&fake);
    rules.changed().await;
    assert_eq!(toml(&rules), "", "a cluster without the Gateway API has no rules");
    until(|| fake.requests(&format!("LIST {ROUTES}")).len() >= 3, || format!("{:?}", rules.status())).await;
    fake.put(ROUTES, route("cart", "shop/shadow", 100));
    fake.with(|state| state.unknown.remove(ROUTES));
    rules.changed().await;
    assert!(toml(&rules).contains("cart.example"));
    fake.with(|state| state.unknown.insert(ROUTES.to_owned()));
    fake.cut();
    rules.changed().await;
    assert_eq!(toml(&rules), "");
    assert_eq!(status(&rules, Kind::HttpRoute).objects, 0);
}
