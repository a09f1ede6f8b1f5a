//! Tells a joined TLS connection (RFC 8446, 5.1) from a joined upload, so that it is not copied for ever.
//!
//! An upload can carry TLS records too, so one direction proves nothing. Asked for are, without an answer that
//! starts as HTTP's do in between:
//!
//! - [`RECORDS_WANTED`] records of the client in a row, each starting exactly where the one before ended, the
//!   first at the start of a segment;
//! - [`ANSWERS_WANTED`] segments of the server that start with a record's header.
//!
//! What is wrong then is a tunnel of TLS within the bodies of one request and one answer: its request can't be
//! known any more, and what follows on that connection is not mirrored.

use super::Place;
use crate::flow::SeqNumber;

/// Records of the client in a row that are asked for.
pub(super) const RECORDS_WANTED: u8 = 8;
/// Segments of the server that are asked for.
pub(super) const ANSWERS_WANTED: u8 = 2;

/// Type, version, length.
const HEADER_BYTES: usize = 5;
/// 2^14 bytes of content and what a version may add to it (RFC 5246, 6.2.3).
const MAX_RECORD_BYTES: u16 = (1 << 14) + 2048;

/// Records of the client so far. No allocation.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TlsTrail {
    /// Where the next record starts; `None` where none has been seen.
    next: Option<SeqNumber>,
    /// The first bytes of the record there.
    header: [u8; HEADER_BYTES],
    header_bytes: usize,
    records: u8,
    answers: u8,
}

impl TlsTrail {
    /// Takes bytes of the client.
    pub(super) fn handle_bytes(&mut self, bytes: &[u8], place: Place) {
        let mut offset = match self.offset_of_next(place.seq) {
            Some(offset) => offset,
            None if place.at_segment_start => {
                *self = Self { next: Some(place.seq), ..Self::default() };
                0
            }
            None => return *self = Self::default(),
        };
        while let Some(byte) = bytes.get(offset) {
            if let Some(slot) = self.header.get_mut(self.header_bytes) {
                *slot = *byte;
            }
            self.header_bytes = self.header_bytes.saturating_add(1);
            offset = offset.saturating_add(1);
            if self.header_bytes < HEADER_BYTES {
                continue;
            }
            let Some(record_bytes) = record_bytes(&self.header) else { return *self = Self::default() };
            self.header_bytes = 0;
            self.records = self.records.saturating_add(1);
            offset = offset.saturating_add(usize::from(record_bytes));
        }
        // Behind what has been read of a header that is cut in two.
        self.next = Some(place.seq.add(u32::try_from(offset).unwrap_or(u32::MAX)));
    }

    /// Takes the first bytes of a segment of the server.
    pub(super) fn handle_answer(&mut self, head: &[u8]) {
        if head.starts_with(b"HTTP/") {
            *self = Self::default();
        } else if self.records > 0
            && let Some(header) = head.first_chunk()
            && record_bytes(header).is_some()
        {
            self.answers = self.answers.saturating_add(1);
        }
    }

    /// Whether it can be nothing else.
    pub(super) const fn is_tls(&self) -> bool {
        self.records >= RECORDS_WANTED && self.answers >= ANSWERS_WANTED
    }

    /// How far behind `seq` the next record starts; `None` when there is none, or it was missed.
    fn offset_of_next(&self, seq: SeqNumber) -> Option<usize> {
        let next = self.next.filter(|next| !seq.is_after(*next))?;
        usize::try_from(next.bytes_since(seq)).ok()
    }
}

/// The content's length, if this is a record's header.
fn record_bytes(header: &[u8; HEADER_BYTES]) -> Option<u16> {
    let [kind, major, minor, high, low] = *header;
    let bytes = u16::from_be_bytes([high, low]);
    let is_known = matches!(kind, 0x14..=0x17) && major == 3 && minor <= 4;
    (is_known && (1..=MAX_RECORD_BYTES).contains(&bytes)).then_some(bytes)
}
