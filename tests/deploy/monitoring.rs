//! Alerts and the dashboard ask for metrics that there are.

use crate::{document, text};
use serde_json::Value;
use std::collections::BTreeMap;

/// Metrics of others that the alerts use.
const OF_OTHERS: [&str; 1] = ["kube_daemonset_status_number_unavailable"];
/// Labels that monitoring adds.
const ADDED_LABELS: [&str; 3] = ["node", "job", "namespace"];

/// Each metric of `docs/METRICS.md`, and what the page says of its labels.
fn metrics() -> BTreeMap<String, String> {
    let page = text("../docs/METRICS.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| {
        let (name, rest) = row.split_once("` | ")?;
        Some((name.to_owned(), rest.split(" | ").nth(1)?.to_owned()))
    })
    .collect()
}

/// Names of metrics in an expression: words with `_` in front of `{`, `[` or an operator.
fn names(expression: &str) -> Vec<&str> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let is_metric = |word: &&str| {
        word.starts_with("mirror_") || word.starts_with("process_") || word.starts_with("kube_")
    };
    words.filter(is_metric).collect()
}

/// Each selector of an expression: metric, label, value.
fn selectors(expression: &str) -> Vec<(&str, &str, &str)> {
    let mut found = Vec::new();
    for (at, _) in expression.match_indices('{') {
        let (before, behind) = expression.split_at(at);
        let metric = before.rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap();
        let inside = behind[1..].split_once('}').unwrap().0;
        for pair in inside.split(',') {
            let at = pair.find(['=', '!']).unwrap();
            let (label, value) = pair.split_at(at);
            found.push((metric, label.trim(), value.trim_start_matches(['=', '!', '~']).trim_matches('"')));
        }
    }
    found
}

fn check(whose: &str, expression: &str) {
    let metrics = metrics();
    for name in names(expression) {
        assert!(metrics.contains_key(name) || OF_OTHERS.contains(&name), "{whose}: no metric {name}");
    }
    for (metric, label, value) in selectors(expression) {
        let Some(labels) = metrics.get(metric) else { continue };
        if ADDED_LABELS.contains(&label) {
            continue;
        }
        assert!(labels.contains(&format!("`{label}`")), "{whose}: {metric} has no label {label}");
        let is_listed =
            value.starts_with('$') || value.split('|').all(|value| labels.contains(&format!("`{value}`")));
        assert!(is_listed, "{whose}: {metric} has no {label} {value:?}");
    }
}

#[test]
fn alerts_ask_for_metrics_that_there_are() {
    let rules = document("components/monitoring/rules.yaml");
    let rules = rules["spec"]["groups"][0]["rules"].as_array().unwrap();
    assert!(rules.len() > 5);
    for rule in rules {
        let name = rule["alert"].as_str().unwrap();
        check(name, rule["expr"].as_str().unwrap());
        assert!(rule["annotations"]["summary"].is_string(), "{name} says nothing");
    }
}

#[test]
fn dashboard_asks_for_metrics_that_there_are() {
    let dashboard: Value = serde_json::from_str(&text("components/monitoring/dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(panels.len() > 10);
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        assert!(!panel["description"].as_str().unwrap().is_empty(), "{title} is not explained");
        for target in panel["targets"].as_array().unwrap() {
            check(title, target["expr"].as_str().unwrap());
        }
    }
}

#[test]
fn alerts_of_the_documentation_are_those_that_are_deployed() {
    let page = text("../docs/METRICS.md");
    let rules = document("components/monitoring/rules.yaml");
    let deployed: Vec<&str> = rules["spec"]["groups"][0]["rules"]
        .as_array()
        .unwrap()
        .iter()
        .map(|rule| rule["alert"].as_str().unwrap())
        .collect();
    for documented in page.lines().filter_map(|line| line.strip_prefix("- alert: ")) {
        let name = documented.split_whitespace().next().unwrap();
        assert!(deployed.contains(&name), "{name} is not deployed");
    }
}
