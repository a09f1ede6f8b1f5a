//! Slots: making, ending and freeing them, their order, their alarms and their memory.

use super::super::assembler::Out;
use super::super::connection::{Connection, Holding};
use super::super::counters::{add_bytes, increment};
use super::super::recency::Recency;
use super::super::timers::Alarm;
use super::super::{CloseCause, FlowEvent, FlowKey, Segment, TcpFlags, Timestamp};
use super::{Content, FlowTable, MAX_ACTIVITY_GRAIN, Slot, slot_mut, slot_ref};
use std::time::Duration;

impl<S: Default> FlowTable<S> {
    /// Calls `work` with a live connection and with where its events go.
    pub(super) fn with_connection<R>(
        &mut self,
        index: u32,
        on_event: &mut impl FnMut(&FlowKey, &mut S, FlowEvent<'_>),
        work: impl FnOnce(&mut Connection, &mut Out<'_>) -> R,
    ) -> Option<R> {
        let slot = slot_mut(&mut self.slots, index)?;
        let Content::Live(connection) = &mut slot.content else { return None };
        let (key, state) = (&slot.key, &mut slot.state);
        let mut out = Out {
            limits: &self.limits,
            counters: &mut self.counters,
            now: self.clock,
            emit: &mut |event| on_event(key, state, event),
        };
        Some(work(connection, &mut out))
    }

    /// A free slot for a new key, after making room for it. It is ended until [`start`](Self::start)ed.
    pub(super) fn add_slot(
        &mut self,
        key: FlowKey,
        on_event: &mut impl FnMut(&FlowKey, &mut S, FlowEvent<'_>),
    ) -> u32 {
        while self.index.len() >= self.limits.max_flows.max(1) {
            let lists = [&self.ended, &self.dispensable, &self.active];
            let Some(index) = lists.into_iter().find_map(Recency::first) else { break };
            if self.close(index, CloseCause::Evicted, on_event) {
                increment(&mut self.counters.evicted_for_flows);
            }
            self.remove_slot(index);
        }
        let slot = Slot {
            key,
            state: S::default(),
            content: Content::Ended,
            generation: 0,
            is_active: false,
            touched: self.clock,
            armed: None,
            holding: Holding::default(),
            selected_at: None,
        };
        let index = self.free.pop().unwrap_or_else(|| u32::try_from(self.slots.len()).unwrap_or(u32::MAX));
        match slot_mut(&mut self.slots, index) {
            Some(place) => *place = slot,
            None => self.slots.push(slot),
        }
        self.index.insert(key, index);
        index
    }

    /// Begins a flow in a slot whose last one is over. `first`: the segment that it begins with.
    pub(super) fn start(&mut self, index: u32, first: Option<&Segment<'_>>) {
        self.generations = self.generations.saturating_add(1);
        let Some(slot) = slot_mut(&mut self.slots, index) else { return };
        let is_gated = first.is_some_and(|segment| {
            // Said of this flow and not of an earlier one when it was said behind its first segment.
            let was_selected = slot.selected_at.is_some_and(|selected_at| selected_at >= segment.at);
            segment.selected == Some(false) && !was_selected
        });
        let gate_until = is_gated.then(|| self.clock.after(self.limits.select_timeout));
        slot.content = Content::Live(Connection::new(self.answers, gate_until));
        slot.generation = self.generations;
        slot.is_active = false;
        increment(&mut self.counters.flows_opened);
        if first.is_some_and(|segment| !segment.flags.contains(TcpFlags::SYN)) {
            increment(&mut self.counters.flows_joined);
        }
        self.move_to_end(index);
        self.arm(index);
    }

    /// The lifecycle hook named a flow the gateway's own.
    pub(super) fn select(
        &mut self,
        index: u32,
        at: Timestamp,
        on_event: &mut impl FnMut(&FlowKey, &mut S, FlowEvent<'_>),
    ) {
        let Some(slot) = slot_mut(&mut self.slots, index) else { return };
        slot.selected_at = Some(at);
        if matches!(slot.content, Content::Ignored) {
            self.start(index, None);
        }
        let over = self.with_connection(index, on_event, |connection, out| {
            connection.open_gate(out);
            connection.outcome()
        });
        self.after_change(index, over.flatten(), on_event);
    }

    /// The lifecycle hook saw a flow close.
    pub(super) fn close_later(
        &mut self,
        index: u32,
        at: Timestamp,
        on_event: &mut impl FnMut(&FlowKey, &mut S, FlowEvent<'_>),
    ) {
        let by = self.clock.after(self.limits.hole_timeout);
        let over = self.with_connection(index, on_event, |connection, out| {
            connection.handle_close(at, by, out);
            connection.outcome()
        });
        self.after_change(index, over.flatten(), on_event);
    }

    /// After every change of a live flow: is it over, what does it hold, when must it be woken?
    pub(super) fn after_change(
        &mut self,
        index: u32,
        over: Option<CloseCause>,
        on_event: &mut impl FnMut(&FlowKey, &mut S, FlowEvent<'_>),
    ) {
        if let Some(cause) = over {
            self.close(index, cause, on_event);
            return;
        }
        self.book_holding(index);
        self.arm(index);
        while self.held.allocated_bytes > self.limits.max_total_bytes {
            let Some(holder) = self.holders.first() else { break };
            if !self.close(holder, CloseCause::Evicted, on_event) {
                break;
            }
            increment(&mut self.counters.evicted_for_bytes);
        }
    }

    /// Ends a live flow, and remembers its key. False when it was not live.
    pub(super) fn close(
        &mut self,
        index: u32,
        cause: CloseCause,
        on_event: &mut impl FnMut(&FlowKey, &mut S, FlowEvent<'_>),
    ) -> bool {
        let Some(slot) = slot_mut(&mut self.slots, index) else { return false };
        if !matches!(slot.content, Content::Live(_)) {
            return false;
        }
        self.counters.closed.add(cause);
        on_event(&slot.key, &mut slot.state, FlowEvent::Closed(cause));
        slot.state = S::default();
        let content = if cause == CloseCause::NotGateway { Content::Ignored } else { Content::Ended };
        self.retire(index, content);
        true
    }

    /// Puts `content` in the place of a live connection, whose kept bytes are thus lost.
    pub(super) fn retire(&mut self, index: u32, content: Content) {
        let Some(slot) = slot_mut(&mut self.slots, index) else { return };
        if let Content::Live(connection) = &slot.content {
            add_bytes(&mut self.counters.dropped.discarded, connection.holding().payload_bytes);
        }
        slot.content = content;
        slot.armed = None;
        slot.is_active = false;
        self.book_holding(index);
        self.move_to_end(index);
    }

    /// Forgets the key of a flow that is not live.
    pub(super) fn remove_slot(&mut self, index: u32) {
        for list in [&mut self.ended, &mut self.dispensable, &mut self.active, &mut self.holders] {
            list.remove(index);
        }
        let Some(slot) = slot_mut(&mut self.slots, index) else { return };
        slot.generation = 0;
        if self.index.remove(&slot.key).is_some() {
            self.free.push(index);
        }
    }

    /// A flow has carried a request byte.
    pub(super) fn promote(&mut self, index: u32) {
        let Some(slot) = slot_mut(&mut self.slots, index) else { return };
        if let Content::Live(connection) = &slot.content
            && !slot.is_active
            && !connection.is_gated()
        {
            slot.is_active = true;
            self.move_to_end(index);
        }
    }

    /// A flow was active; moves it to the end of its list if it was last moved more than a grain ago.
    pub(super) fn touch(&mut self, index: u32) {
        let grain = MAX_ACTIVITY_GRAIN.min(self.limits.idle_timeout.checked_div(8).unwrap_or_default());
        let Some(slot) = slot_ref(&self.slots, index) else { return };
        if !matches!(slot.content, Content::Ended) && self.clock.since(slot.touched) > grain {
            self.move_to_end(index);
        }
    }

    /// The front of a list, when it was last touched `after` ago or longer.
    pub(super) fn front_due(&self, list: &Recency, after: Duration) -> Option<u32> {
        let index = list.first()?;
        let slot = slot_ref(&self.slots, index)?;
        (slot.touched.after(after) <= self.clock).then_some(index)
    }

    pub(super) fn handle_alarm(
        &mut self,
        alarm: Alarm,
        on_event: &mut impl FnMut(&FlowKey, &mut S, FlowEvent<'_>),
    ) {
        let Some(slot) = slot_mut(&mut self.slots, alarm.slot) else { return };
        if !slot.awaits(&alarm) {
            return;
        }
        slot.armed = None;
        let over =
            self.with_connection(alarm.slot, on_event, |connection, out| connection.handle_timeout(out));
        self.after_change(alarm.slot, over.flatten(), on_event);
    }

    /// Moves a slot to the end of the list that is its own now.
    fn move_to_end(&mut self, index: u32) {
        let Some(slot) = slot_mut(&mut self.slots, index) else { return };
        slot.touched = self.clock;
        let own = match &slot.content {
            Content::Ended => &mut self.ended,
            Content::Live(_) if slot.is_active => &mut self.active,
            Content::Live(_) | Content::Ignored => &mut self.dispensable,
        };
        if own.contains(index) {
            own.move_to_end(index);
            return;
        }
        for list in [&mut self.ended, &mut self.dispensable, &mut self.active] {
            list.remove(index);
        }
        match &slot.content {
            Content::Ended => self.ended.move_to_end(index),
            Content::Live(_) if slot.is_active => self.active.move_to_end(index),
            Content::Live(_) | Content::Ignored => self.dispensable.move_to_end(index),
        }
    }

    /// Sees to it that an alarm is set no later than the flow needs it. A later need waits for the alarm
    /// that is set already: it will be set anew when that one fires.
    fn arm(&mut self, index: u32) {
        let Some(slot) = slot_mut(&mut self.slots, index) else { return };
        let Content::Live(connection) = &slot.content else { return };
        let Some(due) = connection.next_timeout(&self.limits) else { return };
        if slot.armed.is_some_and(|armed| armed <= due) {
            return;
        }
        slot.armed = Some(due);
        let alarm = Alarm { due, slot: index, generation: slot.generation };
        let slots = &self.slots;
        let is_live = |alarm: &Alarm| slot_ref(slots, alarm.slot).is_some_and(|slot| slot.awaits(alarm));
        self.timers.push(alarm, self.index.len(), is_live);
    }

    fn book_holding(&mut self, index: u32) {
        let Some(slot) = slot_mut(&mut self.slots, index) else { return };
        let holding = match &slot.content {
            Content::Live(connection) => connection.holding(),
            Content::Ignored | Content::Ended => Holding::default(),
        };
        let before = std::mem::replace(&mut slot.holding, holding);
        if before == holding {
            return;
        }
        self.held = self.held.minus(before).plus(holding);
        if holding == Holding::default() {
            self.holders.remove(index);
        } else if before == Holding::default() {
            self.holders.move_to_end(index);
        }
    }
}

impl<S> Slot<S> {
    /// True when `alarm` is the one that was set last for the flow that is in this slot.
    fn awaits(&self, alarm: &Alarm) -> bool {
        self.generation == alarm.generation && self.armed == Some(alarm.due)
    }
}
