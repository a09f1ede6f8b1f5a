//! What the flow stage counts. Plain numbers: each pipeline thread owns its table, and whoever shows them
//! adds them up.

use super::{CloseCause, GapCause};

/// The books of a [`FlowTable`](super::FlowTable). All counts only grow.
///
/// At any moment between two calls `received_bytes = forwarded_bytes + duplicate_bytes +
/// dropped.total() + held`, where held is [`FlowTable::held_bytes`](super::FlowTable::held_bytes); and
/// `flows_opened = closed.total() + live flows`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowCounters {
    /// Segments, or pieces of segments, that were handled.
    pub segments: u64,
    /// Their payload bytes.
    pub received_bytes: u64,
    /// Payload bytes that were yielded, in chunks and glimpses.
    pub forwarded_bytes: u64,
    /// Payload bytes of which a copy was there before, or whose place had been given up as a gap.
    pub duplicate_bytes: u64,
    /// Segments that held nothing but duplicate bytes.
    pub retransmitted_segments: u64,
    /// Segments of which a part was duplicate.
    pub overlapping_segments: u64,
    /// Segments of which a part had to wait behind a hole.
    pub out_of_order_segments: u64,
    /// Payload bytes that were neither yielded nor duplicate, by cause.
    pub dropped: DroppedBytes,
    /// Gaps that were yielded.
    pub gaps: Gaps,
    /// Flows that were opened.
    pub flows_opened: u64,
    /// Of these, the ones that began with a segment that is no SYN.
    pub flows_joined: u64,
    /// Flows that ended, by cause.
    pub closed: ClosedFlows,
    /// Evictions because the table was full.
    pub evicted_for_flows: u64,
    /// Evictions because out-of-order bytes took too much memory.
    pub evicted_for_bytes: u64,
    /// Segments refused because their sequence numbers are far from the stream.
    pub far_segments: u64,
    /// Acknowledgements refused for the same reason.
    pub far_acks: u64,
    /// RST and FIN segments refused because their place is not plausible.
    pub implausible_ends: u64,
    /// Segments whose lengths contradict each other.
    pub malformed_segments: u64,
    /// SYNs that repeated a known one.
    pub repeated_syns: u64,
    /// Segments without payload of flows that are not known; nothing begins with them.
    pub stray_segments: u64,
}

impl FlowCounters {
    /// Every count with its word, as pages and metrics show it. Words of byte counts end in `_bytes`.
    #[must_use]
    pub const fn labelled(&self) -> [(&'static str, u64); 40] {
        let (gaps, closed, dropped) = (&self.gaps, &self.closed, &self.dropped);
        [
            ("segments", self.segments),
            ("received_bytes", self.received_bytes),
            ("forwarded_bytes", self.forwarded_bytes),
            ("duplicate_bytes", self.duplicate_bytes),
            ("retransmitted_segments", self.retransmitted_segments),
            ("overlapping_segments", self.overlapping_segments),
            ("out_of_order_segments", self.out_of_order_segments),
            ("dropped_far_bytes", dropped.far),
            ("dropped_beyond_fin_bytes", dropped.beyond_fin),
            ("dropped_ignored_bytes", dropped.ignored),
            ("dropped_ended_bytes", dropped.ended),
            ("dropped_gated_bytes", dropped.gated),
            ("dropped_discarded_bytes", dropped.discarded),
            ("dropped_unglimpsed_bytes", dropped.unglimpsed),
            ("dropped_malformed_bytes", dropped.malformed),
            ("gaps_acknowledged", gaps.acknowledged.count),
            ("gaps_acknowledged_bytes", gaps.acknowledged.bytes),
            ("gaps_timeout", gaps.timeout.count),
            ("gaps_timeout_bytes", gaps.timeout.bytes),
            ("gaps_overflow", gaps.overflow.count),
            ("gaps_overflow_bytes", gaps.overflow.bytes),
            ("gaps_uncaptured", gaps.uncaptured.count),
            ("gaps_uncaptured_bytes", gaps.uncaptured.bytes),
            ("gaps_jumped", gaps.jumped.count),
            ("gaps_jumped_bytes", gaps.jumped.bytes),
            ("flows_opened", self.flows_opened),
            ("flows_joined", self.flows_joined),
            ("closed_finished", closed.finished),
            ("closed_reset", closed.reset),
            ("closed_idle", closed.idle),
            ("closed_evicted", closed.evicted),
            ("closed_reused", closed.reused),
            ("closed_not_gateway", closed.not_gateway),
            ("closed_capture_ended", closed.capture_ended),
            ("closed_ignored", closed.ignored),
            ("far_segments", self.far_segments),
            ("far_acks", self.far_acks),
            ("implausible_ends", self.implausible_ends),
            ("malformed_segments", self.malformed_segments),
            ("stray_segments", self.stray_segments),
        ]
    }
}

/// Payload bytes that were dropped, each counted once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DroppedBytes {
    /// Too far from the stream to be part of it.
    pub far: u64,
    /// Behind the FIN of their direction.
    pub beyond_fin: u64,
    /// Of a flow that is not the gateway's, or that the caller wants no more of.
    pub ignored: u64,
    /// Of a flow that has ended.
    pub ended: u64,
    /// Came before the flow was known to be the gateway's, and could not be held.
    pub gated: u64,
    /// Were held when their flow ended.
    pub discarded: u64,
    /// Later pieces of answer segments, where answers are only glimpsed.
    pub unglimpsed: u64,
    /// Of a segment whose lengths contradict each other.
    pub malformed: u64,
}

impl DroppedBytes {
    /// Sum over all causes.
    #[must_use]
    pub fn total(&self) -> u64 {
        [
            self.far,
            self.beyond_fin,
            self.ignored,
            self.ended,
            self.gated,
            self.discarded,
            self.unglimpsed,
            self.malformed,
        ]
        .iter()
        .fold(0, |sum, bytes| sum.saturating_add(*bytes))
    }
}

/// A number of events, and the bytes in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Events.
    pub count: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Gaps by cause; the fields are named as in [`GapCause`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gaps {
    /// The peer acknowledged past the hole.
    pub acknowledged: Tally,
    /// The hole stayed open for too long.
    pub timeout: Tally,
    /// Too much waited behind the hole.
    pub overflow: Tally,
    /// The kernel copied only a part.
    pub uncaptured: Tally,
    /// The stream went on far away.
    pub jumped: Tally,
}

impl Gaps {
    pub(super) fn add(&mut self, cause: GapCause, bytes: u32) {
        let tally = match cause {
            GapCause::Acknowledged => &mut self.acknowledged,
            GapCause::Timeout => &mut self.timeout,
            GapCause::Overflow => &mut self.overflow,
            GapCause::Uncaptured => &mut self.uncaptured,
            GapCause::Jumped => &mut self.jumped,
        };
        increment(&mut tally.count);
        tally.bytes = tally.bytes.saturating_add(u64::from(bytes));
    }
}

/// Ended flows by cause; the fields are named as in [`CloseCause`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClosedFlows {
    /// Both directions ended with FIN, or the lifecycle hook said so.
    pub finished: u64,
    /// RST was seen.
    pub reset: u64,
    /// Silent for too long.
    pub idle: u64,
    /// A bound was reached.
    pub evicted: u64,
    /// The same addresses and ports were used again.
    pub reused: u64,
    /// Not the gateway's own.
    pub not_gateway: u64,
    /// The capture ended.
    pub capture_ended: u64,
    /// The caller wants no more of it.
    pub ignored: u64,
}

impl ClosedFlows {
    /// Sum over all causes.
    #[must_use]
    pub fn total(&self) -> u64 {
        [
            self.finished,
            self.reset,
            self.idle,
            self.evicted,
            self.reused,
            self.not_gateway,
            self.capture_ended,
            self.ignored,
        ]
        .iter()
        .fold(0, |sum, flows| sum.saturating_add(*flows))
    }

    pub(super) fn add(&mut self, cause: CloseCause) {
        increment(match cause {
            CloseCause::Finished => &mut self.finished,
            CloseCause::Reset => &mut self.reset,
            CloseCause::Idle => &mut self.idle,
            CloseCause::Evicted => &mut self.evicted,
            CloseCause::Reused => &mut self.reused,
            CloseCause::NotGateway => &mut self.not_gateway,
            CloseCause::CaptureEnded => &mut self.capture_ended,
        });
    }
}

/// Adds one.
pub(super) fn increment(counter: &mut u64) {
    *counter = counter.saturating_add(1);
}

/// Adds `bytes`.
pub(super) fn add_bytes(counter: &mut u64, bytes: usize) {
    *counter = counter.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
}
