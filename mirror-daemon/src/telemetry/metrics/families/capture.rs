//! Kernel programs, connections that are followed, and capture points.

use super::super::{Family, Kind};

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
