#![allow(clippy::arithmetic_side_effects, reason = "a test that overflows fails, as it should")]

mod gateways;
mod matching;
mod properties;
mod sampling;

use super::*;
use crate::http::{BodyLength, Field, Version};
use proptest::prelude::*;
use std::net::Ipv4Addr;

fn fields<'a>(pairs: &[(&'a str, &'a str)]) -> Vec<Field<'a>> {
    pairs.iter().map(|(name, value)| Field { name, value: value.as_bytes(), line: b"" }).collect()
}

fn head<'a>(method: &'a str, target: &'a str, fields: &'a [Field<'a>]) -> RequestHead<'a> {
    RequestHead { method, target, version: Version::Http11, fields, body: BodyLength::None }
}

fn sender(number: u64) -> Sender {
    Sender {
        client_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        flow: FlowKey { gateway_port: 80, remote_port: 40_000, ..FlowKey::default() },
        number: RequestNumber(number),
        gateways: GatewaySet::ALL,
    }
}

fn hosts(names: &[&str]) -> Vec<HostPattern> {
    names.iter().map(|name| HostPattern::parse(name).unwrap()).collect()
}

fn mirror(share: Share, by: SampleBy, salt: &str) -> Mirror {
    Mirror { shadow: ShadowId(0), share, by, salt: salt.to_owned() }
}

fn rule(name: &str, matched: Match) -> RouteRule {
    RouteRule {
        name: name.to_owned(),
        matches: vec![matched],
        guard: MethodGuard::Any,
        mirrors: vec![mirror(Share::ALL, SampleBy::Request, "")],
    }
}

fn route(names: &[&str], rules: Vec<RouteRule>) -> Route {
    Route { hosts: hosts(names), gateways: vec![], origin: None, rules }
}

fn rules(routes: Vec<Route>) -> Rules {
    Rules::new(routes, &Sampling::default())
}

fn taken<'r>(rules: &'r Rules, method: &str, host: &str, target: &str, more: &[(&str, &str)]) -> &'r str {
    let mut all = vec![("Host", host)];
    all.extend_from_slice(more);
    match rules.decide(&head(method, target, &fields(&all)), &sender(0)) {
        Decision::Matched { rule, .. } => rule,
        Decision::Unmatched => "-",
    }
}

fn by_path(path: PathMatch) -> Match {
    Match { path, ..Match::default() }
}

fn exact(path: &str) -> Match {
    by_path(PathMatch::Exact(path.to_owned()))
}

fn prefix(path: &str) -> Match {
    by_path(PathMatch::prefix(path))
}

fn regex(pattern: &str) -> Match {
    by_path(PathMatch::Regex(FullRegex::new(pattern).unwrap()))
}

fn is(name: &str, value: &str) -> ValueMatch {
    ValueMatch { name: name.to_owned(), value: TextMatch::Exact(value.to_owned()) }
}

fn picked_of(rules: &Rules, request: &RequestHead<'_>, sender: &Sender) -> Vec<bool> {
    match rules.decide(request, sender) {
        Decision::Matched { mirrors, .. } => mirrors.iter().map(|verdict| verdict.picked).collect(),
        Decision::Unmatched => panic!("the rule matches all"),
    }
}

fn sampled(mirrors: Vec<Mirror>, seed: &str) -> Rules {
    let rule = RouteRule { mirrors, ..rule("r", Match::default()) };
    Rules::new(vec![route(&[], vec![rule])], &Sampling { seed: seed.to_owned(), ..Sampling::default() })
}

#[test]
fn client_ip_is_what_the_outermost_trusted_proxy_wrote() {
    let peer: IpAddr = "192.0.2.9".parse().unwrap();
    type Case<'a> = (&'a [(&'a str, &'a str)], u32, &'a str);
    let cases: [Case<'_>; 11] = [
        (&[("x-forwarded-for", "1.1.1.1, 2.2.2.2")], 0, "192.0.2.9"),
        (&[("x-forwarded-for", "1.1.1.1, 2.2.2.2")], 1, "2.2.2.2"),
        (&[("x-forwarded-for", "1.1.1.1, 2.2.2.2")], 2, "1.1.1.1"),
        (&[("x-forwarded-for", "1.1.1.1, 2.2.2.2")], 3, "192.0.2.9"),
        (&[("X-Forwarded-For", "1.1.1.1"), ("x-forwarded-for", "2.2.2.2")], 2, "1.1.1.1"),
        (&[("x-forwarded-for", "spoofed, 2.2.2.2:4711")], 1, "2.2.2.2"),
        (&[("x-forwarded-for", "[2001:db8::1]:80")], 1, "2001:db8::1"),
        (&[("x-forwarded-for", "[2001:db8::1]")], 1, "2001:db8::1"),
        (&[("x-forwarded-for", "unknown")], 1, "192.0.2.9"),
        (&[("x-forwarded-for", "::ffff:3.3.3.3")], 1, "3.3.3.3"),
        (&[], 1, "192.0.2.9"),
    ];
    for (given, trusted, expected) in cases {
        let fields = fields(given);
        let found = client_ip(&head("GET", "/", &fields), trusted, peer);
        assert_eq!(found.to_string(), expected, "{given:?} with {trusted}");
    }
}

#[test]
fn loop_mark_makes_a_request_a_mirror_whatever_its_value() {
    let marked = fields(&[("X-Mirrored-By", "")]);
    assert!(is_mirrored(&head("GET", "/", &marked), "x-mirrored-by"));
    assert!(!is_mirrored(&head("GET", "/", &[]), "x-mirrored-by"));
}
