//! When which flow wants to be woken: a heap whose entries are not taken out when they lose their meaning,
//! but skipped when they come up.

use super::Timestamp;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Entries without meaning that are put up with, beside as many again as there are flows.
const SLACK_ENTRIES: usize = 64;

/// A wish to be woken. Stale when its slot has been armed anew since, or holds another flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Alarm {
    /// When.
    pub(super) due: Timestamp,
    /// Which slot.
    pub(super) slot: u32,
    /// Which of the flows that the slot has held.
    pub(super) generation: u64,
}

/// Alarms by time.
#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<Alarm>>,
}

impl Timers {
    /// When the next alarm is due; it may be stale.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.heap.peek().map(|Reverse(alarm)| alarm.due)
    }

    /// Adds an alarm. When twice as many wait as there are `flows`, the stale ones are thrown out: one pass
    /// over all of them, paid for by the pushes since the last.
    pub(super) fn push(&mut self, alarm: Alarm, flows: usize, is_live: impl Fn(&Alarm) -> bool) {
        if self.heap.len() > flows.saturating_mul(2).saturating_add(SLACK_ENTRIES) {
            self.heap.retain(|Reverse(alarm)| is_live(alarm));
        }
        self.heap.push(Reverse(alarm));
    }

    /// Takes out the next alarm that is due.
    pub(super) fn pop_due(&mut self, now: Timestamp) -> Option<Alarm> {
        self.next_due().filter(|due| *due <= now)?;
        self.heap.pop().map(|Reverse(alarm)| alarm)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }
}
