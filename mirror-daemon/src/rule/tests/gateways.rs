//! Rules that hold at some gateways only, and rules that mirror nothing.

use super::*;

/// A rule for everything at these gateways, named after its host.
fn at_gateways(host: &[&str], gateways: &[&str], mirrors: Vec<Mirror>) -> Route {
    let name = format!("{host:?} at {gateways:?}");
    let rules = vec![RouteRule { name, mirrors, ..RouteRule::default() }];
    let gateways = gateways.iter().map(|name| (*name).to_owned()).collect();
    Route { hosts: hosts(host), gateways, origin: None, rules }
}

fn one_mirror() -> Vec<Mirror> {
    vec![mirror(Share::ALL, SampleBy::Request, "")]
}

#[test]
fn rule_of_a_gateway_holds_at_its_capture_points_only() {
    let routes = vec![
        at_gateways(&["h"], &["ns/a"], one_mirror()),
        at_gateways(&["h"], &["ns/b", "ns/c"], one_mirror()),
        at_gateways(&[], &[], one_mirror()),
    ];
    let rules = Rules::new(routes, &Sampling::default());
    let set =
        |names: &[&str]| rules.gateway_set(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
    for (gateways, expected) in [
        (set(&["ns/a"]), "[\"h\"] at [\"ns/a\"]"),
        (set(&["ns/b"]), "[\"h\"] at [\"ns/b\", \"ns/c\"]"),
        (set(&["ns/x", "ns/c"]), "[\"h\"] at [\"ns/b\", \"ns/c\"]"),
        (set(&["ns/x"]), "[] at []"),
        (GatewaySet::NONE, "[] at []"),
        (GatewaySet::ALL, "[\"h\"] at [\"ns/a\"]"),
    ] {
        let fields = fields(&[("Host", "h")]);
        let decision = rules.decide(&head("GET", "/", &fields), &Sender { gateways, ..sender(0) });
        let Decision::Matched { rule, .. } = decision else { panic!("{gateways:?}") };
        assert_eq!(rule, expected);
    }
    let fields = fields(&[("Host", "h")]);
    let considered = rules.considered(&head("GET", "/", &fields), set(&["ns/b"]));
    assert!(
        considered.iter().any(|one| one.outcome == Outcome::Mismatch(Mismatch::Gateway)),
        "{considered:?}"
    );
}

#[test]
fn rule_without_mirrors_keeps_its_requests_and_mirrors_nothing() {
    let routes = vec![at_gateways(&["h"], &[], vec![]), at_gateways(&[], &[], one_mirror())];
    let rules = Rules::new(routes, &Sampling::default());
    let fields = fields(&[("Host", "h")]);
    let request = head("GET", "/", &fields);
    assert_eq!(rules.decide(&request, &sender(0)), Decision::Unmatched);
    assert_eq!(rules.considered(&request, GatewaySet::ALL)[0].outcome, Outcome::Unmirrored);
    assert!(rules.choices(&request, &sender(0)).is_empty());
}
