//! Any order gives the same rules, and no text brings the daemon down.

use super::*;
use proptest::prelude::*;
use serde_json::json;

/// Objects that have to do with each other in many ways.
fn world() -> Vec<Value> {
    let filters = |service: &str| format!("[{{ filters: [{}] }}]", mirror_to(service));
    let mut text = GUIDE.to_owned() + "\n---\n";
    for (index, host) in ["[]", "['*.example']", "[a.example]", "[b.example, a.example]"].iter().enumerate() {
        text += &service("a", &format!("s{index}"), 80);
        text += &route("a", &format!("r{index}"), host, &filters(&format!("s{index}")));
        text += &route("b", &format!("r{index}"), host, &filters("missing"));
        text += &route("c", &format!("r{index}"), host, "[{}]");
    }
    text += &route("a", "r0", "[twice.example]", "[{}]");
    documents(&text, "world").unwrap()
}

proptest! {
    // Each case is a whole import.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_order_of_objects_gives_the_same_toml_and_findings(shuffled in Just(world()).prop_shuffle()) {
        let expected = import_documents(world(), "");
        let found = import_documents(shuffled, "");
        prop_assert_eq!(found.toml, expected.toml);
        let sorted = |mut findings: Vec<Finding>| { findings.sort_unstable(); findings };
        prop_assert_eq!(sorted(found.findings), sorted(expected.findings));
    }

    #[test]
    fn any_value_anywhere_makes_a_configuration_or_a_finding(
        place in any::<prop::sample::Index>(),
        value in any_value(),
    ) {
        let mut documents = world();
        let mut places = Vec::new();
        for (index, document) in documents.iter().enumerate() {
            pointers(document, &format!("/{index}"), &mut places);
        }
        let place = place.get(&places);
        let (index, pointer) = place[1..].split_once('/').unwrap_or((&place[1..], ""));
        let document = &mut documents[index.parse::<usize>().unwrap()];
        let pointer = if pointer.is_empty() { String::new() } else { format!("/{pointer}") };
        *document.pointer_mut(&pointer).unwrap() = value;
        // It panics when what it made is no right configuration.
        import_documents(documents, "");
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[ -~\\n\\t\\PC]{0,200}") {
        let _ = documents(&text, "noise");
    }

    #[test]
    fn any_damage_to_a_manifest_is_read_or_refused(at in 0..GUIDE.len(), with in "\\PC{0,3}", length in 0_usize..40) {
        let end = at.saturating_add(length).min(GUIDE.len());
        let text = format!("{}{with}{}", &GUIDE[..at], &GUIDE[end..]);
        if let Ok(documents) = documents(&text, "damaged") {
            import_documents(documents, "");
        }
    }
}

/// Every place in a value, as JSON pointers. Keys of this world need no escaping.
fn pointers(value: &Value, at: &str, places: &mut Vec<String>) {
    places.push(at.to_owned());
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(key, value)| pointers(value, &format!("{at}/{key}"), places))
        }
        Value::Array(members) => members
            .iter()
            .enumerate()
            .for_each(|(index, value)| pointers(value, &format!("{at}/{index}"), places)),
        _ => {}
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    let texts = [
        "",
        "/",
        "*",
        "a b",
        "x\n[[route]]\n",
        "\"",
        "\\",
        "\u{7f}\u{1b}",
        "None",
        "RequestMirror",
        "(",
        "é",
        "a#b",
        "*.x",
        "::1",
        "-",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(texts.to_vec()).prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        Just(Value::from("x".repeat(100_000))),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[a-zA-Z]{1,8}", inner, 0..3).prop_map(|map| json!(map)),
        ]
    })
}

fn refused(text: &str) -> String {
    let finding = documents(text, "hostile").unwrap_err();
    assert_eq!(finding.reason, Reason::InvalidManifest);
    finding.message
}

#[test]
fn values_nested_too_deep_are_refused() {
    refused(&("[".repeat(5000) + &"]".repeat(5000)));
    refused(&"[".repeat(5000));
    refused(&"{a: ".repeat(5000));
    refused(&"- ".repeat(5000));
    refused(&(0..5000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect::<String>());
}

#[test]
fn aliases_that_stand_for_too_much_are_refused() {
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let before = format!("*a{}, ", level - 1).repeat(10);
        laughs += &format!("a{level}: &a{level} [{}]\n", before.trim_end_matches(", "));
    }
    refused(&laughs);
    refused("a: &a [*a]");
}

#[test]
fn text_that_is_too_long_is_refused() {
    let huge = " ".repeat(MAX_MANIFEST_BYTES + 1);
    assert!(refused(&huge).contains("allowed are 16777216"));
    assert_eq!(documents(&huge[1..], "blank").unwrap(), Vec::<Value>::new());
}

#[test]
fn large_but_honest_manifest_is_read() {
    let text: String = (0..5000).map(|number| service("a", &format!("s{number}"), 80)).collect();
    let (objects, findings) = Objects::from_documents(documents(&text, "large").unwrap());
    assert_eq!((objects.len(), findings.len()), (5000, 0));
}

#[test]
fn names_of_shadows_fit_and_differ_however_long_their_services_are() {
    let long = |end: char| format!("{}{end}", "x".repeat(62));
    let rule = |name: &str| format!("{{ filters: [{}] }}", mirror_to(name));
    let text = service("a", &long('y'), 80)
        + &service("a", &long('z'), 80)
        + &route("a", "r", "[]", &format!("[{}, {}]", rule(&long('y')), rule(&long('z'))));
    let imported = import(&text);
    let names: Vec<&str> = imported.config.shadows.iter().map(|shadow| shadow.name.as_str()).collect();
    assert!(names.len() == 2 && names[0] != names[1], "{names:?}");
}

#[test]
fn more_shadows_than_there_can_be_are_told() {
    let mut text = String::new();
    for number in 0..300 {
        let name = format!("s{number}");
        text += &service("a", &name, 80);
        text += &route(
            "a",
            &name,
            &format!("[{name}.example]"),
            &format!("[{{ filters: [{}] }}]", mirror_to(&name)),
        );
    }
    let imported = import(&text);
    assert_eq!(imported.config.shadows.len(), 256);
    assert_eq!(imported.reasons(), vec![Reason::LimitExceeded; 44]);
}

#[test]
fn rules_get_the_room_and_the_names_that_the_configuration_leaves() {
    let mut text = String::new();
    for name in ["s1", "s2", "s3"] {
        text += &service("a", name, 80);
        text += &route("a", name, "[]", &format!("[{{ filters: [{}] }}]", mirror_to(name)));
    }
    let own = |names: &[String]| -> String {
        names.iter().map(|name| format!("[[shadow]]\nname = \"{name}\"\nurl = \"http://x:1\"\n")).collect()
    };
    let many: Vec<String> = (0..255).map(|number| format!("own{number}")).collect();
    let full = import_with(&text, &own(&many));
    assert_eq!(full.config.shadows.len(), 256);
    assert_eq!(full.reasons(), [Reason::LimitExceeded, Reason::LimitExceeded]);
    let taken = import_with(&text, &own(&["a.s2.80".to_owned()]));
    assert_eq!(taken.config.shadows.len(), 3);
    assert_eq!(taken.reasons(), [Reason::Duplicate]);
}

/// A route with a mirror and `count` times the regular expression `pattern`.
fn with_patterns(name: &str, age: u32, pattern: &str, count: usize) -> String {
    let one = format!("{{ path: {{ type: RegularExpression, value: '{pattern}' }} }}");
    let rule = |length: usize| {
        format!("{{ matches: [{}], filters: [{}] }}", vec![one.as_str(); length].join(", "), mirror_to("s"))
    };
    let rules: Vec<String> = vec![(); count].chunks(100).map(|some| rule(some.len())).collect();
    let created = format!("namespace: a, creationTimestamp: '2024-05-0{age}T10:00:00Z'");
    route("a", name, &format!("[{name}.example]"), &format!("[{}]", rules.join(", ")))
        .replace("namespace: a", &created)
}

#[test]
fn regular_expressions_have_a_bound_in_number_and_in_bytes() {
    let service = service("a", "s", 80);
    let of = |routes: &[String]| import(&(service.clone() + &routes.concat()));
    let many = of(&[
        with_patterns("old", 1, "/a", 999),
        with_patterns("young", 2, "/a", 2),
        with_patterns("last", 3, "/a", 1),
    ]);
    assert_eq!(many.reasons(), [Reason::LimitExceeded, Reason::LimitExceeded]);
    assert!(many.toml.contains("old.example") && !many.toml.contains("young.example"));

    // Each takes some 100 KiB.
    let large = "(a{50}b){40}";
    let bytes = crate::rule::FullRegex::new(large).unwrap().memory_bytes();
    assert!(bytes > 64 * 1024, "{bytes}");
    let heavy = of(&[with_patterns("old", 1, large, 20), with_patterns("young", 2, large, 400)]);
    assert_eq!(heavy.reasons(), [Reason::LimitExceeded]);
    assert_eq!(heavy.findings[0].object.to_string(), "HTTPRoute a/young");
    assert!(heavy.toml.contains("old.example") && !heavy.toml.contains("young.example"));
}

#[test]
fn requests_of_a_route_that_finds_no_room_are_mirrored_by_no_wider_one() {
    let full = with_patterns("old", 1, "/a", 999);
    let wide = |host: &str| {
        let rules = format!("[{{ filters: [{}] }}]", mirror_to("s"));
        let created = "namespace: a, creationTimestamp: '2024-05-02T10:00:00Z'";
        route("a", "wide", &format!("['{host}']"), &rules).replace("namespace: a", created)
    };
    let private = with_patterns("pay", 3, "/a", 2).replace(&mirror_to("s"), "{ type: URLRewrite }");
    let of = |wide: String| import(&(service("a", "s", 80) + &full + &wide + &private));
    let closed = of(wide("*.example"));
    assert_eq!(closed.reasons(), [Reason::LimitExceeded, Reason::LimitExceeded]);
    let mirrors_behind = |toml: &str, host: &str| {
        toml.split_once(host).is_some_and(|(_, behind)| behind.contains("shadow = \"a.s.80\""))
    };
    assert!(mirrors_behind(&closed.toml, "old.example") && !mirrors_behind(&closed.toml, "*.example"));
    // Nor are those of one with a pattern too large for us, which a gateway may take.
    let huge = with_patterns("pay", 3, "(a{50}b){40000}", 1).replace(&mirror_to("s"), "{ type: URLRewrite }");
    let closed = import(&(service("a", "s", 80) + &wide("*.example") + &huge));
    assert_eq!(closed.reasons(), [Reason::LimitExceeded, Reason::LimitExceeded]);
    assert!(!mirrors_behind(&closed.toml, "*.example"));
    // A host of its own takes nothing from the other.
    let open = of(wide("other.example"));
    assert!(mirrors_behind(&open.toml, "other.example"));
}

#[test]
fn routes_that_meet_no_mirror_take_no_part_of_the_budget() {
    let idle = with_patterns("idle", 1, "/a", 900).replace(&mirror_to("s"), "{ type: URLRewrite }");
    let imported = import(&(service("a", "s", 80) + &idle + &with_patterns("young", 2, "/a", 900)));
    assert_eq!(imported.findings, []);
    assert!(imported.toml.contains("young.example") && !imported.toml.contains("idle.example"));
}

#[test]
fn routes_beyond_the_length_of_a_configuration_are_left_out() {
    let long = |name: &str, age: u32| {
        let one = format!("{{ path: {{ type: Exact, value: /{} }} }}", "x".repeat(100_000));
        let rule =
            format!("{{ matches: [{}], filters: [{}] }}", vec![one.as_str(); 50].join(", "), mirror_to("s"));
        let created = format!("namespace: a, creationTimestamp: '2024-05-0{age}T10:00:00Z'");
        let hosts = format!("[{name}.example]");
        route("a", name, &hosts, &format!("[{rule}]")).replace("namespace: a", &created)
    };
    let imported = import(&(service("a", "s", 80) + &long("old", 1) + &long("young", 2)));
    assert_eq!(imported.reasons(), [Reason::LimitExceeded]);
    assert_eq!(imported.findings[0].object.to_string(), "HTTPRoute a/young");
    assert_eq!(imported.config.rules.route_count(), 1);
}

#[test]
fn nothing_makes_nothing() {
    let resolved = resolve(&Objects::default(), &Terms::default());
    assert_eq!((resolved.to_toml().as_str(), resolved.mirror_count(), resolved.findings().len()), ("", 0, 0));
}
