//! PURE. Decides which requests are mirrored, where to, and which of them a percentage picks.
//!
//! In: a request head, who sent it, and its number in its flow. Out: a [`Decision`].
//!
//! All order is made when [`Rules`] are built, so that [`Rules::decide`] only looks up the host and walks a
//! list: it allocates nothing (but see [`ValueMatch`] for one rare case) and never fails.
//!
//! ```text
//! authority ─▶ HostIndex ─▶ candidates in order of precedence ─▶ first that matches ─▶ guard ─▶ sampler
//! ```

mod client_ip;
mod gateway;
mod host;
mod matching;
mod precedence;
mod sampler;

pub use client_ip::{client_ip, ip_of};
pub use gateway::{GatewaySet, MAX_GATEWAYS};
pub use host::{Authority, HostPattern, HostPatternFault, MAX_HOST_BYTES};
pub use matching::{
    FullRegex, MAX_REGEX_BYTES, Match, MethodGuard, Mismatch, PathMatch, RegexFault, TextMatch, ValueMatch,
};
pub use sampler::{KeyUsed, SampleBy, Share, ShareFault};

use crate::config::ShadowId;
use crate::flow::FlowKey;
use crate::http::{RequestHead, RequestNumber};
use host::{HostIndex, LowerHost};
use matching::Facets;
use sampler::Sampler;
use std::net::IpAddr;

/// Who sent a request, and where in its flow it is: what sampling keys can be made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sender {
    /// The client's address: PROXY protocol's, else the trusted part of `X-Forwarded-For`, else the peer's.
    pub client_ip: IpAddr,
    /// The connection.
    pub flow: FlowKey,
    /// The request's number in it.
    pub number: RequestNumber,
    /// The gateways at whose capture point it was seen.
    pub gateways: GatewaySet,
}

/// What the rules say of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision<'r> {
    /// No rule matches, or the one that does has no mirror, or its write guard refuses the method.
    Unmatched,
    /// A rule matches; each of its mirrors is listed with what its sampler said.
    Matched {
        /// The rule's name for logs, metrics-free: `route[0].rule[1]` or the cluster object's name.
        rule: &'r str,
        /// One verdict per mirror, in order.
        mirrors: MirrorVerdicts,
    },
}

/// Most mirrors in one rule.
pub const MAX_MIRRORS: usize = 8;

/// The verdicts of a rule's mirrors, kept without an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MirrorVerdicts {
    verdicts: [Option<MirrorVerdict>; MAX_MIRRORS],
}

/// One mirror's share in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MirrorVerdict {
    /// Which shadow.
    pub shadow: ShadowId,
    /// True: send a copy. False: sampled out.
    pub picked: bool,
}

impl MirrorVerdicts {
    /// Collects the first [`MAX_MIRRORS`] verdicts; configuration allows no more.
    #[must_use]
    pub fn collect(from: impl Iterator<Item = MirrorVerdict>) -> Self {
        let mut verdicts = [None; MAX_MIRRORS];
        for (slot, verdict) in verdicts.iter_mut().zip(from) {
            *slot = Some(verdict);
        }
        Self { verdicts }
    }

    /// The verdicts, in order.
    pub fn iter(&self) -> impl Iterator<Item = MirrorVerdict> + '_ {
        self.verdicts.iter().flatten().copied()
    }
}

/// Routes as they are configured: input to [`Rules::new`].
#[derive(Clone, Debug, Default)]
pub struct Route {
    /// Hosts it is for; empty: all hosts, after every route that names some.
    pub hosts: Vec<HostPattern>,
    /// The gateways it holds for, as `namespace/name`; empty: every capture point.
    pub gateways: Vec<String>,
    /// Where it comes from; `None`: the configuration file, which goes before the cluster on ties.
    pub origin: Option<ClusterOrigin>,
    /// Its rules, in order of appearance.
    pub rules: Vec<RouteRule>,
}

/// The cluster object a route comes from. The order of the fields is the order on ties (Gateway API,
/// `HTTPRouteRule.matches`): the older one, then by namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClusterOrigin {
    /// `creationTimestamp`, seconds since 1970.
    pub created_unix_seconds: i64,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// One rule of a route: any of its matches, then all of its mirrors.
#[derive(Clone, Debug, Default)]
pub struct RouteRule {
    /// Its name in logs: `route[0].rule[1]`, or the cluster object's.
    pub name: String,
    /// Alternatives; empty: every request.
    pub matches: Vec<Match>,
    /// Which methods may be mirrored at all. It does not take part in matching: a request that this guard
    /// refuses is not handed on to a rule of lower precedence.
    pub guard: MethodGuard,
    /// Where copies go, at most [`MAX_MIRRORS`]. None: the rule only keeps its requests from other rules.
    pub mirrors: Vec<Mirror>,
}

/// One mirror of a rule.
#[derive(Clone, Debug)]
pub struct Mirror {
    /// Which shadow.
    pub shadow: ShadowId,
    /// Which share of the requests.
    pub share: Share,
    /// What the share is taken by.
    pub by: SampleBy,
    /// Makes the choice independent of the other mirrors'; empty: the same choice for all.
    pub salt: String,
}

/// What all samplers of a configuration have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sampling {
    /// Text that the hash is keyed with: the same on every node.
    pub seed: String,
    /// Name of the request id header.
    pub request_id: String,
}

/// The seed when none is configured: a constant, so that all nodes agree.
pub const DEFAULT_SEED: &str = "mirror-daemon";
/// The request id header when none is configured.
pub const DEFAULT_REQUEST_ID: &str = "x-request-id";

impl Default for Sampling {
    fn default() -> Self {
        Self { seed: DEFAULT_SEED.to_owned(), request_id: DEFAULT_REQUEST_ID.to_owned() }
    }
}

/// All routes of a configuration, in order of precedence.
#[derive(Debug, Default)]
pub struct Rules {
    rules: Vec<BuiltRule>,
    /// Sorted by precedence (hosts apart): a lower index wins.
    candidates: Vec<Candidate>,
    hosts: HostIndex,
    /// The gateways that routes name, at most [`MAX_GATEWAYS`].
    gateways: Vec<String>,
    route_count: usize,
}

/// One alternative of one rule.
#[derive(Debug)]
struct Candidate {
    matched: Match,
    rule: usize,
}

#[derive(Debug)]
struct BuiltRule {
    name: String,
    guard: MethodGuard,
    hosts: Vec<HostPattern>,
    /// `None`: it holds at every capture point.
    gateways: Option<GatewaySet>,
    mirrors: Vec<BuiltMirror>,
}

impl BuiltRule {
    fn holds_at(&self, gateways: GatewaySet) -> bool {
        self.gateways.is_none_or(|own| own.meets(gateways))
    }

    fn allows(&self, method: &str) -> bool {
        !self.mirrors.is_empty() && self.guard.allows(method)
    }
}

#[derive(Debug)]
struct BuiltMirror {
    shadow: ShadowId,
    sampler: Sampler,
}

/// What became of one alternative of one rule, for `explain`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Considered<'r> {
    /// The rule's name.
    pub rule: &'r str,
    /// The alternative, as a person would say it.
    pub condition: String,
    /// What became of it.
    pub outcome: Outcome<'r>,
}

/// Why an alternative was or was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<'r> {
    /// This is the one.
    Taken,
    /// This is the one, but its write guard refuses the method: nothing is mirrored.
    Guarded,
    /// This is the one, but it has no mirror.
    Unmirrored,
    /// It would match too, but another one takes precedence.
    Outranked,
    /// It does not match.
    Mismatch(Mismatch<'r>),
}

/// How one mirror chooses, for `explain`.
#[derive(Clone, Copy, Debug)]
pub struct MirrorChoice<'r> {
    /// Which shadow.
    pub shadow: ShadowId,
    /// Its share.
    pub share: Share,
    /// What it is taken by.
    pub by: &'r SampleBy,
    /// What the key was made of for this request.
    pub key: KeyUsed,
    /// Whether this request is picked.
    pub picked: bool,
}

impl Rules {
    /// Puts routes into their order of precedence.
    #[must_use]
    pub fn new(routes: Vec<Route>, sampling: &Sampling) -> Self {
        let route_count = routes.len();
        let gateways = gateway_names(&routes);
        let mut rules = Vec::new();
        let mut ranked = Vec::new();
        for route in routes {
            let own = GatewaySet::of(&gateways, route.gateways.iter());
            let own = (!route.gateways.is_empty()).then_some(own);
            for rule in route.rules {
                let index = rules.len();
                let all = if rule.matches.is_empty() { vec![Match::default()] } else { rule.matches };
                ranked.extend(all.into_iter().map(|matched| precedence::Ranked {
                    matched,
                    origin: route.origin.clone(),
                    rule: index,
                }));
                rules.push(BuiltRule {
                    name: rule.name,
                    guard: rule.guard,
                    hosts: route.hosts.clone(),
                    gateways: own,
                    mirrors: rule.mirrors.into_iter().map(|mirror| build_mirror(mirror, sampling)).collect(),
                });
            }
        }
        // Stable: what compares as equal stays in order of appearance.
        ranked.sort_by(precedence::compare);
        let candidates: Vec<Candidate> = ranked
            .into_iter()
            .map(|ranked| Candidate { matched: ranked.matched, rule: ranked.rule })
            .collect();
        let hosts = HostIndex::new(candidates.iter().map(|candidate| {
            rules.get(candidate.rule).map(|rule: &BuiltRule| rule.hosts.as_slice()).unwrap_or_default()
        }));
        Self { rules, candidates, hosts, gateways, route_count }
    }

    /// What the rules say of a request.
    #[must_use]
    pub fn decide(&self, head: &RequestHead<'_>, sender: &Sender) -> Decision<'_> {
        let Some((_, rule)) = self.find(head, sender.gateways) else { return Decision::Unmatched };
        if !rule.allows(head.method) {
            return Decision::Unmatched;
        }
        let verdicts = rule.mirrors.iter().map(|mirror| MirrorVerdict {
            shadow: mirror.shadow,
            picked: mirror.sampler.picks(head, sender),
        });
        Decision::Matched { rule: &rule.name, mirrors: MirrorVerdicts::collect(verdicts) }
    }

    /// Those of `names` (`namespace/name`) that a route is tied to; the others make no difference.
    #[must_use]
    pub fn gateway_set(&self, names: &[String]) -> GatewaySet {
        GatewaySet::of(&self.gateways, names.iter())
    }

    /// How many routes there are.
    #[must_use]
    pub fn route_count(&self) -> usize {
        self.route_count
    }

    /// How many rules there are, in all routes.
    #[must_use]
    pub fn rule_count(&self) -> usize {
        self.rules.len()
    }

    /// Every alternative of every rule in order of precedence, and what becomes of it for this request.
    #[must_use]
    pub fn considered<'r>(&'r self, head: &RequestHead<'_>, gateways: GatewaySet) -> Vec<Considered<'r>> {
        let facets = Facets::of(head);
        let host = LowerHost::of(head.authority());
        let taken = self.find(head, gateways).map(|(index, _)| index);
        let reachable: Vec<usize> = self.hosts.candidates(&host).collect();
        let consider = |(index, candidate): (usize, &'r Candidate)| {
            let rule = self.rules.get(candidate.rule)?;
            let outcome = match candidate.matched.mismatch(&facets) {
                _ if !reachable.contains(&index) => Outcome::Mismatch(Mismatch::Host),
                _ if !rule.holds_at(gateways) => Outcome::Mismatch(Mismatch::Gateway),
                Some(mismatch) => Outcome::Mismatch(mismatch),
                None if taken != Some(index) => Outcome::Outranked,
                None if rule.mirrors.is_empty() => Outcome::Unmirrored,
                None if rule.guard.allows(head.method) => Outcome::Taken,
                None => Outcome::Guarded,
            };
            let condition = self.describe(rule, &candidate.matched);
            Some(Considered { rule: &rule.name, condition, outcome })
        };
        self.candidates.iter().enumerate().filter_map(consider).collect()
    }

    /// How each mirror of the rule that takes this request chooses; empty when none does.
    #[must_use]
    pub fn choices(&self, head: &RequestHead<'_>, sender: &Sender) -> Vec<MirrorChoice<'_>> {
        let found = self.find(head, sender.gateways).filter(|(_, rule)| rule.allows(head.method));
        let mirrors = found.map(|(_, rule)| rule.mirrors.as_slice()).unwrap_or_default();
        mirrors
            .iter()
            .map(|mirror| MirrorChoice {
                shadow: mirror.shadow,
                share: mirror.sampler.share,
                by: &mirror.sampler.by,
                key: mirror.sampler.key_used(head),
                picked: mirror.sampler.picks(head, sender),
            })
            .collect()
    }

    /// An alternative of a rule in words.
    fn describe(&self, rule: &BuiltRule, matched: &Match) -> String {
        let own = |name: &&String| {
            let name = std::slice::from_ref(*name);
            rule.gateways.is_some_and(|gateways| gateways.meets(self.gateway_set(name)))
        };
        let gateways: Vec<&str> = self.gateways.iter().filter(own).map(String::as_str).collect();
        let hosts: Vec<String> = rule.hosts.iter().map(ToString::to_string).collect();
        let gateways = (!gateways.is_empty()).then(|| format!("gateway {}, ", gateways.join(" or ")));
        let hosts = (!hosts.is_empty()).then(|| format!("host {}, ", hosts.join(" or ")));
        format!("{}{}{matched}", gateways.unwrap_or_default(), hosts.unwrap_or_default())
    }

    /// The candidate that takes the request, and its rule.
    fn find(&self, head: &RequestHead<'_>, gateways: GatewaySet) -> Option<(usize, &BuiltRule)> {
        let facets = Facets::of(head);
        let host = LowerHost::of(head.authority());
        self.hosts.candidates(&host).find_map(|index| {
            let candidate = self.candidates.get(index)?;
            let rule = self.rules.get(candidate.rule)?;
            (rule.holds_at(gateways) && candidate.matched.mismatch(&facets).is_none())
                .then_some((index, rule))
        })
    }
}

/// True when the request is itself a mirror: it carries the loop mark (the header's name; any value).
#[must_use]
pub fn is_mirrored(head: &RequestHead<'_>, loop_mark: &str) -> bool {
    head.fields.iter().any(|field| field.is(loop_mark))
}

/// Every name once. Configuration allows no more than [`MAX_GATEWAYS`].
fn gateway_names(routes: &[Route]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for name in routes.iter().flat_map(|route| &route.gateways) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

fn build_mirror(mirror: Mirror, sampling: &Sampling) -> BuiltMirror {
    BuiltMirror {
        shadow: mirror.shadow,
        sampler: Sampler::new(mirror.share, mirror.by, &mirror.salt, sampling),
    }
}

#[cfg(test)]
mod tests;
