//! Which rule takes a request.

use super::*;

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
fn regex_has_ascii_classes_and_reads_unicode_where_it_must() {
    for (pattern, text, is_match) in [
        (r"\w+", "abc_1", true),
        (r"\w", "é", false),
        (r"\d", "\u{663}", false),
        ("é+", "éé", true),
        ("/[^/]+", "/é", true),
        ("[é]", "é", true),
        (r"\p{Greek}", "α", true),
        (r"(?i)ABC", "abc", true),
        (".*", "a\u{e9}b", true),
    ] {
        let found = rules(vec![route(&[], vec![rule("r", regex(pattern))])]);
        let expected = if is_match { "r" } else { "-" };
        assert_eq!(taken(&found, "GET", "h", text, &[]), expected, "{pattern} {text}");
    }
    let bytes = |pattern: &str| FullRegex::new(pattern).unwrap().memory_bytes();
    assert!(bytes(r"/users/\w+/[0-9]{1,9}") < 16 * 1024, "{}", bytes(r"/users/\w+/[0-9]{1,9}"));
    let fault = FullRegex::new(&"(a{100}){100}".repeat(10)).unwrap_err();
    assert!(fault.is_size(), "{fault}");
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
