//! One connection: two directions, the gate before them, and how it ends.

use super::assembler::{Assembler, Origin, Out};
use super::counters::{add_bytes, increment};
use super::glimpser::Glimpser;
use super::piece::Placed;
use super::{Answers, CloseCause, Direction, FlowLimits, Segment, SeqNumber, TcpFlags, Timestamp};

/// Furthest that a RST may lie ahead of the bytes seen, as some of them may have been lost here: Linux's
/// largest receive window with usual settings (`net.ipv4.tcp_rmem`), rounded up.
const MAX_RESET_AHEAD_BYTES: i32 = 16 << 20;

/// Memory that a connection takes for bytes out of order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Holding {
    /// Bytes of the streams.
    pub(super) payload_bytes: usize,
    /// Bytes of memory.
    pub(super) allocated_bytes: usize,
}

impl Holding {
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            payload_bytes: self.payload_bytes.saturating_add(other.payload_bytes),
            allocated_bytes: self.allocated_bytes.saturating_add(other.allocated_bytes),
        }
    }

    pub(super) fn minus(self, other: Self) -> Self {
        Self {
            payload_bytes: self.payload_bytes.saturating_sub(other.payload_bytes),
            allocated_bytes: self.allocated_bytes.saturating_sub(other.allocated_bytes),
        }
    }
}

/// Whether the connection is known to be the gateway's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    /// It is, or there is no hook that would say so.
    Open,
    /// Not yet; until then it may still be said.
    Shut { until: Timestamp },
}

#[derive(Debug)]
enum Half {
    Unseen,
    Ordered(Assembler),
    Glimpsed(Glimpser),
}

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    request: Half,
    answer: Half,
    gate: Gate,
    /// The lifecycle hook said that it is over; what is still in the ring is waited for until then.
    close_by: Option<Timestamp>,
    /// When its SYN was captured.
    syn_at: Option<Timestamp>,
    answers: Answers,
}

impl Connection {
    /// A connection whose gate is open, or shut until `gate_until`.
    pub(super) fn new(answers: Answers, gate_until: Option<Timestamp>) -> Self {
        let gate = gate_until.map_or(Gate::Open, |until| Gate::Shut { until });
        Self { request: Half::Unseen, answer: Half::Unseen, gate, close_by: None, syn_at: None, answers }
    }

    /// True when `segment` is the SYN of another connection with the same addresses and ports.
    pub(super) fn is_replaced_by(&self, segment: &Segment<'_>) -> bool {
        segment.flags.contains(TcpFlags::SYN)
            && self.half(segment.direction).origin().is_some_and(|origin| {
                // A joined direction has no SYN to come: it is established.
                !origin.from_syn || origin.first != segment.seq.add(1)
            })
    }

    /// Takes a segment; says so when the connection is over.
    pub(super) fn handle_segment(&mut self, segment: &Segment<'_>, out: &mut Out<'_>) -> Option<CloseCause> {
        let Some(placed) = Placed::check(segment) else {
            increment(&mut out.counters.malformed_segments);
            add_bytes(&mut out.counters.dropped.malformed, segment.payload.len());
            return None;
        };
        if segment.selected != Some(false) {
            self.open_gate(out);
        }
        if segment.flags.contains(TcpFlags::RST) {
            return self.handle_reset(segment, out);
        }
        if segment.flags.contains(TcpFlags::SYN) {
            self.handle_syn(segment, out);
        }
        if segment.flags.contains(TcpFlags::ACK)
            && let Half::Ordered(peer) = self.half_mut(segment.direction.opposite())
        {
            // Before the bytes: who sent them had the other direction up to here by then.
            peer.handle_ack(segment.ack, out);
        }
        let fin = segment.flags.contains(TcpFlags::FIN);
        if segment.segment_bytes > 0 || fin {
            let first = placed.piece.start;
            self.see(Origin { direction: segment.direction, first, from_syn: false }, out);
            self.half_mut(segment.direction).handle_piece(&placed, fin, out);
        }
        self.outcome()
    }

    /// The lifecycle hook named this connection the gateway's own.
    pub(super) fn open_gate(&mut self, out: &mut Out<'_>) {
        if self.gate != Gate::Open {
            self.gate = Gate::Open;
            self.request.open_gate(out);
            self.answer.open_gate(out);
        }
    }

    /// The lifecycle hook saw it close at `at`; its last segments are waited for until `by`.
    pub(super) fn handle_close(&mut self, at: Timestamp, by: Timestamp, out: &mut Out<'_>) {
        if self.syn_at.is_some_and(|syn_at| syn_at > at) {
            // That was an earlier connection with the same addresses and ports.
            return;
        }
        self.open_gate(out);
        self.close_by.get_or_insert(by);
    }

    pub(super) fn next_timeout(&self, limits: &FlowLimits) -> Option<Timestamp> {
        let gate = match self.gate {
            Gate::Open => None,
            Gate::Shut { until } => Some(until),
        };
        let holes = [self.request.next_timeout(limits), self.answer.next_timeout(limits)];
        holes.into_iter().chain([gate, self.close_by]).flatten().min()
    }

    pub(super) fn handle_timeout(&mut self, out: &mut Out<'_>) -> Option<CloseCause> {
        if matches!(self.gate, Gate::Shut { until } if until <= out.now) {
            return Some(CloseCause::NotGateway);
        }
        if self.close_by.is_some_and(|by| by <= out.now) {
            self.handle_end(out);
            return Some(CloseCause::Finished);
        }
        for half in [&mut self.request, &mut self.answer] {
            if let Half::Ordered(assembler) = half {
                assembler.handle_timeout(out);
            }
        }
        self.outcome()
    }

    /// Gives up every hole: nothing more will come.
    pub(super) fn handle_end(&mut self, out: &mut Out<'_>) {
        for half in [&mut self.request, &mut self.answer] {
            if let Half::Ordered(assembler) = half {
                assembler.handle_end(out);
            }
        }
    }

    pub(super) fn holding(&self) -> Holding {
        let mut holding = Holding::default();
        for half in [&self.request, &self.answer] {
            if let Half::Ordered(assembler) = half {
                let buffer = assembler.buffer();
                holding = holding.plus(Holding {
                    payload_bytes: buffer.payload_bytes(),
                    allocated_bytes: buffer.allocated_bytes(),
                });
            }
        }
        holding
    }

    /// True when nobody has yet said whose connection this is.
    pub(super) fn is_gated(&self) -> bool {
        self.gate != Gate::Open
    }

    /// Whether both directions have come to their end.
    pub(super) fn outcome(&self) -> Option<CloseCause> {
        let is_over = self.request.is_finished() && self.answer.is_finished();
        is_over.then_some(CloseCause::Finished)
    }

    fn handle_syn(&mut self, segment: &Segment<'_>, out: &mut Out<'_>) {
        let direction = segment.direction;
        if self.half(direction).origin().is_some() {
            increment(&mut out.counters.repeated_syns);
            return;
        }
        if segment.flags.contains(TcpFlags::ACK) {
            // A SYN-ACK names the place of the other direction's first byte, should its SYN be lost.
            let first = segment.ack;
            self.see(Origin { direction: direction.opposite(), first, from_syn: true }, out);
        }
        self.syn_at.get_or_insert(segment.at);
        self.see(Origin { direction, first: segment.seq.add(1), from_syn: true }, out);
    }

    fn handle_reset(&self, segment: &Segment<'_>, out: &mut Out<'_>) -> Option<CloseCause> {
        add_bytes(&mut out.counters.dropped.ended, segment.payload.len());
        if self.half(segment.direction).may_reset(segment.seq) {
            return Some(CloseCause::Reset);
        }
        increment(&mut out.counters.implausible_ends);
        None
    }

    /// Begins a direction that was not seen before.
    fn see(&mut self, origin: Origin, out: &mut Out<'_>) {
        let ordered = origin.direction == Direction::Request || self.answers == Answers::Assembled;
        let is_open = self.gate == Gate::Open;
        let half = self.half_mut(origin.direction);
        if matches!(half, Half::Unseen) {
            *half = if ordered {
                Half::Ordered(Assembler::new(origin))
            } else {
                Half::Glimpsed(Glimpser::new(origin))
            };
            if is_open {
                half.open_gate(out);
            }
        }
    }

    fn half(&self, direction: Direction) -> &Half {
        match direction {
            Direction::Request => &self.request,
            Direction::Answer => &self.answer,
        }
    }

    fn half_mut(&mut self, direction: Direction) -> &mut Half {
        match direction {
            Direction::Request => &mut self.request,
            Direction::Answer => &mut self.answer,
        }
    }
}

impl Half {
    fn origin(&self) -> Option<Origin> {
        match self {
            Self::Unseen => None,
            Self::Ordered(assembler) => Some(assembler.origin()),
            Self::Glimpsed(glimpser) => Some(glimpser.origin()),
        }
    }

    fn open_gate(&mut self, out: &mut Out<'_>) {
        match self {
            Self::Unseen => {}
            Self::Ordered(assembler) => assembler.open_gate(out),
            Self::Glimpsed(glimpser) => glimpser.open_gate(out),
        }
    }

    fn handle_piece(&mut self, placed: &Placed<'_>, fin: bool, out: &mut Out<'_>) {
        match self {
            Self::Unseen => {}
            Self::Ordered(assembler) => assembler.handle_piece(placed, fin, out),
            Self::Glimpsed(glimpser) => glimpser.handle_piece(placed, fin, out),
        }
    }

    fn next_timeout(&self, limits: &FlowLimits) -> Option<Timestamp> {
        match self {
            Self::Ordered(assembler) => assembler.next_timeout(limits),
            Self::Unseen | Self::Glimpsed(_) => None,
        }
    }

    fn is_finished(&self) -> bool {
        match self {
            Self::Unseen => false,
            Self::Ordered(assembler) => assembler.is_finished(),
            Self::Glimpsed(glimpser) => glimpser.is_finished(),
        }
    }

    /// Whether a RST at `seq` can be true. The receiver asks for its exact place (RFC 5961, 3.2); a passive
    /// reader may have lost what came before it.
    fn may_reset(&self, seq: SeqNumber) -> bool {
        let (place, seen_end) = match self {
            Self::Unseen => return true,
            Self::Ordered(assembler) => (assembler.place(), assembler.seen_end()),
            Self::Glimpsed(glimpser) => (glimpser.highest(), glimpser.highest()),
        };
        // One before is where a keep-alive probe, and what answers it, would be.
        !seq.is_before(place.sub(1)) && seq.since(seen_end) <= MAX_RESET_AHEAD_BYTES
    }
}
