//! From objects to rules: which routes count, in which order, and what of them is mirrored.

use super::admission::{Admission, Attachment};
use super::backend::Backend;
use super::finding::{Finding, Reason};
use super::matches::{self, RuleMatch};
use super::mirrors::{Host, Mirror, RuleOf, created};
use super::object::ObjectRef;
use super::objects::Objects;
use super::terms::Terms;
use super::views::{HttpRoute, HttpRouteRule};
use crate::config::{AlreadyMirrored, KubernetesConfig};
use crate::rule::HostPattern;
use siphasher::sip::SipHasher13;
use std::collections::BTreeMap;
use std::hash::Hasher;

/// Most rules of one route; Gateway API allows fewer.
const MAX_RULES: usize = 256;
/// Longest name of a shadow, in bytes: it is a metrics label.
const MAX_SHADOW_NAME_BYTES: usize = 64;

/// Rules made from objects. [`Resolved::to_toml`] writes them down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// By what makes them differ: one for each Service, port and treatment of the host.
    pub(super) shadows: BTreeMap<Shadow, String>,
    /// In order of precedence, the older first.
    pub(super) routes: Vec<Route>,
    pub(super) cluster_domain: String,
    findings: Vec<Finding>,
}

/// What makes one shadow differ from another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Shadow {
    pub(super) backend: Backend,
    pub(super) host: Host,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) object: ObjectRef,
    pub(super) hosts: Vec<HostPattern>,
    /// The gateways it holds for; empty: all.
    pub(super) gateways: Vec<String>,
    pub(super) rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    /// Its place in the HTTPRoute.
    pub(super) index: usize,
    pub(super) matches: Vec<RuleMatch>,
    /// With the name of each one's shadow. None: it only keeps its requests from other rules.
    pub(super) mirrors: Vec<(String, Mirror)>,
}

/// Makes rules of all HTTPRoutes. The same objects give the same rules, in whatever order they came.
#[must_use]
pub fn resolve(objects: &Objects, terms: &Terms) -> Resolved {
    let cluster_domain = terms.settings.cluster_domain.clone();
    let mut resolved = Resolved { cluster_domain, ..Resolved::default() };
    let mut routes: Vec<_> = objects.routes().collect();
    for (name, route) in &routes {
        resolved.findings.extend(wrong_timestamp(name, route));
    }
    routes.sort_by_key(|(name, route)| {
        let timestamp = &route.metadata.creation_timestamp;
        (created(timestamp), name.namespace.as_str(), name.name.as_str())
    });
    for (name, route) in routes {
        let found = resolved.route(objects, terms, name, route);
        resolved.routes.extend(found);
    }
    resolved.drop_idle_rules();
    resolved.findings.sort_unstable();
    resolved.findings.dedup();
    resolved
}

impl Resolved {
    /// What was wrong with the objects, by object.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// How many mirrors there are; 0: the objects are of no use.
    #[must_use]
    pub fn mirror_count(&self) -> usize {
        self.routes.iter().flat_map(|route| &route.rules).map(|rule| rule.mirrors.len()).sum()
    }

    /// One for each set of hosts that it holds for; none: it can't take a request that some gateway of ours gets.
    fn route(&mut self, objects: &Objects, terms: &Terms, name: &ObjectRef, route: &HttpRoute) -> Vec<Route> {
        let settings = &terms.settings;
        let default = [HttpRouteRule::default()];
        let rules = if route.spec.rules.is_empty() { default.as_slice() } else { &route.spec.rules };
        let rule_of = |index, rule| {
            let path = format!("spec.rules[{index}]");
            RuleOf { objects, settings, route: name, rule, path }
        };
        let rules: Vec<RuleOf<'_>> =
            rules.iter().enumerate().map(|(index, rule)| rule_of(index, rule)).collect();
        let has_mirror = rules.iter().any(|rule| rule.has_request_mirror() || rule.asks_for_shadowing());
        // Others' routes that mirror nothing are not worth a word.
        let mut silent = Vec::new();
        let findings = if has_mirror { &mut self.findings } else { &mut silent };
        let Some(hosts) = matches::hosts(name, &route.spec.hostnames, findings) else { return vec![] };
        let admission = Admission { objects, settings, name, route, hosts: &hosts };
        let attachments = admission.attachments(findings);
        if attachments.is_empty() {
            return vec![];
        }
        let may_mirror = has_mirror
            && settings.route_selector.selects(&route.metadata.labels)
            && !is_mirrored_already(settings, name, route, &rules, findings);
        if rules.len() > MAX_RULES {
            let message = format!("has {} rules; allowed are {MAX_RULES}", rules.len());
            findings.push(Finding::new(name, "spec.rules", Reason::LimitExceeded, message));
        }
        let mut found = Vec::new();
        for (index, rule) in rules.iter().enumerate().take(MAX_RULES) {
            found.extend(self.rule(index, rule, terms, [has_mirror, may_mirror]));
        }
        let routes = attachments.into_iter().map(|Attachment { gateways, hosts }| Route {
            object: name.clone(),
            hosts,
            gateways,
            rules: found.clone(),
        });
        routes.collect()
    }

    fn rule(
        &mut self,
        index: usize,
        rule: &RuleOf<'_>,
        terms: &Terms,
        [has_mirror, may_mirror]: [bool; 2],
    ) -> Option<Rule> {
        let mut findings = Vec::new();
        let matches = matches::rule_matches(rule.route, &rule.path, &rule.rule.matches, &mut findings);
        let mirrors = if may_mirror { rule.mirrors(&mut findings) } else { vec![] };
        if has_mirror {
            self.findings.append(&mut findings);
        }
        let matches = matches?;
        let mirrors =
            mirrors.into_iter().filter_map(|mirror| self.with_shadow(rule, mirror, terms)).collect();
        Some(Rule { index, matches, mirrors })
    }

    /// The mirror with the name of its shadow, if there is room for that.
    fn with_shadow(&mut self, rule: &RuleOf<'_>, mirror: Mirror, terms: &Terms) -> Option<(String, Mirror)> {
        let shadow = Shadow { backend: mirror.backend.clone(), host: mirror.host.clone() };
        if let Some(name) = self.shadows.get(&shadow) {
            return Some((name.clone(), mirror));
        }
        let name = shadow_name(&shadow);
        let most = terms.most_shadows();
        let (reason, message) = if terms.own_shadows.contains(&name) {
            (
                Reason::Duplicate,
                format!("needs a shadow {name:?}, and the configuration has one of this name; rename that"),
            )
        } else if self.shadows.len() >= most {
            let own = terms.own_shadows.len();
            (
                Reason::LimitExceeded,
                format!("needs one shadow too many; allowed are {most} beside {own} of the configuration"),
            )
        } else {
            self.shadows.insert(shadow, name.clone());
            return Some((name, mirror));
        };
        self.findings.push(Finding::new(rule.route, rule.path.clone(), reason, message));
        None
    }

    /// Leaves out rules that neither mirror nor can take a request from one that does, so that a cluster with
    /// many routes and few mirrors makes a short configuration.
    fn drop_idle_rules(&mut self) {
        let mirrors = |route: &Route| route.rules.iter().any(|rule| !rule.mirrors.is_empty());
        let meets = |left: &Route, right: &Route| {
            let share_gateway = left.gateways.is_empty()
                || right.gateways.is_empty()
                || left.gateways.iter().any(|gateway| right.gateways.contains(gateway));
            share_gateway && matches::hosts_overlap(&left.hosts, &right.hosts)
        };
        let mirroring: Vec<Route> = self.routes.iter().filter(|route| mirrors(route)).cloned().collect();
        self.routes.retain(|route| mirroring.iter().any(|other| meets(route, other)));
        self.routes.retain(|route| !route.rules.is_empty());
    }
}

/// Whether a gateway makes the route's mirrors itself, so that ours would be the second ones.
///
/// The status tells it: a controller that accepted the route (`Accepted`) serves it with all filters that it
/// knows, for one that it can't serve makes it say `Accepted` false (Gateway API, `HTTPRouteFilter`).
/// `RequestMirror` is known to all who accept it. An `ExtensionRef` that a controller does not know can't be
/// resolved by it, so there `ResolvedRefs` must not be false, too. Which generation of the route was accepted
/// makes no difference: until the controller has looked again, it serves the former one.
fn is_mirrored_already(
    settings: &KubernetesConfig,
    name: &ObjectRef,
    route: &HttpRoute,
    rules: &[RuleOf<'_>],
    findings: &mut Vec<Finding>,
) -> bool {
    if settings.already_mirrored == AlreadyMirrored::Take {
        return false;
    }
    let has_request_mirror = rules.iter().any(RuleOf::has_request_mirror);
    for (index, parent) in route.status.parents.iter().enumerate() {
        let says = |kind: &str, status: &str| {
            parent.conditions.iter().any(|condition| condition.kind == kind && condition.status == status)
        };
        if says("Accepted", "True") && (has_request_mirror || !says("ResolvedRefs", "False")) {
            let message = format!(
                "{:?} has accepted the route and mirrors it itself; already_mirrored = \"take\" mirrors it all the same",
                parent.controller_name
            );
            let path = format!("status.parents[{index}]");
            findings.push(Finding::new(name, path, Reason::AlreadyMirrored, message));
            return true;
        }
    }
    false
}

/// Ages are compared as texts, which is right for the form that API servers write.
fn wrong_timestamp(name: &ObjectRef, route: &HttpRoute) -> Option<Finding> {
    const FORM: &[u8] = b"0000-00-00T00:00:00Z";
    let text = route.metadata.creation_timestamp.as_deref()?;
    let is_right = text.len() == FORM.len()
        && text.bytes().zip(FORM).all(|(found, form)| match form {
            b'0' => found.is_ascii_digit(),
            form => found == *form,
        });
    let message = format!("{text:?} is no time as API servers write it, such as 2026-01-31T12:00:00Z");
    (!is_right).then(|| Finding::new(name, "metadata.creationTimestamp", Reason::InvalidField, message))
}

/// `NAMESPACE.SERVICE.PORT`, and what else makes it differ. It does not hang on any other object, so that
/// metrics go on under the same name.
fn shadow_name(shadow: &Shadow) -> String {
    let Shadow { backend: Backend { namespace, service, port, is_http2 }, host } = shadow;
    let mut name = format!("{namespace}.{service}.{port}");
    if *is_http2 {
        name.push_str(".h2");
    }
    match host {
        Host::Suffix => {}
        Host::Keep => name.push_str(".keep"),
        Host::Literal(literal) => name.push_str(&format!(".host-{}", short_hash(literal))),
    }
    if name.len() <= MAX_SHADOW_NAME_BYTES {
        return name;
    }
    let hash = short_hash(&name);
    // Names are ASCII: see `object.rs`.
    let front = name.get(..MAX_SHADOW_NAME_BYTES.saturating_sub(hash.len()).saturating_sub(1));
    format!("{}-{hash}", front.unwrap_or_default())
}

fn short_hash(text: &str) -> String {
    let mut hasher = SipHasher13::new();
    hasher.write(text.as_bytes());
    format!("{:016x}", hasher.finish()).split_off(8)
}
