//! The types of the checked configuration.

use crate::http::h2::H2Options;
use crate::kube::LabelSelector;
use crate::rule::Rules;
use serde::{Deserialize, Serialize};

pub use crate::flow::FlowLimits;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Everything the daemon was told, checked.
#[derive(Debug)]
pub struct Config {
    /// What to capture, and how.
    pub capture: CaptureConfig,
    /// Which pods are captured beside the points of `capture`.
    pub pods: PodsConfig,
    /// The shadows; [`ShadowId`] is the index.
    pub shadows: Vec<Arc<ShadowConfig>>,
    /// Which requests go to which shadows.
    pub rules: Rules,
    /// How rules are taken from Kubernetes objects.
    pub kubernetes: KubernetesConfig,
    /// Where the admin pages listen.
    pub admin: AdminConfig,
    /// Name of the loop mark header, e.g. `x-mirrored-by`.
    pub loop_mark: String,
    /// How many trusted proxies append to `X-Forwarded-For` in front of the gateway; 0: the header is ignored.
    pub trusted_proxies: u32,
    /// How long a drain at SIGTERM may take.
    pub drain_timeout: Duration,
    /// How much the daemon steps back for others on the same processors, 0 to 19 (nice(2)): the gateway first.
    pub nice: u8,
}

impl Config {
    /// Whether pods are to be captured, where the daemon knows its node.
    #[must_use]
    pub fn selects_pods(&self) -> bool {
        self.pod_attachments().next().is_some()
    }

    /// How pods are to be attached, each way at least once.
    pub fn pod_attachments(&self) -> impl Iterator<Item = &PodAttach> {
        let of_gateways = (!self.kubernetes.gateways.is_empty()).then_some(&self.pods.gateway_attach);
        self.pods.selections.iter().map(|selection| &selection.attach).chain(of_gateways)
    }

    /// A configuration that captures `ports` and mirrors nothing: for reading capture files.
    #[must_use]
    pub fn without_rules(leg: Leg, ports: &[u16]) -> Self {
        Self {
            capture: CaptureConfig { leg, ports: ports.to_vec(), ..CaptureConfig::default() },
            pods: PodsConfig::default(),
            shadows: Vec::new(),
            rules: Rules::default(),
            kubernetes: KubernetesConfig::default(),
            admin: AdminConfig { listen: None },
            loop_mark: DEFAULT_LOOP_MARK.to_owned(),
            trusted_proxies: 0,
            drain_timeout: Duration::ZERO,
            nice: 0,
        }
    }
}

/// Most cgroups of [`CaptureConfig::gateway_cgroups`]: each is a program that runs for all connections below it.
pub const MAX_GATEWAY_CGROUPS: usize = 64;

/// Name of the loop mark header when the configuration names none.
pub const DEFAULT_LOOP_MARK: &str = "x-mirrored-by";

/// The index of a shadow in [`Config::shadows`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShadowId(pub u16);

/// Which connections of the gateway are captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Leg {
    /// Those it accepts: `ports` are the gateway's own.
    Downstream,
    /// Those it opens: `ports` are the other end's.
    Upstream,
}

/// How a TC program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TcMode {
    /// TCX where the kernel has it (6.6), else clsact.
    Auto,
    /// TCX or nothing.
    Tcx,
    /// A clsact qdisc and a legacy filter.
    Clsact,
}

/// `[capture]`, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptureConfig {
    /// Capture points wanted; may be empty (a daemon that only serves its admin pages, or reads a pcap file).
    pub points: Vec<CapturePoint>,
    /// At which gateways (`namespace/name`) some of these points are.
    pub gateways: Vec<PointGateways>,
    /// Which connections.
    pub leg: Leg,
    /// TCP ports, 1 to `mirror_common::MAX_PORTS` of them.
    pub ports: Vec<u16>,
    /// How TC programs are attached.
    pub tc_mode: TcMode,
    /// cgroup v2 directories of the gateway whose connection lifecycle `sockops` watches; in `interface` mode
    /// its flows, and only these, are taken. Empty: no lifecycle hook.
    pub gateway_cgroups: Vec<PathBuf>,
    /// Bytes of all data rings together; a power of two per shard.
    pub ring_bytes: u32,
    /// Data rings and pipeline threads, 1 to `mirror_common::MAX_SHARDS`.
    pub shards: u32,
    /// How many bytes of each answer segment are copied.
    pub answer_snap_bytes: u32,
    /// How HTTP/2 is decoded.
    pub http2: H2Options,
    /// How long a busy reader sleeps between two looks at its ring; up to four times as long where little comes.
    pub tick: Duration,
    /// Read PROXY protocol v1/v2 at the start of downstream connections.
    pub proxy_protocol: bool,
    /// Destinations that are never captured on the upstream leg (control plane); the shadows' own addresses
    /// are left out by the loop mark and by socket mark.
    pub exclude: Vec<SocketAddr>,
    /// Bounds of the flow table and its buffers.
    pub limits: FlowLimits,
}

impl Default for CaptureConfig {
    fn default() -> Self {
        Self {
            points: Vec::new(),
            gateways: Vec::new(),
            leg: Leg::Downstream,
            ports: Vec::new(),
            tc_mode: TcMode::Auto,
            gateway_cgroups: Vec::new(),
            ring_bytes: 16 * 1024 * 1024,
            shards: 1,
            answer_snap_bytes: 256,
            http2: H2Options::default(),
            tick: Duration::from_millis(4),
            proxy_protocol: false,
            exclude: Vec::new(),
            limits: FlowLimits::default(),
        }
    }
}

impl CaptureConfig {
    /// The gateways at which a point is; none for one that carries none.
    #[must_use]
    pub fn gateways_at(&self, point: &CapturePoint) -> &[String] {
        let found = self.gateways.iter().find(|carried| carried.point == *point);
        found.map(|carried| carried.names.as_slice()).unwrap_or_default()
    }
}

/// The gateways at which a capture point is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PointGateways {
    /// The point.
    pub point: CapturePoint,
    /// Their names, `namespace/name`; at least one.
    pub names: Vec<String>,
}

/// One place where programs are attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CapturePoint {
    /// TC programs on an interface.
    Interface {
        /// Interface name within its namespace.
        name: String,
        /// Path of a network namespace (`/run/netns/gw`, `/proc/PID/ns/net`); `None`: the daemon's own.
        netns: Option<PathBuf>,
        /// True: the host's side of a veth pair, where the gateway's ingress is our egress.
        host_side: bool,
    },
    /// `cgroup_skb` programs on a cgroup v2 directory.
    Cgroup {
        /// The directory.
        path: PathBuf,
    },
    /// TC programs on an interface in a pod's own network namespace, which whoever attaches looks for.
    Pod {
        /// `namespace/name`, for messages.
        name: String,
        /// Interface name within its namespace.
        interface: String,
        /// The pod's addresses: the namespace that has one of them is its own.
        addresses: Vec<IpAddr>,
        /// Its cgroup v2 directory: the namespace of a process in it is its own.
        cgroup: Option<PathBuf>,
    },
}

impl fmt::Display for CapturePoint {
    /// What an operator calls it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interface { name, netns: None, .. } => write!(f, "interface {name}"),
            Self::Interface { name, netns: Some(netns), .. } => {
                write!(f, "interface {name} in {}", netns.display())
            }
            Self::Cgroup { path } => write!(f, "cgroup {}", path.display()),
            Self::Pod { name, interface, .. } => write!(f, "interface {interface} of pod {name}"),
        }
    }
}

/// `[capture] kubernetes`, checked: pods of this node that are captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodsConfig {
    /// Which; may be empty, then only those of `[[kubernetes.gateway]]` are.
    pub selections: Vec<PodSelection>,
    /// How the pods of `[[kubernetes.gateway]]` are attached.
    pub gateway_attach: PodAttach,
    /// How long a pod may be Ready without a segment captured at it before that is told; `None`: never told.
    pub silent_after: Option<Duration>,
}

/// [`PodsConfig::silent_after`] when it is not configured.
pub const DEFAULT_SILENT_AFTER: Duration = Duration::from_secs(60);

impl Default for PodsConfig {
    fn default() -> Self {
        Self {
            selections: Vec::new(),
            gateway_attach: PodAttach::Cgroup,
            silent_after: Some(DEFAULT_SILENT_AFTER),
        }
    }
}

/// Pods by namespace and labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSelection {
    /// Their namespace.
    pub namespace: String,
    /// Their labels.
    pub selector: LabelSelector,
    /// How they are attached.
    pub attach: PodAttach,
}

/// How a pod is attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodAttach {
    /// On its cgroup.
    Cgroup,
    /// On the interface of this name in its network namespace.
    Interface(String),
}

/// `[kubernetes]`, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubernetesConfig {
    /// Take rules from the cluster's API server.
    pub gateway_api: bool,
    /// Which HTTPRoutes may mirror, by their labels; the others only keep their requests to themselves.
    pub route_selector: LabelSelector,
    /// What becomes of routes that a gateway mirrors itself.
    pub already_mirrored: AlreadyMirrored,
    /// What happens to the host of copies made for `RequestMirror` filters.
    pub request_mirror_host: RequestMirrorHost,
    /// What the names of Services end in, e.g. `cluster.local`.
    pub cluster_domain: String,
    /// Gateways whose routes are taken, for their pods only. Empty: all routes, for every capture point.
    pub gateways: Vec<GatewayBinding>,
}

/// The cluster domain when none is configured.
pub const DEFAULT_CLUSTER_DOMAIN: &str = "cluster.local";

impl Default for KubernetesConfig {
    fn default() -> Self {
        Self {
            gateway_api: false,
            route_selector: LabelSelector::default(),
            already_mirrored: AlreadyMirrored::Refuse,
            request_mirror_host: RequestMirrorHost::Suffix,
            cluster_domain: DEFAULT_CLUSTER_DOMAIN.to_owned(),
            gateways: Vec::new(),
        }
    }
}

/// What becomes of routes that a gateway mirrors itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlreadyMirrored {
    /// They are not mirrored a second time.
    Refuse,
    /// They are taken all the same.
    Take,
}

/// What happens to the host of copies made for `RequestMirror` filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestMirrorHost {
    /// It gets the suffix, as everywhere else.
    Suffix,
    /// It stays.
    Keep,
}

/// `[[kubernetes.gateway]]`, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayBinding {
    /// The Gateway that routes name in `parentRefs`, as `namespace/name`.
    pub gateway: String,
    /// Namespace of its pods.
    pub pod_namespace: String,
    /// Which pods of that namespace are its own.
    pub pod_selector: LabelSelector,
}

/// `[admin]`, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminConfig {
    /// Where to listen; port 0 lets the kernel choose, `None` switches the pages off.
    pub listen: Option<SocketAddr>,
}

/// `[[shadow]]`, checked.
#[derive(Clone, Debug)]
pub struct ShadowConfig {
    /// Its name: metrics label and key of the rules.
    pub name: String,
    /// Where it is.
    pub endpoint: Endpoint,
    /// TLS to it; `None` for `http://`.
    pub tls: Option<TlsConfig>,
    /// The version of HTTP it is spoken to in.
    pub protocol: ShadowProtocol,
    /// Requests written and not yet answered, at most.
    pub max_in_flight: u32,
    /// Open connections, at most.
    pub max_connections: u32,
    /// Requests that wait, at most.
    pub queue_items: u32,
    /// Bytes of the requests that wait or are in flight (heads and buffered bodies), at most.
    pub queue_bytes: u64,
    /// Bodies up to this many bytes are buffered whole; larger ones are streamed.
    pub buffer_body_bytes: u64,
    /// Bytes of one streamed body that may wait for the shadow.
    pub stream_window_bytes: u32,
    /// Time for resolve, connect and TLS handshake together.
    pub connect_timeout: Duration,
    /// Time from the last byte written to the end of the answer.
    pub timeout: Duration,
    /// How long an idle pooled connection is kept.
    pub idle_timeout: Duration,
    /// Requests per second, at most; `None`: no limit.
    pub max_rps: Option<f64>,
    /// When to stop trying.
    pub breaker: BreakerConfig,
    /// How requests are changed on the way.
    pub rewrite: RewriteConfig,
}

/// The version of HTTP that a shadow is spoken to in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ShadowProtocol {
    /// That of the captured request.
    #[default]
    Same,
    /// HTTP/1.1, whatever was captured.
    Http1,
    /// HTTP/2, whatever was captured: by prior knowledge, over TLS by ALPN.
    Http2,
}

/// Host and port of a shadow, as in its URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Name or address.
    pub host: EndpointHost,
    /// TCP port.
    pub port: u16,
}

/// The host of a shadow's URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointHost {
    /// An address.
    Ip(IpAddr),
    /// A name, resolved again as its answers expire.
    Name(String),
}

/// `[shadow.tls]`, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// PEM file of the authorities to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Name to verify and to send as SNI instead of the URL's host.
    pub server_name: Option<String>,
    /// Do not verify the certificate.
    pub insecure_skip_verify: bool,
}

/// `[shadow.breaker]`, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerConfig {
    /// Consecutive failures (connect, time-out, closed) that open it.
    pub failures: u32,
    /// How long it stays open before one probe may pass.
    pub open_for: Duration,
}

/// How a shadow's copies differ from what was captured. Applied by `rewrite`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RewriteConfig {
    /// What happens to the host.
    pub host: HostRewrite,
    /// The shadow's own authority, for requests that have none to suffix.
    pub own_authority: String,
    /// The scheme of the shadow's URL, `http` or `https`: `:scheme` of requests that were captured without one.
    pub own_scheme: &'static str,
    /// Header edits, in order.
    pub edits: Vec<HeaderEdit>,
    /// What must not leave the node.
    pub redact: Redaction,
}

/// What happens to Host, absolute-form authority and `:authority`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostRewrite {
    /// Append this text to the host, before the port.
    Suffix(String),
    /// Leave it.
    Keep,
    /// Replace the whole value, port included.
    Literal(String),
}

/// One header edit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderEdit {
    /// Replace all fields of that name by one.
    Set {
        /// Field name.
        name: String,
        /// Field value.
        value: String,
    },
    /// Add one more field.
    Append {
        /// Field name.
        name: String,
        /// Field value.
        value: String,
    },
    /// Remove all fields of that name.
    Remove {
        /// Field name.
        name: String,
    },
}

/// Names whose values are replaced by `redacted` before anything leaves the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redaction {
    /// Header names, lower case.
    pub headers: Vec<String>,
    /// Cookie names, case-sensitive.
    pub cookies: Vec<String>,
    /// Query parameter names, case-sensitive, compared after percent-decoding.
    pub query: Vec<String>,
}
