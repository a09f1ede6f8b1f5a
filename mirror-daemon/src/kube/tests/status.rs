//! Routes that a gateway mirrors itself, and those that are not selected.

use super::*;

fn conditions(accepted: &str, refs: &str) -> String {
    format!(
        "status: {{ parents: [{{ parentRef: {{ name: gw }}, controllerName: example.com/gateway, conditions: [\
         {{ type: Accepted, status: '{accepted}', reason: X, observedGeneration: 3 }}, {{ type: ResolvedRefs, status: '{refs}' }}] }}] }}\n"
    )
}

fn with_status(manifests: &str, status: &str) -> String {
    // The status goes behind the spec of the only HTTPRoute.
    let (before, route) = manifests.split_once("kind: HTTPRoute").unwrap();
    let (spec, behind) = route.split_once("---").unwrap();
    format!("{before}kind: HTTPRoute{spec}{status}---{behind}")
}

fn request_mirror() -> String {
    service("a", "s", 80) + &route("a", "r", "[]", &format!("[{{ filters: [{}] }}]", mirror_to("s")))
}

#[test]
fn route_that_a_controller_accepted_is_refused_when_that_controller_mirrors_it() {
    let cases = [
        // An HTTPRoute with RequestMirror: whoever accepts it mirrors it, even if some other reference is wrong.
        (request_mirror(), "True", "True", true),
        (request_mirror(), "True", "False", true),
        (request_mirror(), "False", "True", false),
        (request_mirror(), "Unknown", "Unknown", false),
        // One with a RouteOption: a controller that does not know it can't resolve it.
        (GUIDE.to_owned(), "True", "True", true),
        (GUIDE.to_owned(), "True", "False", false),
        (GUIDE.to_owned(), "False", "False", false),
    ];
    for (manifests, accepted, refs, is_refused) in cases {
        let text = with_status(&manifests, &conditions(accepted, refs));
        let imported = import(&text);
        let expected: &[Reason] = if is_refused { &[Reason::AlreadyMirrored] } else { &[] };
        assert_eq!(imported.reasons(), expected, "{text}");
        assert_eq!(imported.config.shadows.is_empty(), is_refused, "{text}");
        let taken = import_with(&text, "[kubernetes]\nalready_mirrored = \"take\"\n");
        assert_eq!((taken.findings.len(), taken.config.shadows.len()), (0, 1));
    }
}

#[test]
fn route_without_a_mirror_may_be_accepted_and_status_may_be_empty() {
    let plain = service("a", "s", 80) + &route("a", "r", "[]", "[{}]");
    assert_eq!(import(&with_status(&plain, &conditions("True", "True"))).findings, []);
    for status in ["status: { parents: [] }\n", "status: {}\n", "status:\n"] {
        assert_eq!(import(&with_status(&request_mirror(), status)).findings, []);
    }
}

#[test]
fn refused_route_keeps_its_requests_from_others() {
    let refused = with_status(
        &request_mirror().replace("hostnames: []", "hostnames: [x.example]"),
        &conditions("True", "True"),
    );
    let wide = route("a", "wide", "['*.example']", &format!("[{{ filters: [{}] }}]", mirror_to("s")));
    let imported = import(&(refused + &wide));
    assert_eq!(imported.ask(Ask { host: "y.example", ..Ask::default() }).1, ["a.s.80"]);
    assert_eq!(
        imported.ask(Ask { host: "x.example", ..Ask::default() }).1,
        Vec::<&str>::new(),
        "the gateway has mirrored it"
    );
}

#[test]
fn only_selected_routes_mirror() {
    let labelled = request_mirror().replace("name: r }", "name: r, labels: { mirror: \"yes\", tier: web } }");
    for (selector, is_taken) in [
        ("\"mirror=yes,tier in (web,api),!frozen\"", true),
        ("\"mirror=no\"", false),
        ("\"!mirror\"", false),
        ("{ matchLabels = { mirror = \"yes\" } }", true),
        ("{ matchLabels = { mirror = \"yes\", tier = \"api\" } }", false),
        (
            "{ matchExpressions = [{ key = \"tier\", operator = \"NotIn\", values = [\"api\"] }, { key = \"frozen\", operator = \"DoesNotExist\" }] }",
            true,
        ),
    ] {
        let imported = import_with(&labelled, &format!("[kubernetes]\nroute_selector = {selector}\n"));
        assert_eq!(imported.findings, [], "{selector}");
        assert_eq!(imported.config.shadows.len() == 1, is_taken, "{selector}");
    }
}
