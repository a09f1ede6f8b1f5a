//! The bytes of one record, with their place in the stream, checked once.

use super::{Segment, SeqNumber, TcpFlags, Timestamp};

/// Most payload bytes of a segment on the wire. The kernel's largest (`GSO_MAX_SIZE`, BIG TCP) is 512 KiB.
pub(super) const MAX_SEGMENT_BYTES: u32 = 1024 * 1024;

/// Bytes of a stream, in one run. At most [`MAX_SEGMENT_BYTES`] long; may be empty.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece<'a> {
    /// Place of the first byte.
    pub(super) start: SeqNumber,
    /// What the sender had acknowledged.
    pub(super) ack: SeqNumber,
    /// When it was captured.
    pub(super) at: Timestamp,
    /// The first byte is the first of its segment.
    pub(super) at_segment_start: bool,
    /// The bytes.
    pub(super) bytes: &'a [u8],
}

/// What a segment says of its direction: where it lies on the wire, and which piece of it was captured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placed<'a> {
    /// Place of the segment's first payload byte, the SYN counted.
    pub(super) wire_start: SeqNumber,
    /// Place behind the segment's last payload byte, where a FIN would be.
    pub(super) wire_end: SeqNumber,
    /// The captured piece.
    pub(super) piece: Piece<'a>,
}

impl<'a> Placed<'a> {
    /// Checks that the piece lies within its segment, and the segment within what a segment can be.
    pub(super) fn check(segment: &Segment<'a>) -> Option<Self> {
        let piece_bytes = u32::try_from(segment.payload.len()).ok()?;
        let piece_end = segment.offset_bytes.checked_add(piece_bytes)?;
        if piece_end > segment.segment_bytes || segment.segment_bytes > MAX_SEGMENT_BYTES {
            return None;
        }
        // A SYN takes the place before the first byte (RFC 9293, 3.4).
        let syn = u32::from(segment.flags.contains(TcpFlags::SYN));
        let wire_start = segment.seq.add(syn);
        Some(Self {
            wire_start,
            wire_end: wire_start.add(segment.segment_bytes),
            piece: Piece {
                start: wire_start.add(segment.offset_bytes),
                ack: segment.ack,
                at: segment.at,
                at_segment_start: segment.offset_bytes == 0,
                bytes: segment.payload,
            },
        })
    }

    /// Payload bytes of the whole segment on the wire.
    pub(super) fn segment_bytes(&self) -> u32 {
        self.wire_end.bytes_since(self.wire_start)
    }
}

impl<'a> Piece<'a> {
    /// How many bytes.
    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.bytes.len()).unwrap_or(u32::MAX)
    }

    /// Cuts in two behind `bytes` bytes, or behind the last one.
    pub(super) fn split(self, bytes: u32) -> (Self, Self) {
        let at = usize::try_from(bytes).unwrap_or(usize::MAX).min(self.bytes.len());
        let (head, tail) = self.bytes.split_at_checked(at).unwrap_or((self.bytes, &[]));
        let behind = Self {
            start: self.start.add(bytes),
            at_segment_start: self.at_segment_start && bytes == 0,
            bytes: tail,
            ..self
        };
        (Self { bytes: head, ..self }, behind)
    }
}
