//! Rules, their shares and their gateways.

use super::*;

#[test]
fn percentage_is_read_exactly_and_its_bounds_hold() {
    for right in [
        "percentage = 0",
        "percentage = 100",
        "percentage = 100.0",
        "percentage = 0.0001",
        "fraction = '0/1'",
    ] {
        let _ = read(&with_mirror(right));
    }
    for wrong in [
        "percentage = 100.0001",
        "percentage = -0.01",
        "percentage = inf",
        "percentage = 101",
        "fraction = '2/1'",
    ] {
        assert!(faults(&with_mirror(wrong)).contains("out of range"), "{wrong}");
    }
    let config = read(&with_mirror("percentage = 0"));
    let Decision::Matched { mirrors, .. } = decide(&config, "GET", "h", 1) else { panic!("unmatched") };
    assert!(mirrors.iter().all(|verdict| !verdict.picked));
}

#[test]
fn missing_percentage_is_all() {
    let config = read(&with_mirror(""));
    let Decision::Matched { mirrors, .. } = decide(&config, "GET", "h", 1) else { panic!("unmatched") };
    assert!(mirrors.iter().all(|verdict| verdict.picked));
}

#[test]
fn rule_without_methods_has_the_guard_of_its_route() {
    let rules = "[[route.rule]]\nmirror = [{ shadow = 'a' }]\nmatch = [{ path = { exact = '/y' } }]\n\
                 [[route.rule]]\nmirror = [{ shadow = 'a' }]";
    let config = read(&with_shadow(&format!("[[route]]\nmethods = 'safe'\n{rules}")));
    assert_eq!(decide(&config, "POST", "h", 0), Decision::Unmatched);
    let own = read(&with_shadow(&format!("[[route]]\nmethods = 'safe'\n{rules}\nmethods = 'any'")));
    assert!(matches!(decide(&own, "POST", "h", 0), Decision::Matched { .. }));
}

#[test]
fn routes_are_tied_to_gateways_that_some_point_carries() {
    let text = |gateways: &str| {
        format!(
            "[capture]\nports = [80]\ninterfaces = [{{ name = \"eth0\", gateways = [\"ns/a\"] }}, \"eth1\"]\n\
             cgroups = [{{ path = \"/c\", gateways = [\"ns/a\", \"ns/b\"] }}]\n\
             [[shadow]]\nname = \"s\"\nurl = \"http://s\"\n[[route]]\ngateways = {gateways}\n\
             [[route.rule]]\nname = \"shop/cart\"\nmirror = [{{ shadow = \"s\" }}]\n"
        )
    };
    let config = Config::from_toml(&text("[\"ns/b\"]"), "t").unwrap_or_else(|faults| panic!("{faults}"));
    let carried: Vec<_> =
        config.capture.points.iter().map(|point| config.capture.gateways_at(point).len()).collect();
    assert_eq!(carried, [1, 0, 2]);
    for (gateways, expected) in [
        ("[\"ns/c\"]", "route[0].gateways: \"ns/c\" is neither among a capture point's `gateways` nor"),
        ("[\"a\"]", "route[0].gateways[0]: \"a\" is no gateway; write \"namespace/name\""),
        ("[]", "route[0].gateways: is empty; leave it out"),
        ("\"ns/a\"", "route[0].gateways: is \"ns/a\"; write a list"),
    ] {
        let faults = Config::from_toml(&text(gateways), "t").unwrap_err().to_string();
        assert!(faults.contains(expected), "{gateways}\n{faults}");
    }
}

#[test]
fn more_gateways_than_a_rule_can_tell_apart_are_refused() {
    let text = |count: usize| {
        let names: Vec<String> = (0..count).map(|number| format!("\"ns/g{number}\"")).collect();
        format!(
            "[capture]\nports = [80]\ncgroups = [{{ path = \"/c\", gateways = [{}] }}]\n",
            names.join(", ")
        )
    };
    assert!(Config::from_toml(&text(64), "t").is_ok());
    let faults = Config::from_toml(&text(65), "t").unwrap_err().to_string();
    assert!(faults.contains("names 65 gateways in all; allowed are 64"), "{faults}");
}
