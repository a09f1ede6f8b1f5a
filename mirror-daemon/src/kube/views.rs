//! HTTPRoute, Gateway, ReferenceGrant (Gateway API v1), RouteOption (K8sGateway), Upstream (Gloo), Service and
//! Namespace.
//!
//! Numbers are read wider than they may be, so that one out of range is told by the field that holds it.

use serde::Deserialize;
use serde_json::Number;
use std::collections::BTreeMap;

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Metadata {
    pub(super) name: String,
    pub(super) namespace: Option<String>,
    pub(super) labels: BTreeMap<String, String>,
    /// Written by the API server, in UTC and whole seconds; files have none.
    pub(super) creation_timestamp: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(super) struct HttpRoute {
    pub(super) metadata: Metadata,
    pub(super) spec: HttpRouteSpec,
    #[serde(default)]
    pub(super) status: RouteStatus,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct HttpRouteSpec {
    pub(super) parent_refs: Vec<ParentRef>,
    pub(super) hostnames: Vec<String>,
    pub(super) rules: Vec<HttpRouteRule>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ParentRef {
    pub(super) group: Option<String>,
    pub(super) kind: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) name: String,
    /// One listener of the Gateway; `None`: any.
    pub(super) section_name: Option<String>,
    /// Listeners of this port; `None`: of any.
    pub(super) port: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct HttpRouteRule {
    pub(super) matches: Vec<HttpRouteMatch>,
    pub(super) filters: Vec<Filter>,
    pub(super) backend_refs: Vec<HttpBackendRef>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct HttpRouteMatch {
    pub(super) path: Option<PathView>,
    pub(super) headers: Vec<ValueView>,
    pub(super) query_params: Vec<ValueView>,
    pub(super) method: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct PathView {
    #[serde(rename = "type")]
    pub(super) kind: PathKind,
    pub(super) value: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) enum PathKind {
    Exact,
    #[default]
    PathPrefix,
    RegularExpression,
}

/// A header or query parameter match.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(super) struct ValueView {
    #[serde(rename = "type", default)]
    pub(super) kind: ValueKind,
    pub(super) name: String,
    pub(super) value: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) enum ValueKind {
    #[default]
    Exact,
    RegularExpression,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Filter {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) request_mirror: Option<RequestMirror>,
    pub(super) extension_ref: Option<LocalRef>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RequestMirror {
    pub(super) backend_ref: BackendRef,
    pub(super) percent: Option<i64>,
    pub(super) fraction: Option<Fraction>,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub(super) struct Fraction {
    pub(super) numerator: i64,
    pub(super) denominator: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(super) struct BackendRef {
    pub(super) group: Option<String>,
    pub(super) kind: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) name: String,
    pub(super) port: Option<i64>,
}

/// Of the backends that production uses only the filters matter.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct HttpBackendRef {
    pub(super) filters: Vec<Filter>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(super) struct LocalRef {
    pub(super) group: String,
    pub(super) kind: String,
    pub(super) name: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct RouteStatus {
    pub(super) parents: Vec<ParentStatus>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ParentStatus {
    pub(super) parent_ref: Option<ParentRef>,
    pub(super) controller_name: String,
    pub(super) conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Condition {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) status: String,
    pub(super) reason: String,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(super) struct Gateway {
    pub(super) metadata: Metadata,
    #[serde(default)]
    pub(super) spec: GatewaySpec,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct GatewaySpec {
    pub(super) listeners: Vec<Listener>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Listener {
    pub(super) name: String,
    /// Empty or `None`: every host.
    pub(super) hostname: Option<String>,
    pub(super) port: i64,
    pub(super) protocol: String,
    pub(super) allowed_routes: AllowedRoutes,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct AllowedRoutes {
    pub(super) namespaces: RouteNamespaces,
    /// Empty: those that the protocol has.
    pub(super) kinds: Vec<RouteKind>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct RouteNamespaces {
    /// `None`: `Same`.
    pub(super) from: Option<String>,
    pub(super) selector: Option<SelectorView>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct RouteKind {
    pub(super) group: Option<String>,
    pub(super) kind: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct SelectorView {
    pub(super) match_labels: BTreeMap<String, String>,
    pub(super) match_expressions: Vec<ExpressionView>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct ExpressionView {
    pub(super) key: String,
    pub(super) operator: String,
    pub(super) values: Vec<String>,
}

/// Only its labels matter.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(super) struct Namespace {
    pub(super) metadata: Metadata,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(super) struct ReferenceGrant {
    pub(super) metadata: Metadata,
    pub(super) spec: GrantSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct GrantSpec {
    pub(super) from: Vec<GrantFrom>,
    pub(super) to: Vec<GrantTo>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(super) struct GrantFrom {
    pub(super) group: String,
    pub(super) kind: String,
    pub(super) namespace: String,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(super) struct GrantTo {
    /// The core group is `""`; YAML that leaves the value out says the same.
    #[serde(default)]
    pub(super) group: String,
    pub(super) kind: String,
    pub(super) name: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(super) struct RouteOption {
    pub(super) metadata: Metadata,
    #[serde(default)]
    pub(super) spec: RouteOptionSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RouteOptionSpec {
    pub(super) options: RouteOptions,
    pub(super) target_refs: Vec<TargetRef>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct RouteOptions {
    pub(super) shadowing: Option<Shadowing>,
}

/// `RouteShadowing` of K8sGateway.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Shadowing {
    pub(super) upstream: Option<UpstreamRef>,
    pub(super) percentage: Option<Number>,
    pub(super) disable_shadow_host_suffix_append: bool,
    pub(super) host_rewrite_literal: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(super) struct UpstreamRef {
    pub(super) name: String,
    pub(super) namespace: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(super) struct TargetRef {
    pub(super) group: String,
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) namespace: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(super) struct Upstream {
    pub(super) metadata: Metadata,
    #[serde(default)]
    pub(super) spec: UpstreamSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct UpstreamSpec {
    pub(super) kube: Option<KubeUpstream>,
    pub(super) use_http2: bool,
    /// That there is one is all that matters.
    pub(super) ssl_config: Option<serde_json::Value>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct KubeUpstream {
    pub(super) service_name: String,
    pub(super) service_namespace: Option<String>,
    pub(super) service_port: i64,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(super) struct Service {
    pub(super) metadata: Metadata,
    #[serde(default)]
    pub(super) spec: ServiceSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ServiceSpec {
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    #[serde(rename = "clusterIP")]
    pub(super) cluster_ip: Option<String>,
    pub(super) ports: Vec<ServicePort>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ServicePort {
    pub(super) name: Option<String>,
    pub(super) port: i64,
    pub(super) protocol: Option<String>,
    pub(super) app_protocol: Option<String>,
    pub(super) target_port: Option<TargetPort>,
}

/// A number, or the name of a port of the pods.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub(super) enum TargetPort {
    Number(i64),
    Name(String),
}
