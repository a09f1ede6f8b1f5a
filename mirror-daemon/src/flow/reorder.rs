//! Keeps bytes that came before the ones in front of them.

use super::piece::Piece;
use super::{FlowLimits, SeqNumber, Timestamp};
use std::collections::VecDeque;

/// Places that a first out-of-order run makes room for; doubled when full.
const FIRST_FRAGMENTS: usize = 4;

/// A run of kept bytes.
#[derive(Debug)]
pub(super) struct Fragment {
    start: SeqNumber,
    ack: SeqNumber,
    at: Timestamp,
    at_segment_start: bool,
    /// Never empty.
    bytes: Box<[u8]>,
}

impl Fragment {
    /// The kept bytes as a piece.
    pub(super) fn piece(&self) -> Piece<'_> {
        Piece {
            start: self.start,
            ack: self.ack,
            at: self.at,
            at_segment_start: self.at_segment_start,
            bytes: &self.bytes,
        }
    }

    fn end(&self) -> SeqNumber {
        self.start.add(self.piece().len())
    }
}

/// What became of the front of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    /// So many bytes from its front were kept, at least 1.
    Kept(u32),
    /// So many bytes from its front were there already, at least 1. The first copy stays.
    Duplicate(u32),
    /// There is no room.
    Full,
}

/// Out-of-order bytes of one direction: runs in stream order that never overlap. All lie within one window
/// of each other, so that sequence numbers compare rightly.
#[derive(Debug, Default)]
pub(super) struct ReorderBuffer {
    fragments: VecDeque<Fragment>,
    payload_bytes: usize,
}

impl ReorderBuffer {
    /// The first run, in stream order.
    pub(super) fn first(&self) -> Option<Piece<'_>> {
        self.fragments.front().map(Fragment::piece)
    }

    /// Takes the first run out when it starts at `start`. Gives its memory back when it was the last.
    pub(super) fn take_at(&mut self, start: SeqNumber) -> Option<Fragment> {
        if self.fragments.front()?.start != start {
            return None;
        }
        let fragment = self.fragments.pop_front()?;
        self.payload_bytes = self.payload_bytes.saturating_sub(fragment.bytes.len());
        if self.fragments.is_empty() {
            self.fragments = VecDeque::new();
        }
        Some(fragment)
    }

    /// Keeps the front of a piece, up to the next byte that is there already. `piece` is not empty.
    pub(super) fn store(&mut self, piece: &Piece<'_>, limits: &FlowLimits) -> Stored {
        let index = self.fragments.partition_point(|fragment| !fragment.start.is_after(piece.start));
        let before = index.checked_sub(1).and_then(|before| self.fragments.get(before));
        let covered = before.map_or(0, |before| before.end().bytes_since(piece.start)).min(piece.len());
        if covered > 0 {
            return Stored::Duplicate(covered);
        }
        let behind = self.fragments.get(index);
        let room = behind.map_or(piece.len(), |behind| behind.start.bytes_since(piece.start));
        let (head, _) = piece.split(room.min(piece.len()));
        if !self.make_room(head.bytes.len(), limits) {
            return Stored::Full;
        }
        self.payload_bytes = self.payload_bytes.saturating_add(head.bytes.len());
        let fragment = Fragment {
            start: head.start,
            ack: head.ack,
            at: head.at,
            at_segment_start: head.at_segment_start,
            bytes: Box::from(head.bytes),
        };
        self.fragments.insert(index, fragment);
        Stored::Kept(head.len())
    }

    /// Bytes of the streams that are kept.
    pub(super) fn payload_bytes(&self) -> usize {
        self.payload_bytes
    }

    /// Bytes of memory that are taken.
    pub(super) fn allocated_bytes(&self) -> usize {
        Self::allocated(self.fragments.capacity(), self.payload_bytes)
    }

    /// Forgets everything and says how many bytes of the stream that was.
    pub(super) fn clear(&mut self) -> usize {
        std::mem::take(self).payload_bytes
    }

    /// Makes a place for one more run of `payload_bytes` bytes, if the bounds allow it.
    fn make_room(&mut self, payload_bytes: usize, limits: &FlowLimits) -> bool {
        if self.fragments.len() >= limits.max_reorder_fragments {
            return false;
        }
        let capacity = self.fragments.capacity();
        let more = if self.fragments.len() < capacity { 0 } else { capacity.max(FIRST_FRAGMENTS) };
        let allocated =
            Self::allocated(capacity.saturating_add(more), self.payload_bytes.saturating_add(payload_bytes));
        if allocated > limits.max_reorder_bytes {
            return false;
        }
        if more > 0 {
            self.fragments.reserve_exact(more);
        }
        true
    }

    fn allocated(capacity: usize, payload_bytes: usize) -> usize {
        capacity.saturating_mul(size_of::<Fragment>()).saturating_add(payload_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(start: u32, bytes: &[u8]) -> Piece<'_> {
        Piece { start: SeqNumber(start), ack: SeqNumber(0), at: Timestamp(0), at_segment_start: true, bytes }
    }

    fn limits(bytes: usize, fragments: usize) -> FlowLimits {
        FlowLimits { max_reorder_bytes: bytes, max_reorder_fragments: fragments, ..FlowLimits::default() }
    }

    #[test]
    fn front_of_a_piece_is_kept_up_to_the_first_known_byte() {
        let mut buffer = ReorderBuffer::default();
        let limits = FlowLimits::default();
        assert_eq!(buffer.store(&piece(10, b"KK"), &limits), Stored::Kept(2));
        assert_eq!(buffer.store(&piece(8, b"abcdef"), &limits), Stored::Kept(2));
        assert_eq!(buffer.store(&piece(10, b"cdef"), &limits), Stored::Duplicate(2));
        assert_eq!(buffer.store(&piece(12, b"ef"), &limits), Stored::Kept(2));
        let runs: Vec<_> = buffer.fragments.iter().map(|f| (f.start.0, f.bytes.to_vec())).collect();
        assert_eq!(runs, [(8, b"ab".to_vec()), (10, b"KK".to_vec()), (12, b"ef".to_vec())]);
        assert_eq!(buffer.payload_bytes(), 6);
    }

    #[test]
    fn allocated_bytes_stop_exactly_at_the_bound() {
        let room = FIRST_FRAGMENTS * size_of::<Fragment>();
        for (bound, fits) in [(room + 99, false), (room + 100, true), (room + 101, true)] {
            let mut buffer = ReorderBuffer::default();
            let stored = buffer.store(&piece(1, &[0; 100]), &limits(bound, 9));
            assert_eq!(stored == Stored::Kept(100), fits, "bound {bound}");
            assert!(buffer.allocated_bytes() <= bound);
        }
    }

    #[test]
    fn one_byte_runs_stop_at_the_fragment_bound() {
        let mut buffer = ReorderBuffer::default();
        let limits = limits(1 << 20, 6);
        for n in 0..6 {
            assert_eq!(buffer.store(&piece(n * 2, b"x"), &limits), Stored::Kept(1));
        }
        assert_eq!(buffer.store(&piece(100, b"x"), &limits), Stored::Full);
    }

    #[test]
    fn memory_is_given_back_with_the_last_run() {
        let mut buffer = ReorderBuffer::default();
        let limits = FlowLimits::default();
        buffer.store(&piece(5, b"xy"), &limits);
        assert!(buffer.take_at(SeqNumber(4)).is_none());
        assert!(buffer.take_at(SeqNumber(5)).is_some());
        assert_eq!((buffer.payload_bytes(), buffer.allocated_bytes()), (0, 0));
    }
}
