//! An HTTP/1 connection task's place in its shadow's state, and the request it holds: given back whatever
//! happens.

use super::breaker::Verdict;
use super::job::Job;
use super::shadow::Shadow;
use super::state::{Actions, Lane, SeatId};
use crate::drop_reason::DropReason;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::time::Instant;

/// Owned by one connection task. When that ends, by itself or from outside, the place is free again and the
/// request it held is booked.
#[derive(Debug)]
pub(super) struct Seat {
    shadow: Arc<Shadow>,
    id: SeatId,
    place: Place,
    job: Option<Job>,
}

/// See the drawing in `state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Connecting,
    Ready,
    Idle,
    /// With a request that weighs so many bytes.
    Busy(u64),
    Gone,
}

impl Seat {
    /// The seat `id`, which the state has just opened.
    pub(super) const fn new(shadow: Arc<Shadow>, id: SeatId) -> Self {
        Self { shadow, id, place: Place::Connecting, job: None }
    }

    pub(super) const fn shadow(&self) -> &Arc<Shadow> {
        &self.shadow
    }

    /// The request under way.
    pub(super) const fn job(&mut self) -> Option<&mut Job> {
        self.job.as_mut()
    }

    /// The connection stands: the seat is ready.
    pub(super) fn handle_connected(&mut self) {
        self.shadow.lock().handle_connected(Lane::Http1);
        self.place = Place::Ready;
    }

    /// The connection could not be made.
    pub(super) fn handle_connect_failed(mut self, reason: DropReason, why: &str) {
        self.place = Place::Gone;
        self.shadow.handle_connect_failed(Lane::Http1, self.id, reason, why);
    }

    /// Takes the next request, or sits down until there is one.
    pub(super) fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let shadow = &self.shadow;
        let mut state = shadow.lock();
        if self.place == Place::Idle {
            if state.is_sitting(Lane::Http1, self.id, cx.waker()) {
                return Poll::Pending;
            }
            state.handle_woken(Lane::Http1);
            self.place = Place::Ready;
        }
        self.job = state.take(Lane::Http1, &shadow.config);
        if self.job.is_none() {
            state.sit_down(Lane::Http1, self.id, cx.waker().clone());
        }
        self.place = self.busy_or(Place::Idle);
        let actions = match state.has_waiting(Lane::Http1) {
            true => state.dispatch(&shadow.config, Instant::now()),
            false => Actions::NONE,
        };
        drop(state);
        shadow.act(actions);
        if self.job.is_some() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// The request came to its end and is booked; its connection lives on. Takes the next request when one
    /// waits, without a detour through the scheduler.
    pub(super) fn finish_and_take(&mut self, verdict: Verdict, now: Instant) {
        let Some(finished) = self.job.take() else { return };
        let shadow = &self.shadow;
        let mut state = shadow.lock();
        state.handle_free(finished.cost_bytes);
        let (shed, is_opened) = state.handle_verdict(verdict, finished.is_probe, now);
        self.job = state.take(Lane::Http1, &shadow.config);
        let actions = state.dispatch(&shadow.config, now);
        self.place = self.busy_or(Place::Ready);
        shadow.notify_if_quiet(state);
        shadow.ledger.lost_all(shed, DropReason::BreakerOpen);
        if is_opened {
            shadow.log_opened(verdict.why());
        }
        shadow.act(actions);
    }

    fn busy_or(&self, other: Place) -> Place {
        self.job.as_ref().map_or(other, |job| Place::Busy(job.cost_bytes))
    }

    /// The request came to its end and is booked; its connection goes, and so does the seat.
    pub(super) fn finish(mut self, verdict: Verdict) {
        if let Some(finished) = self.job.take() {
            self.shadow.handle_verdict(verdict, finished.is_probe);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.place == Place::Gone {
            return;
        }
        let shadow = Arc::clone(&self.shadow);
        shadow.handle_task_ended((Lane::Http1, self.id), self.place == Place::Connecting, |state| {
            match self.place {
                Place::Idle => state.leave_idle(Lane::Http1, self.id),
                Place::Busy(cost_bytes) => state.handle_free(cost_bytes),
                Place::Connecting | Place::Ready | Place::Gone => {}
            }
            if let Some(job) = self.job.take() {
                self.shadow.book_unfinished(state, &job);
            }
        });
    }
}
