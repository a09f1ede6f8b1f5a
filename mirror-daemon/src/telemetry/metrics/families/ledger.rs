//! Requests, copies and answers.

use super::super::{Family, Kind};
use super::{INTENDED, REASON, SHADOW};

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
