//! The mirrors that a rule's filters ask for: Gateway API's `RequestMirror`, and K8sGateway's
//! `RouteOption.shadowing` by `ExtensionRef` or `targetRefs`.

use super::backend::{self, Backend, Unresolved};
use super::finding::{Finding, Reason};
use super::object::{Kind, ObjectRef};
use super::objects::Objects;
use super::views::{Filter, Fraction, HttpRouteRule, RequestMirror, RouteOption, Shadowing};
use crate::config::{KubernetesConfig, RequestMirrorHost, is_host_literal};
use crate::rule::{MAX_MIRRORS, Share};
use serde_json::Number;

/// What happens to the host of copies.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Host {
    Suffix,
    Keep,
    Literal(String),
}

/// One mirror.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mirror {
    pub(super) backend: Backend,
    pub(super) host: Host,
    /// As it is written in the configuration: `percentage = 0.39`.
    pub(super) share: String,
    /// Where it comes from, for people.
    pub(super) origin: String,
}

/// A rule, and what is around it.
pub(super) struct RuleOf<'a> {
    pub(super) objects: &'a Objects,
    pub(super) settings: &'a KubernetesConfig,
    pub(super) route: &'a ObjectRef,
    pub(super) rule: &'a HttpRouteRule,
    /// Its field in the route, e.g. `spec.rules[0]`.
    pub(super) path: String,
}

impl RuleOf<'_> {
    /// Whether the rule has a `RequestMirror` filter of its own, for all of its requests or those of one backend.
    pub(super) fn has_request_mirror(&self) -> bool {
        let of_backends = self.rule.backend_refs.iter().flat_map(|backend| &backend.filters);
        self.rule.filters.iter().chain(of_backends).any(|filter| filter.kind == REQUEST_MIRROR)
    }

    /// Whether a RouteOption gives the rule a mirror, or might if it was there.
    pub(super) fn asks_for_shadowing(&self) -> bool {
        let mut findings = Vec::new();
        self.shadowing(&mut findings).is_some() || !findings.is_empty()
    }

    /// Its mirrors, as far as they can be resolved; the others are findings.
    pub(super) fn mirrors(&self, findings: &mut Vec<Finding>) -> Vec<Mirror> {
        let mut mirrors = Vec::new();
        for (index, filter) in self.rule.filters.iter().enumerate() {
            if filter.kind != REQUEST_MIRROR {
                continue;
            }
            let path = format!("{}.filters[{index}]", self.path);
            match self.request_mirror(filter) {
                Ok(mirror) => mirrors.push((path, mirror)),
                Err(Unresolved { reason, message }) => {
                    findings.push(Finding::new(self.route, path, reason, message));
                }
            }
        }
        if let Some((path, name, shadowing)) = self.shadowing(findings) {
            match self.shadow(&name, shadowing) {
                Ok(mirror) => mirrors.push((path, mirror)),
                Err(Unresolved { reason, message }) => {
                    findings.push(Finding::new(self.route, path, reason, message));
                }
            }
        }
        self.refuse_backend_filters(findings);
        for (path, _) in mirrors.iter().skip(MAX_MIRRORS) {
            let message = format!("is one mirror too many; allowed are {MAX_MIRRORS} in one rule");
            findings.push(Finding::new(self.route, path, Reason::LimitExceeded, message));
        }
        mirrors.into_iter().take(MAX_MIRRORS).map(|(_, mirror)| mirror).collect()
    }

    fn request_mirror(&self, filter: &Filter) -> Result<Mirror, Unresolved> {
        let Some(RequestMirror { backend_ref, percent, fraction }) = &filter.request_mirror else {
            return Err(Unresolved::new(Reason::InvalidField, "requestMirror is missing"));
        };
        let share = request_mirror_share(*percent, *fraction)?;
        let backend = backend::of_mirror(self.objects, &self.route.namespace, backend_ref)?;
        let host = match self.settings.request_mirror_host {
            RequestMirrorHost::Suffix => Host::Suffix,
            RequestMirrorHost::Keep => Host::Keep,
        };
        Ok(Mirror { backend, host, share, origin: REQUEST_MIRROR.to_owned() })
    }

    /// The `shadowing` that holds for the rule, and by which field: of its own ExtensionRefs the first, else of
    /// the RouteOptions that target the route the oldest.
    fn shadowing(&self, findings: &mut Vec<Finding>) -> Option<(String, ObjectRef, &Shadowing)> {
        let namespace = self.route.namespace.as_str();
        for (index, filter) in self.rule.filters.iter().enumerate() {
            let Some(named) = filter.extension_ref.as_ref().filter(|_| filter.kind == "ExtensionRef") else {
                continue;
            };
            // Other extensions are other gateways' business.
            if (named.group.as_str(), named.kind.as_str())
                != (Kind::RouteOption.group(), Kind::RouteOption.name())
            {
                continue;
            }
            let path = format!("{}.filters[{index}]", self.path);
            let name = ObjectRef {
                kind: Kind::RouteOption,
                namespace: namespace.to_owned(),
                name: named.name.clone(),
            };
            match self.objects.route_option(&name) {
                None => {
                    let message = format!("{name} is not there");
                    findings.push(Finding::new(self.route, path, Reason::FilterNotFound, message));
                }
                Some(options) => {
                    if let Some(shadowing) = &options.spec.options.shadowing {
                        return Some((path, name, shadowing));
                    }
                }
            }
        }
        let is_own = |options: &(&ObjectRef, &RouteOption)| {
            options.0.namespace == namespace && targets(options.1, self.route)
        };
        let with_shadowing = self.objects.route_options().filter(is_own).filter_map(|(name, options)| {
            let shadowing = options.spec.options.shadowing.as_ref()?;
            Some((created(&options.metadata.creation_timestamp), name, shadowing))
        });
        let (_, name, shadowing) = with_shadowing.min_by_key(|(created, name, _)| (*created, *name))?;
        Some((self.path.clone(), name.clone(), shadowing))
    }

    fn shadow(&self, options: &ObjectRef, shadowing: &Shadowing) -> Result<Mirror, Unresolved> {
        let Some(named) = &shadowing.upstream else {
            let message = format!("{options} has no spec.options.shadowing.upstream");
            return Err(Unresolved::new(Reason::InvalidField, message));
        };
        let share = shadowing_share(options, shadowing.percentage.as_ref())?;
        let host = match shadowing.host_rewrite_literal.as_deref().filter(|text| !text.is_empty()) {
            Some(literal) if is_host_literal(literal) => Host::Literal(literal.to_owned()),
            Some(literal) => {
                let message = format!("hostRewriteLiteral of {options} is {literal:?}, which is no host");
                return Err(Unresolved::new(Reason::InvalidField, message));
            }
            None if shadowing.disable_shadow_host_suffix_append => Host::Keep,
            None => Host::Suffix,
        };
        let target = ObjectRef {
            kind: Kind::Upstream,
            namespace: named.namespace.clone().unwrap_or_else(|| options.namespace.clone()),
            name: named.name.clone(),
        };
        let backend = backend::of_upstream(self.objects, &self.route.namespace, &target)?;
        Ok(Mirror { backend, host, share, origin: format!("{options}, {target}") })
    }

    /// Which of several backends a request went to can't be seen from outside.
    fn refuse_backend_filters(&self, findings: &mut Vec<Finding>) {
        for (index, backend) in self.rule.backend_refs.iter().enumerate() {
            if backend.filters.iter().any(|filter| filter.kind == REQUEST_MIRROR) {
                let path = format!("{}.backendRefs[{index}].filters", self.path);
                let message = "a mirror for the requests of one backend only can't be made; move it to the rule's filters";
                findings.push(Finding::new(self.route, path, Reason::Unsupported, message));
            }
        }
    }
}

const REQUEST_MIRROR: &str = "RequestMirror";

/// By age, those without one last: texts of one form compare as their times do.
pub(super) fn created(timestamp: &Option<String>) -> (bool, &str) {
    (timestamp.is_none(), timestamp.as_deref().unwrap_or_default())
}

fn targets(options: &RouteOption, route: &ObjectRef) -> bool {
    options.spec.target_refs.iter().any(|target| {
        (target.group.as_str(), target.kind.as_str()) == (route.kind.group(), route.kind.name())
            && target.namespace.as_ref().is_none_or(|namespace| *namespace == route.namespace)
            && target.name == route.name
    })
}

/// Absent is all.
fn request_mirror_share(percent: Option<i64>, fraction: Option<Fraction>) -> Result<String, Unresolved> {
    let invalid = |message: String| Err(Unresolved::new(Reason::InvalidField, message));
    match (percent, fraction) {
        (None, None) => Ok("percentage = 100".to_owned()),
        (Some(percent @ 0..=100), None) => Ok(format!("percentage = {percent}")),
        (Some(percent), None) => invalid(format!("requestMirror.percent is {percent}; allowed is 0 to 100")),
        (None, Some(Fraction { numerator, denominator })) => {
            let denominator = denominator.unwrap_or(100);
            if (1..=i64::from(i32::MAX)).contains(&denominator) && (0..=denominator).contains(&numerator) {
                return Ok(format!("fraction = \"{numerator}/{denominator}\""));
            }
            invalid(format!(
                "requestMirror.fraction is {numerator}/{denominator}; allowed is 0/n to n/n, n at least 1"
            ))
        }
        (Some(_), Some(_)) => {
            invalid("requestMirror has both percent and fraction; leave one out".to_owned())
        }
    }
}

/// Absent is none, as K8sGateway has it.
fn shadowing_share(options: &ObjectRef, percentage: Option<&Number>) -> Result<String, Unresolved> {
    let Some(number) = percentage else { return Ok("percentage = 0".to_owned()) };
    let text = decimal(number);
    match Share::percent(&text) {
        Ok(_) => Ok(format!("percentage = {text}")),
        Err(fault) => {
            Err(Unresolved::new(Reason::InvalidField, format!("percentage of {options} {fault}: {number}")))
        }
    }
}

/// The number as it was written, without an exponent and with no more decimals than a share can have. Written
/// numbers have fewer: more of them are what is left of arithmetic.
fn decimal(number: &Number) -> String {
    let Some(float) = number.as_f64().filter(|_| number.is_f64()) else { return number.to_string() };
    let shortest = format!("{float}");
    let decimals = shortest.split_once('.').map_or(0, |(_, decimals)| decimals.len());
    if decimals <= Share::MAX_DECIMALS as usize {
        return shortest;
    }
    let rounded = format!("{float:.*}", Share::MAX_DECIMALS as usize);
    rounded.trim_end_matches('0').trim_end_matches('.').to_owned()
}
