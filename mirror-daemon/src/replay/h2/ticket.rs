//! A request in flight on a shared connection: booked whatever happens.

use crate::drop_reason::DropReason;
use crate::replay::breaker::Verdict;
use crate::replay::job::Job;
use crate::replay::shadow::Shadow;
use std::sync::Arc;
use tokio::time::Instant;

/// Holds one request and its place in flight.
#[derive(Debug)]
pub(super) struct Ticket {
    shadow: Arc<Shadow>,
    /// `None` once it is finished.
    job: Option<Job>,
}

impl Ticket {
    pub(super) const fn new(shadow: Arc<Shadow>, job: Job) -> Self {
        Self { shadow, job: Some(job) }
    }

    pub(super) const fn shadow(&self) -> &Arc<Shadow> {
        &self.shadow
    }

    pub(super) const fn job(&mut self) -> Option<&mut Job> {
        self.job.as_mut()
    }

    /// The request came to its end and is booked.
    pub(super) fn finish(mut self, verdict: Verdict) {
        let Some(job) = self.job.take() else { return };
        let mut state = self.shadow.lock();
        state.handle_free(job.cost_bytes);
        let (shed, is_opened) = state.handle_verdict(verdict, job.is_probe, Instant::now());
        self.shadow.notify_if_quiet(state);
        self.shadow.ledger.lost_all(shed, DropReason::BreakerOpen);
        if is_opened {
            self.shadow.log_opened(verdict.why());
        }
    }

    /// Its connection was lost before it was sent at all.
    pub(super) fn put_back_or_lose(mut self) {
        if self.job.as_ref().is_some_and(Job::may_be_resent) {
            return self.put_back();
        }
        if self.job().is_some() {
            self.shadow.ledger.lost(DropReason::ShadowClosed);
        }
        self.finish(Verdict::Failure("it closed before a request was sent"));
    }

    /// The request waits again, to be sent once more.
    pub(super) fn put_back(mut self) {
        let Some(mut job) = self.job.take() else { return };
        let mut state = self.shadow.lock();
        if state.closed().is_some() {
            state.handle_free(job.cost_bytes);
            self.shadow.book_unfinished(&mut state, &job);
        } else {
            job.rewind();
            state.put_back(job);
        }
        self.shadow.notify_if_quiet(state);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let Some(job) = self.job.take() else { return };
        let mut state = self.shadow.lock();
        state.handle_free(job.cost_bytes);
        self.shadow.book_unfinished(&mut state, &job);
        self.shadow.notify_if_quiet(state);
    }
}
