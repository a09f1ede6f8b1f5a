//! All connections: finds the one of a segment, keeps them within their bounds, and lets them go.

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
mod upkeep;

use super::connection::{Connection, Holding};
use super::counters::{add_bytes, increment};
use super::recency::Recency;
use super::timers::Timers;
use super::{Answers, CloseCause, Direction, FlowCounters, FlowEvent, FlowKey, FlowLimits, Segment};
use super::{TcpFlags, Timestamp};
use siphasher::sip::SipHasher13;
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::time::Duration;

/// Coarsest grain of the order in which flows were last active.
const MAX_ACTIVITY_GRAIN: Duration = Duration::from_secs(1);

/// Seeds the hash of the table. Flow keys are chosen by whoever connects, so the seed must be secret and
/// the hash keyed (SipHash-1-3), or one could make all flows collide.
#[derive(Clone, Copy, Debug)]
pub struct HashSeed(pub [u64; 2]);

impl BuildHasher for HashSeed {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        let [first, second] = self.0;
        SipHasher13::new_with_keys(first, second)
    }
}

/// What the lifecycle hook tells of a connection of the gateway's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifecycle {
    /// It was opened.
    Opened,
    /// It was closed.
    Closed,
}

/// All flows of one pipeline thread, each with a state `S` of the caller's, so that a segment costs one
/// look-up: the state is made by `S::default()` at first sight, handed to the callback with every event, and
/// dropped after [`FlowEvent::Closed`].
///
/// Events are handed to a callback and not polled for. A chunk borrows the captured segment, or bytes that
/// are freed right behind it: to poll, one would have to copy them or to hold the table borrowed by a
/// lending iterator, which cannot give out `&mut S` beside it.
///
/// ```text
///                segment with bytes, SYN, or Lifecycle::Opened
///   (unknown) ─────────────────────────────────────────────────▶ live ──▶ Closed(..) ──▶ ended ──▶ (unknown)
///                      ▲                                          │                        │ ended_linger
///                      │ idle_timeout                             │ Closed(NotGateway),    │
///                      └───────────────────────── ignored ◀───────┘ ignore()               │
///                          SYN, selected, Opened: │ live again         SYN: live again ◀───┘
/// ```
///
/// An ended key is remembered for a moment, so that a retransmission does not look like a new flow; an
/// ignored one until it falls silent. Both are pushed out first when room is needed, then flows that have
/// not carried a request byte yet (a flood of SYNs can thus not push out the others), then the flow least
/// recently active. All these orders are linked lists through the slots; a flow is moved to the end of its
/// list at most once per grain (an eighth of `idle_timeout`, at most a second). Time that goes backwards
/// counts as none.
///
/// Time-outs cost nothing while they do not fire: idle flows are found at the front of the lists, holes in a
/// heap that has at most a few entries per flow.
#[derive(Debug)]
pub struct FlowTable<S> {
    limits: FlowLimits,
    answers: Answers,
    index: HashMap<FlowKey, u32, HashSeed>,
    slots: Vec<Slot<S>>,
    free: Vec<u32>,
    /// Ended flows, in order of their end.
    ended: Recency,
    /// Ignored flows, and live ones without a request byte so far, by activity.
    dispensable: Recency,
    /// Live flows that have carried requests, by activity.
    active: Recency,
    /// Flows that hold bytes out of order, those that have done so for longest first.
    holders: Recency,
    timers: Timers,
    counters: FlowCounters,
    held: Holding,
    clock: Timestamp,
    generations: u64,
}

#[derive(Debug)]
struct Slot<S> {
    key: FlowKey,
    state: S,
    content: Content,
    generation: u64,
    /// Has carried request bytes.
    is_active: bool,
    /// When it was last moved to the end of its list.
    touched: Timestamp,
    /// When its alarm is due.
    armed: Option<Timestamp>,
    holding: Holding,
    /// When the lifecycle hook last said that a connection with this key was opened.
    selected_at: Option<Timestamp>,
}

#[expect(clippy::large_enum_variant, reason = "nearly every slot is live; a box costs a look-up more")]
#[derive(Debug)]
enum Content {
    Live(Connection),
    Ignored,
    Ended,
}

impl<S: Default> FlowTable<S> {
    /// An empty table. `seed` must be random and secret.
    #[must_use]
    pub fn new(limits: FlowLimits, answers: Answers, seed: HashSeed) -> Self {
        Self {
            limits,
            answers,
            index: HashMap::with_hasher(seed),
            slots: Vec::new(),
            free: Vec::new(),
            ended: Recency::default(),
            dispensable: Recency::default(),
            active: Recency::default(),
            holders: Recency::default(),
            timers: Timers::default(),
            counters: FlowCounters::default(),
            held: Holding::default(),
            clock: Timestamp(0),
            generations: 0,
        }
    }

    /// Takes a segment, and yields what it puts in order. Bytes that are in order already are yielded from
    /// the segment itself; only bytes out of order are copied.
    ///
    /// Segments of one flow must come in the order in which the hook saw them: an acknowledgement that
    /// passes a hole is taken as proof that the bytes in it were lost on the way here.
    pub fn handle_segment(
        &mut self,
        segment: &Segment<'_>,
        on_event: &mut impl FnMut(&FlowKey, &mut S, FlowEvent<'_>),
    ) {
        self.tick(segment.at);
        increment(&mut self.counters.segments);
        add_bytes(&mut self.counters.received_bytes, segment.payload.len());
        let Some(index) = self.find(segment, on_event) else {
            // Without bytes or SYN: nothing begins with it.
            increment(&mut self.counters.stray_segments);
            return;
        };
        let Some(slot) = slot_mut(&mut self.slots, index) else { return };
        let lost = match &slot.content {
            Content::Live(_) => {
                self.handle_live_segment(index, segment, on_event);
                return;
            }
            Content::Ignored => &mut self.counters.dropped.ignored,
            Content::Ended => &mut self.counters.dropped.ended,
        };
        add_bytes(lost, segment.payload.len());
        self.touch(index);
    }

    /// Takes what the lifecycle hook saw at `at`. It may come before or after the segments of that time: a
    /// close leaves `hole_timeout` for what is still in the ring, and one older than the flow's SYN is of an
    /// earlier connection.
    pub fn handle_lifecycle(
        &mut self,
        key: &FlowKey,
        lifecycle: Lifecycle,
        at: Timestamp,
        on_event: &mut impl FnMut(&FlowKey, &mut S, FlowEvent<'_>),
    ) {
        self.tick(at);
        match (self.index.get(key).copied(), lifecycle) {
            (Some(index), Lifecycle::Opened) => self.select(index, at, on_event),
            (None, Lifecycle::Opened) => {
                let index = self.add_slot(*key, on_event);
                self.start(index, None);
                self.select(index, at, on_event);
            }
            (Some(index), Lifecycle::Closed) => self.close_later(index, at, on_event),
            (None, Lifecycle::Closed) => {}
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called next; `None` when there is nothing
    /// to wait for. May be earlier than needed.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Timestamp> {
        let front = |list: &Recency, after: Duration| {
            let slot = slot_ref(&self.slots, list.first()?)?;
            Some(slot.touched.after(after))
        };
        let idle = self.limits.idle_timeout;
        let fronts = [
            front(&self.ended, self.limits.ended_linger),
            front(&self.dispensable, idle),
            front(&self.active, idle),
        ];
        fronts.into_iter().chain([self.timers.next_due()]).flatten().min()
    }

    /// Gives up what has waited for too long, and forgets flows that are idle.
    pub fn handle_timeout(
        &mut self,
        now: Timestamp,
        on_event: &mut impl FnMut(&FlowKey, &mut S, FlowEvent<'_>),
    ) {
        self.tick(now);
        while let Some(alarm) = self.timers.pop_due(self.clock) {
            self.handle_alarm(alarm, on_event);
        }
        while let Some(index) = self.front_due(&self.ended, self.limits.ended_linger) {
            self.remove_slot(index);
        }
        let idle = self.limits.idle_timeout;
        let by_activity = |table: &Self| {
            let lists = [&table.dispensable, &table.active];
            lists.into_iter().find_map(|list| table.front_due(list, idle))
        };
        while let Some(index) = by_activity(self) {
            self.close(index, CloseCause::Idle, on_event);
            self.remove_slot(index);
        }
    }

    /// The capture is over: every hole is given up, and every flow closed.
    pub fn handle_end(&mut self, on_event: &mut impl FnMut(&FlowKey, &mut S, FlowEvent<'_>)) {
        let mut all: Vec<u32> = self.index.values().copied().collect();
        all.sort_unstable();
        for index in all {
            self.with_connection(index, on_event, |connection, out| connection.handle_end(out));
            self.close(index, CloseCause::CaptureEnded, on_event);
            self.remove_slot(index);
        }
    }

    /// Wants no more of a flow until a SYN or the lifecycle hook starts another with its key; gives back its
    /// state, without an event. To be called between events; later segments cost one look-up.
    pub fn ignore(&mut self, key: &FlowKey) -> Option<S> {
        let index = self.index.get(key).copied()?;
        let slot = slot_mut(&mut self.slots, index)?;
        let Content::Live(_) = slot.content else { return None };
        let state = std::mem::take(&mut slot.state);
        increment(&mut self.counters.closed.ignored);
        self.retire(index, Content::Ignored);
        Some(state)
    }

    /// The state of a live flow, for what happens to it between segments.
    pub fn state_mut(&mut self, key: &FlowKey) -> Option<&mut S> {
        let slot = slot_mut(&mut self.slots, *self.index.get(key)?)?;
        matches!(slot.content, Content::Live(_)).then_some(&mut slot.state)
    }

    /// What was counted so far.
    #[must_use]
    pub fn counters(&self) -> &FlowCounters {
        &self.counters
    }

    /// Keys that are known: live, ignored and just ended flows. At most `max_flows`.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// True when no key is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Payload bytes that wait behind holes or a gate.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.held.payload_bytes
    }

    /// Memory that these bytes take. At most `max_total_bytes` between calls.
    #[must_use]
    pub fn allocated_bytes(&self) -> usize {
        self.held.allocated_bytes
    }

    fn tick(&mut self, at: Timestamp) {
        self.clock = self.clock.max(at);
    }

    /// The slot of a segment, ready for it: made when a flow begins with it, renewed when another one does.
    fn find(
        &mut self,
        segment: &Segment<'_>,
        on_event: &mut impl FnMut(&FlowKey, &mut S, FlowEvent<'_>),
    ) -> Option<u32> {
        let syn = segment.flags.contains(TcpFlags::SYN);
        let Some(index) = self.index.get(&segment.key).copied() else {
            if !syn && segment.segment_bytes == 0 && segment.payload.is_empty() {
                return None;
            }
            let index = self.add_slot(segment.key, on_event);
            self.start(index, Some(segment));
            return Some(index);
        };
        let slot = slot_ref(&self.slots, index)?;
        let begins = match &slot.content {
            Content::Live(connection) => syn && connection.is_replaced_by(segment),
            Content::Ignored => syn || segment.selected == Some(true),
            Content::Ended => syn,
        };
        if begins {
            self.close(index, CloseCause::Reused, on_event);
            self.start(index, Some(segment));
        }
        Some(index)
    }

    fn handle_live_segment(
        &mut self,
        index: u32,
        segment: &Segment<'_>,
        on_event: &mut impl FnMut(&FlowKey, &mut S, FlowEvent<'_>),
    ) {
        let over =
            self.with_connection(index, on_event, |connection, out| connection.handle_segment(segment, out));
        if segment.direction == Direction::Request && !segment.payload.is_empty() {
            self.promote(index);
        }
        self.after_change(index, over.flatten(), on_event);
        self.touch(index);
    }
}

fn slot_ref<S>(slots: &[Slot<S>], index: u32) -> Option<&Slot<S>> {
    slots.get(usize::try_from(index).ok()?)
}

fn slot_mut<S>(slots: &mut [Slot<S>], index: u32) -> Option<&mut Slot<S>> {
    slots.get_mut(usize::try_from(index).ok()?)
}
