//! PURE. Puts the captured segments of a connection back in order.
//!
//! In: [`Segment`]s as they were captured (retransmitted, overlapping, out of order, with holes) and
//! `now`. Out: [`FlowEvent`]s, in stream order for each direction, handed to a callback, so that bytes
//! in order travel from the ring to the decoder without a copy.
//!
//! Left out: any knowledge of HTTP, of capture points, of configuration.

mod assembler;
mod connection;
mod counters;
mod glimpser;
mod limits;
mod piece;
mod recency;
mod reorder;
mod segment;
mod seq;
mod table;
mod timers;
mod wakes;
mod window;

pub use counters::{ClosedFlows, DroppedBytes, FlowCounters, Gaps, Tally};
pub use limits::{Answers, FlowLimits};
pub use segment::{Direction, FlowKey, Segment, TcpFlags, Timestamp};
pub use seq::SeqNumber;
pub use table::{FlowTable, HashSeed, Lifecycle};
pub use wakes::Wakes;

/// Why bytes of a stream are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GapCause {
    /// The peer acknowledged bytes that were never seen: they arrived there and were lost here.
    Acknowledged,
    /// The hole stayed open for longer than `hole_timeout`.
    Timeout,
    /// What waits behind the hole reached the bound on out-of-order bytes.
    Overflow,
    /// The kernel copied only a part of the segment (a passed-over body, or the end of a snap length).
    Uncaptured,
    /// Segment after segment lies more than a window away: the stream ran on unseen (the kernel program was
    /// inert, or bytes were lost by the GiB). The length is right modulo 2^32; take framing as lost.
    Jumped,
}

/// Why a flow ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseCause {
    /// Both directions ended with FIN, or the lifecycle hook said so.
    Finished,
    /// RST was seen.
    Reset,
    /// Nothing was seen for longer than the idle limit.
    Idle,
    /// The table or byte bound was reached and this flow was the one to go.
    Evicted,
    /// A SYN with other numbers took over the same addresses and ports.
    Reused,
    /// The lifecycle hook did not name it the gateway's own in time. Comes without an `Opened` before it:
    /// nothing was yielded, and capture may leave this flow alone until its next SYN.
    NotGateway,
    /// The capture ended: a file's end, or shutdown.
    CaptureEnded,
}

/// What a flow yields, per direction in stream order.
#[derive(Debug)]
pub enum FlowEvent<'a> {
    /// The first sight of a direction. `joined` is true when its SYN was not seen: the next byte may be
    /// anywhere inside a message.
    Opened {
        /// Which direction.
        direction: Direction,
        /// The SYN was not seen.
        joined: bool,
    },
    /// Bytes in order, never empty.
    Chunk(Chunk<'a>),
    /// `bytes` bytes of the stream are missing; the next chunk starts behind them.
    Gap {
        /// Which direction.
        direction: Direction,
        /// Sequence number of the first missing byte.
        start: SeqNumber,
        /// How many bytes are missing.
        bytes: u32,
        /// Why.
        cause: GapCause,
    },
    /// A segment of the answer direction, of which perhaps only the beginning was copied. Not ordered: it tells that
    /// an answer moves, and how it starts. Never empty on the wire.
    Glimpse(Glimpse<'a>),
    /// The direction ended with FIN; every byte before it has been yielded.
    Finished {
        /// Which direction.
        direction: Direction,
    },
    /// The flow is over; nothing follows, and its state is dropped after this event. May be the only event of
    /// a flow that never was known to be the gateway's.
    Closed(CloseCause),
}

/// Bytes of one direction, in order.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'a> {
    /// Which direction.
    pub direction: Direction,
    /// Sequence number of the first byte.
    pub start: SeqNumber,
    /// True when `start` is where a captured segment started, and not a later piece of one: senders begin
    /// messages there.
    pub at_segment_start: bool,
    /// What the sender had acknowledged of the other direction when it sent this.
    pub ack: SeqNumber,
    /// When the segment was captured.
    pub at: Timestamp,
    /// The bytes.
    pub bytes: &'a [u8],
}

/// The beginning of a segment of the answer direction, or a later piece of it where more was copied.
#[derive(Clone, Copy, Debug)]
pub struct Glimpse<'a> {
    /// Sequence number of the segment's first byte.
    pub start: SeqNumber,
    /// Where `head` lies in the segment; 0: at its start. Later pieces follow the first one of their segment.
    pub offset_bytes: u32,
    /// What the answering side had received of the requests when it sent this.
    pub ack: SeqNumber,
    /// When the segment was captured.
    pub at: Timestamp,
    /// Payload bytes on the wire, at least 1.
    pub segment_bytes: u32,
    /// The bytes that were copied: from `offset_bytes` on, and not always up to the segment's end.
    pub head: &'a [u8],
}
