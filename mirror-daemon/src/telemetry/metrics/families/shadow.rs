//! Connections and queues of the shadows.

use super::super::{Family, Kind};
use super::SHADOW;

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
