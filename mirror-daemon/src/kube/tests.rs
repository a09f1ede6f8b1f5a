//! Tests over whole manifests: objects in, TOML and findings out, the TOML read back and asked about requests.

mod admission;
mod grants;
mod hostile;
mod percentages;
mod precedence;
mod routes;
mod status;

use super::*;
use crate::config::{Config, ShadowConfig};
use crate::flow::FlowKey;
use crate::http::{BodyLength, Field, RequestHead, RequestNumber, Version};
use crate::rule::{Decision, GatewaySet, Sender};
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// What the guide has its reader apply.
const GUIDE: &str = include_str!("../../../tests/fixtures/k8sgateway-shadowing.yaml");

/// What manifests make, with the settings in `base`.
struct Imported {
    toml: String,
    findings: Vec<Finding>,
    config: Config,
}

/// A request, as far as routes look at it.
#[derive(Clone, Copy, Default)]
struct Ask<'a> {
    method: &'a str,
    host: &'a str,
    target: &'a str,
    headers: &'a [(&'a str, &'a str)],
}

fn import(manifests: &str) -> Imported {
    import_with(manifests, "")
}

fn import_with(manifests: &str, base: &str) -> Imported {
    import_documents(documents(manifests, "test").unwrap(), base)
}

fn import_documents(documents: Vec<Value>, base: &str) -> Imported {
    let terms = Terms::of(&Config::from_toml(base, "base").unwrap_or_else(|faults| panic!("{faults}")));
    let (objects, mut findings) = Objects::from_documents(documents);
    let resolved = resolve(&objects, &terms);
    findings.extend_from_slice(resolved.findings());
    let toml = resolved.to_toml();
    let config = Config::from_toml(&format!("{base}\n{toml}"), "imported")
        .unwrap_or_else(|faults| panic!("{faults}\n{toml}"));
    Imported { toml, findings, config }
}

impl Imported {
    fn reasons(&self) -> Vec<Reason> {
        self.findings.iter().map(|finding| finding.reason).collect()
    }

    fn shadow(&self, name: &str) -> &Arc<ShadowConfig> {
        let found = self.config.shadows.iter().find(|shadow| shadow.name == name);
        found.unwrap_or_else(|| panic!("no shadow {name} in {}", self.toml))
    }

    /// The rule that takes a request, and the shadows it is mirrored to.
    fn ask(&self, ask: Ask<'_>) -> (&str, Vec<&str>) {
        self.ask_at(ask, GatewaySet::ALL)
    }

    fn ask_at(&self, ask: Ask<'_>, gateways: GatewaySet) -> (&str, Vec<&str>) {
        let host = Field { name: "Host", value: ask.host.as_bytes(), line: b"" };
        let others =
            ask.headers.iter().map(|(name, value)| Field { name, value: value.as_bytes(), line: b"" });
        let fields: Vec<Field<'_>> = std::iter::once(host).chain(others).collect();
        let (method, target) = (ask.method, ask.target);
        let method = if method.is_empty() { "GET" } else { method };
        let target = if target.is_empty() { "/" } else { target };
        let head =
            RequestHead { method, target, version: Version::Http11, fields: &fields, body: BodyLength::None };
        let client_ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let sender = Sender { client_ip, flow: FlowKey::default(), number: RequestNumber(1), gateways };
        let Decision::Matched { rule, mirrors } = self.config.rules.decide(&head, &sender) else {
            return ("", vec![]);
        };
        let picked = mirrors.iter().filter(|verdict| verdict.picked);
        let name = |shadow: usize| self.config.shadows[shadow].name.as_str();
        (rule, picked.map(|verdict| name(usize::from(verdict.shadow.0))).collect())
    }
}

/// A Service with one TCP port.
fn service(namespace: &str, name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{ namespace: {namespace}, name: {name} }}\nspec: {{ ports: [{{ port: {port} }}] }}\n---\n"
    )
}

/// An HTTPRoute; `rules` is the YAML of `spec.rules`, in flow style.
fn route(namespace: &str, name: &str, hostnames: &str, rules: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{ namespace: {namespace}, name: {name} }}\n\
         spec:\n  parentRefs: [{{ name: gw }}]\n  hostnames: {hostnames}\n  rules: {rules}\n---\n"
    )
}

/// The Gateway `gw`, which takes all routes of its namespace.
fn open_gateway(namespace: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{ namespace: {namespace}, name: gw }}\n\
         spec: {{ listeners: [{{ name: http, protocol: HTTP, port: 80 }}] }}\n---\n"
    )
}

/// A `RequestMirror` filter to a Service of the route's namespace.
fn mirror_to(service: &str) -> String {
    format!("{{ type: RequestMirror, requestMirror: {{ backendRef: {{ name: {service}, port: 80 }} }} }}")
}
