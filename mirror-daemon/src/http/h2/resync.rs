//! Finds frame boundaries again in the middle of a direction.
//!
//! # How
//! Nine octets are a *plausible* frame header when their length, type, flags and stream fit each other
//! (random octets do with a chance of about 2^-20). Every plausible header starts a *chain*: where its
//! payload ends the next header must be plausible again, or the chain dies. All chains are followed side by
//! side; two that meet at one boundary are one.
//!
//! # What proves a boundary
//! The body of an upload can hold whole chains of frames, on purpose too. But every stretch of `window` =
//! largest frame + header + a little holds the start of a true frame, and the true chain never dies. So once
//! `window` octets were seen since the loss, the true chain is among those that are followed; and when only
//! one is left, a header of that one is true, **whatever the bodies hold**.
//!
//! This says nothing of what lies before: an embedded chain that ends where the DATA frame around it ends
//! meets the true chain there. So decoding starts at the first proven header and not earlier, neither for
//! requests nor for the dynamic table. That costs at least one window (16 KiB by default) of the direction.
//!
//! It holds for frames up to the receiver's SETTINGS_MAX_FRAME_SIZE where that was seen, else up to 16,384
//! octets, which is what nearly all senders use. What is left is a sender of larger frames, joined inside
//! one whose body is made of frames; `connection` therefore also wants the answer on the same stream.
//!
//! # Bounds
//! At most [`MAX_CHAINS`] are followed. When more are wanted the newcomer is left out, and since it may be
//! the true one the window starts anew.

use super::frame::{DEFAULT_FRAME_BYTES, FRAME_HEAD_BYTES, FrameHead, FrameKind, StreamId, flag};
use crate::flow::Direction;

/// Headers in a row that a chain must have at least.
const CHAIN_HEADS: u32 = 2;
/// Most chains that are followed at once.
const MAX_CHAINS: usize = 32;
/// How much longer than the largest frame the window is: the rest of a header, a header, and one frame of an
/// unknown type, which cannot start a chain because nearly any octets would.
const WINDOW_EXTRA_BYTES: u64 = 1024;
/// Octets of a header that began in an earlier chunk, at most.
const CARRY_BYTES: usize = FRAME_HEAD_BYTES - 1;
/// The type of PRIORITY_UPDATE (RFC 9218, 7.1), which browsers send.
const PRIORITY_UPDATE: u8 = 0x10;

/// Follows the chains of one direction, from the loss of its boundaries until one is proven.
#[derive(Debug)]
pub(super) struct Resync {
    direction: Direction,
    /// Largest frame that is plausible, in octets of payload.
    frame_bytes: u32,
    /// Octets seen since the loss.
    seen_bytes: u64,
    /// Where the window starts, counted as `seen_bytes`.
    window_start: u64,
    /// The last octets seen, at most [`CARRY_BYTES`].
    carry: Vec<u8>,
    chains: Vec<Chain>,
}

#[derive(Clone, Copy, Debug)]
struct Chain {
    /// Where its next header begins, counted as `seen_bytes`.
    next: u64,
    /// Headers so far.
    heads: u32,
    /// Its last header began a header block that is not over, on this stream.
    open_block: Option<StreamId>,
}

/// This header is proven, and `consumed` octets of the chunk lie before its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Proof {
    pub(super) octets: [u8; FRAME_HEAD_BYTES],
    pub(super) consumed: usize,
}

impl Resync {
    pub(super) fn new(direction: Direction, frame_bytes: Option<u32>) -> Self {
        Self {
            direction,
            frame_bytes: frame_bytes.unwrap_or(DEFAULT_FRAME_BYTES),
            seen_bytes: 0,
            window_start: 0,
            carry: Vec::new(),
            chains: Vec::new(),
        }
    }

    /// Frames can be so large, it turns out: a longer stretch holds a header for certain, and the true chain may have
    /// been among those that seemed too large.
    pub(super) fn limit_frames(&mut self, frame_bytes: u32) {
        if frame_bytes != self.frame_bytes {
            self.frame_bytes = frame_bytes;
            self.restart();
        }
    }

    /// Bytes are missing here: nothing that was followed can be trusted.
    pub(super) fn restart(&mut self) {
        self.chains.clear();
        self.carry.clear();
        self.window_start = self.seen_bytes;
    }

    pub(super) fn allocated_bytes(&self) -> usize {
        let chains = self.chains.capacity().saturating_mul(size_of::<Chain>());
        chains.saturating_add(self.carry.capacity()).saturating_add(size_of::<Self>())
    }

    /// Looks at `bytes`, all of them unless a header is proven on the way: then up to its end.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Option<Proof> {
        // Headers that began in an earlier chunk: at most 8 places, in a copy of at most 16 octets.
        let carried = self.carry.len();
        let mut seam = std::mem::take(&mut self.carry);
        seam.extend_from_slice(bytes.get(..bytes.len().min(CARRY_BYTES)).unwrap_or_default());
        let start = self.seen_bytes.saturating_sub(carried as u64);
        for (offset, octets) in seam.windows(FRAME_HEAD_BYTES).enumerate().take(carried) {
            let end = offset.saturating_add(FRAME_HEAD_BYTES).saturating_sub(carried);
            if let Some(octets) = self.look(start.saturating_add(offset as u64), octets) {
                self.keep_carry(seam.get(..carried).unwrap_or_default(), bytes, end);
                return Some(Proof { octets, consumed: end });
            }
        }
        for (offset, octets) in bytes.windows(FRAME_HEAD_BYTES).enumerate() {
            let place = self.seen_bytes.saturating_add(offset as u64);
            if let Some(octets) = self.look(place, octets) {
                let end = offset.saturating_add(FRAME_HEAD_BYTES);
                self.keep_carry(&[], bytes, end);
                return Some(Proof { octets, consumed: end });
            }
        }
        self.keep_carry(seam.get(..carried).unwrap_or_default(), bytes, bytes.len());
        None
    }

    /// Counts the first `used` of `bytes` as seen and keeps the last octets before there.
    fn keep_carry(&mut self, carried: &[u8], bytes: &[u8], used: usize) {
        let used_bytes = bytes.get(..used).unwrap_or(bytes);
        self.seen_bytes = self.seen_bytes.saturating_add(used_bytes.len() as u64);
        let all = carried.iter().chain(used_bytes);
        let skip = carried.len().saturating_add(used_bytes.len()).saturating_sub(CARRY_BYTES);
        self.carry = all.skip(skip).copied().collect();
    }

    /// Looks at the nine octets at `place`. Returns them when they are proven.
    #[inline]
    fn look(&mut self, place: u64, octets: &[u8]) -> Option<[u8; FRAME_HEAD_BYTES]> {
        let expected = self.chains.iter().any(|chain| chain.next == place);
        // The highest octet of a length is 0 below 64 KiB, which is most of what there is to rule out.
        let may_start = octets.first().is_some_and(|&octet| octet == 0) || self.frame_bytes > 0xffff;
        if !expected && !may_start {
            return None;
        }
        let octets = octets.first_chunk::<FRAME_HEAD_BYTES>()?;
        let head = FrameHead::parse(octets);
        match self.take_chain(place, head) {
            Some(chain) => self.extend(chain, place, head).then_some(*octets),
            None => {
                self.start(place, head);
                None
            }
        }
    }

    /// The chain that expects its next header at `place`, if `head` fits it. If not it dies, and the header is looked
    /// at as if nobody had expected it: it may be the true chain's all the same, which a dead chain in a body led to.
    fn take_chain(&mut self, place: u64, head: FrameHead) -> Option<Chain> {
        let at = self.chains.iter().position(|chain| chain.next == place)?;
        let chain = self.chains.swap_remove(at);
        (self.is_plausible(head) && follows(chain.open_block, head)).then_some(chain)
    }

    /// `chain` grows by `head`. True when that header is proven.
    fn extend(&mut self, mut chain: Chain, place: u64, head: FrameHead) -> bool {
        chain.next = end_of(place, head);
        chain.heads = chain.heads.saturating_add(1);
        chain.open_block = open_block(head);
        let window = u64::from(self.frame_bytes).saturating_add(WINDOW_EXTRA_BYTES);
        let proven = self.chains.is_empty()
            && place.saturating_sub(self.window_start) >= window
            && chain.heads >= CHAIN_HEADS
            // A header that only makes sense behind an earlier one is no place to begin decoding.
            && head.kind != FrameKind::Continuation;
        self.keep(chain);
        proven
    }

    fn start(&mut self, place: u64, head: FrameHead) {
        let known = match head.kind {
            FrameKind::Unknown(octet) => octet == PRIORITY_UPDATE,
            _ => true,
        };
        if known && self.is_plausible(head) {
            self.keep(Chain { next: end_of(place, head), heads: 1, open_block: open_block(head) });
        }
    }

    /// Keeps `chain`, as one with another that has come to the same boundary.
    fn keep(&mut self, chain: Chain) {
        if let Some(other) = self.chains.iter_mut().find(|other| other.next == chain.next) {
            other.heads = other.heads.max(chain.heads);
            // Either may be right about an open block; the laxer one never kills the true chain.
            other.open_block = if other.open_block == chain.open_block { chain.open_block } else { None };
        } else if self.chains.len() < MAX_CHAINS {
            self.chains.push(chain);
        } else {
            // From its next header on it may be followed again.
            self.window_start = self.window_start.max(chain.next);
        }
    }

    fn is_plausible(&self, head: FrameHead) -> bool {
        head.length <= self.frame_bytes
            && head.check(self.direction).is_ok()
            && head.flags & !allowed_flags(head.kind) == 0
    }
}

/// Whether a chain is plausible at its start; for the first bytes of a flow that was joined.
#[must_use]
pub fn looks_like_frames(bytes: &[u8], direction: Direction) -> bool {
    let resync = Resync::new(direction, None);
    let (mut rest, mut block) = (bytes, None);
    let mut heads = 0_u32;
    while let Some((octets, tail)) = rest.split_first_chunk::<FRAME_HEAD_BYTES>() {
        let head = FrameHead::parse(octets);
        let unknown_start = heads == 0 && matches!(head.kind, FrameKind::Unknown(_));
        if unknown_start || !resync.is_plausible(head) || (heads > 0 && !follows(block, head)) {
            return false;
        }
        heads = heads.saturating_add(1);
        block = open_block(head);
        rest = tail.get(head.length as usize..).unwrap_or_default();
    }
    heads > 0
}

/// A header block must not be interrupted (RFC 9113, 6.10). A chain that begins in the middle of one, or
/// met another, does not know of it.
fn follows(open_block: Option<StreamId>, head: FrameHead) -> bool {
    match open_block {
        Some(stream) => head.kind == FrameKind::Continuation && head.stream == stream,
        None => true,
    }
}

fn open_block(head: FrameHead) -> Option<StreamId> {
    let begins = matches!(head.kind, FrameKind::Headers | FrameKind::PushPromise | FrameKind::Continuation);
    (begins && !head.has(flag::END_HEADERS)).then_some(head.stream)
}

fn end_of(place: u64, head: FrameHead) -> u64 {
    place.saturating_add(FRAME_HEAD_BYTES as u64).saturating_add(u64::from(head.length))
}

fn allowed_flags(kind: FrameKind) -> u8 {
    match kind {
        FrameKind::Data => flag::END_STREAM | flag::PADDED,
        FrameKind::Headers => flag::END_STREAM | flag::END_HEADERS | flag::PADDED | flag::PRIORITY,
        FrameKind::PushPromise => flag::END_HEADERS | flag::PADDED,
        FrameKind::Continuation => flag::END_HEADERS,
        FrameKind::Settings | FrameKind::Ping => flag::ACK,
        FrameKind::Priority | FrameKind::RstStream | FrameKind::GoAway | FrameKind::WindowUpdate => 0,
        FrameKind::Unknown(_) => u8::MAX,
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]
mod tests {
    use super::*;

    fn frame(kind: u8, stream: u8, payload: usize) -> Vec<u8> {
        let length = (payload as u32).to_be_bytes();
        [&length[1..], &[kind, 0, 0, 0, 0, stream], &vec![0xee; payload]].concat()
    }

    /// Where the first proven header ends, given pieces of this size.
    fn proven_at(bytes: &[u8], piece_bytes: usize) -> Option<usize> {
        let mut resync = Resync::new(Direction::Request, None);
        let mut given = 0;
        for piece in bytes.chunks(piece_bytes) {
            if let Some(proof) = resync.feed(piece) {
                return Some(given + proof.consumed);
            }
            given += piece.len();
        }
        None
    }

    #[test]
    fn first_header_behind_the_window_is_proven_however_the_bytes_come() {
        let window = DEFAULT_FRAME_BYTES as usize + WINDOW_EXTRA_BYTES as usize;
        let stream: Vec<u8> = (0..40).flat_map(|_| frame(0, 1, 1000)).collect();
        let behind = |joined: usize| {
            let mut starts = (0..40).map(|number| number * 1009).filter(|start| *start >= joined);
            starts.find(|start| start - joined >= window).expect("enough frames") + 9 - joined
        };
        for piece_bytes in [1, 2, 8, 9, 10, 17, 1000, 1009, 50_000] {
            assert_eq!(proven_at(&stream, piece_bytes), Some(behind(0)), "{piece_bytes}");
        }
        // Joined inside a payload.
        assert_eq!(proven_at(&stream[500..], 1448), Some(behind(500)));
    }

    #[test]
    fn nothing_is_proven_while_two_chains_live() {
        // The outer frames hold inner ones that outlive the window by predicting every boundary.
        let inner = frame(0, 3, 16_384);
        let outer = [&frame(0, 1, 16_384)[..9], &inner[..16_384]].concat();
        let two: Vec<u8> = [&outer[5000..], &outer.repeat(4)].concat();
        let mut resync = Resync::new(Direction::Request, None);
        assert_eq!(resync.feed(&two), None);
    }

    #[test]
    fn chain_that_dies_at_a_true_header_does_not_hide_it() {
        // Each body holds one chain that lives over all true boundaries, and one that wants a CONTINUATION at the
        // next of them.
        let mut killer = frame(1, 3, 7000);
        killer.truncate(9);
        let filler = |bytes: usize| vec![0xee; bytes];
        let inner = &frame(0, 5, 16_384)[..9];
        // 16,384 octets: the inner header 5,000 from the start, and the killer's 7,009 from the end.
        let gap = filler(16_384 - 5000 - 9 - 7009);
        let body = [&filler(5000)[..], inner, &gap, &killer, &filler(7000)].concat();
        let outer = [&frame(0, 1, 16_384)[..9], &body].concat();
        assert_eq!(outer.len(), 16_393);
        let two: Vec<u8> = [&outer[2000..], &outer.repeat(6)].concat();
        for piece_bytes in [1448, 100_000] {
            assert_eq!(proven_at(&two, piece_bytes), None);
        }
    }

    #[test]
    fn more_chains_than_the_bound_start_the_window_anew() {
        let mut resync = Resync::new(Direction::Request, None);
        // Overlapping plausible headers with large payloads.
        let noise: Vec<u8> =
            (0..MAX_CHAINS + 10).flat_map(|_| [&frame(0, 1, 9000)[..9], &[1]].concat()).collect();
        assert_eq!(resync.feed(&noise), None);
        assert_eq!(resync.chains.len(), MAX_CHAINS);
        assert!(resync.window_start > 9000);
        assert!(resync.allocated_bytes() < 10_000);
    }

    #[test]
    fn random_bytes_hold_no_chain() {
        let mut state = 1_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .take(2_000_000)
        .collect();
        assert_eq!(proven_at(&noise, 65_536), None);
    }
}
