//! `[capture] kubernetes`: which pods of this node are captured.

use super::capture::{choice, interface_name};
use super::kubernetes::{namespace_name, pod_selector};
use crate::config::read::Section;
use crate::config::types::{DEFAULT_SILENT_AFTER, PodAttach, PodSelection, PodsConfig};
use std::time::Duration;

/// Most entries.
const MAX_SELECTIONS: usize = 64;
/// The interface of a pod that every network plugin makes.
const DEFAULT_INTERFACE: &str = "eth0";

/// Reads `kubernetes` and `pod_silent_after` of `[capture]`. What is wrong is left out, after its fault was noted.
pub(super) fn pods(capture: &Section<'_>) -> PodsConfig {
    let silent_after = capture.or("pod_silent_after", Some(DEFAULT_SILENT_AFTER), |node| {
        if node.as_text() == Some("off") {
            return Some(None);
        }
        node.duration(Duration::from_secs(1)..=Duration::from_secs(86_400)).map(Some)
    });
    let mut config = PodsConfig { silent_after, ..PodsConfig::default() };
    let Some(node) = capture.node("kubernetes") else { return config };
    let entries = if node.is_table() { vec![node] } else { node.list().unwrap_or_default() };
    for (index, node) in entries.into_iter().enumerate() {
        if index >= MAX_SELECTIONS {
            node.fault(format!("is one entry too many; allowed are {MAX_SELECTIONS}"));
            break;
        }
        let Some((attach, selection)) = node.section().map(entry) else { continue };
        if index == 0 {
            config.gateway_attach = attach;
        }
        config.selections.extend(selection);
    }
    config
}

/// `{ namespace = "..", selector = "..", attach = "cgroup" | "interface", interface = "eth0" }`. Without the first two
/// it says only how the pods of `[[kubernetes.gateway]]` are attached.
fn entry(section: Section<'_>) -> (PodAttach, Option<PodSelection>) {
    let is_interface =
        section.or("attach", false, |node| choice(&node, &[("cgroup", false), ("interface", true)]));
    let named = section.node("interface");
    if let (Some(node), false) = (&named, is_interface) {
        node.fault("means nothing with attach = \"cgroup\"; leave it out, or write attach = \"interface\"");
    }
    let name = named.and_then(interface_name).unwrap_or_else(|| DEFAULT_INTERFACE.to_owned());
    let attach = if is_interface { PodAttach::Interface(name) } else { PodAttach::Cgroup };
    if !section.has("namespace") && !section.has("selector") {
        // Known all the same.
        let _ = (section.node("namespace"), section.node("selector"));
        section.close();
        return (attach, None);
    }
    let namespace = section.required("namespace", "the pods' namespace, e.g. namespace = \"gloo-system\"");
    let namespace = namespace.and_then(namespace_name);
    let selector = section.required("selector", "which pods, e.g. selector = \"app=gateway\"");
    let selector = selector.and_then(pod_selector);
    section.close();
    let selection = namespace.zip(selector).map(|(namespace, selector)| PodSelection {
        namespace,
        selector,
        attach: attach.clone(),
    });
    (attach, selection)
}
