//! How the daemon ends, and what signals do.
//!
//! ```text
//! Running ──SIGTERM/SIGINT──▶ Draining ──deadline, another such signal, or all done──▶ Stopping
//! ```
//!
//! Draining: nothing new is captured; what was taken in is sent, until the deadline. Stopping: what is left is
//! counted as `shutdown`, and everything ends at once. A signal that follows the first within a second says nothing
//! new. SIGHUP asks for the configuration to be read again.

use crate::reload::ReloadCause;
use crate::supervisor::Order;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};

/// Signals to end that follow the first within this time are the same wish: `timeout` and service managers signal a
/// process, and at once its group with the process in it.
const ONE_WISH: Duration = Duration::from_secs(1);

/// How far the end has come. Only goes forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Phase {
    /// Business as usual.
    #[default]
    Running,
    /// Take nothing new, finish what there is.
    Draining,
    /// End at once.
    Stopping,
}

/// A moment until which work may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// `allowed` from `now` on.
    #[must_use]
    pub fn after(now: Instant, allowed: Duration) -> Self {
        // A sum beyond the clock's range is as good as a century.
        let century = Duration::from_secs(100 * 365 * 24 * 3_600);
        Self(now.checked_add(allowed).or_else(|| now.checked_add(century)).unwrap_or(now))
    }

    /// The moment itself.
    #[must_use]
    pub const fn at(self) -> Instant {
        self.0
    }

    /// Time left; zero when it has passed.
    #[must_use]
    pub fn remaining(self, now: Instant) -> Duration {
        self.0.saturating_duration_since(now)
    }

    /// True from the moment on.
    #[must_use]
    pub fn has_passed(self, now: Instant) -> bool {
        now >= self.0
    }

    /// A deadline that leaves `reserve` for what comes after, but is not before `now`.
    #[must_use]
    pub fn less(self, reserve: Duration, now: Instant) -> Self {
        Self(self.0.checked_sub(reserve).unwrap_or(now).max(now))
    }
}

/// Tells every task and thread that the daemon ends. Clones share one state.
#[derive(Clone, Debug)]
pub struct Shutdown {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// For tasks; for threads, the state under the mutex is the same.
    phase_tx: watch::Sender<Phase>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    phase: Phase,
    deadline: Option<Deadline>,
}

impl Default for Shutdown {
    fn default() -> Self {
        let (phase_tx, _) = watch::channel(Phase::Running);
        Self { shared: Arc::new(Shared { phase_tx, state: Mutex::default(), changed: Condvar::new() }) }
    }
}

impl Shutdown {
    /// A daemon that runs.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Where the end stands.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.state().phase
    }

    /// Until when a drain may take; `None` while running, and after [`Shutdown::stop`] without a drain.
    #[must_use]
    pub fn deadline(&self) -> Option<Deadline> {
        self.state().deadline
    }

    /// Begins to drain, unless it has begun already: the first deadline stays.
    pub fn drain(&self, deadline: Deadline) {
        self.advance(Phase::Draining, Some(deadline));
    }

    /// Ends everything at once.
    pub fn stop(&self) {
        self.advance(Phase::Stopping, None);
    }

    /// Returns as soon as the daemon drains or stops. For tasks.
    pub async fn drained(&self) {
        self.reached(Phase::Draining).await;
    }

    /// Returns as soon as the daemon stops. For tasks.
    pub async fn stopped(&self) {
        self.reached(Phase::Stopping).await;
    }

    /// Waits until the phase is `phase` or a later one, or `timeout` is over; returns the phase. For threads.
    #[must_use]
    pub fn wait_for(&self, phase: Phase, timeout: Duration) -> Phase {
        let state = self.state();
        let waited = self.shared.changed.wait_timeout_while(state, timeout, |state| state.phase < phase);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.phase
    }

    async fn reached(&self, phase: Phase) {
        // The sender lives as long as `self`, so that this can't fail.
        let _ = self.shared.phase_tx.subscribe().wait_for(|now| *now >= phase).await;
    }

    fn advance(&self, phase: Phase, deadline: Option<Deadline>) {
        let mut state = self.state();
        if phase <= state.phase {
            return;
        }
        state.phase = phase;
        state.deadline = state.deadline.or(deadline);
        self.shared.phase_tx.send_replace(phase);
        self.shared.changed.notify_all();
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The signals that the daemon obeys, or the orders of an attacher who gets them.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    /// Where orders come, signals to this process do nothing: on a terminal, Ctrl-C goes to both processes.
    orders: Option<UnixStream>,
}

impl Signals {
    /// Takes over SIGTERM, SIGINT and SIGHUP: from here on none of them ends the process by itself. Do this
    /// before anything is attached. Needs a Tokio runtime.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn install() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            orders: None,
        })
    }

    /// As [`Self::install`]; where there are orders, they are obeyed from here on, and no signals.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn of(orders: Option<OwnedFd>) -> io::Result<Self> {
        let Some(orders) = orders else { return Self::install() };
        let orders = std::os::unix::net::UnixStream::from(orders);
        orders.set_nonblocking(true)?;
        Ok(Self { orders: Some(UnixStream::from_std(orders)?), ..Self::install()? })
    }

    /// The next signal or order. When there is nobody left to give orders, it is to end.
    async fn next(&mut self) -> Order {
        let Some(orders) = &mut self.orders else {
            return tokio::select! {
                _ = self.terminate.recv() => Order::Terminate,
                _ = self.interrupt.recv() => Order::Interrupt,
                _ = self.hang_up.recv() => Order::HangUp,
            };
        };
        let byte = orders.read_u8().await.unwrap_or_default();
        Order::from_byte(byte).unwrap_or(Order::Terminate)
    }

    /// Obeys the signals until `shutdown` stops: the first SIGTERM or SIGINT begins a drain of `drain_timeout()`,
    /// whose deadline stops it; another one stops it at once, unless it follows the first within a second.
    /// SIGHUP goes to `reload_tx`; one is enough when several wait.
    pub async fn obey(
        mut self,
        shutdown: Shutdown,
        drain_timeout: impl Fn() -> Duration,
        reload_tx: mpsc::Sender<ReloadCause>,
    ) {
        let mut wishes = Wishes::default();
        loop {
            let deadline = shutdown.deadline().filter(|_| shutdown.phase() == Phase::Draining);
            tokio::select! {
                biased;
                () = shutdown.stopped() => return,
                order = self.next() => match order {
                    Order::Terminate => wishes.end(&shutdown, "SIGTERM", &drain_timeout),
                    Order::Interrupt => wishes.end(&shutdown, "SIGINT", &drain_timeout),
                    Order::HangUp => {
                        tracing::info!("SIGHUP: reading the configuration again");
                        let _ = reload_tx.try_send(ReloadCause::Signal);
                    }
                },
                () = reached(deadline) => {
                    tracing::warn!("drain deadline reached: what is left is counted as shutdown");
                    shutdown.stop();
                }
                // Someone else began to drain: look at the deadline again.
                () = shutdown.drained(), if deadline.is_none() => {}
            }
        }
    }
}

/// What a signal to end asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    /// To drain.
    Drain,
    /// What was asked for a moment ago.
    Same,
    /// To end at once.
    Stop,
}

/// The signals to end that came.
#[derive(Clone, Copy, Debug, Default)]
struct Wishes {
    /// When the first one came.
    first: Option<Instant>,
}

impl Wishes {
    /// Takes a signal in. `is_draining`: whoever began it.
    fn handle_signal(&mut self, is_draining: bool, now: Instant) -> Wish {
        match self.first {
            None if !is_draining => {
                self.first = Some(now);
                Wish::Drain
            }
            Some(first) if now.saturating_duration_since(first) < ONE_WISH => Wish::Same,
            _ => Wish::Stop,
        }
    }

    fn end(&mut self, shutdown: &Shutdown, signal: &str, drain_timeout: &impl Fn() -> Duration) {
        let now = Instant::now();
        match self.handle_signal(shutdown.phase() >= Phase::Draining, now) {
            Wish::Drain => {
                let allowed = drain_timeout();
                tracing::info!(
                    signal,
                    ?allowed,
                    "draining; another signal, a second from now or later, ends at once"
                );
                shutdown.drain(Deadline::after(now, allowed));
            }
            Wish::Same => tracing::debug!(signal, "another signal at the same moment: draining goes on"),
            Wish::Stop => {
                tracing::warn!(signal, "another signal: ending at once");
                shutdown.stop();
            }
        }
    }
}

async fn reached(deadline: Option<Deadline>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.at().into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Signal as Sent, getpid, kill_process};
    use tokio::time::timeout;

    const SOON: Duration = Duration::from_secs(10);

    #[test]
    fn phase_only_goes_forward_and_the_first_deadline_stays() {
        let (shutdown, now) = (Shutdown::new(), Instant::now());
        assert_eq!((shutdown.phase(), shutdown.deadline()), (Phase::Running, None));
        let first = Deadline::after(now, Duration::from_secs(5));
        shutdown.drain(first);
        shutdown.drain(Deadline::after(now, Duration::from_secs(50)));
        assert_eq!((shutdown.phase(), shutdown.deadline()), (Phase::Draining, Some(first)));
        shutdown.stop();
        shutdown.drain(first);
        assert_eq!(shutdown.phase(), Phase::Stopping);
    }

    #[test]
    fn deadline_arithmetic_saturates() {
        let now = Instant::now();
        let deadline = Deadline::after(now, Duration::from_secs(5));
        assert_eq!(deadline.remaining(now), Duration::from_secs(5));
        assert!(!deadline.has_passed(now) && deadline.has_passed(deadline.at()));
        assert_eq!(deadline.remaining(deadline.at() + SOON), Duration::ZERO);
        assert_eq!(deadline.less(Duration::from_secs(2), now).remaining(now), Duration::from_secs(3));
        assert_eq!(deadline.less(Duration::MAX, now).remaining(now), Duration::ZERO);
        assert!(Deadline::after(now, Duration::MAX).remaining(now) > SOON);
    }

    #[tokio::test]
    async fn tasks_and_threads_wake_when_the_phase_changes() {
        let shutdown = Shutdown::new();
        assert_eq!(shutdown.wait_for(Phase::Draining, Duration::ZERO), Phase::Running);
        let threads = shutdown.clone();
        let thread = std::thread::spawn(move || threads.wait_for(Phase::Stopping, SOON));
        let tasks = shutdown.clone();
        let task = tokio::spawn(async move {
            tasks.drained().await;
            tasks.stopped().await;
        });
        shutdown.drain(Deadline::after(Instant::now(), SOON));
        shutdown.stop();
        timeout(SOON, task).await.unwrap().unwrap();
        assert_eq!(thread.join().unwrap(), Phase::Stopping);
        timeout(SOON, shutdown.stopped()).await.unwrap();
    }

    #[test]
    fn signal_counts_as_impatience_only_a_second_after_the_first() {
        let (mut wishes, now) = (Wishes::default(), Instant::now());
        assert_eq!(wishes.handle_signal(false, now), Wish::Drain);
        for soon in [Duration::ZERO, Duration::from_millis(1), ONE_WISH - Duration::from_nanos(1)] {
            assert_eq!(wishes.handle_signal(true, now + soon), Wish::Same, "{soon:?}");
        }
        assert_eq!(wishes.handle_signal(true, now + ONE_WISH), Wish::Stop);
        assert_eq!(Wishes::default().handle_signal(true, now), Wish::Stop, "a drain that others began");
    }

    // One test for all signals: they are the process's, and another test would get them too.
    #[tokio::test]
    async fn signals_reload_then_drain_then_stop() {
        let signals = Signals::install().unwrap();
        let shutdown = Shutdown::new();
        let (reload_tx, mut reload_rx) = mpsc::channel(1);
        let obeying = tokio::spawn(signals.obey(shutdown.clone(), || 60 * SOON, reload_tx.clone()));
        kill_process(getpid(), Sent::HUP).unwrap();
        assert_eq!(timeout(SOON, reload_rx.recv()).await.unwrap(), Some(ReloadCause::Signal));
        assert_eq!(shutdown.phase(), Phase::Running);
        let told = Instant::now();
        kill_process(getpid(), Sent::TERM).unwrap();
        timeout(SOON, shutdown.drained()).await.unwrap();
        assert_eq!(shutdown.phase(), Phase::Draining);
        let patience = 6 * SOON;
        let insist = async {
            loop {
                kill_process(getpid(), Sent::INT).unwrap();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            () = insist => {}
            stopped = timeout(patience, shutdown.stopped()) => stopped.unwrap(),
        }
        assert!(told.elapsed() >= ONE_WISH, "signals at once with the first one do not stop it");
        timeout(SOON, obeying).await.unwrap().unwrap();

        let shutdown = Shutdown::new();
        let signals = Signals::install().unwrap();
        let obeying = tokio::spawn(signals.obey(shutdown.clone(), || Duration::from_millis(20), reload_tx));
        tokio::task::yield_now().await;
        kill_process(getpid(), Sent::INT).unwrap();
        timeout(SOON, shutdown.stopped()).await.expect("the deadline stops it");
        timeout(SOON, obeying).await.unwrap().unwrap();
    }
}
