//! HTTPRoute matches as the configuration has them, and hosts.

use super::budget::{Budget, Refused};
use super::finding::{Finding, Reason};
use super::mirrors::RuleOf;
use super::object::ObjectRef;
use super::views::{HttpRouteMatch, PathKind, PathView, ValueKind, ValueView};
use crate::config::is_token;
use crate::rule::HostPattern;

/// Most matches of one rule, as in Gateway API.
const MAX_MATCHES: usize = 128;
/// The methods that Gateway API knows.
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// One alternative of a rule. What is in it is right for the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RuleMatch {
    pub(super) path: (PathKind, String),
    pub(super) method: Option<String>,
    pub(super) headers: Vec<Condition>,
    pub(super) query: Vec<Condition>,
}

/// A condition on a header field or query parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) name: String,
    pub(super) kind: ValueKind,
    pub(super) value: String,
}

/// There is no room for the regular expressions of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exceeded;

/// The matches of a rule; empty: every request. `None`: there are some, and none can be used.
pub(super) fn rule_matches(
    rule: &RuleOf<'_>,
    budget: &mut Budget,
    findings: &mut Vec<Finding>,
) -> Result<Option<Vec<RuleMatch>>, Exceeded> {
    let (object, path, matches) = (rule.route, &rule.path, &rule.rule.matches);
    let mut found = Vec::new();
    for (index, one) in matches.iter().enumerate() {
        let path = format!("{path}.matches[{index}]");
        if index >= MAX_MATCHES {
            let message = format!("is one match too many; allowed are {MAX_MATCHES}");
            findings.push(Finding::new(object, path, Reason::LimitExceeded, message));
            break;
        }
        match rule_match(one, budget) {
            Ok(one) => found.push(one),
            Err(Fault::Exceeded) => return Err(Exceeded),
            Err(Fault::Wrong(field, message)) => {
                findings.push(Finding::new(object, format!("{path}.{field}"), Reason::InvalidField, message));
            }
        }
    }
    Ok((matches.is_empty() || !found.is_empty()).then_some(found))
}

/// The hosts of a route; empty: every host. `None`: there are some, and none can be used.
pub(super) fn hosts(
    object: &ObjectRef,
    hostnames: &[String],
    findings: &mut Vec<Finding>,
) -> Option<Vec<HostPattern>> {
    let mut hosts: Vec<HostPattern> = Vec::new();
    for (index, text) in hostnames.iter().enumerate() {
        match HostPattern::parse(text) {
            Ok(host) if hosts.contains(&host) => {}
            Ok(host) => hosts.push(host),
            Err(fault) => {
                let path = format!("spec.hostnames[{index}]");
                let message = format!("{text:?} {fault}");
                findings.push(Finding::new(object, path, Reason::InvalidField, message));
            }
        }
    }
    (hostnames.is_empty() || !hosts.is_empty()).then_some(hosts)
}

/// Whether some host is meant by both lists.
pub(super) fn hosts_overlap(left: &[HostPattern], right: &[HostPattern]) -> bool {
    left.is_empty()
        || right.is_empty()
        || left.iter().any(|left| right.iter().any(|right| intersection(left, right).is_some()))
}

/// Whether some host of the first is within one of the second, or the same.
pub(super) fn is_as_narrow(left: &[HostPattern], right: &[HostPattern]) -> bool {
    let is_within =
        |left: &HostPattern| right.iter().any(|right| intersection(left, right).as_ref() == Some(left));
    right.is_empty() || left.iter().any(is_within)
}

/// The hosts that both mean: the narrower one, where it is part of the other.
pub(super) fn intersection(left: &HostPattern, right: &HostPattern) -> Option<HostPattern> {
    let is_below = |host: &str, suffix: &str| {
        host.strip_suffix(suffix).is_some_and(|front| front.ends_with('.') && front.len() > 1)
    };
    let is_part = |one: &HostPattern, whole: &HostPattern| match (one, whole) {
        (HostPattern::Exact(host) | HostPattern::Wildcard(host), HostPattern::Wildcard(suffix)) => {
            is_below(host, suffix)
        }
        (_, HostPattern::Exact(_)) => false,
    };
    match left == right || is_part(left, right) {
        true => Some(left.clone()),
        false => is_part(right, left).then(|| right.clone()),
    }
}

enum Fault {
    /// Field and message of what is wrong.
    Wrong(String, String),
    /// See [`Exceeded`].
    Exceeded,
}

fn rule_match(view: &HttpRouteMatch, budget: &mut Budget) -> Result<RuleMatch, Fault> {
    if let Some(method) = view.method.as_deref().filter(|method| !METHODS.contains(method)) {
        let message = format!("{method:?} is none of {}", METHODS.join(", "));
        return Err(Fault::Wrong("method".to_owned(), message));
    }
    Ok(RuleMatch {
        path: path(view.path.as_ref(), budget)?,
        method: view.method.clone(),
        headers: conditions(("headers", &view.headers), str::eq_ignore_ascii_case, budget)?,
        query: conditions(("queryParams", &view.query_params), str::eq, budget)?,
    })
}

/// Takes the room for a regular expression.
fn regex(value: &str, field: String, budget: &mut Budget) -> Result<(), Fault> {
    budget.take(value).map_err(|refused| match refused {
        Refused::Full => Fault::Exceeded,
        Refused::Wrong(fault) => Fault::Wrong(field, format!("{value:?} is no regular expression: {fault}")),
    })
}

fn path(view: Option<&PathView>, budget: &mut Budget) -> Result<(PathKind, String), Fault> {
    let kind = view.map(|view| view.kind).unwrap_or_default();
    let value = view.and_then(|view| view.value.as_deref()).unwrap_or("/");
    if kind == PathKind::RegularExpression {
        regex(value, "path.value".to_owned(), budget)?;
    } else if !value.starts_with('/') || value.contains(['?', '#']) {
        let message = format!("{value:?} is no path; it starts with \"/\" and has no query");
        return Err(Fault::Wrong("path.value".to_owned(), message));
    }
    Ok((kind, value.to_owned()))
}

/// Of several conditions of one name the first counts, as Gateway API has it.
fn conditions(
    (field, views): (&str, &[ValueView]),
    is_same: impl Fn(&str, &str) -> bool,
    budget: &mut Budget,
) -> Result<Vec<Condition>, Fault> {
    let mut kept: Vec<Condition> = Vec::new();
    for (index, ValueView { kind, name, value }) in views.iter().enumerate() {
        let at = |key| format!("{field}[{index}].{key}");
        if kept.iter().any(|known| is_same(&known.name, name)) {
            continue;
        }
        let is_name = if field == "headers" { is_token(name) } else { !name.is_empty() };
        if !is_name {
            return Err(Fault::Wrong(at("name"), format!("{name:?} is no name")));
        }
        if *kind == ValueKind::RegularExpression {
            regex(value, at("value"), budget)?;
        }
        kept.push(Condition { name: name.clone(), kind: *kind, value: value.clone() });
    }
    Ok(kept)
}
