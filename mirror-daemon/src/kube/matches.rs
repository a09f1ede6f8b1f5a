//! HTTPRoute matches as the configuration has them, and hosts.

use super::finding::{Finding, Reason};
use super::object::ObjectRef;
use super::views::{HttpRouteMatch, PathKind, PathView, ValueKind, ValueView};
use crate::config::is_token;
use crate::rule::{FullRegex, HostPattern};

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

/// The matches of a rule; empty: every request. `None`: there are some, and none can be used.
pub(super) fn rule_matches(
    object: &ObjectRef,
    path: &str,
    matches: &[HttpRouteMatch],
    findings: &mut Vec<Finding>,
) -> Option<Vec<RuleMatch>> {
    let mut found = Vec::new();
    for (index, one) in matches.iter().enumerate() {
        let path = format!("{path}.matches[{index}]");
        if index >= MAX_MATCHES {
            let message = format!("is one match too many; allowed are {MAX_MATCHES}");
            findings.push(Finding::new(object, path, Reason::LimitExceeded, message));
            break;
        }
        match rule_match(one) {
            Ok(one) => found.push(one),
            Err((field, message)) => {
                findings.push(Finding::new(object, format!("{path}.{field}"), Reason::InvalidField, message));
            }
        }
    }
    (matches.is_empty() || !found.is_empty()).then_some(found)
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

/// Field and message of what is wrong.
type Fault = (String, String);

fn rule_match(view: &HttpRouteMatch) -> Result<RuleMatch, Fault> {
    if let Some(method) = view.method.as_deref().filter(|method| !METHODS.contains(method)) {
        return Err(("method".to_owned(), format!("{method:?} is none of {}", METHODS.join(", "))));
    }
    Ok(RuleMatch {
        path: path(view.path.as_ref())?,
        method: view.method.clone(),
        headers: conditions("headers", &view.headers, str::eq_ignore_ascii_case)?,
        query: conditions("queryParams", &view.query_params, str::eq)?,
    })
}

fn path(view: Option<&PathView>) -> Result<(PathKind, String), Fault> {
    let kind = view.map(|view| view.kind).unwrap_or_default();
    let value = view.and_then(|view| view.value.as_deref()).unwrap_or("/");
    let fault = |message| Err(("path.value".to_owned(), message));
    if kind == PathKind::RegularExpression {
        if let Err(error) = FullRegex::new(value) {
            return fault(format!("{value:?} is no regular expression: {error}"));
        }
    } else if !value.starts_with('/') || value.contains(['?', '#']) {
        return fault(format!("{value:?} is no path; it starts with \"/\" and has no query"));
    }
    Ok((kind, value.to_owned()))
}

/// Of several conditions of one name the first counts, as Gateway API has it.
fn conditions(
    field: &str,
    views: &[ValueView],
    is_same: impl Fn(&str, &str) -> bool,
) -> Result<Vec<Condition>, Fault> {
    let mut kept: Vec<Condition> = Vec::new();
    for (index, ValueView { kind, name, value }) in views.iter().enumerate() {
        let at = |key| format!("{field}[{index}].{key}");
        if kept.iter().any(|known| is_same(&known.name, name)) {
            continue;
        }
        let is_name = if field == "headers" { is_token(name) } else { !name.is_empty() };
        if !is_name {
            return Err((at("name"), format!("{name:?} is no name")));
        }
        if *kind == ValueKind::RegularExpression
            && let Err(error) = FullRegex::new(value)
        {
            return Err((at("value"), format!("{value:?} is no regular expression: {error}")));
        }
        kept.push(Condition { name: name.clone(), kind: *kind, value: value.clone() });
    }
    Ok(kept)
}
