//! Whole manifests, and what becomes of each kind of object.

use super::*;
use crate::config::{EndpointHost, HostRewrite, ShadowProtocol};

#[test]
fn guide_mirrors_its_host_to_the_shadow_service_with_suffix() {
    let imported = import(GUIDE);
    assert_eq!(imported.findings, []);
    assert_eq!(imported.toml, include_str!("../../../tests/golden/kube/k8sgateway-shadowing.toml"));
    let shadow = imported.shadow("shadow.httpbin.8000");
    assert_eq!(shadow.endpoint.host, EndpointHost::Name("httpbin.shadow.svc.cluster.local".to_owned()));
    assert_eq!(shadow.endpoint.port, 8000);
    assert_eq!(shadow.rewrite.host, HostRewrite::Suffix("-shadow".to_owned()));
    let asked = imported.ask(Ask { host: "shadowing.example:8080", target: "/headers", ..Ask::default() });
    assert_eq!(asked, ("httpbin/httpbin-shadow rule 0", vec!["shadow.httpbin.8000"]));
    assert_eq!(imported.ask(Ask { host: "other.example", ..Ask::default() }), ("", vec![]));
}

/// Everything that can be written at once.
const RICH: &str = r#"
apiVersion: v1
kind: List
items:
- apiVersion: gateway.networking.k8s.io/v1
  kind: HTTPRoute
  metadata: { namespace: shop, name: cart, creationTimestamp: "2024-05-01T10:00:00Z" }
  spec:
    parentRefs: [{ name: gw, namespace: infra, sectionName: http }]
    hostnames: ["shop.example", "*.shop.example"]
    rules:
    - matches:
      - path: { type: Exact, value: /cart }
        method: POST
        headers: [{ name: X-Canary, value: 'say "yes"' }, { name: x-canary, value: "no" }]
        queryParams: [{ type: RegularExpression, name: v, value: '[0-9]+\.[0-9]+' }]
      - path: { value: /basket }
      filters:
      - type: RequestMirror
        requestMirror: { backendRef: { name: v2, port: 80 }, percent: 10 }
      - type: RequestMirror
        requestMirror: { backendRef: { name: v3, port: 8443 }, fraction: { numerator: 1, denominator: 3 } }
      - type: RequestHeaderModifier
        requestHeaderModifier: { set: [{ name: a, value: b }] }
      backendRefs: [{ name: v1, port: 80, weight: 1 }]
    - matches: [{ path: { type: PathPrefix, value: /private } }]
      backendRefs: [{ name: v1, port: 80 }]
- apiVersion: gateway.networking.k8s.io/v1
  kind: HTTPRoute
  metadata: { namespace: other, name: elsewhere }
  spec:
    parentRefs: [{ name: gw, namespace: infra }]
    hostnames: ["elsewhere.example"]
- apiVersion: v1
  kind: Service
  metadata: { namespace: shop, name: v2 }
  spec: { ports: [{ name: http, port: 80, targetPort: http }] }
- apiVersion: v1
  kind: Service
  metadata: { namespace: shop, name: v3 }
  spec: { ports: [{ name: h2, port: 8443, appProtocol: kubernetes.io/h2c }] }
- apiVersion: v1
  kind: Secret
  metadata: { namespace: shop, name: of-nobody's business }
"#;

#[test]
fn rich_route_is_written_as_a_user_would_write_it() {
    let imported = import(RICH);
    assert_eq!(imported.findings, []);
    assert_eq!(imported.toml, include_str!("../../../tests/golden/kube/rich.toml"));
    assert_eq!(imported.shadow("shop.v3.8443.h2").protocol, ShadowProtocol::Http2);
}

#[test]
fn literal_keep_and_suffix_to_one_service_are_three_shadows() {
    let options = |name: &str, more: &str| {
        format!(
            "apiVersion: gateway.solo.io/v1\nkind: RouteOption\nmetadata: {{ namespace: a, name: {name} }}\n\
             spec: {{ options: {{ shadowing: {{ upstream: {{ name: up, namespace: a }}, percentage: 100{more} }} }} }}\n---\n"
        )
    };
    let by = |name: &str, path: &str| {
        format!(
            "{{ matches: [{{ path: {{ value: {path} }} }}], filters: [{{ type: ExtensionRef, extensionRef: {{ group: gateway.solo.io, kind: RouteOption, name: {name} }} }}] }}"
        )
    };
    let rules = format!("[{}, {}, {}]", by("plain", "/1"), by("keep", "/2"), by("literal", "/3"));
    let upstream = "apiVersion: gloo.solo.io/v1\nkind: Upstream\nmetadata: { namespace: a, name: up }\nspec: { kube: { serviceName: s, serviceNamespace: b, servicePort: 81 } }\n---\n";
    let manifests = options("plain", "")
        + &options("keep", ", disableShadowHostSuffixAppend: true")
        + &options("literal", ", hostRewriteLiteral: 'x.example:8443', disableShadowHostSuffixAppend: true")
        + upstream
        + &route("a", "r", "[]", &rules);
    let imported = import(&manifests);
    assert_eq!(imported.findings, []);
    let hosts: Vec<_> = imported.config.shadows.iter().map(|shadow| shadow.rewrite.host.clone()).collect();
    let literal = HostRewrite::Literal("x.example:8443".to_owned());
    assert_eq!(hosts, [HostRewrite::Suffix("-shadow".to_owned()), HostRewrite::Keep, literal]);
    for (path, suffix) in [("/1", "b.s.81"), ("/2", "b.s.81.keep"), ("/3", "b.s.81.host-")] {
        let (_, shadows) = imported.ask(Ask { target: path, ..Ask::default() });
        assert!(shadows.len() == 1 && shadows[0].starts_with(suffix), "{path} {shadows:?}");
    }
    let bad = options("plain", ", hostRewriteLiteral: 'x y'")
        + upstream
        + &route("a", "r", "[]", &format!("[{}]", by("plain", "/")));
    assert_eq!(import(&bad).reasons(), [Reason::InvalidField]);
}

#[test]
fn option_that_targets_a_route_counts_unless_an_extension_ref_has_shadowing() {
    let options = |name: &str, created: &str, port: u16, targets: &str| {
        format!(
            "apiVersion: gateway.solo.io/v1\nkind: RouteOption\nmetadata: {{ namespace: a, name: {name}, creationTimestamp: '{created}' }}\n\
             spec: {{ {targets} options: {{ shadowing: {{ upstream: {{ name: up{port} }}, percentage: 100 }} }} }}\n---\n\
             apiVersion: gloo.solo.io/v1\nkind: Upstream\nmetadata: {{ namespace: a, name: up{port} }}\nspec: {{ kube: {{ serviceName: s, servicePort: {port} }} }}\n---\n"
        )
    };
    let to_route = "targetRefs: [{ group: gateway.networking.k8s.io, kind: HTTPRoute, name: r }],";
    let targeting = options("young", "2024-05-02T00:00:00Z", 1, to_route)
        + &options("old", "2024-05-01T00:00:00Z", 2, to_route);
    let plain = import(&(targeting.clone() + &route("a", "r", "[]", "[{}]")));
    assert_eq!(plain.ask(Ask::default()).1, ["a.s.2"], "{}", plain.toml);
    let by_ref = "[{ filters: [{ type: ExtensionRef, extensionRef: { group: gateway.solo.io, kind: RouteOption, name: own } }] }]";
    let own = targeting + &options("own", "2024-05-03T00:00:00Z", 3, "") + &route("a", "r", "[]", by_ref);
    assert_eq!(import(&own).ask(Ask::default()).1, ["a.s.3"]);
}

#[test]
fn request_mirror_host_and_cluster_domain_are_obeyed() {
    let manifests =
        service("a", "s", 80) + &route("a", "r", "[]", &format!("[{{ filters: [{}] }}]", mirror_to("s")));
    let base = "[kubernetes]\nrequest_mirror_host = \"keep\"\ncluster_domain = \"corp.example\"\n";
    let imported = import_with(&manifests, base);
    let shadow = imported.shadow("a.s.80.keep");
    assert_eq!(shadow.rewrite.host, HostRewrite::Keep);
    assert_eq!(shadow.rewrite.own_authority, "s.a.svc.corp.example");
}

#[test]
fn several_mirrors_of_one_rule_go_to_all_and_too_many_are_told() {
    let services: String = (0..10).map(|number| service("a", &format!("s{number}"), 80)).collect();
    let filters: Vec<String> = (0..10).map(|number| mirror_to(&format!("s{number}"))).collect();
    let two = import(
        &(services.clone()
            + &route("a", "r", "[]", &format!("[{{ filters: [{}, {}] }}]", filters[0], filters[1]))),
    );
    assert_eq!(two.ask(Ask::default()).1, ["a.s0.80", "a.s1.80"]);
    let ten =
        import(&(services + &route("a", "r", "[]", &format!("[{{ filters: [{}] }}]", filters.join(", ")))));
    assert_eq!(ten.ask(Ask::default()).1.len(), 8);
    assert_eq!(ten.reasons(), [Reason::LimitExceeded, Reason::LimitExceeded]);
    assert_eq!(ten.findings[0].path, "spec.rules[0].filters[8]");
}

#[test]
fn headless_service_is_reached_at_its_pods_port() {
    let headless = |target: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{ namespace: a, name: s }}\nspec: {{ clusterIP: None, ports: [{{ port: 80{target} }}] }}\n---\n"
        ) + &route("a", "r", "[]", &format!("[{{ filters: [{}] }}]", mirror_to("s")))
    };
    assert_eq!(import(&headless("")).ask(Ask::default()).1, ["a.s.80"]);
    assert_eq!(import(&headless(", targetPort: 8080")).ask(Ask::default()).1, ["a.s.8080"]);
    assert_eq!(import(&headless(", targetPort: http")).reasons(), [Reason::Unsupported]);
}

#[test]
fn gateways_that_are_bound_take_their_own_routes_only() {
    let filters = format!("[{{ filters: [{}] }}]", mirror_to("s"));
    let at = |name: &str, parents: &str| {
        route("a", name, &format!("[{name}.example]"), &filters).replace("[{ name: gw }]", parents)
    };
    let manifests = service("a", "s", 80)
        + &at("one", "[{ name: gw }]")
        + &at("both", "[{ name: gw }, { name: other, namespace: infra }]")
        + &at("unbound", "[{ name: third }]")
        + &at("mesh", "[{ group: '', kind: Service, name: s }]");
    let base = "[[kubernetes.gateway]]\nname = \"gw\"\nnamespace = \"a\"\npods = { selector = \"app=gw\" }\n\
                [[kubernetes.gateway]]\nname = \"other\"\nnamespace = \"infra\"\npods = { selector = \"app=other\" }\n";
    let imported = import_with(&manifests, base);
    assert_eq!(imported.reasons(), [Reason::GatewayNotBound, Reason::GatewayNotBound]);
    let gateways = |names: &[&str]| {
        imported.config.rules.gateway_set(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
    };
    let is_taken = |host: &str, names: &[&str]| {
        !imported.ask_at(Ask { host, ..Ask::default() }, gateways(names)).0.is_empty()
    };
    assert!(is_taken("one.example", &["a/gw"]) && is_taken("both.example", &["a/gw"]));
    assert!(!is_taken("one.example", &["infra/other"]) && is_taken("both.example", &["infra/other"]));
    assert!(!is_taken("one.example", &[]) && !is_taken("one.example", &["x/unknown"]));
    assert!(!is_taken("unbound.example", &["a/gw", "infra/other"]));
    // Without any binding all routes hold everywhere, but a route that no gateway serves does not.
    let free = import(&manifests);
    assert!(!free.ask(Ask { host: "unbound.example", ..Ask::default() }).0.is_empty());
    assert_eq!(free.reasons(), [Reason::GatewayNotBound]);
}

#[test]
fn wrong_fields_are_told_with_object_path_and_reason() {
    let cases = [
        ("spec: { rules: 7 }", "spec.rules", Reason::InvalidField),
        (
            "spec: { rules: [{ matches: [{ path: { type: Glob } }] }] }",
            "spec.rules[0].matches[0].path.type",
            Reason::InvalidField,
        ),
        ("spec: { hostnames: [{ a: b }] }", "spec.hostnames[0]", Reason::InvalidField),
        (
            "spec: { rules: [{ filters: [{ type: RequestMirror, requestMirror: { percent: 5 } }] }] }",
            "spec.rules[0].filters[0].requestMirror",
            Reason::InvalidField,
        ),
        ("status: {}", "", Reason::InvalidField),
    ];
    for (body, path, reason) in cases {
        let text = format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{ namespace: ns, name: r }}\n{body}\n"
        );
        let findings = import(&text).findings;
        let found: Vec<_> =
            findings.iter().map(|one| (one.object.to_string(), one.path.as_str(), one.reason)).collect();
        assert_eq!(found, [("HTTPRoute ns/r".to_owned(), path, reason)], "{body} {findings:?}");
    }
    let named =
        |metadata: &str| import(&format!("apiVersion: v1\nkind: Service\nmetadata: {metadata}\n")).findings;
    assert_eq!(named("{}")[0].path, "metadata.name");
    assert_eq!(named("{ name: \"x\\n[[route]]\" }")[0].path, "metadata.name");
    assert_eq!(named("{ name: x, namespace: 'a/b' }")[0].path, "metadata.namespace");
    assert_eq!(named("7")[0].object.to_string(), "Service");
    let old = "apiVersion: gateway.networking.k8s.io/v1alpha2\nkind: HTTPRoute\nmetadata: { name: r }\n";
    assert_eq!(import(old).reasons(), [Reason::UnknownVersion]);
}

#[test]
fn findings_are_one_line_each_whatever_they_quote() {
    let rules = "[{ matches: [{ method: \"G\\u001b[2J\\nT\" }], filters: [{ type: RequestMirror }] }]";
    for finding in import(&route("ns", "r", "[]", rules)).findings {
        let line = finding.to_string();
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }
}

#[test]
fn object_that_is_there_twice_is_left_out_unless_both_are_the_same() {
    let filters = format!("[{{ filters: [{}] }}]", mirror_to("s"));
    let one = service("a", "s", 80) + &route("a", "r", "[x.example]", &filters);
    let again = one.clone() + &route("a", "r", "[x.example]", &filters);
    assert_eq!(import(&again).findings, []);
    let other = one + &route("a", "r", "[y.example]", &filters);
    let imported = import(&other);
    assert_eq!(imported.reasons(), [Reason::Duplicate]);
    assert_eq!(imported.toml, "");
}

#[test]
fn objects_of_a_watch_are_replaced_and_forgotten() {
    let mut objects = Objects::of_cluster();
    let settings = Terms::default();
    let filters = format!("[{{ filters: [{}] }}]", mirror_to("s"));
    let text = open_gateway("a") + &service("a", "s", 80) + &route("a", "r", "[x.example]", &filters);
    for value in documents(&text, "t").unwrap() {
        objects.insert(value).unwrap();
    }
    assert_eq!(resolve(&objects, &settings).mirror_count(), 1);
    let changed = route("a", "r", "[y.example]", &filters);
    objects.insert(documents(&changed, "t").unwrap().remove(0)).unwrap();
    assert!(resolve(&objects, &settings).to_toml().contains("y.example"));
    let wrong = documents(&changed.replace("hostnames: [y.example]", "hostnames: 7"), "t").unwrap().remove(0);
    assert_eq!(objects.insert(wrong).unwrap_err().reason, Reason::InvalidField);
    assert_eq!(resolve(&objects, &settings).mirror_count(), 0, "what it was holds no longer");
    assert!(objects.remove(&ObjectRef { kind: Kind::Service, namespace: "a".into(), name: "s".into() }));
    assert!(objects.remove(&ObjectRef { kind: Kind::Gateway, namespace: "a".into(), name: "gw".into() }));
    assert!(objects.is_empty());
}
