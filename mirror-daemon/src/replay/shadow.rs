//! One shadow: its queue, its limits, its connection tasks.

use super::breaker::Verdict;
use super::connect::{ConnectFailure, Connector};
use super::connection;
use super::h2;
use super::job::Job;
use super::seat::Seat;
use super::state::{Action, Actions, Lane, SeatId, State};
use super::{ShadowRequest, ShadowStatus};
use crate::config::ShadowConfig;
use crate::drop_reason::DropReason;
use crate::telemetry::ShadowLedger;
use crate::telemetry::logging::Throttle;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// The least time between two warnings that there is no connection.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// How long a close waits for ended tasks to be gone.
const TASK_END_LIMIT: Duration = Duration::from_secs(1);
/// How long older handles may still be in use after a reload.
const RETIREMENT_GRACE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Shadow {
    pub(super) config: Arc<ShadowConfig>,
    pub(super) ledger: Arc<ShadowLedger>,
    pub(super) connector: Connector,
    runtime: Handle,
    state: Mutex<State>,
    /// Of warnings that there is no connection.
    failures: Throttle,
    /// Told whenever the last request or the last connection may have gone.
    quiet: Notify,
}

impl Shadow {
    pub(super) fn new(
        config: Arc<ShadowConfig>,
        ledger: Arc<ShadowLedger>,
        connector: Connector,
        runtime: Handle,
    ) -> Self {
        let state = Mutex::new(State::new(&config, Instant::now()));
        Self {
            config,
            ledger,
            connector,
            runtime,
            state,
            failures: Throttle::every(TELL_EVERY),
            quiet: Notify::new(),
        }
    }

    /// Takes a batch in, within the bounds, and books what has no place. Wakes nobody.
    pub(super) fn hand_over(&self, batch: &mut Vec<ShadowRequest>) {
        let now = Instant::now();
        let mut state = self.lock();
        for request in batch.drain(..) {
            if let Err(reason) = state.admit(request, &self.config, now) {
                self.ledger.lost(reason);
            }
        }
    }

    /// Finds a taker for what waits: at most one wake-up for each lane. The taker sees to the rest.
    pub(super) fn dispatch(self: &Arc<Self>) {
        let actions = self.lock().dispatch(&self.config, Instant::now());
        self.act(actions);
    }

    /// Does what the state asked for; the lock must not be held.
    pub(super) fn act(self: &Arc<Self>, actions: Actions) {
        for action in actions.0 {
            match action {
                Action::Nothing => {}
                Action::Wake(waker) => waker.wake(),
                Action::Open(lane, seat) => self.open(lane, seat),
            }
        }
    }

    fn open(self: &Arc<Self>, lane: Lane, seat: SeatId) {
        let shadow = Arc::clone(self);
        let task = match lane {
            Lane::Http1 => self.runtime.spawn(connection::run(Seat::new(shadow, seat))),
            Lane::Http2 => self.runtime.spawn(h2::run(h2::SharedSeat::new(shadow, seat))),
        };
        let task = task.abort_handle();
        if !self.lock().register_task(lane, seat, &task) {
            task.abort();
        }
    }

    /// The connection of a seat, which is gone by that, could not be made.
    pub(super) fn handle_connect_failed(
        self: &Arc<Self>,
        lane: Lane,
        seat: SeatId,
        reason: DropReason,
        why: &str,
    ) {
        let now = Instant::now();
        let mut state = self.lock();
        let (lost, is_opened) = state.handle_connect_failed(lane, seat, reason, now);
        let actions = state.dispatch(&self.config, now);
        for (_, reason) in &lost {
            self.ledger.lost(*reason);
        }
        self.notify_if_quiet(state);
        if is_opened {
            self.log_opened(why);
        }
        self.act(actions);
    }

    /// The task of a connection has ended, by itself or from outside, and its seat is gone by that. `give_back` says
    /// what it held beside the seat.
    pub(super) fn handle_task_ended(
        self: &Arc<Self>,
        (lane, seat): (Lane, SeatId),
        was_connecting: bool,
        give_back: impl FnOnce(&mut State),
    ) {
        if was_connecting && std::thread::panicking() {
            // A fault of ours in this one attempt: the next request finds a new one.
            let why = "the attempt to connect panicked";
            return self.handle_connect_failed(lane, seat, DropReason::Connect, why);
        }
        if was_connecting {
            // Ended from outside while connecting: the runtime is going, so nobody will serve the queue.
            self.close(DropReason::Shutdown);
        }
        let mut state = self.lock();
        if was_connecting {
            state.handle_connected(lane);
        }
        give_back(&mut state);
        state.forget(lane, seat);
        let actions = state.dispatch(&self.config, Instant::now());
        self.notify_if_quiet(state);
        self.act(actions);
    }

    /// Books a request whose fate was never learnt because its task ended.
    pub(super) fn book_unfinished(&self, state: &mut State, job: &Job) {
        if job.is_sent {
            self.ledger.replayed.increment();
        } else {
            self.ledger.lost(state.closed().unwrap_or(DropReason::Shutdown));
        }
        let (shed, _) = state.handle_verdict(Verdict::Undecided, job.is_probe, Instant::now());
        self.ledger.lost_all(shed, DropReason::BreakerOpen);
    }

    /// Whether the shadow's name still has the address of a connection: `peer`, last seen among the addresses
    /// of `generation`.
    pub(super) fn may_stay(self: &Arc<Self>, peer: SocketAddr, generation: &mut u64, now: Instant) -> bool {
        self.refresh_addresses(now);
        let current = self.connector.addresses.generation();
        if current != *generation {
            if !self.connector.addresses.contains(peer) {
                return false;
            }
            *generation = current;
        }
        true
    }

    /// Looks the shadow's name up again, apart from any request, when its answer has expired.
    fn refresh_addresses(self: &Arc<Self>, now: Instant) {
        if !self.connector.addresses.wants_refresh(now) {
            return;
        }
        let shadow = Arc::clone(self);
        self.runtime.spawn(async move {
            if shadow.connector.addresses.refresh().await {
                let wakers = shadow.lock().wake_all();
                wakers.into_iter().for_each(std::task::Waker::wake);
            }
        });
    }

    /// Takes in what a request said of this shadow, apart from its ledger entry.
    pub(super) fn handle_verdict(&self, verdict: Verdict, is_probe: bool) {
        let (shed, is_opened) = self.lock().handle_verdict(verdict, is_probe, Instant::now());
        self.ledger.lost_all(shed, DropReason::BreakerOpen);
        if is_opened {
            self.log_opened(verdict.why());
        }
    }

    /// Says why, though not of each attempt: the books count them all.
    pub(super) fn log_not_connected(&self, failure: &ConnectFailure) {
        let (name, reason) = (&self.config.name, failure.reason.label());
        match self.failures.admit(Instant::now().into_std()) {
            Some(suppressed) => {
                tracing::warn!(shadow = %name, reason, why = %failure.why, suppressed, "no connection to a shadow");
            }
            None => tracing::debug!(shadow = %name, reason, why = %failure.why, "no connection to a shadow"),
        }
    }

    pub(super) fn log_opened(&self, why: &str) {
        let open_for = self.config.breaker.open_for;
        tracing::warn!(shadow = %self.config.name, ?open_for, why, "circuit breaker opened");
    }

    /// Lets what waits and what is in flight go on until `deadline`, then closes with `reason`.
    pub(super) async fn wind_down(&self, deadline: Instant, reason: DropReason) {
        self.wait_until(deadline, State::is_quiet).await;
        self.close(reason);
        let limit = Instant::now().checked_add(TASK_END_LIMIT).unwrap_or(deadline);
        self.wait_until(limit, State::is_deserted).await;
    }

    /// Taken away by a reload: goes on for a moment, until all pipeline threads have taken up the new
    /// configuration, and then for as long as it has work, but not beyond `deadline`.
    pub(super) async fn retire(&self, deadline: Instant) {
        tokio::time::sleep(RETIREMENT_GRACE).await;
        self.wind_down(deadline, DropReason::ConfigChanged).await;
    }

    /// No request is let in any more.
    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed().is_some()
    }

    /// Books everything that waits as `reason`, ends all connections, lets nothing in any more.
    pub(super) fn close(&self, reason: DropReason) {
        let (waiting, tasks) = self.lock().close(reason);
        self.ledger.lost_all(waiting, reason);
        tasks.iter().for_each(tokio::task::AbortHandle::abort);
    }

    pub(super) fn status(&self) -> ShadowStatus {
        self.lock().status(&self.config.name)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells whoever winds down, when there may be news for him.
    pub(super) fn notify_if_quiet(&self, state: MutexGuard<'_, State>) {
        let is_news = state.has_news();
        drop(state);
        if is_news {
            self.quiet.notify_waiters();
        }
    }

    async fn wait_until(&self, deadline: Instant, condition: fn(&State) -> bool) {
        self.lock().watch();
        loop {
            let mut news = std::pin::pin!(self.quiet.notified());
            news.as_mut().enable();
            if condition(&self.lock()) || timeout_at(deadline, news).await.is_err() {
                return;
            }
        }
    }
}

impl Drop for Shadow {
    fn drop(&mut self) {
        self.close(DropReason::Shutdown);
    }
}
