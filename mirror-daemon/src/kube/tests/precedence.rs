//! Gateway API's order among routes, through manifests.

use super::*;

/// A rule that is told apart by its shadow.
fn rule(matches: &str, shadow: &str) -> String {
    format!("{{ matches: [{matches}], filters: [{}] }}", mirror_to(shadow))
}

fn services(names: &[&str]) -> String {
    names.iter().map(|name| service("a", name, 80)).collect()
}

fn taken<'i>(imported: &'i Imported, ask: Ask<'_>) -> &'i str {
    let (_, shadows) = imported.ask(ask);
    assert!(shadows.len() <= 1);
    shadows.first().map_or("", |name| name.strip_prefix("a.").unwrap().strip_suffix(".80").unwrap())
}

#[test]
fn hosts_go_exact_then_longer_wildcard_then_any() {
    let all = "";
    let one = |name: &str, hosts: &str| route("a", name, hosts, &format!("[{}]", rule(all, name)));
    let manifests = services(&["any", "short", "long", "exact"])
        + &one("any", "[]")
        + &one("short", "['*.example']")
        + &one("long", "['*.b.example']")
        + &one("exact", "[a.b.example]");
    let imported = import(&manifests);
    for (host, expected) in [
        ("a.b.example", "exact"),
        ("A.B.Example:8080", "exact"),
        ("x.b.example", "long"),
        ("x.y.b.example", "long"),
        ("b.example", "short"),
        ("example", "any"),
        ("other.test", "any"),
    ] {
        assert_eq!(taken(&imported, Ask { host, ..Ask::default() }), expected, "{host}");
    }
}

/// Each row: the weaker match, the stronger one, and a request that both match.
const PAIRS: [(&str, &str, Ask<'static>); 11] = [
    ("{ path: { value: /a } }", "{ path: { type: Exact, value: /a/b } }", ask("GET", "/a/b")),
    ("{ path: { value: /a } }", "{ path: { value: /a/b } }", ask("GET", "/a/b/c")),
    ("{ path: { type: RegularExpression, value: '/a/.*' } }", "{ path: { value: / } }", ask("GET", "/a/b")),
    (
        "{ path: { type: RegularExpression, value: '/a/b' } }",
        "{ path: { type: Exact, value: /a/b } }",
        ask("GET", "/a/b"),
    ),
    (
        "{ path: { value: /a }, headers: [{ name: x, value: '1' }, { name: z, value: '2' }] }",
        "{ path: { value: /a/b } }",
        ask("GET", "/a/b"),
    ),
    ("{}", "{ method: POST }", ask("POST", "/")),
    ("{ headers: [{ name: x, value: '1' }] }", "{ method: POST }", ask("POST", "/")),
    (
        "{ headers: [{ name: x, value: '1' }] }",
        "{ headers: [{ name: x, value: '1' }, { name: z, value: '2' }] }",
        ask("GET", "/"),
    ),
    (
        "{ queryParams: [{ name: q, value: '1' }, { name: p, value: '2' }] }",
        "{ headers: [{ name: x, value: '1' }] }",
        ask("GET", "/?q=1&p=2"),
    ),
    (
        "{ queryParams: [{ name: q, value: '1' }] }",
        "{ queryParams: [{ name: q, value: '1' }, { name: p, value: '2' }] }",
        ask("GET", "/?q=1&p=2"),
    ),
    (
        "{ headers: [{ name: X, value: '1' }, { name: x, value: '9' }] }",
        "{ headers: [{ name: x, value: '1' }, { name: z, value: '2' }] }",
        ask("GET", "/"),
    ),
];

const fn ask(method: &'static str, target: &'static str) -> Ask<'static> {
    Ask { method, host: "h.example", target, headers: &[("x", "1"), ("z", "2")] }
}

#[test]
fn stronger_match_takes_the_request_wherever_it_is_written() {
    for (weak, strong, ask) in PAIRS {
        let (weak, strong) = (rule(weak, "weak"), rule(strong, "strong"));
        let one_route = |first: &str, second: &str| route("a", "r", "[]", &format!("[{first}, {second}]"));
        let two_routes = |first: &str, second: &str| {
            route("a", "r1", "[]", &format!("[{first}]")) + &route("a", "r2", "[]", &format!("[{second}]"))
        };
        for manifests in [
            one_route(&weak, &strong),
            one_route(&strong, &weak),
            two_routes(&weak, &strong),
            two_routes(&strong, &weak),
        ] {
            let imported = import(&(services(&["weak", "strong"]) + &manifests));
            assert_eq!(taken(&imported, ask), "strong", "{manifests}");
        }
        let alone = import(&(services(&["weak"]) + &route("a", "r", "[]", &format!("[{weak}]"))));
        assert_eq!(taken(&alone, ask), "weak", "the weaker one matches too: {weak}");
    }
}

#[test]
fn ties_go_to_the_older_then_by_namespace_and_name_then_by_order() {
    let one = |name: &str, created: &str| {
        let created =
            if created.is_empty() { String::new() } else { format!(", creationTimestamp: '{created}'") };
        route("a", name, "[]", &format!("[{}]", rule("", name)))
            .replace(&format!("name: {name} }}\nspec"), &format!("name: {name}{created} }}\nspec"))
    };
    let ask = || Ask { host: "h", ..Ask::default() };
    let two = services(&["b", "c"]);
    let (old, new) = ("2023-12-31T23:59:59Z", "2024-01-01T00:00:00Z");
    assert_eq!(taken(&import(&(two.clone() + &one("b", new) + &one("c", old))), ask()), "c");
    assert_eq!(taken(&import(&(two.clone() + &one("b", old) + &one("c", old))), ask()), "b");
    assert_eq!(
        taken(&import(&(two.clone() + &one("b", "") + &one("c", new))), ask()),
        "c",
        "files without a time are the youngest"
    );
    let other_namespace = one("b", old).replace("namespace: a", "namespace: z");
    let imported = import(&(two.clone() + &service("z", "b", 80) + &other_namespace + &one("c", old)));
    assert_eq!(imported.ask(ask()).1, ["a.c.80"], "the namespace goes before the name");
    let rules = format!("[{}, {}]", rule("", "c"), rule("", "b"));
    assert_eq!(taken(&import(&(two.clone() + &route("a", "r", "[]", &rules))), ask()), "c");
    let wrong = import(&(two + &one("b", "yesterday")));
    assert_eq!(
        (wrong.reasons(), wrong.findings[0].path.as_str()),
        (vec![Reason::InvalidField], "metadata.creationTimestamp")
    );
}

#[test]
fn prefix_is_by_element_and_slash_at_its_end_means_nothing() {
    let imported = import(
        &(services(&["s"])
            + &route("a", "r", "[]", &format!("[{}]", rule("{ path: { value: /abc/ } }", "s")))),
    );
    for (target, expected) in
        [("/abc", "s"), ("/abc/", "s"), ("/abc/d", "s"), ("/abc?x", "s"), ("/abcd", ""), ("/ab", "")]
    {
        assert_eq!(taken(&imported, Ask { target, ..Ask::default() }), expected, "{target}");
    }
}

#[test]
fn rule_that_mirrors_nothing_keeps_its_requests_from_one_that_does() {
    let plain =
        |matches: &str| format!("{{ matches: [{matches}], backendRefs: [{{ name: v1, port: 80 }}] }}");
    let manifests = services(&["s"])
        + &route(
            "a",
            "wide",
            "['*.example']",
            &format!("[{}, {}]", rule("", "s"), plain("{ path: { value: /private } }")),
        )
        + &route("a", "narrow", "[pay.example]", &format!("[{}]", plain("")))
        + &route("a", "unrelated", "[other.test]", &format!("[{}]", plain("")));
    let imported = import(&manifests);
    assert_eq!(imported.findings, []);
    let at = |host, target| taken(&imported, Ask { host, target, ..Ask::default() });
    assert_eq!(at("shop.example", "/"), "s");
    assert_eq!(at("shop.example", "/private/x"), "");
    assert_eq!(at("pay.example", "/"), "", "the gateway routes it by another route");
    assert!(!imported.toml.contains("unrelated"), "{}", imported.toml);
}

#[test]
fn route_whose_matches_or_hosts_are_all_wrong_does_not_match_everything() {
    let bad_match = rule("{ path: { type: RegularExpression, value: '(' } }", "s");
    let imported = import(&(services(&["s"]) + &route("a", "r", "[]", &format!("[{bad_match}]"))));
    assert_eq!(imported.findings[0].path, "spec.rules[0].matches[0].path.value");
    assert_eq!(taken(&imported, Ask::default()), "");
    let imported =
        import(&(services(&["s"]) + &route("a", "r", "['a b', 'c:80']", &format!("[{}]", rule("", "s")))));
    assert_eq!(imported.reasons(), [Reason::InvalidField, Reason::InvalidField]);
    assert_eq!(imported.toml, "");
    let half = rule("{ method: get }, { method: POST }", "s");
    let imported =
        import(&(services(&["s"]) + &route("a", "r", "['a b', ok.example]", &format!("[{half}]"))));
    assert_eq!(taken(&imported, Ask { method: "POST", host: "ok.example", ..Ask::default() }), "s");
    assert_eq!(taken(&imported, Ask { host: "ok.example", ..Ask::default() }), "");
}
