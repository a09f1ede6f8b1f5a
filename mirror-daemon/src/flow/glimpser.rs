//! One direction that is not put in order: only looked at as it passes.
//!
//! Of most segments only the beginning was copied. Where capture was told to copy more (HTTP/2 after a join), later
//! pieces follow the first one of their segment, and are yielded as they come.

use super::assembler::{Origin, Out, Phase};
use super::counters::{add_bytes, increment};
use super::piece::Placed;
use super::window::{Place, Window};
use super::{FlowEvent, Glimpse, SeqNumber};

/// Follows how far a direction has come, and yields the start of each segment that is new.
#[derive(Debug)]
pub(super) struct Glimpser {
    origin: Origin,
    phase: Phase,
    /// The furthest place seen.
    highest: SeqNumber,
    /// Where the segment starts that was yielded last; more pieces of it may come.
    current: Option<SeqNumber>,
    /// A FIN came while the gate was shut.
    fin_waits: bool,
    window: Window,
}

impl Glimpser {
    pub(super) fn new(origin: Origin) -> Self {
        Self {
            origin,
            phase: Phase::Gated,
            highest: origin.first,
            current: None,
            fin_waits: false,
            window: Window::default(),
        }
    }

    /// Starts to yield.
    pub(super) fn open_gate(&mut self, out: &mut Out<'_>) {
        if self.phase != Phase::Gated {
            return;
        }
        self.phase = Phase::Flowing;
        let Origin { direction, from_syn, .. } = self.origin;
        (out.emit)(FlowEvent::Opened { direction, joined: !from_syn });
        if self.fin_waits {
            self.finish(out);
        }
    }

    /// Takes the captured piece of a segment, and its FIN if it has one.
    pub(super) fn handle_piece(&mut self, placed: &Placed<'_>, fin: bool, out: &mut Out<'_>) {
        let piece = placed.piece;
        if self.window.place(self.highest, placed.wire_start, piece.at_segment_start) == Place::Far {
            increment(&mut out.counters.far_segments);
            add_bytes(&mut out.counters.dropped.far, piece.bytes.len());
            return;
        }
        // Behind a jump everything is ahead, however the numbers compare.
        let is_near = super::window::is_near(self.highest, placed.wire_start);
        let is_new = !is_near || placed.wire_end.is_after(self.highest);
        let is_rest = self.current == Some(placed.wire_start) && placed.wire_end == self.highest;
        if !piece.at_segment_start && is_rest && self.phase == Phase::Flowing {
            self.glimpse(placed, out);
        } else if !piece.at_segment_start {
            add_bytes(&mut out.counters.dropped.unglimpsed, piece.bytes.len());
        } else if self.phase == Phase::Gated {
            add_bytes(&mut out.counters.dropped.gated, piece.bytes.len());
        } else if self.phase == Phase::Finished {
            add_bytes(&mut out.counters.dropped.beyond_fin, piece.bytes.len());
        } else if is_new {
            self.glimpse(placed, out);
        } else {
            add_bytes(&mut out.counters.duplicate_bytes, piece.bytes.len());
            if !piece.bytes.is_empty() {
                increment(&mut out.counters.retransmitted_segments);
            }
        }
        if is_new {
            self.highest = placed.wire_end;
        }
        if fin && !placed.wire_end.is_before(self.highest) {
            self.finish(out);
        }
    }

    pub(super) fn highest(&self) -> SeqNumber {
        self.highest
    }

    pub(super) fn origin(&self) -> Origin {
        self.origin
    }

    pub(super) fn is_finished(&self) -> bool {
        self.phase == Phase::Finished
    }

    fn glimpse(&mut self, placed: &Placed<'_>, out: &mut Out<'_>) {
        self.current = Some(placed.wire_start);
        add_bytes(&mut out.counters.forwarded_bytes, placed.piece.bytes.len());
        (out.emit)(FlowEvent::Glimpse(Glimpse {
            start: placed.wire_start,
            offset_bytes: placed.piece.start.bytes_since(placed.wire_start),
            ack: placed.piece.ack,
            at: placed.piece.at,
            segment_bytes: placed.segment_bytes(),
            head: placed.piece.bytes,
        }));
    }

    fn finish(&mut self, out: &mut Out<'_>) {
        match self.phase {
            Phase::Gated => self.fin_waits = true,
            Phase::Finished => {}
            Phase::Flowing => {
                self.phase = Phase::Finished;
                (out.emit)(FlowEvent::Finished { direction: self.origin.direction });
            }
        }
    }
}
