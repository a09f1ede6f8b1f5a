//! PURE but for wakers. What one shadow's queue and connections are doing, and what to do next.
//!
//! Every connection task has a seat, which is in one of these places:
//!
//! ```text
//!   Connecting ──▶ Ready ──▶ Busy        Ready takes a request or sits down among the idle, under one lock
//!                  ▲  │ ▲      │
//!            woken │  ▼ └──────┘
//!                  Idle                  a stack: the one that was used last is woken first
//! ```
//!
//! Invariants: `connecting + woken + busy + idle <= seats`; the number of seats, and so of requests in
//! flight, never passes `max_connections` and `max_in_flight`; for one waiting request at most one seat is
//! woken or opened, and a seat that takes a request sees to the next one.

use super::breaker::{Admission, Breaker, Verdict};
use super::job::{Job, cost_bytes};
use super::rate::TokenBucket;
use super::{ShadowRequest, ShadowStatus};
use crate::config::ShadowConfig;
use crate::drop_reason::DropReason;
use crate::telemetry::ShadowLedger;
use std::collections::{HashMap, VecDeque};
use std::task::Waker;
use std::time::Duration;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// Most connections that are being opened at once; below it, as many as there are open ones, so that a burst
/// doubles them step by step.
const MAX_CONNECTING: usize = 8;
/// How long no more connections are opened after one failed while others work.
const OPENING_PAUSE: Duration = Duration::from_millis(250);

/// The number of a seat, never used twice.
pub(super) type SeatId = u64;

/// What the caller must do once the lock is released.
#[must_use]
#[derive(Debug)]
pub(super) enum Action {
    Nothing,
    Wake(Waker),
    Open(SeatId),
}

#[derive(Debug)]
pub(super) struct State {
    queue: VecDeque<Job>,
    queued_bytes: u64,
    seats: HashMap<SeatId, Option<AbortHandle>>,
    next_seat: SeatId,
    connecting: usize,
    woken: usize,
    busy: usize,
    idle: Vec<(SeatId, Waker)>,
    no_opening_before: Option<Instant>,
    breaker: Breaker,
    bucket: Option<TokenBucket>,
    closed: Option<DropReason>,
    /// Somebody waits for it to become quiet or deserted.
    is_watched: bool,
}

impl State {
    pub(super) fn new(config: &ShadowConfig, now: Instant) -> Self {
        Self {
            queue: VecDeque::new(),
            queued_bytes: 0,
            seats: HashMap::new(),
            next_seat: 0,
            connecting: 0,
            woken: 0,
            busy: 0,
            idle: Vec::new(),
            no_opening_before: None,
            breaker: Breaker::new(config.breaker),
            bucket: config.max_rps.map(|per_second| TokenBucket::new(per_second, now)),
            closed: None,
            is_watched: false,
        }
    }

    /// Queues a request; the newest is the one that is shed.
    ///
    /// # Errors
    /// Why it was not let in.
    pub(super) fn admit(
        &mut self,
        request: ShadowRequest,
        config: &ShadowConfig,
        now: Instant,
    ) -> Result<(), DropReason> {
        if let Some(reason) = self.closed {
            return Err(reason);
        }
        if self.breaker.refuses(now) {
            return Err(DropReason::BreakerOpen);
        }
        let queued_bytes = self.queued_bytes.saturating_add(cost_bytes(&request));
        if self.queue.len() as u64 >= u64::from(config.queue_items) || queued_bytes > config.queue_bytes {
            return Err(DropReason::QueueFull);
        }
        if self.bucket.as_mut().is_some_and(|bucket| !bucket.take(now)) {
            return Err(DropReason::RateLimited);
        }
        let is_probe = match self.breaker.admit(now) {
            Admission::Pass => false,
            Admission::Probe => true,
            Admission::Refuse => return Err(DropReason::BreakerOpen),
        };
        self.queued_bytes = queued_bytes;
        self.queue.push_back(Job::new(request, is_probe));
        Ok(())
    }

    /// Finds a taker for the oldest waiting request that has none yet: the hottest idle connection, else a
    /// new one within the limits.
    pub(super) fn dispatch(&mut self, config: &ShadowConfig, now: Instant) -> Action {
        if self.queue.len() <= self.woken || self.closed.is_some() {
            return Action::Nothing;
        }
        if let Some((_, waker)) = self.idle.pop() {
            self.woken = self.woken.saturating_add(1);
            return Action::Wake(waker);
        }
        // A connection that is being made will take one, too; but nobody idle waits for it.
        if self.queue.len() <= self.woken.saturating_add(self.connecting) {
            return Action::Nothing;
        }
        let most_seats = config.max_connections.min(config.max_in_flight).max(1);
        let established = self.established();
        let is_paused = established > 0 && self.no_opening_before.is_some_and(|until| now < until);
        let is_enough = self.connecting >= established.clamp(1, MAX_CONNECTING);
        if is_paused || is_enough || self.seats.len() as u64 >= u64::from(most_seats) {
            return Action::Nothing;
        }
        let seat = self.next_seat;
        self.next_seat = seat.wrapping_add(1);
        self.seats.insert(seat, None);
        self.connecting = self.connecting.saturating_add(1);
        Action::Open(seat)
    }

    /// A seat's connection stands.
    pub(super) fn handle_connected(&mut self) {
        self.connecting = self.connecting.saturating_sub(1);
    }

    /// A seat's connection could not be made. Without any other connection, the oldest waiting request pays
    /// for it. Returns the requests to book, each with its reason, and whether the breaker opened.
    pub(super) fn handle_connect_failed(
        &mut self,
        seat: SeatId,
        reason: DropReason,
        now: Instant,
    ) -> (Vec<(Job, DropReason)>, bool) {
        self.connecting = self.connecting.saturating_sub(1);
        self.seats.remove(&seat);
        let mut lost = Vec::new();
        if self.established() == 0 {
            lost.extend(self.pop().map(|job| (job, reason)));
        } else {
            self.no_opening_before = now.checked_add(OPENING_PAUSE);
        }
        let is_probe = lost.iter().any(|(job, _)| job.is_probe);
        let is_opened = self.breaker.handle_verdict(Verdict::Failure, is_probe, now);
        if is_opened {
            lost.extend(self.clear().map(|job| (job, DropReason::BreakerOpen)));
        }
        (lost, is_opened)
    }

    /// A ready seat takes the oldest request and is busy.
    pub(super) fn take(&mut self) -> Option<Job> {
        let job = self.pop()?;
        self.busy = self.busy.saturating_add(1);
        Some(job)
    }

    /// A ready seat sits down.
    pub(super) fn sit_down(&mut self, seat: SeatId, waker: Waker) {
        self.idle.push((seat, waker));
    }

    /// Whether `seat` still sits; its waker is kept up to date.
    pub(super) fn is_sitting(&mut self, seat: SeatId, waker: &Waker) -> bool {
        let place = self.idle.iter_mut().rev().find(|(id, _)| *id == seat);
        place.is_some_and(|(_, known)| {
            known.clone_from(waker);
            true
        })
    }

    /// A woken seat has stood up.
    pub(super) fn handle_woken(&mut self) {
        self.woken = self.woken.saturating_sub(1);
    }

    /// An idle or woken seat goes for good.
    pub(super) fn leave_idle(&mut self, seat: SeatId) {
        match self.idle.iter().position(|(id, _)| *id == seat) {
            Some(place) => drop(self.idle.remove(place)),
            None => self.handle_woken(),
        }
    }

    /// A busy seat is ready again.
    pub(super) fn handle_free(&mut self) {
        self.busy = self.busy.saturating_sub(1);
    }

    /// Takes in what a request said of the shadow; returns the requests that an opening breaker sheds.
    pub(super) fn handle_verdict(
        &mut self,
        verdict: Verdict,
        is_probe: bool,
        now: Instant,
    ) -> (Vec<Job>, bool) {
        let is_opened = self.breaker.handle_verdict(verdict, is_probe, now);
        if is_opened { (self.clear().collect(), true) } else { (Vec::new(), false) }
    }

    /// The task of `seat`, so that it can be ended. `false`: it must be ended now.
    pub(super) fn register_task(&mut self, seat: SeatId, task: &AbortHandle) -> bool {
        if let Some(slot) = self.seats.get_mut(&seat) {
            *slot = Some(task.clone());
        }
        self.closed.is_none()
    }

    /// A seat is gone.
    pub(super) fn forget(&mut self, seat: SeatId) {
        self.seats.remove(&seat);
    }

    /// Wakes every idle connection, so that each looks whether it may stay.
    pub(super) fn wake_all(&mut self) -> Vec<Waker> {
        self.woken = self.woken.saturating_add(self.idle.len());
        self.idle.drain(..).map(|(_, waker)| waker).collect()
    }

    /// No more requests, from now on. Returns what still waited, and the tasks to end.
    pub(super) fn close(&mut self, reason: DropReason) -> (Vec<Job>, Vec<AbortHandle>) {
        self.closed.get_or_insert(reason);
        (self.clear().collect(), self.seats.values().flatten().cloned().collect())
    }

    /// Why no more requests are let in.
    pub(super) const fn closed(&self) -> Option<DropReason> {
        self.closed
    }

    /// From now on, somebody wants to be told of [`news`](Self::has_news).
    pub(super) const fn watch(&mut self) {
        self.is_watched = true;
    }

    /// Whether somebody waits for what may have come about.
    pub(super) fn has_news(&self) -> bool {
        self.is_watched && (self.is_quiet() || self.is_deserted())
    }

    /// Something waits for a connection.
    pub(super) fn has_waiting(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Nothing waits and nothing is in flight.
    pub(super) fn is_quiet(&self) -> bool {
        self.queue.is_empty() && self.busy == 0
    }

    /// No connection task is left.
    pub(super) fn is_deserted(&self) -> bool {
        self.seats.is_empty()
    }

    pub(super) fn status(&self, name: &str) -> ShadowStatus {
        ShadowStatus {
            name: name.to_owned(),
            open_connections: self.established() as u64,
            connecting: self.connecting as u64,
            in_flight: self.busy as u64,
            queued_items: self.queue.len() as u64,
            queued_bytes: self.queued_bytes,
            breaker: self.breaker.state(),
        }
    }

    fn established(&self) -> usize {
        self.seats.len().saturating_sub(self.connecting)
    }

    fn pop(&mut self) -> Option<Job> {
        let job = self.queue.pop_front()?;
        self.queued_bytes = self.queued_bytes.saturating_sub(job.cost_bytes);
        Some(job)
    }

    fn clear(&mut self) -> impl Iterator<Item = Job> + '_ {
        self.queued_bytes = 0;
        self.queue.drain(..)
    }
}

impl ShadowLedger {
    pub(super) fn lost_all(&self, jobs: Vec<Job>, reason: DropReason) {
        jobs.iter().for_each(|_| self.lost(reason));
    }
}
