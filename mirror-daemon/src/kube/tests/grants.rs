//! References to other namespaces, and to what is not there.

use super::*;

fn grant(namespace: &str, from: &str, to: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {{ namespace: {namespace}, name: g }}\n\
         spec:\n  from: [{from}]\n  to: [{to}]\n---\n"
    )
}

const FROM_A: &str = "{ group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: a }";
const TO_SERVICES: &str = "{ group: '', kind: Service }";

fn mirror_across() -> String {
    let filter =
        "{ type: RequestMirror, requestMirror: { backendRef: { name: s, namespace: b, port: 80 } } }";
    service("b", "s", 80) + &route("a", "r", "[]", &format!("[{{ filters: [{filter}] }}]"))
}

#[test]
fn service_of_another_namespace_takes_a_grant_of_that_namespace() {
    let cases: [(&str, &str, &str, bool); 9] = [
        ("b", FROM_A, TO_SERVICES, true),
        ("b", FROM_A, "{ kind: Service }", true),
        ("b", FROM_A, "{ group: '', kind: Service, name: s }", true),
        ("b", FROM_A, "{ group: '', kind: Service, name: t }", false),
        ("b", FROM_A, "{ group: gloo.solo.io, kind: Upstream }", false),
        ("a", FROM_A, TO_SERVICES, false),
        ("b", "{ group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: c }", TO_SERVICES, false),
        ("b", "{ group: gateway.networking.k8s.io, kind: GRPCRoute, namespace: a }", TO_SERVICES, false),
        ("b", "{ group: '', kind: HTTPRoute, namespace: a }", TO_SERVICES, false),
    ];
    for (namespace, from, to, is_permitted) in cases {
        let imported = import(&(mirror_across() + &grant(namespace, from, to)));
        let expected: &[Reason] = if is_permitted { &[] } else { &[Reason::RefNotPermitted] };
        assert_eq!(imported.reasons(), expected, "{namespace} {from} {to}");
        assert_eq!(!imported.ask(Ask::default()).1.is_empty(), is_permitted);
    }
    assert_eq!(import(&mirror_across()).findings[0].path, "spec.rules[0].filters[0]");
}

#[test]
fn missing_grant_does_not_tell_whether_the_service_is_there() {
    let without = mirror_across().replace("name: s }", "name: other }");
    assert_eq!(import(&without).reasons(), [Reason::RefNotPermitted]);
}

#[test]
fn grant_that_is_removed_is_revoked() {
    let settings = Terms::default();
    let mut objects = Objects::of_cluster();
    for value in
        documents(&(open_gateway("a") + &mirror_across() + &grant("b", FROM_A, TO_SERVICES)), "t").unwrap()
    {
        objects.insert(value).unwrap();
    }
    assert_eq!(resolve(&objects, &settings).mirror_count(), 1);
    objects.remove(&ObjectRef { kind: Kind::ReferenceGrant, namespace: "b".into(), name: "g".into() });
    let resolved = resolve(&objects, &settings);
    assert_eq!(resolved.mirror_count(), 0);
    assert_eq!(resolved.findings()[0].reason, Reason::RefNotPermitted);
}

#[test]
fn external_name_is_no_way_round_a_grant() {
    let external = "apiVersion: v1\nkind: Service\nmetadata: { namespace: a, name: s }\n\
                    spec: { type: ExternalName, externalName: s.b.svc.cluster.local }\n---\n";
    let by_upstream =
        OPTION.to_owned() + &upstream("kube: { serviceName: s, servicePort: 80 }") + &with_option();
    for manifests in
        [external.to_owned() + &mirroring("name: s, port: 80"), external.to_owned() + &by_upstream]
    {
        let mut objects = Objects::of_cluster();
        for value in documents(&(open_gateway("a") + &manifests), "t").unwrap() {
            objects.insert(value).unwrap();
        }
        let resolved = resolve(&objects, &Terms::default());
        assert_eq!((resolved.mirror_count(), resolved.findings()[0].reason), (0, Reason::Unsupported));
        // In files of the operator's own it is taken.
        let wanted = manifests.replace("percentage: 5", "percentage: 100");
        assert_eq!(import(&wanted).ask(Ask::default()).1, ["a.s.80"]);
    }
}

#[test]
fn rules_are_cut_to_what_is_still_so() {
    let made = |manifests: &str| {
        let (objects, _) = Objects::from_documents(documents(manifests, "t").unwrap());
        resolve(&objects, &Terms::default())
    };
    let rules = format!("[{{ filters: [{}, {}] }}]", mirror_to("s"), mirror_to("s2"));
    let own = service("a", "s", 80) + &service("a", "s2", 80) + &route("a", "own", "[own.example]", &rules);
    let grants = grant("b", FROM_A, TO_SERVICES);
    let running = made(&(mirror_across() + &grants + &own));
    assert_eq!(running.mirror_count(), 3);
    assert_eq!(running.cut_to(&running), running);

    // What is new does not come, what is revoked goes, and its requests are nobody else's.
    let more = route("a", "more", "[more.example]", &rules);
    let revoked = running.cut_to(&made(&(mirror_across() + &own + &more)));
    assert_eq!((revoked.mirror_count(), revoked.routes.len()), (2, running.routes.len()));
    let toml = revoked.to_toml();
    assert!(!toml.contains("b.s.80") && toml.contains("a.s2.80") && !toml.contains("more.example"), "{toml}");
    Config::from_toml(&toml, "cut").unwrap();

    let percent = own.replace("name: s2, port: 80 }", "name: s2, port: 80 }, percent: 5");
    let changed = running.cut_to(&made(&(mirror_across() + &grants + &percent)));
    assert_eq!(changed.mirror_count(), 2, "{}", changed.to_toml());
    let elsewhere = own.replace("[own.example]", "[other.example]");
    assert_eq!(running.cut_to(&made(&(mirror_across() + &grants + &elsewhere))).mirror_count(), 1);
    let nothing = running.cut_to(&Resolved::default());
    assert_eq!((nothing.mirror_count(), nothing.shadows.len()), (0, 0));
}

#[test]
fn guide_without_its_grant_mirrors_nothing() {
    let (without, _) = GUIDE.rsplit_once("---").unwrap();
    let imported = import(without);
    assert_eq!(imported.reasons(), [Reason::RefNotPermitted]);
    assert!(imported.findings[0].message.contains("Upstream gloo-system/shadow"), "{:?}", imported.findings);
    assert_eq!(imported.config.shadows.len(), 0);
}

/// A route whose only rule has this filter.
fn with_filter(filter: &str) -> String {
    route("a", "r", "[]", &format!("[{{ filters: [{filter}] }}]"))
}

/// A route that mirrors to the backend named so.
fn mirroring(named: &str) -> String {
    with_filter(&format!("{{ type: RequestMirror, requestMirror: {{ backendRef: {{ {named} }} }} }}"))
}

/// A route with the RouteOption `o`.
fn with_option() -> String {
    with_filter(
        "{ type: ExtensionRef, extensionRef: { group: gateway.solo.io, kind: RouteOption, name: o } }",
    )
}

/// The RouteOption `o`, which shadows to the Upstream `u`.
const OPTION: &str = "apiVersion: gateway.solo.io/v1\nkind: RouteOption\nmetadata: { namespace: a, name: o }\n\
                      spec: { options: { shadowing: { upstream: { name: u }, percentage: 5 } } }\n---\n";

/// The Upstream `u`.
fn upstream(spec: &str) -> String {
    format!(
        "apiVersion: gloo.solo.io/v1\nkind: Upstream\nmetadata: {{ namespace: a, name: u }}\nspec: {{ {spec} }}\n---\n"
    )
}

fn assert_refused(manifests: &str, reason: Reason) {
    let imported = import(manifests);
    assert_eq!(imported.reasons(), [reason], "{manifests} {:?}", imported.findings);
    assert_eq!(imported.config.shadows.len(), 0);
}

#[test]
fn service_that_is_not_there_is_told_and_nothing_is_mirrored_to_it() {
    let s = service("a", "s", 80);
    let of_backend =
        format!("[{{ backendRefs: [{{ name: v1, port: 80, filters: [{}] }}] }}]", mirror_to("s"));
    for (manifests, reason) in [
        (mirroring("name: s, port: 80"), Reason::BackendNotFound),
        (s.clone() + &mirroring("name: s, port: 81"), Reason::BackendNotFound),
        (s.clone() + &mirroring("name: s"), Reason::InvalidField),
        (s.clone() + &mirroring("name: s, port: 70000"), Reason::InvalidField),
        (s.clone() + &mirroring("name: s, port: 80, kind: ServiceImport, group: x.io"), Reason::InvalidKind),
        (with_filter("{ type: RequestMirror }"), Reason::InvalidField),
        (s + &route("a", "r", "[]", &of_backend), Reason::Unsupported),
    ] {
        assert_refused(&manifests, reason);
    }
}

#[test]
fn option_or_upstream_that_is_not_there_is_told_and_nothing_is_mirrored_for_it() {
    let with_upstream = |spec: &str| OPTION.to_owned() + &upstream(spec) + &with_option();
    let other_port = service("a", "s", 80) + &with_upstream("kube: { serviceName: s, servicePort: 81 }");
    for (manifests, reason) in [
        (with_option(), Reason::FilterNotFound),
        (OPTION.to_owned() + &with_option(), Reason::BackendNotFound),
        (with_upstream("static: { hosts: [] }"), Reason::Unsupported),
        (with_upstream("sslConfig: {}, kube: { serviceName: s, servicePort: 80 }"), Reason::Unsupported),
        (with_upstream("kube: { serviceName: s, servicePort: 0 }"), Reason::InvalidField),
        (with_upstream("kube: { serviceName: 's/../x', servicePort: 80 }"), Reason::InvalidField),
        (other_port, Reason::BackendNotFound),
    ] {
        assert_refused(&manifests, reason);
    }
}

#[test]
fn extension_of_another_gateway_is_passed_over_and_an_upstream_may_be_named_directly() {
    let foreign = "{ type: ExtensionRef, extensionRef: { group: gateway.envoyproxy.io, kind: HTTPRouteFilter, name: x } }";
    assert_eq!(import(&with_filter(foreign)).findings, []);
    let direct = upstream("kube: { serviceName: s, servicePort: 80 }")
        + &mirroring("name: u, kind: Upstream, group: gloo.solo.io");
    assert_eq!(import(&direct).ask(Ask::default()).1, ["a.s.80"]);
}

#[test]
fn service_of_an_upstream_must_be_there_where_all_services_are_known() {
    let mut objects = Objects::of_cluster();
    let parent = include_str!("../../../../tests/cluster/manifests/parent.yaml");
    for value in documents(&format!("{GUIDE}\n---\n{parent}"), "t").unwrap() {
        objects.insert(value).unwrap();
    }
    let settings = Terms::default();
    let resolved = resolve(&objects, &settings);
    assert_eq!(resolved.findings()[0].reason, Reason::BackendNotFound, "{:?}", resolved.findings());
    objects.insert(documents(&service("shadow", "httpbin", 8000), "t").unwrap().remove(0)).unwrap();
    assert_eq!(resolve(&objects, &settings).findings(), []);
}
