//! Every metric of the daemon: name, kind, labels, meaning, and what to do about it.
//!
//! Numbers are read when a page is asked for; nothing is pushed. Labels are closed sets, but for `shadow`, which
//! is a name of the configuration: at most [`MAX_SHADOW_LABELS`] of them, the rest is summed under
//! [`OTHER_SHADOWS`]. The text is OpenMetrics 1.0. `docs/METRICS.md` is made from this file, and a test
//! compares them.

mod document;
mod encode;

pub use document::document;

use super::snapshot::Source;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::registry::Registry;
use std::fmt;
use std::time::SystemTime;

/// Most values of the label `shadow`, over all reloads.
pub const MAX_SHADOW_LABELS: usize = 256;

/// The value of `shadow` under which all shadows beyond [`MAX_SHADOW_LABELS`] are summed. No configured name
/// can be this: names don't start with `_`.
pub const OTHER_SHADOWS: &str = "_other";

/// The content type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The kind of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows while the daemon lives; its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Always 1; what it says is in its labels; its name ends in `_info`.
    Info,
    /// How often what was measured was within each of several bounds.
    Histogram,
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// Its name, as in queries.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// Its labels: name, and the values it can have.
    pub labels: &'static [(&'static str, &'static str)],
    /// What it counts.
    pub help: &'static str,
    /// What the person on call does about it.
    pub action: &'static str,
}

const SHADOW: (&str, &str) = ("shadow", "name in the configuration");
const REASON: (&str, &str) = ("reason", "a drop reason, empty for other outcomes");
const INTENDED: (&str, &str) =
    ("intended", "`no` for a loss that somebody should look at; `yes` for everything else");

const OBJECT_KIND: (&str, &str) =
    ("kind", "`HTTPRoute`, `Gateway`, `ReferenceGrant`, `RouteOption`, `Upstream`, `Service`, `Namespace`");

/// Requests, level 1 of the ledger.
pub const REQUESTS: Family = Family {
    name: "mirror_requests_total",
    kind: Kind::Counter,
    labels: &[("outcome", "`unmatched`, `matched`, `dropped`"), REASON, INTENDED],
    help: "Requests seen on the captured leg. Each counts once; the sum is all requests seen.",
    action: "Alert on `rate(mirror_requests_total{intended=\"no\"}[5m])`, and look `reason` up in the table \
             of drop reasons. If the sum stands still while the gateway has traffic: are the capture points \
             attached (`/readyz`), and do `leg` and `ports` name the right side?",
};

/// Copies, level 2 of the ledger.
pub const COPIES: Family = Family {
    name: "mirror_copies_total",
    kind: Kind::Counter,
    labels: &[SHADOW, ("outcome", "`replayed`, `sampled_out`, `shed`, `dropped`"), REASON, INTENDED],
    help: "Copies of matched requests whose fate is decided. Each counts once.",
    action: "Alert on `rate(mirror_copies_total{intended=\"no\"}[5m])`, and look `reason` up. The share that \
             arrived is `mirror_copies_total{outcome=\"replayed\"}` over `mirror_copies_owed_total`.",
};

/// Copies owed.
pub const COPIES_OWED: Family = Family {
    name: "mirror_copies_owed_total",
    kind: Kind::Counter,
    labels: &[SHADOW],
    help: "Copies owed to a shadow: matched requests, once per mirror that names it.",
    action: "None. At a quiet moment it equals `sum by (shadow) (mirror_copies_total)`; if it does not, report \
             a fault with the text of `/ledger`.",
};

/// Copies open.
pub const COPIES_OPEN: Family = Family {
    name: "mirror_copies_open",
    kind: Kind::Gauge,
    labels: &[SHADOW],
    help: "Copies whose fate is not decided yet: being captured, queued or being written.",
    action: "Should follow the traffic. If it only grows, the shadow is slow (see `mirror_shadow_queue_items`) \
             or uploads are very long.",
};

/// Copies sent again.
pub const COPIES_RESENT: Family = Family {
    name: "mirror_copies_resent_total",
    kind: Kind::Counter,
    labels: &[SHADOW],
    help: "Copies sent once more because a pooled connection had closed before any byte of the answer.",
    action: "A high rate means that the shadow closes idle connections sooner than the pool does: lower the \
             shadow's `idle_timeout`.",
};

/// Answers.
pub const ANSWERS: Family = Family {
    name: "mirror_answers_total",
    kind: Kind::Counter,
    labels: &[SHADOW, ("result", "`1xx`, `2xx`, `3xx`, `4xx`, `5xx`, `timeout`, `cut`")],
    help: "What the shadow answered to replayed copies. The sum is the replayed copies less those in flight.",
    action: "`5xx`: the shadow's own fault, tell its owner. `timeout`: it did not answer within `timeout`. \
             `cut`: it closed before its answer was whole. Production is not touched by any of these.",
};

/// Connections now.
pub const SHADOW_CONNECTIONS: Family = Family {
    name: "mirror_shadow_connections",
    kind: Kind::Gauge,
    labels: &[SHADOW],
    help: "Open connections to the shadow, idle ones included.",
    action: "At `max_connections` and with a queue that grows: raise it, or the shadow is too slow.",
};

/// Connections opened.
pub const SHADOW_CONNECTIONS_OPENED: Family = Family {
    name: "mirror_shadow_connections_opened_total",
    kind: Kind::Counter,
    labels: &[SHADOW],
    help: "Connections opened to the shadow.",
    action: "Should be far below the replayed copies. If it keeps pace with them, the shadow refuses \
             keep-alive, which costs it and the node ports and processor time.",
};

/// In flight now.
pub const SHADOW_IN_FLIGHT: Family = Family {
    name: "mirror_shadow_in_flight",
    kind: Kind::Gauge,
    labels: &[SHADOW],
    help: "Copies being written to the shadow, or waiting for its answer.",
    action: "At `max_in_flight`: the shadow is slower than the traffic; copies queue and are then shed.",
};

/// Queued items now.
pub const SHADOW_QUEUE_ITEMS: Family = Family {
    name: "mirror_shadow_queue_items",
    kind: Kind::Gauge,
    labels: &[SHADOW],
    help: "Copies that wait for a connection to the shadow.",
    action: "Above 0 for long: the shadow can't keep up. See `queue_full` in the table of drop reasons.",
};

/// Queued bytes now.
pub const SHADOW_QUEUE_BYTES: Family = Family {
    name: "mirror_shadow_queue_bytes",
    kind: Kind::Gauge,
    labels: &[SHADOW],
    help: "Bytes of the copies that wait or are in flight, heads and bodies.",
    action: "As for `mirror_shadow_queue_items`. Bounded by `queue_bytes`.",
};

/// Breaker now.
pub const SHADOW_BREAKER: Family = Family {
    name: "mirror_shadow_breaker",
    kind: Kind::Gauge,
    labels: &[SHADOW, ("state", "`closed`, `open`, `half_open`")],
    help: "1 for the state that the shadow's circuit breaker is in, 0 for the others.",
    action: "`open` for minutes: the shadow is down or unreachable. Copies are shed meanwhile, and it is tried \
             again by itself. Production is not touched.",
};

/// Kernel losses, events.
pub const KERNEL_LOSSES: Family = Family {
    name: "mirror_kernel_losses_total",
    kind: Kind::Counter,
    labels: &[("counter", "a kernel loss counter")],
    help: "Segments and records that the kernel program did not hand over. Production got them all the same.",
    action: "Alert on any rate above 0: requests are missing, and the ledger can't say how many. A full ring, \
             or flows shed to spare it: the daemon gets too little processor time, or `ring_bytes` is too \
             small; raise its limit, `ring_bytes` or `shards`, or mirror less. `stalled`: it got no processor \
             time for two seconds, or was stopped.",
};

/// Kernel losses, bytes.
pub const KERNEL_LOST_BYTES: Family = Family {
    name: "mirror_kernel_lost_bytes_total",
    kind: Kind::Counter,
    labels: &[("counter", "a kernel loss counter, in bytes")],
    help: "Bytes that the kernel program did not hand over; some losses are counted in bytes only.",
    action: "As for `mirror_kernel_losses_total`.",
};

/// Kernel events.
pub const KERNEL_EVENTS: Family = Family {
    name: "mirror_kernel_events_total",
    kind: Kind::Counter,
    labels: &[("counter", "a kernel counter")],
    help: "What the kernel program counted that is no loss: records handed over, packets passed by.",
    action: "None. Useful to see whether a capture point sees any traffic.",
};

/// Kernel bytes.
pub const KERNEL_BYTES: Family = Family {
    name: "mirror_kernel_bytes_total",
    kind: Kind::Counter,
    labels: &[("counter", "a kernel counter, in bytes")],
    help: "Bytes that the kernel program counted, none of them lost.",
    action: "None.",
};

/// Flow events.
pub const FLOW_EVENTS: Family = Family {
    name: "mirror_flow_events_total",
    kind: Kind::Counter,
    labels: &[("counter", "a flow counter")],
    help: "What happened to the connections that are followed: opened, closed, gaps, evictions.",
    action: "Gaps without kernel losses: packets take a way that this capture point does not see (a second \
             interface, another leg). Evictions: raise `max_flows` or `max_total_bytes`.",
};

/// Flow bytes.
pub const FLOW_BYTES: Family = Family {
    name: "mirror_flow_bytes_total",
    kind: Kind::Counter,
    labels: &[("counter", "a flow counter, in bytes")],
    help: "Bytes of the connections that are followed: in gaps, duplicated, given up.",
    action: "As for `mirror_flow_events_total`.",
};

/// What connections of HTTP/2 counted.
pub const HTTP2_EVENTS: Family = Family {
    name: "mirror_http2_events_total",
    kind: Kind::Counter,
    labels: &[("counter", "a violation by its kind, or what became of frame boundaries and HPACK tables")],
    help: "Violations of HTTP/2 and HPACK that were seen in captured connections, and frame boundaries and \
           dynamic tables that were lost and found again.",
    action: "Violations: a client is broken or hostile; production sees the same bytes. `lost_boundaries` and \
             `forgotten_tables` that grow: bytes are being lost, see `mirror_kernel_losses_total`.",
};

/// Connections of HTTP/2 now.
pub const HTTP2_CONNECTIONS: Family = Family {
    name: "mirror_http2_connections",
    kind: Kind::Gauge,
    labels: &[("state", "`synchronised`, `unproven`, `searching`")],
    help: "Connections of HTTP/2 now. `synchronised`: their requests are mirrored. `unproven`: requests are \
           decoded and wait for an answer that proves them. `searching`: joined late or lost, no frame boundary \
           is known.",
    action: "After a start of the daemon, connections that were open before are synchronised after some traffic; \
             those that stay `searching` or `unproven` are mirrored once their clients connect anew.",
};

/// Flows now.
pub const FLOWS: Family = Family {
    name: "mirror_flows",
    kind: Kind::Gauge,
    labels: &[],
    help: "Connections that are followed now.",
    action: "Near `max_flows` times `shards`: the oldest are evicted; raise `max_flows`.",
};

/// Flow memory now.
pub const FLOW_BUFFERED: Family = Family {
    name: "mirror_flow_buffered_bytes",
    kind: Kind::Gauge,
    labels: &[],
    help: "Bytes held for reordering, heads, and bodies that are not complete yet.",
    action: "Near `max_total_bytes` times `shards`: flows are evicted; raise it if there is memory.",
};

/// Capture points now.
pub const CAPTURE_POINTS: Family = Family {
    name: "mirror_capture_points",
    kind: Kind::Gauge,
    labels: &[("state", "`attached`, `missing`")],
    help: "Capture points that are wanted, by whether their programs are attached.",
    action: "Alert on `missing` above 0 for minutes: `/readyz` names them, the log says why.",
};

/// Pods to capture.
pub const PODS: Family = Family {
    name: "mirror_pods",
    kind: Kind::Gauge,
    labels: &[("state", "`waiting`, `wanted`, `attached`, `failed`, `left_out`")],
    help: "Pods of this node that `capture.kubernetes` and `kubernetes.gateway` choose. `waiting`: no cgroup of theirs \
           is there. `wanted`: about to be attached, or beyond the number of capture points that there can be. \
           `failed`: they can't be attached, and it is tried again. `left_out`: more pods than are kept.",
    action: "Alert on `failed` above 0 for minutes: the log says why. `wanted` for minutes: choose fewer pods. \
             `waiting` for a pod that runs: the node's cgroup tree is not mounted, or not all of it.",
};

/// Pods without traffic.
pub const POINTS_SILENT: Family = Family {
    name: "mirror_points_silent",
    kind: Kind::Gauge,
    labels: &[],
    help: "Attached pods that have been Ready for `pod_silent_after`, and at which no segment was ever captured.",
    action: "A gateway without traffic is silent, too. If it has traffic: does it listen on one of `ports`, is `leg` \
             the right one, and do its connections pass the capture point (its cgroup, or its interface)?",
};

/// Time to attach.
pub const POD_ATTACH: Family = Family {
    name: "mirror_pod_attach_seconds",
    kind: Kind::Histogram,
    labels: &[],
    help: "Time from when a pod could be attached (it was known, and its cgroup was there) until it was.",
    action: "Requests of that time are not mirrored. Above a second: the daemon gets too little processor time.",
};

/// Watch of pods.
pub const POD_WATCH: Family = Family {
    name: "mirror_pod_watch",
    kind: Kind::Gauge,
    labels: &[("state", "`off`, `listing`, `synchronised`, `unreachable`, `forbidden`")],
    help: "1 for the state that the watch of this node's pods is in, 0 for the others. `off`: no pod is looked for.",
    action: "Alert on `forbidden`: the daemon's ServiceAccount lacks `list` and `watch` of pods. `unreachable` for \
             minutes: the API server, or a network policy. What is attached stays; new pods are not found.",
};

/// Watch of pods, failures.
pub const POD_WATCH_FAILURES: Family = Family {
    name: "mirror_pod_watch_failures_total",
    kind: Kind::Counter,
    labels: &[],
    help: "How often the watch of this node's pods broke off, or could not begin.",
    action: "None as long as `mirror_pod_watch` is `synchronised` again soon.",
};

/// Watches of the objects that rules are made from.
pub const RULES_WATCH: Family = Family {
    name: "mirror_rules_watch",
    kind: Kind::Gauge,
    labels: &[OBJECT_KIND, ("state", "`starting`, `listing`, `watching`, `absent`, `forbidden`, `failing`")],
    help: "With `gateway_api`: 1 for the state that the watch of a kind is in, 0 for the others. `absent`: the API server \
           does not know the kind, which is right where its gateway is not used.",
    action: "Alert on `forbidden`: the daemon's ClusterRole lacks `list` or `watch` of the kind; the log names it. \
             `failing` for minutes: the API server, or a network policy. The rules that are known hold meanwhile.",
};

/// Whether the cluster's rules are known.
pub const RULES_SYNCED: Family = Family {
    name: "mirror_rules_synced",
    kind: Kind::Gauge,
    labels: &[],
    help: "With `gateway_api`: 1 once all kinds are known, and rules are made of them; until then, and without it, 0.",
    action: "0 for minutes: `/readyz` names the kinds that are missing, `mirror_rules_watch` says why.",
};

/// How long nothing was heard of a kind.
pub const RULES_SILENCE: Family = Family {
    name: "mirror_rules_silence_seconds",
    kind: Kind::Gauge,
    labels: &[OBJECT_KIND],
    help: "Time since the API server last said anything about a kind: a list, a change, or that its watch lives.",
    action: "Above 600 for a kind that is `watching`: something on the way keeps its answers back.",
};

/// Objects that rules are made from.
pub const RULES_OBJECTS: Family = Family {
    name: "mirror_rules_objects",
    kind: Kind::Gauge,
    labels: &[OBJECT_KIND, ("use", "`held`, `refused`")],
    help: "Objects in the cluster that rules are made from. `refused`: they can't be read, or are beyond a bound.",
    action: "`refused` above 0: the log and the Events of these objects say why.",
};

/// Memory of these objects.
pub const RULES_OBJECT: Family = Family {
    name: "mirror_rules_object_bytes",
    kind: Kind::Gauge,
    labels: &[],
    help: "Bytes that the objects of all kinds take, as far as rules look at them. At most 64 MiB.",
    action: "Near the bound: objects are refused. Are there some that large on purpose?",
};

/// What watches told.
pub const RULES_CHANGES: Family = Family {
    name: "mirror_rules_changes_total",
    kind: Kind::Counter,
    labels: &[OBJECT_KIND],
    help: "Changes of objects that watches told of, whether or not they changed a rule.",
    action: "None. Changes of rules are counted by `mirror_config_generation`.",
};

/// Lists that were read.
pub const RULES_LISTS: Family = Family {
    name: "mirror_rules_lists_total",
    kind: Kind::Counter,
    labels: &[OBJECT_KIND],
    help: "How often all objects of a kind were listed. Once is enough while watches can go on where they were.",
    action: "Growing by more than a few an hour: the API server keeps too few changes, or something cuts watches off.",
};

/// Watches that were begun.
pub const RULES_WATCHES: Family = Family {
    name: "mirror_rules_watches_total",
    kind: Kind::Counter,
    labels: &[OBJECT_KIND],
    help: "How often the watch of a kind was begun. The API server ends each after a few minutes.",
    action: "Growing by more than one a minute: something on the way cuts connections off.",
};

/// Requests to the API server that failed.
pub const RULES_FAILURES: Family = Family {
    name: "mirror_rules_failures_total",
    kind: Kind::Counter,
    labels: &[
        OBJECT_KIND,
        (
            "cause",
            "`unauthorized`, `forbidden`, `not_found`, `conflict`, `gone`, `busy`, `refused`, `unreachable`, `garbage`, \
             `too_large`",
        ),
    ],
    help: "Lists and watches that failed. Each is tried again, with growing pauses.",
    action: "None while `mirror_rules_watch` is `watching` again soon. `garbage`: something on the way changes answers.",
};

/// Findings now.
pub const RULES_FINDINGS: Family = Family {
    name: "mirror_rules_findings",
    kind: Kind::Gauge,
    labels: &[("reason", "`RefNotPermitted`, `BackendNotFound`, ...: as in Events and logs")],
    help: "What is wrong now with routes that ask for a mirror, and with what they refer to. Nothing is mirrored for it.",
    action: "The Events of the objects (`kubectl describe`) and the log say what and where. `GatewayNotBound`: routes of \
             Gateways that the configuration does not bind; nothing to do unless they should be.",
};

/// Events that were written.
pub const RULES_EVENTS: Family = Family {
    name: "mirror_rules_events_total",
    kind: Kind::Counter,
    labels: &[("outcome", "`created`, `refreshed`, `exists`, `forbidden`, `failed`")],
    help: "Events about findings. `exists`: the daemon of another node has written it.",
    action: "`forbidden`: the daemon's ClusterRole lacks `create` or `patch` of events in `events.k8s.io`. Rules are not \
             touched by that.",
};

/// Configuration in force.
pub const CONFIG_LAST_RELOAD_OK: Family = Family {
    name: "mirror_config_last_reload_ok",
    kind: Kind::Gauge,
    labels: &[],
    help: "1 when the configuration as it is now is the one that runs, 0 when it was refused.",
    action: "Alert on 0: an older configuration still runs. `mirror-daemon check --config FILE` names every \
             fault; the log does too.",
};

/// Configuration generation.
pub const CONFIG_GENERATION: Family = Family {
    name: "mirror_config_generation",
    kind: Kind::Gauge,
    labels: &[],
    help: "1 for the configuration of the start, one more for each that was taken since.",
    action: "None. It tells whether a change has arrived.",
};

/// Configurations refused.
pub const CONFIG_RELOAD_FAILURES: Family = Family {
    name: "mirror_config_reload_failures_total",
    kind: Kind::Counter,
    labels: &[],
    help: "Configurations that were refused since the start.",
    action: "As for `mirror_config_last_reload_ok`.",
};

/// Rules of the cluster that were cut.
pub const CONFIG_RULES_CUT: Family = Family {
    name: "mirror_config_rules_cut",
    kind: Kind::Gauge,
    labels: &[],
    help: "1 while only a part of the cluster's rules runs: a change of them was refused, and what they no longer allow \
           was taken away all the same. Else 0.",
    action: "Alert on 1: copies are missing. The log says why the change was refused.",
};

/// Draining now.
pub const DRAINING: Family = Family {
    name: "mirror_draining",
    kind: Kind::Gauge,
    labels: &[],
    help: "1 from the first SIGTERM or SIGINT until the daemon ends, else 0.",
    action: "1 for longer than `drain_timeout`: a second SIGTERM ends it at once.",
};

/// Parsers that died.
pub const PARSER_RESTARTS: Family = Family {
    name: "mirror_parser_restarts_total",
    kind: Kind::Counter,
    labels: &[],
    help: "Times that the process which reads the network's bytes died and was started again. All other counters \
           begin anew with it.",
    action: "Alert on any increase: the log has its last words. Requests under way were not mirrored.",
};

/// Build.
pub const BUILD: Family = Family {
    name: "mirror_build_info",
    kind: Kind::Info,
    labels: &[("version", "of the daemon"), ("arch", "of the processor")],
    help: "Which build this is.",
    action: "None.",
};

/// Start of the process.
pub const PROCESS_START: Family = Family {
    name: "process_start_time_seconds",
    kind: Kind::Gauge,
    labels: &[],
    help: "When the daemon started, in seconds since 1970.",
    action: "`changes()` of it above 0: the daemon restarted; see its log from before.",
};

/// Processor time.
pub const PROCESS_CPU: Family = Family {
    name: "process_cpu_seconds_total",
    kind: Kind::Counter,
    labels: &[],
    help: "Processor time of the daemon, user and system; kernel programs count to who sent the packet.",
    action: "Compare its rate with the container's limit: a throttled daemon loses copies \
             (`mirror_kernel_losses_total`), production does not.",
};

/// Resident memory.
pub const PROCESS_RESIDENT: Family = Family {
    name: "process_resident_memory_bytes",
    kind: Kind::Gauge,
    labels: &[],
    help: "Resident memory of the daemon, mapped rings included.",
    action: "Near the container's limit: lower `ring_bytes`, `max_total_bytes` or `queue_bytes`.",
};

/// Resident memory without files.
pub const PROCESS_RESIDENT_ANON: Family = Family {
    name: "mirror_process_resident_anon_bytes",
    kind: Kind::Gauge,
    labels: &[],
    help: "The part of the resident memory that no file backs.",
    action: "None. It is what grows when something leaks.",
};

/// Peak of resident memory.
pub const PROCESS_RESIDENT_PEAK: Family = Family {
    name: "mirror_process_resident_peak_bytes",
    kind: Kind::Gauge,
    labels: &[],
    help: "Most resident memory since the start.",
    action: "None. Use it to size the container's limit.",
};

/// Threads.
pub const PROCESS_THREADS: Family = Family {
    name: "process_threads",
    kind: Kind::Gauge,
    labels: &[],
    help: "Threads of the daemon.",
    action: "None. Constant while it runs.",
};

/// Descriptors.
pub const PROCESS_FDS: Family = Family {
    name: "process_open_fds",
    kind: Kind::Gauge,
    labels: &[],
    help: "Open file descriptors of the daemon.",
    action: "Near `ulimit -n`: lower `max_connections` of the shadows, or raise the limit.",
};

/// Every metric, in the order of the page and of the documentation.
pub const ALL: [Family; 53] = [
    REQUESTS,
    COPIES,
    COPIES_OWED,
    COPIES_OPEN,
    COPIES_RESENT,
    ANSWERS,
    SHADOW_CONNECTIONS,
    SHADOW_CONNECTIONS_OPENED,
    SHADOW_IN_FLIGHT,
    SHADOW_QUEUE_ITEMS,
    SHADOW_QUEUE_BYTES,
    SHADOW_BREAKER,
    KERNEL_LOSSES,
    KERNEL_LOST_BYTES,
    KERNEL_EVENTS,
    KERNEL_BYTES,
    FLOW_EVENTS,
    FLOW_BYTES,
    HTTP2_EVENTS,
    HTTP2_CONNECTIONS,
    FLOWS,
    FLOW_BUFFERED,
    CAPTURE_POINTS,
    PODS,
    POINTS_SILENT,
    POD_ATTACH,
    POD_WATCH,
    POD_WATCH_FAILURES,
    RULES_WATCH,
    RULES_SYNCED,
    RULES_SILENCE,
    RULES_OBJECTS,
    RULES_OBJECT,
    RULES_CHANGES,
    RULES_LISTS,
    RULES_WATCHES,
    RULES_FAILURES,
    RULES_FINDINGS,
    RULES_EVENTS,
    CONFIG_LAST_RELOAD_OK,
    CONFIG_GENERATION,
    CONFIG_RULES_CUT,
    CONFIG_RELOAD_FAILURES,
    DRAINING,
    PARSER_RESTARTS,
    BUILD,
    PROCESS_START,
    PROCESS_CPU,
    PROCESS_RESIDENT,
    PROCESS_RESIDENT_ANON,
    PROCESS_RESIDENT_PEAK,
    PROCESS_THREADS,
    PROCESS_FDS,
];

/// The metrics page.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    /// A page whose numbers come from `source`, asked once per [`Metrics::render`].
    #[must_use]
    pub fn new(source: Source, started: SystemTime) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Page { source, started }));
        Self { registry }
    }

    /// The page, in the OpenMetrics text format.
    ///
    /// # Errors
    /// Never in practice: writing to a string does not fail.
    pub fn render(&self) -> Result<String, fmt::Error> {
        let mut page = String::with_capacity(16 * 1024);
        text::encode(&mut page, &self.registry)?;
        Ok(page)
    }
}

struct Page {
    source: Source,
    started: SystemTime,
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Page").field("started", &self.started).finish_non_exhaustive()
    }
}

impl Collector for Page {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        encode::page(encoder, &(self.source)(), self.started)
    }
}

#[cfg(test)]
mod tests;
