#![allow(clippy::arithmetic_side_effects, reason = "a test that overflows fails, as it should")]

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
        gateways: GatewaySet::ALL,
        client_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        flow: FlowKey { gateway_port: 80, remote_port: 40_000, ..FlowKey::default() },
        number: RequestNumber(number),
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

#[test]
fn exact_host_beats_wildcard_and_the_longer_wildcard_the_shorter() {
    let rules = rules(vec![
        route(&[], vec![rule("any", Match::default())]),
        route(&["*.com"], vec![rule("com", exact("/"))]),
        route(&["*.example.com"], vec![rule("wild", Match::default())]),
        route(&["foo.example.com"], vec![rule("exact", prefix("/only"))]),
    ]);
    assert_eq!(taken(&rules, "GET", "foo.example.com", "/only", &[]), "exact");
    assert_eq!(
        taken(&rules, "GET", "foo.example.com", "/", &[]),
        "wild",
        "a less specific host serves the rest"
    );
    assert_eq!(taken(&rules, "GET", "a.b.example.com", "/", &[]), "wild", "more than one label");
    assert_eq!(taken(&rules, "GET", "example.com", "/", &[]), "com", "not the apex");
    assert_eq!(taken(&rules, "GET", "com", "/", &[]), "any");
    assert_eq!(taken(&rules, "GET", ".example.com", "/x", &[]), "any", "an empty label is none");
}

#[test]
fn host_port_case_and_final_dot_are_ignored() {
    let rules =
        rules(vec![route(&["Foo.Example", "[2001:DB8::1]", "192.0.2.1"], vec![rule("r", Match::default())])]);
    for host in [
        "foo.example",
        "FOO.example:8080",
        "foo.example.",
        "u@foo.example",
        "[2001:db8::1]:80",
        "192.0.2.1:1",
    ] {
        assert_eq!(taken(&rules, "GET", host, "/", &[]), "r", "{host}");
    }
    for host in ["", "foo.example.org", "xfoo.example", &"a".repeat(300)] {
        assert_eq!(taken(&rules, "GET", host, "/", &[]), "-", "{host}");
    }
}

#[test]
fn absolute_form_target_names_the_host_before_the_host_field_does() {
    let rules = rules(vec![route(&["a.example"], vec![rule("r", exact("/p"))])]);
    assert_eq!(taken(&rules, "GET", "b.example", "http://a.example:80/p?q", &[]), "r");
    assert_eq!(taken(&rules, "GET", "a.example", "http://b.example/p", &[]), "-");
}

#[test]
fn routes_without_hosts_match_all_and_come_last() {
    let rules = rules(vec![
        route(&[], vec![rule("any", exact("/x"))]),
        route(&["h"], vec![rule("host", Match::default())]),
    ]);
    assert_eq!(taken(&rules, "GET", "h", "/x", &[]), "host");
    assert_eq!(taken(&rules, "GET", "other", "/x", &[]), "any");
    assert_eq!(taken(&rules, "GET", "", "/x", &[]), "any");
}

#[test]
fn prefix_matches_whole_elements_only() {
    let rules = rules(vec![route(&[], vec![rule("abc", prefix("/abc/"))])]);
    for (path, expected) in [
        ("/abc", "abc"),
        ("/abc/", "abc"),
        ("/abc/d?x", "abc"),
        ("/abc?x=/y", "abc"),
        ("/abcd", "-"),
        ("/ab", "-"),
        ("/ABC", "-"),
    ] {
        assert_eq!(taken(&rules, "GET", "h", path, &[]), expected, "{path}");
    }
    let all = self::rules(vec![route(&[], vec![rule("all", prefix("/"))])]);
    assert_eq!(taken(&all, "OPTIONS", "h", "*", &[]), "all");
}

/// Each row: what wins, what loses, and a request that both match.
#[test]
fn precedence_among_matches_of_one_host() {
    let get = || vec!["GET".to_owned()];
    let two = || vec![is("a", "1"), is("b", "2")];
    let table: Vec<(&str, Match, Match)> = vec![
        ("exact path over prefix", exact("/p/q"), Match { headers: two(), methods: get(), ..prefix("/p/q") }),
        ("exact path over regex", exact("/p/q"), regex("/p/.*")),
        (
            "longer prefix over shorter",
            prefix("/p/q"),
            Match { headers: two(), methods: get(), ..prefix("/p") },
        ),
        ("prefix over regex", prefix("/"), Match { methods: get(), ..regex("/p/q") }),
        (
            "method over headers",
            Match { methods: get(), ..prefix("/p") },
            Match { headers: two(), ..prefix("/p") },
        ),
        (
            "more headers over fewer",
            Match { headers: two(), ..prefix("/p") },
            Match { headers: vec![is("a", "1")], query: two(), ..prefix("/p") },
        ),
        (
            "more query parameters over fewer",
            Match { query: two(), ..prefix("/p") },
            Match { query: vec![is("a", "1")], ..prefix("/p") },
        ),
        ("order of appearance among regexes", regex("/p/.*"), regex("/.*")),
    ];
    for (claim, winner, loser) in table {
        let request =
            |rules: &Rules| taken(rules, "GET", "h", "/p/q?a=1&b=2", &[("A", "1"), ("B", "2")]).to_owned();
        let (first, second) = (rule("winner", winner.clone()), rule("loser", loser.clone()));
        assert_eq!(
            request(&rules(vec![route(&[], vec![first.clone(), second.clone()])])),
            "winner",
            "{claim}"
        );
        assert_eq!(
            request(&rules(vec![route(&[], vec![second.clone()])])),
            "loser",
            "{claim}: the loser matches too"
        );
        if claim.starts_with("order") {
            assert_eq!(request(&rules(vec![route(&[], vec![second, first])])), "loser", "{claim}");
        } else {
            assert_eq!(
                request(&rules(vec![route(&[], vec![second]), route(&[], vec![first])])),
                "winner",
                "{claim}"
            );
        }
    }
}

#[test]
fn cluster_ties_go_to_the_file_then_the_older_then_by_name() {
    let from = |created, namespace: &str, name: &str| {
        let origin =
            ClusterOrigin { created_unix_seconds: created, namespace: namespace.into(), name: name.into() };
        Route {
            gateways: vec![],
            hosts: vec![],
            origin: Some(origin),
            rules: vec![rule(&format!("{namespace}/{name}"), Match::default())],
        }
    };
    let ask = |routes| taken(&rules(routes), "GET", "h", "/", &[]).to_owned();
    assert_eq!(ask(vec![from(2, "a", "a"), from(1, "b", "b")]), "b/b");
    assert_eq!(ask(vec![from(1, "b", "a"), from(1, "a", "b")]), "a/b");
    assert_eq!(ask(vec![from(1, "a", "b"), from(1, "a", "a")]), "a/a");
    assert_eq!(ask(vec![from(1, "a", "a"), route(&[], vec![rule("file", Match::default())])]), "file");
}

#[test]
fn header_match_joins_duplicates_and_ignores_name_case() {
    let one = Match { headers: vec![is("X-Env", "a,b")], ..Match::default() };
    let two = Match {
        headers: vec![ValueMatch {
            name: "x-re".into(),
            value: TextMatch::Regex(FullRegex::new("v[0-9]+,w").unwrap()),
        }],
        ..Match::default()
    };
    let rules = rules(vec![route(&[], vec![rule("exact", one), rule("regex", two)])]);
    let ask = |more: &[(&str, &str)]| taken(&rules, "GET", "h", "/", more).to_owned();
    assert_eq!(ask(&[("x-env", "a"), ("X-ENV", "b")]), "exact");
    assert_eq!(ask(&[("x-env", "a,b")]), "exact");
    for wrong in
        [&[("x-env", "a"), ("x-env", "b"), ("x-env", "")][..], &[("x-env", "a")], &[("x-env", "a,bc")], &[]]
    {
        assert_eq!(ask(wrong), "-", "{wrong:?}");
    }
    assert_eq!(ask(&[("x-re", "v12"), ("x-re", "w")]), "regex");
    assert_eq!(ask(&[("x-re", "xv12,w")]), "-", "the whole value must match");
}

#[test]
fn query_match_takes_the_first_value_as_written() {
    let matched = Match { query: vec![is("a", "1")], ..Match::default() };
    let rules = rules(vec![route(&[], vec![rule("r", matched)])]);
    let ask = |target: &str| taken(&rules, "GET", "h", target, &[]).to_owned();
    assert_eq!(ask("/?b=2&a=1&a=2"), "r");
    for other in ["/?a=2&a=1", "/?a=%31", "/?A=1", "/?a", "/"] {
        assert_eq!(ask(other), "-", "{other}");
    }
}

#[test]
fn regex_matches_the_whole_path() {
    let rules = rules(vec![route(&[], vec![rule("r", regex("/v[0-9]|/w"))])]);
    for (path, expected) in [("/v1", "r"), ("/w?x", "r"), ("/v12", "-"), ("/x/w", "-")] {
        assert_eq!(taken(&rules, "GET", "h", path, &[]), expected, "{path}");
    }
    assert!(FullRegex::new("a)(b").is_err());
    assert!(FullRegex::new("(").is_err());
}

#[test]
fn write_guard_stops_unsafe_methods_without_handing_them_on() {
    let guarded = RouteRule { guard: MethodGuard::Safe, ..rule("guarded", prefix("/p")) };
    let rules = rules(vec![route(&[], vec![guarded, rule("rest", Match::default())])]);
    assert_eq!(taken(&rules, "HEAD", "h", "/p", &[]), "guarded");
    for method in ["POST", "PUT", "PATCH", "DELETE", "get"] {
        assert_eq!(taken(&rules, method, "h", "/p", &[]), "-", "{method}");
        assert_eq!(taken(&rules, method, "h", "/", &[]), "rest", "{method}");
    }
}

#[test]
fn percentages_are_read_exactly() {
    let same = |text: &str, numerator, denominator| {
        assert_eq!(Share::percent(text), Share::fraction(numerator, denominator), "{text}");
    };
    same("0.39", 39, 10_000);
    same("100", 1, 1);
    same("100.000", 1, 1);
    same("0", 0, 1);
    same("-0.0", 0, 1);
    same("1e2", 1, 1);
    same("1.5e-3", 15, 1_000_000);
    same("0.0001", 1, 1_000_000);
    same("33.333333333333", 33_333_333_333_333, 100_000_000_000_000);
    for text in ["100.01", "-1", "101", "nan", "inf", "1e99", "99999999999999999999999"] {
        assert_eq!(Share::percent(text), Err(ShareFault::Range), "{text}");
    }
    for text in ["", ".", "x", "1.2.3", "1e", "--1", "1%", "0x10"] {
        assert_eq!(Share::percent(text), Err(ShareFault::NotANumber), "{text}");
    }
    assert_eq!(Share::percent("0.0000000000001"), Err(ShareFault::TooFine));
    assert_eq!(Share::percent("1e-99999"), Err(ShareFault::TooFine));
    assert_eq!(Share::percent("0.39").unwrap().to_string(), "0.39 %");
    assert_eq!(Share::ALL.to_string(), "100 %");
    assert_eq!(Share::fraction(1, 3).unwrap().to_string(), "1/3");
}

#[test]
fn none_picks_nothing_and_all_picks_everything() {
    for hash in [0, 1, u64::MAX / 2, u64::MAX] {
        assert!(!Share::NONE.picks(hash));
        assert!(Share::ALL.picks(hash));
        assert!(Share::fraction(u64::MAX, u64::MAX).unwrap().picks(hash));
    }
    let half = Share::fraction(1, 2).unwrap();
    assert!(half.picks((1 << 63) - 1));
    assert!(!half.picks(1 << 63));
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
fn same_key_gets_the_same_answer_whatever_the_connection() {
    let half = Share::percent("50").unwrap();
    let keys = [
        (SampleBy::Header("X-User".into()), "/", ("x-user", "u1")),
        (SampleBy::Cookie("user".into()), "/", ("cookie", "a=b; user=u1; c=d")),
        (SampleBy::Query("user".into()), "/?x=1&user=u1", ("x", "")),
        (SampleBy::ClientIp, "/", ("x", "")),
        (SampleBy::Request, "/", ("X-Request-Id", "r1")),
    ];
    for (by, target, field) in keys {
        let rules = sampled(vec![mirror(half, by.clone(), "")], "seed");
        let fields = fields(&[field]);
        let request = head("GET", target, &fields);
        let answers: std::collections::BTreeSet<_> =
            (0..64).map(|number| picked_of(&rules, &request, &sender(number))).collect();
        assert_eq!(answers.len(), 1, "{by}");
    }
}

#[test]
fn request_without_the_key_is_sampled_by_itself() {
    let ten = Share::percent("10").unwrap();
    let rules = sampled(vec![mirror(ten, SampleBy::Header("x-user".into()), "")], "seed");
    let by_request = sampled(vec![mirror(ten, SampleBy::Request, "")], "seed");
    let empty = fields(&[("x-user", "")]);
    let mut picked = 0;
    for number in 0..10_000 {
        let here = picked_of(&rules, &head("GET", "/", &[]), &sender(number));
        assert_eq!(here, picked_of(&by_request, &head("GET", "/", &empty), &sender(number)));
        picked += u32::from(here[0]);
    }
    assert!((880..=1120).contains(&picked), "{picked} of 10000 at 10 %");
}

#[test]
fn capture_point_does_not_change_the_choice() {
    let rules = sampled(vec![mirror(Share::percent("50").unwrap(), SampleBy::Request, "")], "seed");
    for number in 0..100 {
        let here = sender(number);
        let mut there = here;
        there.flow.capture_point = 7;
        let request = head("GET", "/", &[]);
        assert_eq!(picked_of(&rules, &request, &here), picked_of(&rules, &request, &there));
    }
}

#[test]
fn mirrors_of_a_rule_pick_the_same_requests_and_salt_makes_one_independent() {
    let ten = Share::percent("10").unwrap();
    let rules = sampled(
        vec![
            mirror(ten, SampleBy::Request, ""),
            mirror(ten, SampleBy::Request, ""),
            mirror(ten, SampleBy::Request, "other"),
        ],
        "seed",
    );
    let (mut first, mut both) = (0_u32, 0_u32);
    for number in 0..20_000 {
        let picked = picked_of(&rules, &head("GET", "/", &[]), &sender(number));
        assert_eq!(picked[0], picked[1]);
        first += u32::from(picked[0]);
        both += u32::from(picked[0] && picked[2]);
    }
    assert!((1830..=2170).contains(&first), "{first}");
    assert!((140..=260).contains(&both), "independent: about 1 % of 20000, not {both}");
}

#[test]
fn hash_is_the_same_in_every_build() {
    let rules =
        sampled(vec![mirror(Share::percent("50").unwrap(), SampleBy::Header("k".into()), "")], DEFAULT_SEED);
    let answers: String = (0..32)
        .map(|key| {
            let key = key.to_string();
            let fields = fields(&[("k", &key)]);
            if picked_of(&rules, &head("GET", "/", &fields), &sender(0))[0] { '1' } else { '0' }
        })
        .collect();
    assert_eq!(answers, PINNED_ANSWERS);
}

/// Nodes of different versions must agree: a change here is a change for users.
const PINNED_ANSWERS: &str = "11010011100001101000011011000011";

/// Gateway API's own acceptance: 500 requests, within 3 sigma of the binomial, at most 5 tries.
fn accepted_within_five_tries(percent: f64, mut pick: impl FnMut(u64) -> bool) -> bool {
    let (n, p) = (500_u32, percent / 100.0);
    let allowed = 3.0 * (f64::from(n) * p * (1.0 - p)).sqrt();
    (0..5_u64).any(|attempt| {
        let picked = (0..u64::from(n)).filter(|number| pick(attempt * 1000 + number)).count();
        (picked as f64 - f64::from(n) * p).abs() <= allowed
    })
}

#[test]
fn every_two_decimal_percentage_hits_its_share_and_samples_nest() {
    const KEYS: u64 = 40_000;
    let by_key = sampled(vec![mirror(Share::percent("50").unwrap(), SampleBy::Request, "")], "share");
    // One hash for each key serves all percentages, as in the daemon.
    let sampler = &by_key.rules[0].mirrors[0].sampler;
    let mut hashes: Vec<u64> =
        (0..KEYS).map(|number| sampler.hash(&head("GET", "/", &[]), &sender(number))).collect();
    hashes.sort_unstable();
    let mut before = 0;
    for hundredths in 0..=10_000_u64 {
        let share = Share::percent(&format!("{}.{:02}", hundredths / 100, hundredths % 100)).unwrap();
        // Sorted: picked hashes are a prefix, so that a larger share holds every smaller one.
        let picked = hashes.partition_point(|hash| share.picks(*hash));
        assert!(picked >= before);
        before = picked;
        let (n, p) = (KEYS as f64, hundredths as f64 / 10_000.0);
        let sigma = (n * p * (1.0 - p)).sqrt();
        assert!((picked as f64 - n * p).abs() <= 4.0 * sigma, "{hundredths}: {picked}");
    }
    assert_eq!(before, usize::try_from(KEYS).unwrap());
}

proptest! {
    #[test]
    fn shares_nest_whatever_their_denominators(
        hash: u64, a in 0..=u64::MAX, b in 1..=u64::MAX, c in 0..=u64::MAX, d in 1..=u64::MAX,
    ) {
        if let (Ok(left), Ok(right)) = (Share::fraction(a.min(b), b), Share::fraction(c.min(d), d)) {
            let smaller_left = u128::from(a.min(b)) * u128::from(d) <= u128::from(c.min(d)) * u128::from(b);
            let (smaller, larger) = if smaller_left { (left, right) } else { (right, left) };
            prop_assert!(!smaller.picks(hash) || larger.picks(hash));
        }
    }

    #[test]
    fn gateway_api_acceptance_holds_for_any_seed(seed in "[a-z]{1,12}", hundredths in 0..=10_000_u32) {
        let text = format!("{}.{:02}", hundredths / 100, hundredths % 100);
        let rules = sampled(vec![mirror(Share::percent(&text).unwrap(), SampleBy::Request, "")], &seed);
        let pick = |number| picked_of(&rules, &head("GET", "/", &[]), &sender(number))[0];
        prop_assert!(accepted_within_five_tries(f64::from(hundredths) / 100.0, pick));
    }

    #[test]
    fn percent_never_panics(text in "[-+0-9.eEnaif]{0,40}") {
        let _ = Share::percent(&text);
    }

    #[test]
    fn authority_parts_are_the_whole(whole in proptest::collection::vec(any::<u8>(), 0..40)) {
        let parts = Authority::split(&whole);
        prop_assert_eq!([parts.userinfo, parts.host, parts.port].concat(), whole);
    }

    #[test]
    fn deciding_never_panics(target in "\\PC{0,40}", host in "\\PC{0,40}", value in "\\PC{0,20}") {
        let matched = Match { headers: vec![is("k", "v")], query: vec![is("q", "v")], ..prefix("/a") };
        let rules = rules(vec![route(&["*.x"], vec![rule("r", matched)]), route(&[], vec![rule("s", exact("/"))])]);
        let fields = fields(&[("host", &host), ("k", &value), ("k", "v"), ("cookie", &value)]);
        let request = head("GET", &target, &fields);
        let _ = rules.decide(&request, &sender(0));
        let _ = rules.considered(&request, GatewaySet::ALL);
    }
}

#[test]
fn several_mirrors_of_a_rule_are_each_listed_with_their_own_share() {
    let mut second = mirror(Share::NONE, SampleBy::Request, "");
    second.shadow = ShadowId(1);
    let rules = sampled(vec![mirror(Share::ALL, SampleBy::Request, ""), second], "seed");
    let Decision::Matched { rule, mirrors } = rules.decide(&head("GET", "/", &[]), &sender(0)) else {
        panic!("the rule matches all")
    };
    assert_eq!(rule, "r");
    let expected = [(ShadowId(0), true), (ShadowId(1), false)];
    assert_eq!(mirrors.iter().map(|verdict| (verdict.shadow, verdict.picked)).collect::<Vec<_>>(), expected);
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

#[test]
fn considered_says_what_became_of_every_alternative() {
    let guarded = RouteRule { guard: MethodGuard::Safe, ..rule("guarded", exact("/p")) };
    let rules = rules(vec![
        route(&["h"], vec![guarded, rule("outranked", prefix("/")), rule("path", exact("/q"))]),
        route(&["other"], vec![rule("host", Match::default())]),
    ]);
    let fields = fields(&[("host", "h")]);
    let outcomes: Vec<_> = rules
        .considered(&head("POST", "/p", &fields), GatewaySet::ALL)
        .into_iter()
        .map(|considered| (considered.rule, considered.outcome))
        .collect();
    let expected = [
        ("guarded", Outcome::Guarded),
        ("path", Outcome::Mismatch(Mismatch::Path)),
        ("outranked", Outcome::Outranked),
        ("host", Outcome::Mismatch(Mismatch::Host)),
    ];
    assert_eq!(outcomes, expected);
}

#[test]
fn a_thousand_routes_are_decided_by_host_lookup() {
    let many = (0..1000)
        .map(|index| {
            route(&[&format!("h{index}.example")], vec![rule(&format!("r{index}"), Match::default())])
        })
        .collect();
    let rules = rules(many);
    assert_eq!(rules.route_count(), 1000);
    assert_eq!(taken(&rules, "GET", "h999.example", "/", &[]), "r999");
    let host = LowerHost::of(Some("h999.example"));
    assert_eq!(rules.hosts.candidates(&host).count(), 1, "only its own candidate is looked at");
}

#[test]
fn host_patterns_that_can_never_match_are_refused() {
    use HostPatternFault as F;
    let cases = [
        ("", F::Everything),
        ("*", F::Everything),
        ("a.example:80", F::Port),
        ("a.*.example", F::Wildcard),
        ("*a.example", F::Wildcard),
        ("a..example", F::Name),
        ("a b", F::Name),
        ("[::1", F::Name),
    ];
    for (text, fault) in cases {
        assert_eq!(HostPattern::parse(text), Err(fault), "{text}");
    }
}

#[test]
fn request_id_header_has_a_configurable_name() {
    let rule = RouteRule {
        mirrors: vec![mirror(Share::percent("50").unwrap(), SampleBy::Request, "")],
        ..rule("r", Match::default())
    };
    let sampling = Sampling { request_id: "x-trace".into(), ..Sampling::default() };
    let rules = Rules::new(vec![route(&[], vec![rule])], &sampling);
    let answers = |fields: &[Field<'_>]| -> std::collections::BTreeSet<Vec<bool>> {
        (0..64).map(|number| picked_of(&rules, &head("GET", "/", fields), &sender(number))).collect()
    };
    assert_eq!(answers(&fields(&[("X-Trace", "t1")])).len(), 1);
    assert_eq!(answers(&fields(&[("x-request-id", "t1")])).len(), 2, "no longer the request id");
}

/// One condition of one route, as the oracle sees it.
#[derive(Clone, Debug)]
struct Spec {
    host: Option<String>,
    path: (u8, String),
    has_method: bool,
    headers: usize,
    query: usize,
}

fn spec() -> impl Strategy<Value = Spec> {
    let host =
        proptest::option::of(proptest::sample::select(vec!["b.c", "a.b.c", "*.c", "*.b.c", "c", "*.a.b.c"]));
    let path = (0..2_u8, proptest::sample::select(vec!["/", "/p", "/p/q", "/p/q/r", "/pq"]));
    (host, path, any::<bool>(), 0..3_usize, 0..3_usize).prop_map(
        |(host, (kind, path), has_method, headers, query)| Spec {
            host: host.map(str::to_owned),
            path: (kind, path.to_owned()),
            has_method,
            headers,
            query,
        },
    )
}

impl Spec {
    fn route(&self, name: usize) -> Route {
        let names = ["x", "y"];
        let values = |count: usize| names.iter().take(count).map(|name| is(name, "1")).collect();
        let (kind, path) = &self.path;
        let matched = Match {
            path: if *kind == 0 { PathMatch::Exact(path.clone()) } else { PathMatch::prefix(path) },
            methods: if self.has_method { vec!["GET".into()] } else { vec![] },
            headers: values(self.headers),
            query: values(self.query),
        };
        let hosts: Vec<&str> = self.host.iter().map(String::as_str).collect();
        route(&hosts, vec![rule(&name.to_string(), matched)])
    }

    /// How good this condition is for a request, larger is better; `None`: it does not match. Written from the
    /// text of Gateway API, with nothing of the code under test.
    fn grade(&self, host: &str, path: &str, headers: usize, query: usize) -> Option<impl Ord + use<>> {
        let host_grade = match &self.host {
            None => (0, 0),
            Some(pattern) => match pattern.strip_prefix('*') {
                Some(tail) if host.len() > tail.len() && host.ends_with(tail) => (1, pattern.len()),
                None if pattern == host => (2, pattern.len()),
                _ => return None,
            },
        };
        let elements =
            |text: &str| text.split('/').filter(|one| !one.is_empty()).map(str::to_owned).collect::<Vec<_>>();
        let (kind, wanted) = &self.path;
        let path_grade = match kind {
            0 if wanted == path => (1, 0),
            1 if elements(path).starts_with(&elements(wanted)) => (0, wanted.len()),
            _ => return None,
        };
        (self.headers <= headers && self.query <= query).then_some((
            host_grade,
            path_grade,
            self.has_method,
            self.headers,
            self.query,
        ))
    }
}

proptest! {
    #[test]
    fn decisions_agree_with_a_naive_reading_of_gateway_api(
        specs in proptest::collection::vec(spec(), 0..12),
        host in proptest::sample::select(vec!["c", "b.c", "a.b.c", "z.a.b.c", "d"]),
        path in proptest::sample::select(vec!["/", "/p", "/p/q", "/p/q/r", "/pq", "/p/qr"]),
        headers in 0..3_usize,
        query in 0..3_usize,
    ) {
        let graded = specs.iter().enumerate().filter_map(|(index, spec)| {
            // Among equals the first: the larger reversed index.
            Some((spec.grade(host, path, headers, query)?, std::cmp::Reverse(index)))
        });
        let expected = graded.max().map_or("-".to_owned(), |(_, std::cmp::Reverse(index))| index.to_string());
        let rules = rules(specs.iter().enumerate().map(|(index, spec)| spec.route(index)).collect());
        let target = format!("{path}?{}", ["x=1", "y=1"][..query].join("&"));
        let found = taken(&rules, "GET", host, &target, &[("x", "1"), ("y", "1")][..headers]);
        prop_assert_eq!(found, expected);
    }
}

/// A rule for everything at these gateways, named after its host.
fn at_gateways(host: &[&str], gateways: &[&str], mirrors: Vec<Mirror>) -> Route {
    let name = format!("{host:?} at {gateways:?}");
    let rules = vec![RouteRule { name, mirrors, ..RouteRule::default() }];
    let gateways = gateways.iter().map(|name| (*name).to_owned()).collect();
    Route { hosts: hosts(host), gateways, origin: None, rules }
}

fn one_mirror() -> Vec<Mirror> {
    vec![Mirror { shadow: ShadowId(0), share: Share::ALL, by: SampleBy::Request, salt: String::new() }]
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
