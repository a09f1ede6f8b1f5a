//! What the flow stage may keep, and for how long.

use std::time::Duration;

/// The bounds of a [`FlowTable`](super::FlowTable).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowLimits {
    /// Most flows at once, at least 1. When full, a new flow pushes out the least valuable one
    /// ([`CloseCause::Evicted`](super::CloseCause)).
    pub max_flows: usize,
    /// Most bytes of memory that the out-of-order bytes of one direction of one flow may take, as
    /// allocated. On reaching it, the oldest hole is given up
    /// ([`GapCause::Overflow`](super::GapCause)).
    pub max_reorder_bytes: usize,
    /// Most separate runs of out-of-order bytes per direction; same outcome.
    pub max_reorder_fragments: usize,
    /// Most bytes of memory for out-of-order bytes over the whole table, as allocated. Beyond it, the flow
    /// that has been holding bytes for longest is evicted.
    pub max_total_bytes: usize,
    /// How long a hole may stay open. TCP repairs true losses within a few retransmission time-outs
    /// (RFC 6298), and our own losses are proved by acknowledgements; this is for the rest.
    pub hole_timeout: Duration,
    /// How long a flow may wait to be named the gateway's own.
    pub select_timeout: Duration,
    /// How long a flow may stay silent. Exact to an eighth of itself, at most a second.
    pub idle_timeout: Duration,
    /// How long the key of a flow that has ended is remembered, so that late retransmissions do not look
    /// like a new flow that was joined.
    pub ended_linger: Duration,
}

impl Default for FlowLimits {
    fn default() -> Self {
        Self {
            max_flows: 16_384,
            max_reorder_bytes: 512 * 1024,
            max_reorder_fragments: 1024,
            max_total_bytes: 16 * 1024 * 1024,
            hole_timeout: Duration::from_secs(10),
            select_timeout: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(600),
            ended_linger: Duration::from_secs(1),
        }
    }
}

/// What becomes of the answer direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Answers {
    /// Not put in order: [`FlowEvent::Glimpse`](super::FlowEvent)s only.
    #[default]
    Glimpsed,
    /// Put in order like requests: chunks and gaps, no glimpses.
    Assembled,
}
