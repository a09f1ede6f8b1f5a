//! `[kubernetes]`.

use super::capture::choice;
use super::names::list;
use crate::config::read::{Node, Section};
use crate::config::types::{
    AlreadyMirrored, DEFAULT_CLUSTER_DOMAIN, GatewayBinding, KubernetesConfig, RequestMirrorHost,
};
use crate::kube::{LabelSelector, Operator, Requirement, is_label, is_subdomain};
use crate::rule::MAX_GATEWAYS;

/// What is wrong in it is left out, after its fault was noted.
pub(super) fn kubernetes(section: Section<'_>) -> KubernetesConfig {
    let gateway_api = section.or("gateway_api", false, Node::boolean);
    let route_selector = section.or("route_selector", LabelSelector::default(), selector);
    let already_mirrored = section.or("already_mirrored", AlreadyMirrored::Refuse, |node| {
        choice(&node, &[("refuse", AlreadyMirrored::Refuse), ("take", AlreadyMirrored::Take)])
    });
    let request_mirror_host = section.or("request_mirror_host", RequestMirrorHost::Suffix, |node| {
        choice(&node, &[("suffix", RequestMirrorHost::Suffix), ("keep", RequestMirrorHost::Keep)])
    });
    let cluster_domain = section.or("cluster_domain", DEFAULT_CLUSTER_DOMAIN.to_owned(), cluster_domain);
    let bound = section.sections("gateway");
    if bound.len() > MAX_GATEWAYS {
        section.fault(format!("has {} gateways; allowed are {MAX_GATEWAYS}", bound.len()));
    }
    let mut gateways: Vec<GatewayBinding> = Vec::new();
    for one in bound {
        let path = one.path().to_owned();
        let Some((binding, again)) = gateway(one) else { continue };
        if gateways.iter().any(|other| other.gateway == binding.gateway) {
            again.fault(format!(
                "{} is another gateway's name too; bind each one once ({path})",
                again.found()
            ));
        }
        gateways.push(binding);
    }
    section.close();
    KubernetesConfig {
        gateway_api,
        route_selector,
        already_mirrored,
        request_mirror_host,
        cluster_domain,
        gateways,
    }
}

/// A binding, and where its name is written.
fn gateway(section: Section<'_>) -> Option<(GatewayBinding, Node<'_>)> {
    let named = section.required("name", "the Gateway's name, e.g. name = \"http\"");
    let name = named.clone().and_then(object_name);
    let namespace =
        section.required("namespace", "the Gateway's namespace, e.g. namespace = \"gloo-system\"");
    let namespace = namespace.and_then(namespace_name);
    let example = "the pods it runs in, e.g. pods = { selector = \"app=gateway\" }";
    let pods = section.required("pods", example).and_then(Node::section);
    let (mut pod_namespace, mut pod_labels) = (None, None);
    if let Some(pods) = pods {
        pod_namespace = pods.node("namespace").and_then(namespace_name);
        let node = pods.required("selector", "which pods, e.g. selector = \"app=gateway\"");
        pod_labels = node.and_then(pod_selector);
        pods.close();
    }
    section.close();
    let namespace = namespace?;
    let binding = GatewayBinding {
        gateway: format!("{namespace}/{}", name?),
        pod_namespace: pod_namespace.unwrap_or(namespace),
        pod_selector: pod_labels?,
    };
    Some((binding, named?))
}

/// A label selector that does not select everything.
pub(super) fn pod_selector(node: Node<'_>) -> Option<LabelSelector> {
    let again = node.clone();
    let found = selector(node)?;
    if found == LabelSelector::default() {
        again.fault("is empty, and would select every pod of the namespace; name the gateway's labels");
    }
    Some(found)
}

/// `"a=b,c in (d,e),!f"`, or `{ matchLabels = { .. }, matchExpressions = [ .. ] }` as Kubernetes has it.
fn selector(node: Node<'_>) -> Option<LabelSelector> {
    let again = node.clone();
    let built = match node.as_text() {
        Some(text) => LabelSelector::parse(text),
        None if node.is_table() => LabelSelector::new(requirements(node.section()?)),
        None => {
            node.wrong_type(
                "a label selector such as \"a=b,c in (d,e),!f\", or { matchLabels = { a = \"b\" } }",
            );
            return None;
        }
    };
    built.inspect_err(|fault| again.fault(format!("is no label selector: {fault}"))).ok()
}

fn requirements(section: Section<'_>) -> Vec<Requirement> {
    let labels =
        section.node("matchLabels").and_then(Node::section).map(Section::entries).unwrap_or_default();
    let is_equal = |(key, node): (&str, Node<'_>)| {
        let Some(value) = node.as_text() else {
            node.wrong_type("the label's value in quotes");
            return None;
        };
        Some(Requirement { key: key.to_owned(), operator: Operator::In(vec![value.to_owned()]) })
    };
    let mut requirements: Vec<Requirement> = labels.into_iter().filter_map(is_equal).collect();
    let expressions =
        section.node("matchExpressions").and_then(|node| list(node, |node| expression(node.section()?)));
    requirements.extend(expressions.unwrap_or_default());
    section.close();
    requirements
}

/// `{ key = "a", operator = "In", values = ["b"] }`.
fn expression(section: Section<'_>) -> Option<Requirement> {
    let key =
        section.required("key", "the label, e.g. key = \"app\"").and_then(Node::text).map(str::to_owned);
    let operator = section.required("operator", "operator = \"In\"");
    let values = section.node("values");
    let has_values = values.clone();
    let texts = |node: Node<'_>| {
        if node.as_text().is_none() {
            node.wrong_type("a label's value in quotes");
        }
        node.as_text().map(str::to_owned)
    };
    let values = values.and_then(|node| list(node, texts)).unwrap_or_default();
    section.close();
    let operator = operator?;
    let operator = match operator.as_text() {
        Some("In") => Operator::In(values),
        Some("NotIn") => Operator::NotIn(values),
        Some(word @ ("Exists" | "DoesNotExist")) => {
            if let Some(node) = has_values {
                node.fault(format!("is of no use with {word}; leave it out"));
            }
            if word == "Exists" { Operator::Exists } else { Operator::DoesNotExist }
        }
        _ => {
            operator.wrong_type("\"In\", \"NotIn\", \"Exists\" or \"DoesNotExist\"");
            return None;
        }
    };
    Some(Requirement { key: key?, operator })
}

fn cluster_domain(node: Node<'_>) -> Option<String> {
    let found = node.as_text().filter(|text| is_subdomain(text));
    if found.is_none() {
        node.fault(format!("{} is no domain; write one such as \"cluster.local\"", node.found()));
    }
    found.map(str::to_owned)
}

fn object_name(node: Node<'_>) -> Option<String> {
    let found = node.as_text().filter(|text| is_subdomain(text));
    if found.is_none() {
        node.fault(format!(
            "{} is no object name; allowed are small letters, digits, `-` and `.`",
            node.found()
        ));
    }
    found.map(str::to_owned)
}

pub(super) fn namespace_name(node: Node<'_>) -> Option<String> {
    let found = node.as_text().filter(|text| is_label(text));
    if found.is_none() {
        node.fault(format!("{} is no namespace; allowed are small letters, digits and `-`", node.found()));
    }
    found.map(str::to_owned)
}

/// The gateways at which something is: a list of `"namespace/name"`. `None` only after a fault was noted.
pub(super) fn gateway_names(node: Node<'_>) -> Option<Vec<String>> {
    let whole = node.clone();
    let names = list(node, |node| {
        let is_name = |text: &&str| {
            text.split_once('/').is_some_and(|(namespace, name)| is_label(namespace) && is_subdomain(name))
        };
        let found = node.as_text().filter(is_name);
        if found.is_none() {
            node.fault(format!("{} is no gateway; write \"namespace/name\"", node.found()));
        }
        found.map(str::to_owned)
    })?;
    if names.is_empty() {
        whole.fault("is empty; leave it out");
        return None;
    }
    Some(names)
}
