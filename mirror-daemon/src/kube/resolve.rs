//! From objects to rules: which routes count, in which order, and what of them is mirrored.

use super::admission::{Admission, Attachment};
use super::backend::Backend;
use super::budget::{Budget, MAX_TOML_BYTES};
use super::finding::{Finding, Reason};
use super::matches::{self, RuleMatch};
use super::mirrors::{Host, Mirror, RuleOf, created};
use super::object::ObjectRef;
use super::objects::Objects;
use super::terms::Terms;
use super::views::{HttpRoute, HttpRouteRule};
use super::write;
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

impl Route {
    fn place(&self) -> Attachment {
        Attachment { gateways: self.gateways.clone(), hosts: self.hosts.clone() }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    /// Its place in the HTTPRoute.
    pub(super) index: usize,
    pub(super) matches: Vec<RuleMatch>,
    /// With the name of each one's shadow. None: it only keeps its requests from other rules.
    pub(super) mirrors: Vec<(String, Mirror)>,
}

/// A route that some gateway of ours takes.
struct Candidate<'a> {
    name: &'a ObjectRef,
    rules: Vec<RuleOf<'a>>,
    attachments: Vec<Attachment>,
    /// It asks for a mirror, and may have one.
    has_mirror: bool,
    may_mirror: bool,
}

/// Those of a route that has none: everything.
static DEFAULT_RULES: [HttpRouteRule; 1] =
    [HttpRouteRule { matches: Vec::new(), filters: Vec::new(), backend_refs: Vec::new() }];

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
    let candidates: Vec<Candidate<'_>> = routes
        .into_iter()
        .filter_map(|(name, route)| resolved.candidate((objects, terms), name, route))
        .collect();
    let mirroring: Vec<&Attachment> =
        candidates.iter().filter(|own| own.may_mirror).flat_map(|own| &own.attachments).collect();
    let mut budget = Budget::default();
    for candidate in &candidates {
        // The others are of no use, and take no part of the budget.
        if candidate.has_mirror
            || candidate.attachments.iter().any(|own| mirroring.iter().any(|other| own.meets(other)))
        {
            let found = resolved.routes_of(candidate, terms, &mut budget);
            resolved.routes.extend(found);
        }
    }
    resolved.drop_idle_rules();
    resolved.drop_what_is_too_long(&mut budget.left_out);
    if !budget.left_out.is_empty() {
        resolved.keep_from_others(&budget.left_out);
        resolved.drop_idle_rules();
    }
    resolved.drop_idle_shadows();
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

    /// `None`: it can't take a request that some gateway of ours gets.
    fn candidate<'a>(
        &mut self,
        (objects, terms): (&'a Objects, &'a Terms),
        name: &'a ObjectRef,
        route: &'a HttpRoute,
    ) -> Option<Candidate<'a>> {
        let settings = &terms.settings;
        let rules = if route.spec.rules.is_empty() { &DEFAULT_RULES } else { route.spec.rules.as_slice() };
        let rule_of = |(index, rule)| {
            let path = format!("spec.rules[{index}]");
            RuleOf { objects, settings, route: name, rule, path }
        };
        let rules: Vec<RuleOf<'_>> = rules.iter().enumerate().map(rule_of).collect();
        let has_mirror = rules.iter().any(|rule| rule.has_request_mirror() || rule.asks_for_shadowing());
        // Others' routes that mirror nothing are not worth a word.
        let mut silent = Vec::new();
        let findings = if has_mirror { &mut self.findings } else { &mut silent };
        let hosts = matches::hosts(name, &route.spec.hostnames, findings)?;
        let attachments = Admission { objects, settings, name, route, hosts: &hosts }.attachments(findings);
        if attachments.is_empty() {
            return None;
        }
        let may_mirror = has_mirror
            && settings.route_selector.selects(&route.metadata.labels)
            && !is_mirrored_already(settings, name, route, &rules, findings);
        if rules.len() > MAX_RULES {
            let message = format!("has {} rules; allowed are {MAX_RULES}", rules.len());
            findings.push(Finding::new(name, "spec.rules", Reason::LimitExceeded, message));
        }
        Some(Candidate { name, rules, attachments, has_mirror, may_mirror })
    }

    /// One for each set of hosts that it holds for; none: there is no room for it.
    fn routes_of(&mut self, own: &Candidate<'_>, terms: &Terms, budget: &mut Budget) -> Vec<Route> {
        let mut found = Vec::new();
        if own.rules.len() > MAX_RULES {
            budget.left_out.extend_from_slice(&own.attachments);
        }
        for (index, rule) in own.rules.iter().enumerate().take(MAX_RULES) {
            let mut findings = Vec::new();
            let matches = matches::rule_matches(rule, budget, &mut findings);
            let mirrors = if own.may_mirror { rule.mirrors(&mut findings) } else { vec![] };
            if own.has_mirror {
                self.findings.append(&mut findings);
            }
            let Ok(matches) = matches else {
                let message = Budget::exceeded();
                self.findings.push(Finding::new(own.name, rule.path.clone(), Reason::LimitExceeded, message));
                budget.left_out.extend_from_slice(&own.attachments);
                return vec![];
            };
            let Some(matches) = matches else { continue };
            let mirrors =
                mirrors.into_iter().filter_map(|mirror| self.with_shadow(rule, mirror, terms)).collect();
            found.push(Rule { index, matches, mirrors });
        }
        let routes = own.attachments.iter().map(|Attachment { gateways, hosts }| Route {
            object: own.name.clone(),
            hosts: hosts.clone(),
            gateways: gateways.clone(),
            rules: found.clone(),
        });
        routes.collect()
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
        let mirroring: Vec<Attachment> =
            self.routes.iter().filter(|route| mirrors(route)).map(Route::place).collect();
        self.routes.retain(|route| {
            let own = route.place();
            mirroring.iter().any(|other| own.meets(other))
        });
        self.routes.retain(|route| !route.rules.is_empty());
    }

    /// Takes the mirrors from routes whose requests may belong to one that is left out: those would be mirrored by a
    /// rule that no gateway routes them by.
    fn keep_from_others(&mut self, left_out: &[Attachment]) {
        for route in &mut self.routes {
            if route.rules.iter().all(|rule| rule.mirrors.is_empty()) {
                continue;
            }
            let own = route.place();
            if left_out.iter().any(|other| other.may_precede(&own)) {
                route.rules.iter_mut().for_each(|rule| rule.mirrors.clear());
                let message = "is not mirrored: a route for the same hosts found no room, and its requests are not known";
                self.findings.push(Finding::new(
                    &route.object,
                    "",
                    Reason::LimitExceeded,
                    message.to_owned(),
                ));
            }
        }
    }

    /// Leaves out the routes behind those that fill the configuration.
    fn drop_what_is_too_long(&mut self, left_out: &mut Vec<Attachment>) {
        let mut left = MAX_TOML_BYTES;
        let findings = &mut self.findings;
        self.routes.retain(|route| match left.checked_sub(write::route_bytes(route)) {
            Some(less) => {
                left = less;
                true
            }
            None => {
                let message = format!(
                    "is too long; all routes together may take {MAX_TOML_BYTES} bytes, the older first"
                );
                findings.push(Finding::new(&route.object, "", Reason::LimitExceeded, message));
                left_out.push(route.place());
                false
            }
        });
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
