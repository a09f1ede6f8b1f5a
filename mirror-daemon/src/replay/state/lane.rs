//! What waits for connections of one version of HTTP, and those connections.

use super::SeatId;
use crate::replay::job::Job;
use std::collections::{HashMap, VecDeque};
use std::task::Waker;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// Most connections that are being opened at once; below it, as many as there are open ones, so that a burst
/// doubles them step by step.
const MAX_CONNECTING: usize = 8;

/// Over which version of HTTP a request goes: that of its head's form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::replay) enum Lane {
    /// One request at a time on each connection.
    Http1,
    /// Many streams on each connection.
    Http2,
}

impl Lane {
    pub(super) const fn other(self) -> Self {
        match self {
            Self::Http1 => Self::Http2,
            Self::Http2 => Self::Http1,
        }
    }
}

/// The queue and the seats of one lane.
#[derive(Debug, Default)]
pub(super) struct LaneState {
    pub(super) queue: VecDeque<Job>,
    pub(super) seats: HashMap<SeatId, Option<AbortHandle>>,
    /// Seats whose connection is being made.
    pub(super) connecting: usize,
    /// Seats whose connection takes no more requests, and ends when those it has have ended.
    pub(super) leaving: usize,
    /// Seats that were woken and have not stood up yet.
    pub(super) woken: usize,
    pub(super) idle: Vec<(SeatId, Waker)>,
    pub(super) no_opening_before: Option<Instant>,
}

impl LaneState {
    /// Connections that take requests.
    pub(super) fn serving(&self) -> usize {
        self.seats.len().saturating_sub(self.connecting).saturating_sub(self.leaving)
    }

    /// A seat will look at the queue without being asked, or can be woken to do so.
    pub(super) fn has_taker(&self) -> bool {
        self.woken > 0 || !self.idle.is_empty()
    }

    /// Whether enough seats are on their way for all that waits.
    pub(super) fn is_attended(&self, lane: Lane) -> bool {
        match lane {
            Lane::Http1 => self.queue.len() <= self.woken,
            // One seat takes all it has room for.
            Lane::Http2 => self.queue.is_empty() || self.woken > 0,
        }
    }

    /// Whether what waits is reason to open one more connection, as far as this lane can tell.
    pub(super) fn wants_opening(&self, lane: Lane, now: Instant) -> bool {
        let serving = self.serving();
        let is_enough = match lane {
            // A connection that is being made will take one request, too; but nobody idle waits for it.
            Lane::Http1 => {
                self.queue.len() <= self.woken.saturating_add(self.connecting)
                    || self.connecting >= serving.clamp(1, MAX_CONNECTING)
            }
            Lane::Http2 => self.connecting > 0,
        };
        let is_paused = serving > 0 && self.no_opening_before.is_some_and(|until| now < until);
        !is_enough && !is_paused
    }

    /// The seat no longer sits among the idle; false when it was woken before.
    pub(super) fn take_from_idle(&mut self, seat: SeatId) -> bool {
        let place = self.idle.iter().position(|(id, _)| *id == seat);
        place.map(|place| self.idle.remove(place)).is_some()
    }
}
