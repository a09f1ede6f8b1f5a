//! `[[route]]` and `[[route.rule]]`.

use super::kubernetes::gateway_names;
use super::names::{self, list};
use super::sample;
use crate::config::read::{Node, Section, nearest};
use crate::config::types::ShadowId;
use crate::rule::{
    FullRegex, HostPattern, MAX_MIRRORS, Match, MethodGuard, Mirror, PathMatch, Route, RouteRule, SampleBy,
    TextMatch, ValueMatch,
};
use std::collections::BTreeMap;

/// What routes may name.
pub(super) struct Names {
    pub(super) shadows: BTreeMap<String, ShadowId>,
    pub(super) gateways: Vec<String>,
}

/// Longest name of a rule, in bytes.
const MAX_RULE_NAME_BYTES: usize = 600;

/// What is wrong in it is left out, after its fault was noted.
pub(super) fn route(section: Section<'_>, names: &Names) -> Route {
    let hosts = section.or("hosts", vec![], |node| {
        let whole = node.clone();
        let nodes = node.list()?;
        if nodes.is_empty() {
            whole.fault("is empty; leave it out to match every host");
        }
        Some(nodes.into_iter().filter_map(host).collect())
    });
    let gateways = section.or("gateways", vec![], |node| known_gateways(node, names));
    let guard = section.or("methods", MethodGuard::Any, method_guard);
    let rules = section.sections("rule");
    if rules.is_empty() && !section.has("rule") {
        section.fault("has no rule; add [[route.rule]] with mirror = [{ shadow = \"...\" }]");
    }
    let rules = rules.into_iter().map(|one| rule(one, &guard, names)).collect();
    section.close();
    Route { hosts, gateways, origin: None, rules }
}

/// Gateways that some capture point carries, or that are bound to pods: a name that nothing has would switch
/// the route off without a word.
fn known_gateways(node: Node<'_>, names: &Names) -> Option<Vec<String>> {
    let again = node.clone();
    let found = gateway_names(node)?;
    for name in found.iter().filter(|name| !names.gateways.contains(name)) {
        let there: Vec<&str> = names.gateways.iter().map(String::as_str).collect();
        let there = match (nearest(name, &there), there.is_empty()) {
            (_, true) => "there is none".to_owned(),
            (Some(near), _) => format!("did you mean \"{near}\"?"),
            (None, _) => format!("there are: {}", there.join(", ")),
        };
        again.fault(format!(
            "\"{name}\" is neither among a capture point's `gateways` nor a [[kubernetes.gateway]]; {there}"
        ));
    }
    Some(found)
}

fn host(node: Node<'_>) -> Option<HostPattern> {
    let Some(text) = node.as_text() else {
        node.wrong_type("a host such as \"example.com\" or \"*.example.com\"");
        return None;
    };
    HostPattern::parse(text).inspect_err(|fault| node.fault(format!("{} {fault}", node.found()))).ok()
}

/// `"safe"`, `"any"` or a list of methods.
fn method_guard(node: Node<'_>) -> Option<MethodGuard> {
    match node.as_text() {
        Some("safe") => Some(MethodGuard::Safe),
        Some("any") => Some(MethodGuard::Any),
        Some(_) => {
            node.wrong_type("\"safe\", \"any\" or a list such as [\"GET\", \"POST\"]");
            None
        }
        None => methods(node).map(MethodGuard::Only),
    }
}

/// A list that is not empty.
fn methods(node: Node<'_>) -> Option<Vec<String>> {
    let whole = node.clone();
    let nodes = node.list()?;
    if nodes.is_empty() {
        whole.fault("is empty, so that no request could match; leave it out to match every method");
        return None;
    }
    Some(nodes.into_iter().filter_map(names::method).collect())
}

/// A rule without `methods` has its route's guard.
fn rule(section: Section<'_>, route_guard: &MethodGuard, names: &Names) -> RouteRule {
    let matches = section.or("match", vec![], |node| {
        let whole = node.clone();
        let nodes = node.list()?;
        if nodes.is_empty() {
            whole.fault("is empty, so that no request could match; leave it out to match every request");
        }
        Some(nodes.into_iter().filter_map(Node::section).map(one_match).collect())
    });
    let guard = section.or("methods", route_guard.clone(), method_guard);
    let example = "where copies go, e.g. mirror = [{ shadow = \"v2\", percentage = 10 }]";
    let mirrors =
        section.required("mirror", example).and_then(|node| mirrors(node, names)).unwrap_or_default();
    let name = section.or("name", section.path().to_owned(), rule_name);
    section.close();
    RouteRule { name, matches, guard, mirrors }
}

fn one_match(section: Section<'_>) -> Match {
    let path = section.or("path", PathMatch::default(), |node| path(node.section()?));
    let headers =
        section.or("headers", vec![], |node| value_matches(node, names::header, str::eq_ignore_ascii_case));
    let text = |node: Node<'_>| node.text().map(str::to_owned);
    let query = section.or("query", vec![], |node| value_matches(node, text, str::eq));
    let methods = section.or("methods", vec![], methods);
    section.close();
    Match { path, methods, headers, query }
}

/// `{ prefix = "/" }`, `{ exact = "/a" }` or `{ regex = "/v[0-9]+/.*" }`.
fn path(section: Section<'_>) -> Option<PathMatch> {
    let prefix = section.node("prefix");
    let exact = section.node("exact");
    let regex = section.node("regex");
    only_one(
        &section,
        &[("prefix", prefix.is_some()), ("exact", exact.is_some()), ("regex", regex.is_some())],
    );
    let prefix = prefix.and_then(absolute).map(|text| PathMatch::prefix(&text));
    let exact = exact.and_then(absolute).map(PathMatch::Exact);
    let regex = regex.and_then(full_regex).map(PathMatch::Regex);
    section.close();
    prefix.or(exact).or(regex)
}

fn absolute(node: Node<'_>) -> Option<String> {
    let found = node.as_text().filter(|text| text.starts_with('/') && !text.contains(['?', '#']));
    if found.is_none() {
        node.fault(format!("{} is no path; write one that starts with \"/\", without query", node.found()));
    }
    found.map(str::to_owned)
}

fn full_regex(node: Node<'_>) -> Option<FullRegex> {
    let Some(text) = node.as_text() else {
        node.wrong_type("a regular expression in quotes");
        return None;
    };
    FullRegex::new(text)
        .inspect_err(|fault| node.fault(format!("{} is no regular expression: {fault}", node.found())))
        .ok()
}

/// A list of `{ name = "..", exact = ".." }` or `{ name = "..", regex = ".." }`. Of several of one name the
/// first counts, as Gateway API has it.
fn value_matches(
    node: Node<'_>,
    read_name: impl Fn(Node<'_>) -> Option<String>,
    is_same: impl Fn(&str, &str) -> bool,
) -> Option<Vec<ValueMatch>> {
    let mut kept: Vec<ValueMatch> = Vec::new();
    for found in list(node, |node| value_match(node.section()?, &read_name))? {
        if !kept.iter().any(|known| is_same(&known.name, &found.name)) {
            kept.push(found);
        }
    }
    Some(kept)
}

fn value_match(section: Section<'_>, read_name: impl Fn(Node<'_>) -> Option<String>) -> Option<ValueMatch> {
    let name = section.required("name", "its name, e.g. name = \"x-env\"").and_then(read_name);
    let exact = section.node("exact");
    let regex = section.node("regex");
    only_one(&section, &[("exact", exact.is_some()), ("regex", regex.is_some())]);
    let exact = exact.and_then(|node| match node.as_text() {
        Some(text) => Some(TextMatch::Exact(text.to_owned())),
        None => {
            node.wrong_type("a text in quotes");
            None
        }
    });
    let regex = regex.and_then(full_regex).map(TextMatch::Regex);
    section.close();
    Some(ValueMatch { name: name?, value: exact.or(regex)? })
}

fn only_one(section: &Section<'_>, keys: &[(&str, bool)]) {
    let count = keys.iter().filter(|(_, is_there)| *is_there).count();
    if count != 1 {
        let all: Vec<&str> = keys.iter().map(|(key, _)| *key).collect();
        section.fault(format!("has {count} of {}; write exactly one", all.join(", ")));
    }
}

/// What logs and `explain` call a rule.
fn rule_name(node: Node<'_>) -> Option<String> {
    let found = node.clone().text()?;
    if found.len() > MAX_RULE_NAME_BYTES || found.chars().any(char::is_control) {
        node.fault(format!(
            "{} is no name; allowed are up to {MAX_RULE_NAME_BYTES} bytes without control characters",
            node.found()
        ));
        return None;
    }
    Some(found.to_owned())
}

/// An empty list keeps the rule's requests from rules of lower precedence.
fn mirrors(node: Node<'_>, names: &Names) -> Option<Vec<Mirror>> {
    let whole = node.clone();
    let nodes = node.list()?;
    if nodes.len() > MAX_MIRRORS {
        whole.fault(format!("has {} mirrors; allowed are {MAX_MIRRORS}", nodes.len()));
    }
    Some(nodes.into_iter().filter_map(|node| mirror(node.section()?, names)).collect())
}

fn mirror(section: Section<'_>, names: &Names) -> Option<Mirror> {
    let shadow = section.required("shadow", "the name of a [[shadow]], e.g. shadow = \"v2\"");
    let shadow = shadow.and_then(|node| shadow_id(node, &names.shadows));
    let share = sample::share(&section);
    let by = section.or("key", SampleBy::Request, sample::key);
    let salt = section.or("salt", String::new(), |node| node.text().map(str::to_owned));
    section.close();
    Some(Mirror { shadow: shadow?, share: share?, by, salt })
}

fn shadow_id(node: Node<'_>, shadows: &BTreeMap<String, ShadowId>) -> Option<ShadowId> {
    let name = node.clone().text()?;
    let found = shadows.get(name);
    if found.is_none() {
        let names: Vec<&str> = shadows.keys().map(String::as_str).collect();
        let there = match (nearest(name, &names), names.is_empty()) {
            (_, true) => "there are none, add one".to_owned(),
            (Some(near), _) => format!("did you mean \"{near}\"?"),
            (None, _) => format!("there are: {}", names.join(", ")),
        };
        node.fault(format!("no [[shadow]] is called {}; {there}", node.found()));
    }
    found.copied()
}
