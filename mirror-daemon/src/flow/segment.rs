//! One captured TCP segment, whatever captured it.

use super::SeqNumber;
use std::time::Duration;

pub use mirror_common::FlowKey;

/// Nanoseconds on a monotonic clock whose zero is of no meaning (kernel: `bpf_ktime_get_ns`; pcap: the
/// packet's time stamp). Pure stages get it as an argument and never read a clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The moment `later` from this one; saturates.
    #[must_use]
    pub fn after(self, later: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(later.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// Time since `earlier`; zero when `earlier` is not in the past.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Which way bytes travel, seen from the exchange and not from the hook: the same on both legs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the one who opened the connection: requests.
    Request,
    /// From the one who accepted it: answers.
    Answer,
}

impl Direction {
    /// The other one.
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Request => Self::Answer,
            Self::Answer => Self::Request,
        }
    }
}

/// The TCP flags that matter here, with the bits of the TCP header's byte 13.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// FIN.
    pub const FIN: Self = Self(0x01);
    /// SYN.
    pub const SYN: Self = Self(0x02);
    /// RST.
    pub const RST: Self = Self(0x04);
    /// ACK.
    pub const ACK: Self = Self(0x10);

    /// True when every flag of `flags` is set.
    #[must_use]
    pub const fn contains(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }
}

/// One segment, or one piece of a segment that was captured as several records.
///
/// `payload` starts `offset_bytes` behind `seq` and may end before the segment does.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// The connection.
    pub key: FlowKey,
    /// Which way it travels.
    pub direction: Direction,
    /// Sequence number of the segment's first payload byte (of the SYN itself on a SYN).
    pub seq: SeqNumber,
    /// Acknowledgement number; meaningless without [`TcpFlags::ACK`].
    pub ack: SeqNumber,
    /// Flags.
    pub flags: TcpFlags,
    /// Whether the lifecycle hook knows this flow as the gateway's own. `None`: no such hook is in use, so
    /// every flow counts as the gateway's.
    pub selected: Option<bool>,
    /// When it was captured.
    pub at: Timestamp,
    /// Payload bytes of the whole segment on the wire.
    pub segment_bytes: u32,
    /// Where `payload` starts within the segment's payload.
    pub offset_bytes: u32,
    /// The captured bytes.
    pub payload: &'a [u8],
}
