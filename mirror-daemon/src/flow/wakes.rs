//! When whose decoder wants to be woken.

use super::{FlowKey, Timestamp};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Most flows that are woken; others are not, and what their decoders hold ends with them.
const MAX_WAKES: usize = 65_536;

/// Flows by the time at which they want to be woken. Entries of flows that have gone, or want it no more, are found to be
/// stale when they are due. Whoever adds a flow again only behind its turn has one entry for each at most.
#[derive(Debug, Default)]
pub struct Wakes(BinaryHeap<Reverse<(Timestamp, FlowKey)>>);

impl Wakes {
    /// Wakes `flow` at `due`, if ever.
    pub fn add(&mut self, flow: &FlowKey, due: Option<Timestamp>) {
        if let Some(due) = due
            && self.0.len() < MAX_WAKES
        {
            self.0.push(Reverse((due, *flow)));
        }
    }

    /// When the next one is due.
    #[must_use]
    pub fn next_due(&self) -> Option<Timestamp> {
        self.0.peek().map(|Reverse((due, _))| *due)
    }

    /// Takes the next one that is due.
    pub fn take_due(&mut self, now: Timestamp) -> Option<FlowKey> {
        self.next_due().filter(|due| *due <= now)?;
        self.0.pop().map(|Reverse((_, flow))| flow)
    }
}
