//! PURE but for wakers. What one shadow's queues and connections are doing, and what to do next.
//!
//! Every connection task has a seat, in the lane of its version of HTTP, which is in one of these places:
//!
//! ```text
//!   Connecting ──▶ Ready ──▶ Busy        Ready takes a request or sits down among the idle, under one lock
//!                  ▲  │ ▲      │
//!            woken │  ▼ └──────┘
//!                  Idle                  a stack: the one that was used last is woken first
//! ```
//!
//! A seat of HTTP/2 takes as many requests as its connection has streams for; while it has room for more it is
//! among the idle, busy or not.
//!
//! Shared by both lanes: the bound on what waits, the requests in flight, the rate, the breaker. The last free
//! place in flight goes to the lane whose oldest request is the older one, if a connection there can take it.
//!
//! Bytes are held from when a request is let in until it is booked: a shadow that takes requests and does not answer
//! holds no more than one that takes none.
//!
//! Invariants: in each lane `connecting + leaving + woken + idle <= seats`; `in_flight <= max_in_flight`;
//! connections never pass `max_connections`, but for one: a lane without any that serves may open one. HTTP/1
//! wakes or opens at most one seat for one waiting request, HTTP/2 one for all that wait; a seat that takes a
//! request sees to the next one.

mod lane;

pub(super) use lane::Lane;

use super::breaker::{Admission, Breaker, Verdict};
use super::job::{Job, cost_bytes};
use super::rate::TokenBucket;
use super::{ShadowRequest, ShadowStatus};
use crate::config::ShadowConfig;
use crate::drop_reason::DropReason;
use crate::telemetry::ShadowLedger;
use lane::LaneState;
use std::task::Waker;
use std::time::Duration;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// How long no more connections are opened after one failed while others work.
const OPENING_PAUSE: Duration = Duration::from_millis(250);

/// The number of a seat, never used twice.
pub(super) type SeatId = u64;

/// What the caller must do once the lock is released, for each lane.
#[must_use]
#[derive(Debug)]
pub(super) struct Actions(pub(super) [Action; 2]);

impl Actions {
    /// Nothing to do.
    pub(super) const NONE: Self = Self([Action::Nothing, Action::Nothing]);
}

/// What the caller must do for one lane.
#[derive(Debug)]
pub(super) enum Action {
    Nothing,
    Wake(Waker),
    Open(Lane, SeatId),
}

#[derive(Debug)]
pub(super) struct State {
    http1: LaneState,
    http2: LaneState,
    /// Of the requests that wait and of those in flight.
    held_bytes: u64,
    next_job: u64,
    next_seat: SeatId,
    in_flight: usize,
    breaker: Breaker,
    bucket: Option<TokenBucket>,
    closed: Option<DropReason>,
    /// Somebody waits for it to become quiet or deserted.
    is_watched: bool,
}

impl State {
    pub(super) fn new(config: &ShadowConfig, now: Instant) -> Self {
        Self {
            http1: LaneState::default(),
            http2: LaneState::default(),
            held_bytes: 0,
            next_job: 0,
            next_seat: 0,
            in_flight: 0,
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
        let held_bytes = self.held_bytes.saturating_add(cost_bytes(&request));
        if self.queued_items() as u64 >= u64::from(config.queue_items) || held_bytes > config.queue_bytes {
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
        self.held_bytes = held_bytes;
        let number = self.next_job;
        self.next_job = number.wrapping_add(1);
        let job = Job::new(request, number, is_probe);
        self.lane(job.lane()).queue.push_back(job);
        Ok(())
    }

    /// Finds takers for what waits in both lanes.
    pub(super) fn dispatch(&mut self, config: &ShadowConfig, now: Instant) -> Actions {
        if self.http1.queue.is_empty() && self.http2.queue.is_empty() {
            return Actions::NONE;
        }
        Actions([self.dispatch_lane(Lane::Http1, config, now), self.dispatch_lane(Lane::Http2, config, now)])
    }

    /// Finds a taker for the oldest waiting request of a lane that has none yet: the hottest idle connection,
    /// else a new one within the limits.
    fn dispatch_lane(&mut self, lane: Lane, config: &ShadowConfig, now: Instant) -> Action {
        let next_seat = self.next_seat;
        let is_takable = self.closed.is_none() && self.may_take(lane, config);
        let seats = self.http1.seats.len().saturating_add(self.http2.seats.len()) as u64;
        let here = self.lane(lane);
        if !is_takable || here.is_attended(lane) {
            return Action::Nothing;
        }
        if let Some((_, waker)) = here.idle.pop() {
            here.woken = here.woken.saturating_add(1);
            return Action::Wake(waker);
        }
        let is_first = here.serving() == 0 && here.connecting == 0;
        let has_place = seats < u64::from(config.max_connections)
            && here.seats.len() as u64 <= u64::from(config.max_in_flight).saturating_sub(1);
        if !here.wants_opening(lane, now) || !(has_place || is_first) {
            return Action::Nothing;
        }
        here.seats.insert(next_seat, None);
        here.connecting = here.connecting.saturating_add(1);
        self.next_seat = next_seat.wrapping_add(1);
        Action::Open(lane, next_seat)
    }

    /// Whether a request of `lane` may be in flight now; see the module's words on the last free place.
    fn may_take(&self, lane: Lane, config: &ShadowConfig) -> bool {
        let most = usize::try_from(config.max_in_flight).unwrap_or(usize::MAX).max(1);
        let free = most.saturating_sub(self.in_flight);
        if free != 1 {
            return free > 0;
        }
        let (here, there) = (self.lane_ref(lane), self.lane_ref(lane.other()));
        match (here.queue.front(), there.queue.front()) {
            (Some(own), Some(other)) => own.number < other.number || !there.has_taker(),
            _ => true,
        }
    }

    /// A seat's connection stands.
    pub(super) fn handle_connected(&mut self, lane: Lane) {
        let here = self.lane(lane);
        here.connecting = here.connecting.saturating_sub(1);
    }

    /// A seat's connection could not be made. Without any other connection, the oldest waiting request pays
    /// for it. Returns the requests to book, each with its reason, and whether the breaker opened.
    pub(super) fn handle_connect_failed(
        &mut self,
        lane: Lane,
        seat: SeatId,
        reason: DropReason,
        now: Instant,
    ) -> (Vec<(Job, DropReason)>, bool) {
        self.handle_connected(lane);
        self.forget(lane, seat);
        let mut lost = Vec::new();
        if self.lane(lane).serving() == 0 {
            lost.extend(self.pop(lane).map(|job| (job, reason)));
        } else {
            self.lane(lane).no_opening_before = now.checked_add(OPENING_PAUSE);
        }
        let is_probe = lost.iter().any(|(job, _)| job.is_probe);
        let is_opened = self.breaker.handle_verdict(Verdict::Failure(reason.label()), is_probe, now);
        if is_opened {
            lost.extend(self.clear().map(|job| (job, DropReason::BreakerOpen)));
        }
        (lost, is_opened)
    }

    /// A ready seat takes the oldest request of its lane, if one more may be in flight.
    pub(super) fn take(&mut self, lane: Lane, config: &ShadowConfig) -> Option<Job> {
        if !self.may_take(lane, config) {
            return None;
        }
        let job = self.lane(lane).queue.pop_front()?;
        self.in_flight = self.in_flight.saturating_add(1);
        Some(job)
    }

    /// A request that was in flight waits again, before all others, for another connection. Not for a state that
    /// is closed.
    pub(super) fn put_back(&mut self, job: Job) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.lane(job.lane()).queue.push_front(job);
    }

    /// A ready seat sits down.
    pub(super) fn sit_down(&mut self, lane: Lane, seat: SeatId, waker: Waker) {
        self.lane(lane).idle.push((seat, waker));
    }

    /// Whether `seat` still sits; its waker is kept up to date.
    pub(super) fn is_sitting(&mut self, lane: Lane, seat: SeatId, waker: &Waker) -> bool {
        let place = self.lane(lane).idle.iter_mut().rev().find(|(id, _)| *id == seat);
        place.is_some_and(|(_, known)| {
            known.clone_from(waker);
            true
        })
    }

    /// A woken seat has stood up.
    pub(super) fn handle_woken(&mut self, lane: Lane) {
        let here = self.lane(lane);
        here.woken = here.woken.saturating_sub(1);
    }

    /// An idle or woken seat stands up.
    pub(super) fn leave_idle(&mut self, lane: Lane, seat: SeatId) {
        if !self.lane(lane).take_from_idle(seat) {
            self.handle_woken(lane);
        }
    }

    /// A seat that is neither idle nor woken takes no more requests from now on.
    pub(super) fn handle_leaving(&mut self, lane: Lane) {
        let here = self.lane(lane);
        here.leaving = here.leaving.saturating_add(1);
    }

    /// A leaving seat is about to go.
    pub(super) fn handle_left(&mut self, lane: Lane) {
        let here = self.lane(lane);
        here.leaving = here.leaving.saturating_sub(1);
    }

    /// A request in flight, of this weight, has come to its end.
    pub(super) fn handle_free(&mut self, cost_bytes: u64) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.held_bytes = self.held_bytes.saturating_sub(cost_bytes);
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
    pub(super) fn register_task(&mut self, lane: Lane, seat: SeatId, task: &AbortHandle) -> bool {
        if let Some(slot) = self.lane(lane).seats.get_mut(&seat) {
            *slot = Some(task.clone());
        }
        self.closed.is_none()
    }

    /// A seat is gone.
    pub(super) fn forget(&mut self, lane: Lane, seat: SeatId) {
        self.lane(lane).seats.remove(&seat);
    }

    /// Wakes every idle connection, so that each looks whether it may stay.
    pub(super) fn wake_all(&mut self) -> Vec<Waker> {
        let wake_lane = |lane: &mut LaneState| {
            lane.woken = lane.woken.saturating_add(lane.idle.len());
            std::mem::take(&mut lane.idle)
        };
        let woken = [wake_lane(&mut self.http1), wake_lane(&mut self.http2)];
        woken.into_iter().flatten().map(|(_, waker)| waker).collect()
    }

    /// No more requests, from now on. Returns what still waited, and the tasks to end.
    pub(super) fn close(&mut self, reason: DropReason) -> (Vec<Job>, Vec<AbortHandle>) {
        self.closed.get_or_insert(reason);
        let waiting = self.clear().collect();
        let seats = self.http1.seats.values().chain(self.http2.seats.values());
        (waiting, seats.flatten().cloned().collect())
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

    /// Something waits for a connection of this lane.
    pub(super) fn has_waiting(&self, lane: Lane) -> bool {
        !self.lane_ref(lane).queue.is_empty()
    }

    /// Nothing waits and nothing is in flight.
    pub(super) fn is_quiet(&self) -> bool {
        self.queued_items() == 0 && self.in_flight == 0
    }

    /// No connection task is left.
    pub(super) fn is_deserted(&self) -> bool {
        self.http1.seats.is_empty() && self.http2.seats.is_empty()
    }

    pub(super) fn status(&self, name: &str) -> ShadowStatus {
        let connecting = self.http1.connecting.saturating_add(self.http2.connecting);
        let seats = self.http1.seats.len().saturating_add(self.http2.seats.len());
        ShadowStatus {
            name: name.to_owned(),
            open_connections: seats.saturating_sub(connecting) as u64,
            connecting: connecting as u64,
            in_flight: self.in_flight as u64,
            queued_items: self.queued_items() as u64,
            held_bytes: self.held_bytes,
            breaker: self.breaker.state(),
        }
    }

    fn queued_items(&self) -> usize {
        self.http1.queue.len().saturating_add(self.http2.queue.len())
    }

    /// Takes the oldest request out, to lose it.
    fn pop(&mut self, lane: Lane) -> Option<Job> {
        let job = self.lane(lane).queue.pop_front()?;
        self.held_bytes = self.held_bytes.saturating_sub(job.cost_bytes);
        Some(job)
    }

    fn clear(&mut self) -> impl Iterator<Item = Job> + '_ {
        let waiting = self.http1.queue.iter().chain(&self.http2.queue);
        let bytes = waiting.fold(0_u64, |sum, job| sum.saturating_add(job.cost_bytes));
        self.held_bytes = self.held_bytes.saturating_sub(bytes);
        self.http1.queue.drain(..).chain(self.http2.queue.drain(..))
    }

    const fn lane(&mut self, lane: Lane) -> &mut LaneState {
        match lane {
            Lane::Http1 => &mut self.http1,
            Lane::Http2 => &mut self.http2,
        }
    }

    const fn lane_ref(&self, lane: Lane) -> &LaneState {
        match lane {
            Lane::Http1 => &self.http1,
            Lane::Http2 => &self.http2,
        }
    }
}

impl ShadowLedger {
    pub(super) fn lost_all(&self, jobs: Vec<Job>, reason: DropReason) {
        jobs.iter().for_each(|_| self.lost(reason));
    }
}
