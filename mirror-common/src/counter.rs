//! What the kernel programs count, per CPU.

/// One number that the kernel programs count. Payload is balanced:
///
/// `payload_bytes = copied_bytes + snapped_bytes + passed_over_bytes + ignored_bytes + shed_bytes +
/// ring_full_bytes + load_failed_bytes + beyond_pieces_bytes + test_dropped_bytes`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum KernelCounter {
    /// TCP segments of a wanted port and leg, pure acknowledgements included.
    Segments,
    /// Of these: neither payload nor SYN, FIN, RST; nothing is handed over. Intended.
    PureAcks,
    /// Payload bytes of `Segments`.
    PayloadBytes,
    /// Records tried, handed over or not; its low 32 bits are [`crate::RecordHeader::record_number`].
    TriedRecords,
    /// Records handed over.
    Records,
    /// Payload bytes handed over.
    CopiedBytes,
    /// Payload bytes of answers beyond `answer_snap_bytes`. Intended.
    SnappedBytes,
    /// Segments whose payload user space had no use for (a body that no rule wants). Intended.
    PassedOverSegments,
    /// Payload bytes of `PassedOverSegments`.
    PassedOverBytes,
    /// Segments of flows that user space ignores for good. Intended.
    IgnoredSegments,
    /// Payload bytes of `IgnoredSegments`.
    IgnoredBytes,
    /// Segments of flows that the shed level leaves out.
    ShedSegments,
    /// Payload bytes of `ShedSegments`.
    ShedBytes,
    /// Records that found no room in their data ring.
    RingFullRecords,
    /// Payload bytes of `RingFullRecords`, and of the rest of their segments.
    RingFullBytes,
    /// Payload bytes that `bpf_skb_load_bytes` refused to copy, and the rest of their segments.
    LoadFailedBytes,
    /// Payload bytes beyond the largest segment that is copied (256 KiB).
    BeyondPiecesBytes,
    /// Records dropped by the test knob.
    TestDroppedRecords,
    /// Payload bytes of `TestDroppedRecords`.
    TestDroppedBytes,
    /// Opens, closes or loss marks that found no room in the control ring.
    ControlFull,
    /// Connections that `sockops` reported open.
    Opened,
    /// Connections that `sockops` reported closed.
    Closed,
    /// Forced wake-ups of readers.
    WakeUps,
    /// Packets seen before the daemon's first heartbeat or after its last, or at a capture point that is being tried:
    /// nothing was done. Intended.
    Inert,
    /// Packets, of whatever kind, seen while the heartbeat was stale although the daemon had not ended: it was
    /// stopped or killed, or got no processor time. Nothing was done.
    Stalled,
    /// Segments of the daemon's own sockets to shadows. Intended.
    Own,
    /// Segments to excluded destinations. Intended.
    Excluded,
    /// Packets that are neither IPv4 nor IPv6. Intended.
    NotIp,
    /// IP packets that carry no TCP. Intended.
    NotTcp,
    /// TCP segments of other ports or the other leg. Intended.
    OtherPort,
    /// More VLAN tags than are read (two).
    VlanDepth,
    /// TCP in IP fragments, which are not put together.
    Fragment,
    /// IPv6 extension headers that are unknown or too many (more than six).
    ExtensionHeader,
    /// Headers that are cut short or contradict themselves.
    Truncated,
}

impl KernelCounter {
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// Every counter, in the order of declaration.
    pub const ALL: [Self; 34] = [
        Self::Segments,
        Self::PureAcks,
        Self::PayloadBytes,
        Self::TriedRecords,
        Self::Records,
        Self::CopiedBytes,
        Self::SnappedBytes,
        Self::PassedOverSegments,
        Self::PassedOverBytes,
        Self::IgnoredSegments,
        Self::IgnoredBytes,
        Self::ShedSegments,
        Self::ShedBytes,
        Self::RingFullRecords,
        Self::RingFullBytes,
        Self::LoadFailedBytes,
        Self::BeyondPiecesBytes,
        Self::TestDroppedRecords,
        Self::TestDroppedBytes,
        Self::ControlFull,
        Self::Opened,
        Self::Closed,
        Self::WakeUps,
        Self::Inert,
        Self::Stalled,
        Self::Own,
        Self::Excluded,
        Self::NotIp,
        Self::NotTcp,
        Self::OtherPort,
        Self::VlanDepth,
        Self::Fragment,
        Self::ExtensionHeader,
        Self::Truncated,
    ];

    /// Whether it counts copies that were lost, or left out against the operator's wish. While all of these
    /// are 0, user space saw every wanted byte.
    #[must_use]
    pub const fn is_loss(self) -> bool {
        matches!(
            self,
            Self::ShedSegments
                | Self::ShedBytes
                | Self::RingFullRecords
                | Self::RingFullBytes
                | Self::LoadFailedBytes
                | Self::BeyondPiecesBytes
                | Self::TestDroppedRecords
                | Self::TestDroppedBytes
                | Self::ControlFull
                | Self::Stalled
                | Self::VlanDepth
                | Self::Fragment
                | Self::ExtensionHeader
        )
    }

    /// The word for this counter in metrics and documentation.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Segments => "segments",
            Self::PureAcks => "pure_acks",
            Self::PayloadBytes => "payload_bytes",
            Self::TriedRecords => "tried_records",
            Self::Records => "records",
            Self::CopiedBytes => "copied_bytes",
            Self::SnappedBytes => "snapped_bytes",
            Self::PassedOverSegments => "passed_over_segments",
            Self::PassedOverBytes => "passed_over_bytes",
            Self::IgnoredSegments => "ignored_segments",
            Self::IgnoredBytes => "ignored_bytes",
            Self::ShedSegments => "shed_segments",
            Self::ShedBytes => "shed_bytes",
            Self::RingFullRecords => "ring_full_records",
            Self::RingFullBytes => "ring_full_bytes",
            Self::LoadFailedBytes => "load_failed_bytes",
            Self::BeyondPiecesBytes => "beyond_pieces_bytes",
            Self::TestDroppedRecords => "test_dropped_records",
            Self::TestDroppedBytes => "test_dropped_bytes",
            Self::ControlFull => "control_full",
            Self::Opened => "opened",
            Self::Closed => "closed",
            Self::WakeUps => "wake_ups",
            Self::Inert => "inert",
            Self::Stalled => "stalled",
            Self::Own => "own",
            Self::Excluded => "excluded",
            Self::NotIp => "not_ip",
            Self::NotTcp => "not_tcp",
            Self::OtherPort => "other_port",
            Self::VlanDepth => "vlan_depth",
            Self::Fragment => "fragment",
            Self::ExtensionHeader => "extension_header",
            Self::Truncated => "truncated",
        }
    }
}

/// All counters of one CPU, or their sums.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelCounters {
    /// By [`KernelCounter`].
    pub counts: [u64; KernelCounter::COUNT],
}

impl Default for KernelCounters {
    fn default() -> Self {
        Self { counts: [0; KernelCounter::COUNT] }
    }
}

impl KernelCounters {
    /// The count of `counter`.
    #[must_use]
    pub fn of(&self, counter: KernelCounter) -> u64 {
        self.counts.get(counter as usize).copied().unwrap_or(0)
    }

    /// Adds the counts of another CPU.
    pub fn add(&mut self, other: &Self) {
        for (sum, count) in self.counts.iter_mut().zip(other.counts) {
            *sum = sum.wrapping_add(count);
        }
    }

    /// How much each counter has grown since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut grown = *self;
        for (count, before) in grown.counts.iter_mut().zip(earlier.counts) {
            *count = count.wrapping_sub(before);
        }
        grown
    }

    /// Payload bytes that were seen and are in no other entry of the books; 0 at a quiet moment.
    #[must_use]
    pub fn unbalanced_bytes(&self) -> i64 {
        let entries = [
            KernelCounter::CopiedBytes,
            KernelCounter::SnappedBytes,
            KernelCounter::PassedOverBytes,
            KernelCounter::IgnoredBytes,
            KernelCounter::ShedBytes,
            KernelCounter::RingFullBytes,
            KernelCounter::LoadFailedBytes,
            KernelCounter::BeyondPiecesBytes,
            KernelCounter::TestDroppedBytes,
        ];
        let booked = entries.iter().fold(0_u64, |sum, entry| sum.wrapping_add(self.of(*entry)));
        self.of(KernelCounter::PayloadBytes).wrapping_sub(booked).cast_signed()
    }
}

const _: () = assert!(size_of::<KernelCounters>() == 8 * KernelCounter::COUNT);

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_counter_is_listed_once_in_order_with_a_label_of_its_own() {
        let labels: BTreeSet<_> = KernelCounter::ALL.iter().map(|counter| counter.label()).collect();
        assert_eq!(labels.len(), KernelCounter::COUNT);
        for (index, counter) in KernelCounter::ALL.iter().enumerate() {
            assert_eq!(*counter as usize, index);
        }
    }

    #[test]
    fn bytes_in_no_entry_are_unbalanced() {
        let mut counters = KernelCounters::default();
        counters.counts[KernelCounter::PayloadBytes as usize] = 10;
        counters.counts[KernelCounter::CopiedBytes as usize] = 4;
        counters.counts[KernelCounter::ShedBytes as usize] = 5;
        assert_eq!(counters.unbalanced_bytes(), 1);
    }
}
