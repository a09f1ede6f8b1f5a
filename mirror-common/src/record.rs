//! The header in front of every piece of payload in a data ring.

use crate::{FlowKey, decode};
use core::mem::offset_of;

/// One record of a data ring is this header, then `piece_bytes` bytes of payload, then unused bytes up to the
/// size of its tier.
///
/// A segment larger than [`crate::MAX_PIECE_BYTES`] becomes several records with rising `offset_bytes`. In the
/// request direction a record with `piece_bytes == 0 < segment_bytes` says that the segment's payload was left
/// out on purpose (a passed-over body); in the answer direction only the first `answer_snap_bytes` are copied.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct RecordHeader {
    /// The connection.
    pub flow: FlowKey,
    /// When it was captured: `bpf_ktime_get_ns`, CLOCK_MONOTONIC, nanoseconds.
    pub captured_ns: u64,
    /// Sequence number of the segment's first payload byte (of the SYN itself on a SYN).
    pub seq: u32,
    /// Acknowledgement number; meaningless without the ACK flag.
    pub ack: u32,
    /// Payload bytes of the whole segment on the wire.
    pub segment_bytes: u32,
    /// Where this piece starts within the segment's payload.
    pub offset_bytes: u32,
    /// Payload bytes behind this header.
    pub piece_bytes: u32,
    /// Counts the records tried on this CPU, lost ones included; wraps.
    pub record_number: u32,
    /// The CPU that `record_number` belongs to.
    pub cpu: u16,
    /// Which data ring this is.
    pub shard: u16,
    /// Byte 13 of the TCP header.
    pub tcp_flags: u8,
    /// A [`RecordDirection`].
    pub direction: u8,
    /// Bits of [`RecordFlags`].
    pub flags: u16,
}

/// [`RecordHeader::direction`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordDirection {
    /// From the one who opened the connection.
    Request = 0,
    /// From the one who accepted it.
    Answer = 1,
}

/// Bits of [`RecordHeader::flags`].
#[derive(Clone, Copy, Debug)]
pub struct RecordFlags;

impl RecordFlags {
    /// `sockops` selects flows at this capture point, so that [`Self::SELECTED`] has a meaning.
    pub const SELECTION_IN_USE: u16 = 1;
    /// `sockops` knows this flow as the gateway's own.
    pub const SELECTED: u16 = 2;
}

impl RecordHeader {
    /// Size of the header in a ring.
    pub const BYTES: usize = size_of::<Self>();

    /// Reads a header from the first bytes of `bytes`; `None` when they are too few.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..Self::BYTES)?;
        Some(Self {
            flow: FlowKey::from_bytes(bytes)?,
            captured_ns: decode::u64_at(bytes, offset_of!(Self, captured_ns))?,
            seq: decode::u32_at(bytes, offset_of!(Self, seq))?,
            ack: decode::u32_at(bytes, offset_of!(Self, ack))?,
            segment_bytes: decode::u32_at(bytes, offset_of!(Self, segment_bytes))?,
            offset_bytes: decode::u32_at(bytes, offset_of!(Self, offset_bytes))?,
            piece_bytes: decode::u32_at(bytes, offset_of!(Self, piece_bytes))?,
            record_number: decode::u32_at(bytes, offset_of!(Self, record_number))?,
            cpu: decode::u16_at(bytes, offset_of!(Self, cpu))?,
            shard: decode::u16_at(bytes, offset_of!(Self, shard))?,
            tcp_flags: *bytes.get(offset_of!(Self, tcp_flags))?,
            direction: *bytes.get(offset_of!(Self, direction))?,
            flags: decode::u16_at(bytes, offset_of!(Self, flags))?,
        })
    }
}

const _: () = assert!(size_of::<RecordHeader>() == 80);
const _: () = assert!(align_of::<RecordHeader>() == 8);
const _: () = assert!(offset_of!(RecordHeader, flow) == 0);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_needs_all_its_bytes() {
        let bytes = [7_u8; RecordHeader::BYTES];
        assert!(RecordHeader::from_bytes(&bytes[..RecordHeader::BYTES - 1]).is_none());
        let header = RecordHeader::from_bytes(&bytes).expect("exactly enough bytes");
        assert_eq!(header.seq, 0x0707_0707);
        assert_eq!(header.flow.remote_port, 0x0707);
        assert_eq!(header.captured_ns, 0x0707_0707_0707_0707);
    }
}
