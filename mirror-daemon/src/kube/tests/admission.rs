//! Routes that a Gateway takes, and those that it does not.

use super::*;

/// A Gateway; `listeners` is the YAML of `spec.listeners`, in flow style.
fn gateway(namespace: &str, name: &str, listeners: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{ namespace: {namespace}, name: {name} }}\n\
         spec: {{ gatewayClassName: x, listeners: {listeners} }}\n---\n"
    )
}

/// A listener for HTTP on port 80 called `http`; `more` goes on behind a comma.
fn listener(more: &str) -> String {
    format!("{{ name: http, protocol: HTTP, port: 80{more} }}")
}

fn allowing(namespaces: &str) -> String {
    listener(&format!(", allowedRoutes: {{ namespaces: {namespaces} }}"))
}

fn namespace(name: &str, labels: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata: {{ name: {name}, labels: {labels} }}\n---\n")
}

/// A route in `app` with a mirror, its Service, and `parents` as its `parentRefs`.
fn mirrored(hostnames: &str, parents: &str) -> String {
    let route = route("app", "r", hostnames, &format!("[{{ filters: [{}] }}]", mirror_to("s")));
    service("app", "s", 80) + &route.replace("[{ name: gw }]", parents)
}

const PARENT: &str = "[{ name: gw, namespace: infra }]";

/// What a cluster with these objects makes.
fn in_cluster(manifests: &str) -> Resolved {
    let mut objects = Objects::of_cluster();
    for value in documents(manifests, "test").unwrap() {
        objects.insert(value).unwrap();
    }
    resolve(&objects, &Terms::default())
}

/// The hosts of the only route; `None`: it was not taken, and its owner was told.
fn hosts(resolved: &Resolved) -> Option<Vec<String>> {
    let toml = resolved.to_toml();
    if toml.is_empty() {
        let reasons: Vec<Reason> = resolved.findings().iter().map(|finding| finding.reason).collect();
        assert_eq!(reasons, [Reason::NotAdmitted]);
        return None;
    }
    let hosts = toml.lines().find_map(|line| line.strip_prefix("hosts = ")).unwrap_or("[]");
    Some(serde_json::from_str(hosts).unwrap())
}

fn assert_admitted(gateway: &str, is_admitted: bool) {
    let manifests = gateway.to_owned() + &mirrored("[a.example]", PARENT);
    assert_eq!(hosts(&in_cluster(&manifests)).is_some(), is_admitted, "{gateway}");
}

#[test]
fn route_in_a_cluster_needs_a_gateway_that_is_there() {
    assert_admitted("", false);
    assert_admitted(&gateway("infra", "other", &format!("[{}]", allowing("{ from: All }"))), false);
    assert_admitted(&gateway("infra", "gw", "[]"), false);
    assert_admitted(&gateway("infra", "gw", &format!("[{}]", allowing("{ from: All }"))), true);
    let resolved = in_cluster(&mirrored("[bank.example]", PARENT));
    let finding = &resolved.findings()[0];
    assert_eq!(finding.path, "spec.parentRefs[0]");
    assert_eq!(finding.message, "Gateway infra/gw is not there");
}

#[test]
fn listener_says_which_namespaces_it_takes_routes_of() {
    for (namespaces, is_admitted) in [
        ("{}", false),
        ("{ from: Same }", false),
        ("{ from: None }", false),
        ("{ from: Anything }", false),
        ("{ from: All }", true),
        ("{ from: Selector }", false),
        ("{ from: Selector, selector: {} }", true),
        ("{ from: Selector, selector: { matchLabels: { team: web } } }", true),
        ("{ from: Selector, selector: { matchLabels: { team: api } } }", false),
        ("{ from: Selector, selector: { matchLabels: { kubernetes.io/metadata.name: app } } }", true),
        (
            "{ from: Selector, selector: { matchExpressions: [{ key: team, operator: In, values: [web, api] }] } }",
            true,
        ),
        (
            "{ from: Selector, selector: { matchExpressions: [{ key: team, operator: NotIn, values: [web] }] } }",
            false,
        ),
        ("{ from: Selector, selector: { matchExpressions: [{ key: team, operator: Exists }] } }", true),
        (
            "{ from: Selector, selector: { matchExpressions: [{ key: team, operator: DoesNotExist }] } }",
            false,
        ),
        ("{ from: Selector, selector: { matchExpressions: [{ key: team, operator: Like }] } }", false),
    ] {
        let gateway = gateway("infra", "gw", &format!("[{}]", allowing(namespaces)));
        assert_admitted(&(namespace("app", "{ team: web }") + &gateway), is_admitted);
    }
    // Its own namespace, by default.
    let own = gateway("app", "gw", &format!("[{}]", listener(""))) + &mirrored("[]", "[{ name: gw }]");
    assert_eq!(hosts(&in_cluster(&own)), Some(vec![]));
}

#[test]
fn namespace_that_is_not_known_is_not_selected_in_a_cluster() {
    let denying =
        "{ from: Selector, selector: { matchExpressions: [{ key: team, operator: DoesNotExist }] } }";
    assert_admitted(&gateway("infra", "gw", &format!("[{}]", allowing(denying))), false);
}

#[test]
fn listener_has_the_kind_the_protocol_the_name_and_the_port_that_are_asked_for() {
    let all = "allowedRoutes: { namespaces: { from: All }";
    let with = |more: &str| gateway("infra", "gw", &format!("[{}]", listener(&format!(", {all}{more}"))));
    assert_admitted(&with(", kinds: [{ kind: HTTPRoute }] }"), true);
    assert_admitted(
        &with(", kinds: [{ kind: TLSRoute }, { group: gateway.networking.k8s.io, kind: HTTPRoute }] }"),
        true,
    );
    assert_admitted(&with(", kinds: [{ kind: GRPCRoute }] }"), false);
    assert_admitted(&with(", kinds: [{ group: x.io, kind: HTTPRoute }] }"), false);
    for (protocol, is_admitted) in [("HTTPS", true), ("TLS", false), ("TCP", false)] {
        assert_admitted(
            &with(" }").replace("protocol: HTTP,", &format!("protocol: {protocol},")),
            is_admitted,
        );
    }
    for (parent, is_admitted) in [
        ("sectionName: http", true),
        ("sectionName: other", false),
        ("port: 80", true),
        ("port: 81", false),
        ("sectionName: http, port: 80", true),
        ("sectionName: http, port: 81", false),
    ] {
        let parents = format!("[{{ name: gw, namespace: infra, {parent} }}]");
        let manifests = with(" }") + &mirrored("[a.example]", &parents);
        assert_eq!(hosts(&in_cluster(&manifests)).is_some(), is_admitted, "{parent}");
    }
}

#[test]
fn hosts_are_cut_to_those_of_the_listener() {
    let cases: [(&str, &str, Option<&[&str]>); 12] = [
        ("a.example", "[a.example, b.example]", Some(&["a.example"])),
        ("a.example", "[]", Some(&["a.example"])),
        ("''", "[b.example]", Some(&["b.example"])),
        ("a.example", "[bank.example]", None),
        ("'*.a.example'", "[x.a.example, y.b.example]", Some(&["x.a.example"])),
        ("'*.a.example'", "[a.example]", None),
        ("'*.a.example'", "['*.x.a.example']", Some(&["*.x.a.example"])),
        ("'*.x.a.example'", "['*.a.example']", Some(&["*.x.a.example"])),
        ("x.a.example", "['*.a.example', '*.example']", Some(&["x.a.example"])),
        ("'*.a.example'", "['*.b.example']", None),
        ("'*.a.example'", "[]", Some(&["*.a.example"])),
        ("a.example:80", "[]", None),
    ];
    for (own, hostnames, expected) in cases {
        let more = format!(", hostname: {own}, allowedRoutes: {{ namespaces: {{ from: All }} }}");
        let manifests =
            gateway("infra", "gw", &format!("[{}]", listener(&more))) + &mirrored(hostnames, PARENT);
        let expected = expected.map(|hosts| hosts.iter().map(|host| (*host).to_owned()).collect());
        assert_eq!(hosts(&in_cluster(&manifests)), expected, "{own} {hostnames}");
    }
}

#[test]
fn hosts_of_several_listeners_count_together_and_refusals_are_told_by_listener() {
    let of = |name: &str, more: &str| format!("{{ name: {name}, protocol: HTTP, port: 80, {more} }}");
    let all = "allowedRoutes: { namespaces: { from: All } }";
    let two = format!(
        "[{}, {}, {}]",
        of("a", &format!("hostname: a.example, {all}")),
        of("b", &format!("hostname: b.example, {all}")),
        of("c", "hostname: c.example"),
    );
    let manifests = gateway("infra", "gw", &two) + &mirrored("[a.example, b.example, c.example]", PARENT);
    assert_eq!(hosts(&in_cluster(&manifests)).unwrap(), ["a.example", "b.example"]);
    let resolved = in_cluster(&(gateway("infra", "gw", &two) + &mirrored("[c.example]", PARENT)));
    assert_eq!(
        resolved.findings()[0].message,
        "Gateway infra/gw does not take the route: listener \"a\" is for \"a.example\" only; \
         listener \"b\" is for \"b.example\" only; listener \"c\" takes no routes of namespace app"
    );
}

#[test]
fn hosts_of_bound_gateways_are_each_ones_own() {
    let at = |name: &str| {
        let more = format!(", hostname: {name}.example, allowedRoutes: {{ namespaces: {{ from: All }} }}");
        gateway("infra", name, &format!("[{}]", listener(&more)))
    };
    let parents = "[{ name: a, namespace: infra }, { name: b, namespace: infra }]";
    let bind = |name: &str| {
        format!(
            "[[kubernetes.gateway]]\nname = \"{name}\"\nnamespace = \"infra\"\npods = {{ selector = \"app={name}\" }}\n"
        )
    };
    let base = bind("a") + &bind("b");
    let imported = import_with(&(at("a") + &at("b") + &mirrored("[]", parents)), &base);
    assert_eq!(imported.findings, []);
    for (host, gateway, is_taken) in
        [("a", "a", true), ("a", "b", false), ("b", "b", true), ("b", "a", false)]
    {
        let gateways = imported.config.rules.gateway_set(&[format!("infra/{gateway}")]);
        let host = format!("{host}.example");
        let found = imported.ask_at(Ask { host: &host, ..Ask::default() }, gateways).1;
        assert_eq!(!found.is_empty(), is_taken, "{host} at {gateway}");
    }
}

#[test]
fn route_of_a_stranger_takes_no_requests_from_others() {
    let own = route("shop", "own", "[bank.example]", &format!("[{{ filters: [{}] }}]", mirror_to("s")));
    let own = service("shop", "s", 80) + &own.replace("[{ name: gw }]", PARENT);
    let rules = format!(
        "[{{ matches: [{{ path: {{ type: Exact, value: /login }} }}], filters: [{}] }}]",
        mirror_to("svc")
    );
    let evil = service("evil", "svc", 80) + &route("evil", "r", "[bank.example]", &rules);
    let selecting = allowing("{ from: Selector, selector: { matchLabels: { tenant: bank } } }");
    let world = namespace("shop", "{ tenant: bank }")
        + &namespace("evil", "{}")
        + &gateway("infra", "gw", &format!("[{selecting}]"))
        + &own;
    let alone = in_cluster(&world).to_toml();
    assert!(alone.contains("shop.s.80"), "{alone}");
    for parents in ["[{ name: absent }]", PARENT] {
        let resolved = in_cluster(&(world.clone() + &evil.replace("[{ name: gw }]", parents)));
        assert_eq!(resolved.to_toml(), alone, "{parents}");
        assert_eq!(resolved.findings()[0].reason, Reason::NotAdmitted);
        assert_eq!(resolved.findings()[0].object.to_string(), "HTTPRoute evil/r");
    }
}

#[test]
fn parent_that_a_controller_refused_is_none() {
    for (parent, condition, is_taken) in [
        ("name: gw", "status: 'False', reason: NotAllowedByListeners", false),
        ("name: gw", "status: 'False', reason: NoMatchingListenerHostname", false),
        ("name: gw", "status: 'False', reason: NoMatchingParent", false),
        ("name: gw", "status: 'False', reason: UnsupportedValue", true),
        ("name: gw", "status: 'Unknown', reason: NoMatchingParent", true),
        ("name: gw, namespace: app, kind: Gateway", "status: 'False', reason: NoMatchingParent", false),
        ("name: other", "status: 'False', reason: NoMatchingParent", true),
        ("name: gw, sectionName: x", "status: 'False', reason: NoMatchingParent", true),
    ] {
        let status = format!(
            "status: {{ parents: [{{ parentRef: {{ {parent} }}, controllerName: x, conditions: [{{ type: Accepted, {condition} }}] }}] }}\n---"
        );
        let manifests = service("app", "s", 80)
            + &mirrored("[]", "[{ name: gw }]").split_once("---\n").unwrap().1.replace("---", &status);
        let imported = import(&manifests);
        assert_eq!(
            !imported.config.shadows.is_empty(),
            is_taken,
            "{parent} {condition} {:?}",
            imported.findings
        );
        let expected: &[Reason] = if is_taken { &[] } else { &[Reason::NotAdmitted] };
        assert_eq!(imported.reasons(), expected);
    }
}

#[test]
fn gateway_among_manifests_is_obeyed_and_another_is_trusted() {
    assert_eq!(import(&mirrored("[a.example]", PARENT)).findings, []);
    let closed = gateway("infra", "gw", &format!("[{}]", listener("")));
    assert_eq!(import(&(closed + &mirrored("[a.example]", PARENT))).reasons(), [Reason::NotAdmitted]);
    // A namespace that is not among them has its name for a label, and no other.
    for (selector, is_taken) in [
        ("{ matchLabels: { kubernetes.io/metadata.name: app } }", true),
        ("{ matchLabels: { team: web } }", false),
    ] {
        let selecting = allowing(&format!("{{ from: Selector, selector: {selector} }}"));
        let manifests = gateway("infra", "gw", &format!("[{selecting}]")) + &mirrored("[a.example]", PARENT);
        assert_eq!(import(&manifests).findings.is_empty(), is_taken, "{selector}");
        let labelled = import(&(namespace("app", "{ team: web }") + &manifests));
        assert_eq!(labelled.findings, [], "{selector}");
    }
}
