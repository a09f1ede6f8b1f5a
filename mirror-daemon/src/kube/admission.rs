//! Which of the Gateways that a route names take it, and for which hosts: what their listeners allow (Gateway API,
//! `Listener` and `AllowedRoutes`), and what a controller has said of it.
//!
//! Without this anybody who may write an HTTPRoute could have others' requests for himself. Which of several listeners
//! a request has come by is not looked at: all that take the route count together.

use super::finding::{Finding, Reason};
use super::matches;
use super::object::{GATEWAY_API_GROUP, Kind, ObjectRef};
use super::objects::Objects;
use super::selector::{LabelSelector, Operator, Requirement, SelectorFault};
use super::views::{HttpRoute, Listener, ParentRef, SelectorView};
use crate::config::KubernetesConfig;
use crate::rule::HostPattern;
use std::collections::BTreeMap;

/// Most parents of a route that are looked at, as in Gateway API.
const MAX_PARENTS: usize = 32;
/// Most listeners of a Gateway that are looked at, as in Gateway API.
const MAX_LISTENERS: usize = 64;
/// The label that every namespace has, with its name.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";
/// Reasons by which a controller says that a Gateway has no place for a route. For others, such as an extension that it
/// does not know, the route is still the Gateway's.
const REFUSALS: [&str; 3] = ["NotAllowedByListeners", "NoMatchingListenerHostname", "NoMatchingParent"];

/// Where a route holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attachment {
    /// The bound gateways; empty: all, for none is bound.
    pub(super) gateways: Vec<String>,
    /// Empty: every host.
    pub(super) hosts: Vec<HostPattern>,
}

impl Attachment {
    /// Whether some request may belong to both.
    pub(super) fn meets(&self, other: &Self) -> bool {
        self.shares_gateway(other) && matches::hosts_overlap(&self.hosts, &other.hosts)
    }

    /// Whether requests that the other would get may belong to this one, whatever their rules say: of two hosts that
    /// mean a request the narrower one decides.
    pub(super) fn may_precede(&self, other: &Self) -> bool {
        self.shares_gateway(other) && matches::is_as_narrow(&self.hosts, &other.hosts)
    }

    fn shares_gateway(&self, other: &Self) -> bool {
        self.gateways.is_empty()
            || other.gateways.is_empty()
            || self.gateways.iter().any(|gateway| other.gateways.contains(gateway))
    }
}

/// A route that asks to be taken.
pub(super) struct Admission<'a> {
    pub(super) objects: &'a Objects,
    pub(super) settings: &'a KubernetesConfig,
    pub(super) name: &'a ObjectRef,
    pub(super) route: &'a HttpRoute,
    /// As the route names them; empty: every host.
    pub(super) hosts: &'a [HostPattern],
}

impl Admission<'_> {
    /// Where the route holds, one for each set of hosts; none: nowhere.
    pub(super) fn attachments(&self, findings: &mut Vec<Finding>) -> Vec<Attachment> {
        let parents = match self.parents() {
            Ok(parents) => parents,
            Err(message) => {
                findings.push(Finding::new(self.name, "spec.parentRefs", Reason::GatewayNotBound, message));
                return vec![];
            }
        };
        let mut by_gateway: BTreeMap<String, Vec<HostPattern>> = BTreeMap::new();
        for (index, parent, gateway) in parents {
            let hosts = match self.hosts_at(parent, &gateway) {
                Ok(hosts) => hosts,
                Err(message) => {
                    let path = format!("spec.parentRefs[{index}]");
                    findings.push(Finding::new(self.name, path, Reason::NotAdmitted, message));
                    continue;
                }
            };
            // Without bindings nobody can tell which gateway a request came to.
            let key = if self.settings.gateways.is_empty() { String::new() } else { full_name(&gateway) };
            by_gateway.entry(key).and_modify(|known| join(known, &hosts)).or_insert(hosts);
        }
        let mut attachments: Vec<Attachment> = Vec::new();
        for (gateway, hosts) in by_gateway {
            match attachments.iter_mut().find(|known| known.hosts == hosts) {
                Some(known) => known.gateways.push(gateway),
                None if gateway.is_empty() => attachments.push(Attachment { gateways: vec![], hosts }),
                None => attachments.push(Attachment { gateways: vec![gateway], hosts }),
            }
        }
        attachments
    }

    /// The Gateways that the route names, as far as they are ours, with their places in `parentRefs`.
    fn parents(&self) -> Result<Vec<(usize, &ParentRef, ObjectRef)>, String> {
        let named = self.route.spec.parent_refs.iter().enumerate().take(MAX_PARENTS);
        let named: Vec<_> = named
            .filter(|(_, parent)| is_gateway(parent))
            .map(|(index, parent)| (index, parent, self.gateway(parent)))
            .collect();
        if named.is_empty() {
            return Err("names no Gateway: no gateway serves it".to_owned());
        }
        if self.settings.gateways.is_empty() {
            return Ok(named);
        }
        let mut names: Vec<String> = named.iter().map(|(_, _, gateway)| full_name(gateway)).collect();
        names.sort_unstable();
        names.dedup();
        let is_bound = |gateway: &ObjectRef| {
            let name = full_name(gateway);
            self.settings.gateways.iter().any(|own| own.gateway == name)
        };
        let bound: Vec<_> = named.into_iter().filter(|(_, _, gateway)| is_bound(gateway)).collect();
        match bound.is_empty() {
            true => Err(format!("no [[kubernetes.gateway]] binds {}", names.join(", "))),
            false => Ok(bound),
        }
    }

    fn gateway(&self, parent: &ParentRef) -> ObjectRef {
        let namespace = parent.namespace.as_ref().unwrap_or(&self.name.namespace).clone();
        ObjectRef { kind: Kind::Gateway, namespace, name: parent.name.clone() }
    }

    /// For which hosts the parent takes the route, or why it does not.
    fn hosts_at(&self, parent: &ParentRef, gateway: &ObjectRef) -> Result<Vec<HostPattern>, String> {
        if let Some(reason) = self.refusal(parent) {
            return Err(format!("{gateway} has refused the route: its status says {reason}"));
        }
        let Some(found) = self.objects.gateway(gateway) else {
            // The guide's manifests, for example, leave the Gateway to others.
            return match self.objects.is_whole_cluster {
                true => Err(format!("{gateway} is not there")),
                false => Ok(self.hosts.to_vec()),
            };
        };
        let (mut hosts, mut refusals): (Option<Vec<HostPattern>>, Vec<String>) = (None, Vec::new());
        let listeners = found.spec.listeners.iter().take(MAX_LISTENERS);
        for listener in listeners.filter(|listener| is_meant(parent, listener)) {
            match self.hosts_of(listener, gateway) {
                Err(why) => refusals.push(format!("listener {:?} {why}", listener.name)),
                Ok(more) => match &mut hosts {
                    Some(hosts) => join(hosts, &more),
                    None => hosts = Some(more),
                },
            }
        }
        hosts.ok_or_else(|| match refusals.is_empty() {
            true => format!("{gateway} has no such listener"),
            false => format!("{gateway} does not take the route: {}", refusals.join("; ")),
        })
    }

    /// What a controller said when it refused the route at this parent.
    fn refusal(&self, parent: &ParentRef) -> Option<&'static str> {
        let is_same = |other: &ParentRef| {
            is_gateway(other)
                && self.gateway(other) == self.gateway(parent)
                && section(other) == section(parent)
                && other.port == parent.port
        };
        let own = self.route.status.parents.iter().filter(|own| own.parent_ref.as_ref().is_some_and(is_same));
        let mut refused = own
            .flat_map(|own| &own.conditions)
            .filter(|condition| condition.kind == "Accepted" && condition.status == "False");
        refused.find_map(|condition| REFUSALS.into_iter().find(|reason| *reason == condition.reason))
    }

    /// For which hosts a listener takes the route, or why it does not.
    fn hosts_of(&self, listener: &Listener, gateway: &ObjectRef) -> Result<Vec<HostPattern>, String> {
        if !matches!(listener.protocol.as_str(), "HTTP" | "HTTPS") {
            return Err(format!("is of protocol {:?}", listener.protocol));
        }
        let kinds = &listener.allowed_routes.kinds;
        let is_route = |group: Option<&str>, kind: &str| {
            group.is_none_or(|group| group == GATEWAY_API_GROUP) && kind == Kind::HttpRoute.name()
        };
        if !kinds.is_empty() && !kinds.iter().any(|own| is_route(own.group.as_deref(), &own.kind)) {
            return Err("takes no HTTPRoutes".to_owned());
        }
        self.check_namespace(listener, gateway)?;
        let Some(text) = listener.hostname.as_deref().filter(|text| !text.is_empty()) else {
            return Ok(self.hosts.to_vec());
        };
        let own =
            HostPattern::parse(text).map_err(|fault| format!("has the hostname {text:?}, which {fault}"))?;
        if self.hosts.is_empty() {
            return Ok(vec![own]);
        }
        let mut hosts = Vec::new();
        join_some(&mut hosts, self.hosts.iter().filter_map(|host| matches::intersection(host, &own)));
        match hosts.is_empty() {
            true => Err(format!("is for {text:?} only")),
            false => Ok(hosts),
        }
    }

    fn check_namespace(&self, listener: &Listener, gateway: &ObjectRef) -> Result<(), String> {
        let allowed = &listener.allowed_routes.namespaces;
        let is_taken = match allowed.from.as_deref().unwrap_or("Same") {
            "All" => true,
            "Same" => self.name.namespace == gateway.namespace,
            "Selector" => match &allowed.selector {
                Some(selector) => return self.check_selector(selector),
                None => false,
            },
            _ => false,
        };
        match is_taken {
            true => Ok(()),
            false => Err(format!("takes no routes of namespace {}", self.name.namespace)),
        }
    }

    fn check_selector(&self, view: &SelectorView) -> Result<(), String> {
        let namespace = &self.name.namespace;
        let selector = selector(view).map_err(|fault| format!("has a wrong selector: {fault}"))?;
        let mut labels = match self.objects.namespace(namespace) {
            Some(found) => found.metadata.labels.clone(),
            None if self.objects.is_whole_cluster => {
                return Err(format!("selects namespaces, and the labels of {namespace} are not known"));
            }
            None => BTreeMap::new(),
        };
        labels.insert(NAME_LABEL.to_owned(), namespace.clone());
        match selector.selects(&labels) {
            true => Ok(()),
            false => Err(format!("does not select namespace {namespace} ({selector})")),
        }
    }
}

fn is_gateway(parent: &ParentRef) -> bool {
    parent.group.as_deref().is_none_or(|group| group == GATEWAY_API_GROUP)
        && parent.kind.as_deref().is_none_or(|kind| kind == Kind::Gateway.name())
}

fn full_name(gateway: &ObjectRef) -> String {
    format!("{}/{}", gateway.namespace, gateway.name)
}

fn section(parent: &ParentRef) -> Option<&str> {
    parent.section_name.as_deref().filter(|name| !name.is_empty())
}

/// Whether the parent means this listener.
fn is_meant(parent: &ParentRef, listener: &Listener) -> bool {
    section(parent).is_none_or(|name| name == listener.name)
        && parent.port.is_none_or(|port| port == listener.port)
}

/// Adds hosts to others; empty: every host.
fn join(hosts: &mut Vec<HostPattern>, more: &[HostPattern]) {
    if hosts.is_empty() || more.is_empty() {
        hosts.clear();
    } else {
        join_some(hosts, more.iter().cloned());
    }
}

fn join_some(hosts: &mut Vec<HostPattern>, more: impl Iterator<Item = HostPattern>) {
    for host in more {
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
}

fn selector(view: &SelectorView) -> Result<LabelSelector, SelectorFault> {
    let equal = view.match_labels.iter().map(|(key, value)| {
        Ok(Requirement { key: key.clone(), operator: Operator::In(vec![value.clone()]) })
    });
    let expressions = view.match_expressions.iter().map(|own| {
        let operator = match own.operator.as_str() {
            "In" => Operator::In(own.values.clone()),
            "NotIn" => Operator::NotIn(own.values.clone()),
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            other => return Err(SelectorFault::Requirement(other.to_owned())),
        };
        Ok(Requirement { key: own.key.clone(), operator })
    });
    LabelSelector::new(equal.chain(expressions).collect::<Result<_, _>>()?)
}
