//! One direction, put in order.

use super::counters::{add_bytes, increment};
use super::piece::{Piece, Placed};
use super::reorder::{ReorderBuffer, Stored};
use super::window::{MAX_AHEAD_BYTES, Place, Window};
use super::{Chunk, Direction, FlowCounters, FlowEvent, FlowLimits, GapCause, SeqNumber, Timestamp};

/// What one call works with: the table's bounds and counters, the time, and where events go.
pub(super) struct Out<'a> {
    pub(super) limits: &'a FlowLimits,
    pub(super) counters: &'a mut FlowCounters,
    pub(super) now: Timestamp,
    pub(super) emit: &'a mut dyn FnMut(FlowEvent<'_>),
}

/// Where a direction starts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    /// Which direction.
    pub(super) direction: Direction,
    /// Place of the first byte.
    pub(super) first: SeqNumber,
    /// Its SYN was seen, or the SYN-ACK that answered it.
    pub(super) from_syn: bool,
}

/// ```text
///           open_gate              all bytes before the FIN yielded
/// Gated ───────────────▶ Flowing ──────────────────────────────────▶ Finished
/// keeps, yields nothing
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Not yet known to be the gateway's: bytes are kept, nothing is yielded.
    Gated,
    /// Bytes are yielded as soon as they are in order.
    Flowing,
    /// The FIN was reached.
    Finished,
}

/// Puts the bytes of one direction in order. The first copy of a byte wins.
#[derive(Debug)]
pub(super) struct Assembler {
    origin: Origin,
    phase: Phase,
    /// The next byte to yield. Everything before it was yielded or given up.
    next: SeqNumber,
    /// The furthest place that a segment was seen to reach on the wire; not before `next`.
    seen_end: SeqNumber,
    /// Where the FIN is.
    fin: Option<SeqNumber>,
    /// Since when the byte at `next` is missing. `None`: nothing is.
    hole_since: Option<Timestamp>,
    window: Window,
    /// What lies behind the hole; all of it behind `next`.
    buffer: ReorderBuffer,
}

impl Assembler {
    pub(super) fn new(origin: Origin) -> Self {
        Self {
            origin,
            phase: Phase::Gated,
            next: origin.first,
            seen_end: origin.first,
            fin: None,
            hole_since: None,
            window: Window::default(),
            buffer: ReorderBuffer::default(),
        }
    }

    /// Starts to yield: what was kept so far, and from now on everything.
    pub(super) fn open_gate(&mut self, out: &mut Out<'_>) {
        if self.phase != Phase::Gated {
            return;
        }
        self.phase = Phase::Flowing;
        let Origin { direction, from_syn, .. } = self.origin;
        (out.emit)(FlowEvent::Opened { direction, joined: !from_syn });
        self.drain(out);
        self.settle(out);
    }

    /// Takes the captured piece of a segment, and its FIN if it has one.
    pub(super) fn handle_piece(&mut self, placed: &Placed<'_>, fin: bool, out: &mut Out<'_>) {
        let piece = placed.piece;
        match self.window.place(self.next, piece.start, piece.at_segment_start) {
            Place::Near => {}
            Place::Jumped if self.phase == Phase::Flowing => self.jump(piece.start, out),
            Place::Far | Place::Jumped => {
                increment(&mut out.counters.far_segments);
                add_bytes(&mut out.counters.dropped.far, piece.bytes.len());
                return;
            }
        }
        if fin {
            self.note_fin(placed.wire_end, out.counters);
        }
        if placed.wire_end.is_after(self.seen_end) {
            self.seen_end = placed.wire_end;
        }
        if !piece.bytes.is_empty() {
            self.accept(piece, out);
        } else if self.phase == Phase::Flowing && !placed.wire_start.is_after(self.next) {
            self.leave_out(placed.wire_end, out);
        }
        self.settle(out);
    }

    /// A record without bytes of a segment that had some: capture left them out on purpose, and nobody need wait
    /// for them. One that lies behind a hole waits for the hole's end like a lost segment.
    fn leave_out(&mut self, until: SeqNumber, out: &mut Out<'_>) {
        while until.is_after(self.next) {
            self.skip(earlier(self.buffer.first(), until), GapCause::Uncaptured, out);
        }
    }

    /// Takes what the peer says to have received: what is still missing before `ack` was lost here.
    pub(super) fn handle_ack(&mut self, ack: SeqNumber, out: &mut Out<'_>) {
        if self.phase != Phase::Flowing {
            return;
        }
        let target = match self.fin {
            // The FIN takes a place of its own (RFC 9293, 3.4), which is no byte.
            Some(fin) if ack.is_after(fin) => fin,
            _ => ack,
        };
        if !target.is_after(self.next) {
            return;
        }
        if target.since(self.next) > MAX_AHEAD_BYTES {
            increment(&mut out.counters.far_acks);
            return;
        }
        while target.is_after(self.next) {
            self.skip(earlier(self.buffer.first(), target), GapCause::Acknowledged, out);
        }
        self.settle(out);
    }

    /// When the hole at the stream's place is to be given up.
    pub(super) fn next_timeout(&self, limits: &FlowLimits) -> Option<Timestamp> {
        match self.phase {
            Phase::Flowing => Some(self.hole_since?.after(limits.hole_timeout)),
            Phase::Gated | Phase::Finished => None,
        }
    }

    /// Gives up the holes whose time is up.
    pub(super) fn handle_timeout(&mut self, out: &mut Out<'_>) {
        while self.next_timeout(out.limits).is_some_and(|due| due <= out.now) {
            self.give_up(out);
        }
    }

    /// Gives up every hole at once: nothing more will come.
    pub(super) fn handle_end(&mut self, out: &mut Out<'_>) {
        while self.phase == Phase::Flowing && self.hole_since.is_some() {
            self.give_up(out);
        }
    }

    /// The place that the stream has come to.
    pub(super) fn place(&self) -> SeqNumber {
        self.next
    }

    /// The furthest place seen on the wire.
    pub(super) fn seen_end(&self) -> SeqNumber {
        self.seen_end
    }

    pub(super) fn origin(&self) -> Origin {
        self.origin
    }

    pub(super) fn is_finished(&self) -> bool {
        self.phase == Phase::Finished
    }

    pub(super) fn buffer(&self) -> &ReorderBuffer {
        &self.buffer
    }

    /// Yields what is in order, keeps the rest. `piece` is near and not empty.
    fn accept(&mut self, piece: Piece<'_>, out: &mut Out<'_>) {
        let mut rest = self.without_bytes_beyond_fin(piece, out.counters);
        let (all, mut duplicate, mut kept) = (rest.len(), 0_u32, 0_u32);
        while !rest.bytes.is_empty() {
            let old = self.next.bytes_since(rest.start).min(rest.len());
            if old > 0 {
                duplicate = duplicate.saturating_add(old);
                (_, rest) = rest.split(old);
                continue;
            }
            if rest.start == self.next && self.phase == Phase::Flowing {
                rest = self.pass_on(rest, out);
                continue;
            }
            match self.buffer.store(&rest, out.limits) {
                Stored::Kept(bytes) => {
                    kept = kept.saturating_add(bytes);
                    (_, rest) = rest.split(bytes);
                }
                Stored::Duplicate(bytes) => {
                    duplicate = duplicate.saturating_add(bytes);
                    (_, rest) = rest.split(bytes);
                }
                Stored::Full if self.phase == Phase::Flowing => {
                    self.skip(earlier(self.buffer.first(), rest.start), GapCause::Overflow, out);
                }
                Stored::Full => {
                    add_bytes(&mut out.counters.dropped.gated, rest.bytes.len());
                    break;
                }
            }
        }
        count_copies(out.counters, all, duplicate, kept);
    }

    /// Yields the front of a piece that starts at the stream's place, and what it joins on to; gives back
    /// the rest of it.
    fn pass_on<'p>(&mut self, piece: Piece<'p>, out: &mut Out<'_>) -> Piece<'p> {
        let until = self.buffer.first().map_or(piece.len(), |first| first.start.bytes_since(piece.start));
        let (head, rest) = piece.split(until.min(piece.len()));
        self.emit(&head, out);
        self.drain(out);
        rest
    }

    fn without_bytes_beyond_fin<'p>(&self, piece: Piece<'p>, counters: &mut FlowCounters) -> Piece<'p> {
        let Some(fin) = self.fin else { return piece };
        let (before, beyond) = piece.split(fin.bytes_since(piece.start).min(piece.len()));
        add_bytes(&mut counters.dropped.beyond_fin, beyond.bytes.len());
        before
    }

    /// The first FIN counts, and only one that does not contradict the bytes seen.
    fn note_fin(&mut self, place: SeqNumber, counters: &mut FlowCounters) {
        match self.fin {
            Some(known) if known == place => {}
            None if !place.is_before(self.seen_end) => self.fin = Some(place),
            _ => increment(&mut counters.implausible_ends),
        }
    }

    /// Goes on at `start`, far away. All that was kept is yielded first.
    fn jump(&mut self, start: SeqNumber, out: &mut Out<'_>) {
        while let Some(first) = self.buffer.first().map(|first| first.start) {
            self.skip(first, GapCause::Jumped, out);
        }
        self.fin = None;
        self.skip(start, GapCause::Jumped, out);
        self.seen_end = self.next;
    }

    /// Gives up the hole at the stream's place.
    fn give_up(&mut self, out: &mut Out<'_>) {
        let until = earlier(self.buffer.first(), self.seen_end);
        self.skip(until, GapCause::Timeout, out);
        self.settle(out);
    }

    /// Yields the bytes up to `until` as a gap, and what was kept behind it.
    fn skip(&mut self, until: SeqNumber, cause: GapCause, out: &mut Out<'_>) {
        let (direction, start) = (self.origin.direction, self.next);
        // A jump's length is known only modulo 2^32, hence not `bytes_since`.
        let bytes = until.0.wrapping_sub(start.0);
        self.advance(until);
        if bytes > 0 {
            out.counters.gaps.add(cause, bytes);
            (out.emit)(FlowEvent::Gap { direction, start, bytes, cause });
        }
        self.drain(out);
    }

    /// Yields what was kept and is now in order.
    fn drain(&mut self, out: &mut Out<'_>) {
        while let Some(fragment) = self.buffer.take_at(self.next) {
            self.emit(&fragment.piece(), out);
        }
    }

    /// Yields a piece that starts at the stream's place.
    fn emit(&mut self, piece: &Piece<'_>, out: &mut Out<'_>) {
        add_bytes(&mut out.counters.forwarded_bytes, piece.bytes.len());
        (out.emit)(FlowEvent::Chunk(Chunk {
            direction: self.origin.direction,
            start: piece.start,
            at_segment_start: piece.at_segment_start,
            ack: piece.ack,
            at: piece.at,
            bytes: piece.bytes,
        }));
        self.advance(piece.start.add(piece.len()));
    }

    fn advance(&mut self, to: SeqNumber) {
        self.next = to;
        self.hole_since = None;
        if self.seen_end.is_before(to) {
            self.seen_end = to;
        }
    }

    /// After every change: is the direction finished, and is there a hole?
    fn settle(&mut self, out: &mut Out<'_>) {
        if self.phase == Phase::Flowing && self.fin.is_some_and(|fin| !self.next.is_before(fin)) {
            self.phase = Phase::Finished;
            add_bytes(&mut out.counters.dropped.beyond_fin, self.buffer.clear());
            (out.emit)(FlowEvent::Finished { direction: self.origin.direction });
        }
        let has_hole = self.phase == Phase::Flowing && self.next.is_before(self.seen_end);
        self.hole_since = match self.hole_since {
            _ if !has_hole => None,
            // The hole is as old as what waits behind it, so that later holes are not given more time.
            None => Some(self.buffer.first().map_or(out.now, |first| first.at.min(out.now))),
            since => since,
        };
    }
}

/// The start of the first kept run, or `place` when that is earlier.
fn earlier(first: Option<Piece<'_>>, place: SeqNumber) -> SeqNumber {
    match first {
        Some(first) if first.start.is_before(place) => first.start,
        _ => place,
    }
}

fn count_copies(counters: &mut FlowCounters, all: u32, duplicate: u32, kept: u32) {
    counters.duplicate_bytes = counters.duplicate_bytes.saturating_add(u64::from(duplicate));
    if duplicate > 0 && duplicate == all {
        increment(&mut counters.retransmitted_segments);
    } else if duplicate > 0 {
        increment(&mut counters.overlapping_segments);
    }
    if kept > 0 {
        increment(&mut counters.out_of_order_segments);
    }
}
