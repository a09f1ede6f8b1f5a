//! What the rest of the daemon sees of the replayer.

use super::ShadowRequest;
use super::connect::{Connector, Marking};
use super::resolve::Resolver;
use super::shadow::Shadow;
use super::tls::{TlsClient, TlsError};
use crate::config::{ShadowConfig, ShadowId};
use crate::drop_reason::DropReason;
use crate::telemetry::ShadowLedger;
use crate::telemetry::logging::in_words;
use crate::telemetry::snapshot::ShadowStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::Instant;

/// Requests a handle gathers before it hands them over without being asked.
const MAX_BATCH: usize = 64;
/// How long a shadow that a reload took away may go on with what it was given.
const RETIREMENT_LIMIT: Duration = Duration::from_secs(10);

/// The shadows of one configuration, in its order.
type Shadows = Arc<[Arc<Shadow>]>;

/// Owns all shadows' queues and connections. Dropped without [`drain`](Self::drain), it books what is
/// underway as `shutdown`.
#[derive(Debug)]
pub struct Replayer {
    runtime: Handle,
    resolver: Resolver,
    marking: Marking,
    shadows: Mutex<Present>,
}

#[derive(Debug)]
struct Present {
    current: Shadows,
    /// Those of older configurations that may still be at work.
    retired: Vec<Arc<Shadow>>,
}

/// One pipeline thread's way to the shadows.
///
/// It speaks the [`ShadowId`]s of the configuration that was current when it was made: after a reload, a
/// thread must take up the new rules and a new handle together. A clone starts with an empty batch.
#[derive(Debug)]
pub struct ReplayHandle {
    shadows: Shadows,
    batches: Vec<Vec<ShadowRequest>>,
    is_dirty: bool,
}

impl Replayer {
    /// Starts with these shadows; [`ShadowId`] is the index. Connects nowhere until there is a request. The
    /// connection tasks run on `runtime`, best a current-thread one on a thread of its own.
    ///
    /// # Errors
    /// A shadow's TLS settings are unusable; see [`check_tls`](super::check_tls).
    pub fn start(
        runtime: &Handle,
        shadows: Vec<(Arc<ShadowConfig>, Arc<ShadowLedger>)>,
    ) -> Result<Self, TlsError> {
        Self::start_marking(runtime, shadows, Marking::Own)
    }

    /// [`Self::start`] where sockets are marked otherwise.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_marking(
        runtime: &Handle,
        shadows: Vec<(Arc<ShadowConfig>, Arc<ShadowLedger>)>,
        marking: Marking,
    ) -> Result<Self, TlsError> {
        let present = Present { current: Arc::new([]), retired: Vec::new() };
        let (runtime, resolver) = (runtime.clone(), Resolver::system());
        let replayer = Self { runtime, resolver, marking, shadows: Mutex::new(present) };
        replayer.reconfigure(shadows)?;
        Ok(replayer)
    }

    #[cfg(test)]
    pub(super) fn start_with(
        runtime: &Handle,
        shadows: Vec<(Arc<ShadowConfig>, Arc<ShadowLedger>)>,
        resolver: Resolver,
    ) -> Result<Self, TlsError> {
        let mut replayer = Self::start(runtime, Vec::new())?;
        replayer.resolver = resolver;
        replayer.reconfigure(shadows)?;
        Ok(replayer)
    }

    /// A handle for one pipeline thread, for the current configuration.
    #[must_use]
    pub fn handle(&self) -> ReplayHandle {
        ReplayHandle::new(Arc::clone(&self.lock().current))
    }

    /// Takes a new list of shadows. One that differs in nothing but its rewriting keeps queue and
    /// connections. One that has changed or gone finishes what it was given, also through older handles, for
    /// at most 10 s; the rest is booked as `config_changed`.
    ///
    /// # Errors
    /// A shadow's TLS settings are unusable; then nothing has changed.
    pub fn reconfigure(&self, shadows: Vec<(Arc<ShadowConfig>, Arc<ShadowLedger>)>) -> Result<(), TlsError> {
        let mut present = self.lock();
        let next: Shadows = shadows
            .into_iter()
            .map(|(config, ledger)| self.keep_or_make(&present.current, config, ledger))
            .collect::<Result<_, _>>()?;
        let is_kept = |old: &Arc<Shadow>| next.iter().any(|new| Arc::ptr_eq(old, new));
        let retiring: Vec<_> = present.current.iter().filter(|old| !is_kept(old)).cloned().collect();
        present.current = next;
        present.retired.retain(|shadow| !shadow.is_closed());
        present.retired.extend(retiring.iter().cloned());
        drop(present);
        let now = Instant::now();
        let deadline = now.checked_add(RETIREMENT_LIMIT).unwrap_or(now);
        for shadow in retiring {
            self.runtime.spawn(async move {
                shadow.retire(deadline).await;
            });
        }
        Ok(())
    }

    /// Lets what waits and what is in flight go on until `deadline`, and takes more until then; books the
    /// rest as `shutdown`, or as replayed what was fully written. Afterwards every shadow's books balance,
    /// and what is still offered is booked as `shutdown`. To be awaited on a tokio runtime with time, this
    /// one or another.
    pub async fn drain(&self, deadline: Instant) {
        let all: Vec<_> = {
            let present = self.lock();
            present.current.iter().chain(&present.retired).cloned().collect()
        };
        // One after the other is as fast as all at once: the deadline is the same.
        for shadow in all {
            shadow.wind_down(deadline, DropReason::Shutdown).await;
        }
    }

    /// How each shadow of the current configuration stands.
    #[must_use]
    pub fn status(&self) -> Vec<ShadowStatus> {
        let current = Arc::clone(&self.lock().current);
        current.iter().map(|shadow| shadow.status()).collect()
    }

    fn keep_or_make(
        &self,
        current: &Shadows,
        config: Arc<ShadowConfig>,
        ledger: Arc<ShadowLedger>,
    ) -> Result<Arc<Shadow>, TlsError> {
        let is_same =
            |old: &&Arc<Shadow>| Arc::ptr_eq(&old.ledger, &ledger) && is_same_to_replay(&old.config, &config);
        let connector = match Connector::new(&config, self.resolver.clone(), self.marking.clone()) {
            Ok(connector) => connector,
            // A file that can't be read any more: what was read before goes on.
            Err(error) => {
                let Some(old) = current.iter().find(is_same) else { return Err(error) };
                tracing::warn!(shadow = %config.name, why = in_words(&error), "the shadow's TLS settings stay as they were");
                return Ok(Arc::clone(old));
            }
        };
        let unchanged = current.iter().find(|old| {
            is_same(old) && has_same_authorities(old.connector.tls.as_ref(), connector.tls.as_ref())
        });
        if let Some(unchanged) = unchanged {
            return Ok(Arc::clone(unchanged));
        }
        Ok(Arc::new(Shadow::new(config, ledger, connector, self.runtime.clone())))
    }

    fn lock(&self) -> MutexGuard<'_, Present> {
        self.shadows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Replayer {
    fn drop(&mut self) {
        let present = self.lock();
        for shadow in present.current.iter().chain(&present.retired) {
            shadow.close(DropReason::Shutdown);
        }
    }
}

impl ReplayHandle {
    fn new(shadows: Shadows) -> Self {
        let batches = shadows.iter().map(|_| Vec::new()).collect();
        Self { shadows, batches, is_dirty: false }
    }

    /// Gives a request to a shadow; every request ends in exactly one entry of its ledger. Never waits, and
    /// makes no system call; nobody is woken before [`flush`](Self::flush).
    pub fn offer(&mut self, shadow: ShadowId, request: ShadowRequest) {
        let index = usize::from(shadow.0);
        let (Some(batch), Some(shadow)) = (self.batches.get_mut(index), self.shadows.get(index)) else {
            tracing::error!(shadow = index, "request offered to a shadow that this handle does not know");
            return;
        };
        self.is_dirty = true;
        batch.push(request);
        if batch.len() >= MAX_BATCH {
            shadow.hand_over(batch);
        }
    }

    /// Hands over what was offered. To be called after each drain of the ring; at most one wake-up per shadow.
    pub fn flush(&mut self) {
        if !self.is_dirty {
            return;
        }
        self.is_dirty = false;
        for (shadow, batch) in self.shadows.iter().zip(&mut self.batches) {
            if !batch.is_empty() {
                shadow.hand_over(batch);
            }
            shadow.dispatch();
        }
    }
}

impl Clone for ReplayHandle {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.shadows))
    }
}

impl Drop for ReplayHandle {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Whether the replayer has no reason to treat `b` in another way than `a`: everything but `rewrite`.
fn is_same_to_replay(a: &ShadowConfig, b: &ShadowConfig) -> bool {
    let ShadowConfig {
        name,
        endpoint,
        tls,
        protocol,
        max_in_flight,
        max_connections,
        queue_items,
        queue_bytes,
        buffer_body_bytes,
        stream_window_bytes,
        connect_timeout,
        timeout,
        idle_timeout,
        max_rps,
        breaker,
        rewrite: _,
    } = a;
    *name == b.name
        && *endpoint == b.endpoint
        && *tls == b.tls
        && *protocol == b.protocol
        && *max_in_flight == b.max_in_flight
        && *max_connections == b.max_connections
        && *queue_items == b.queue_items
        && *queue_bytes == b.queue_bytes
        && *buffer_body_bytes == b.buffer_body_bytes
        && *stream_window_bytes == b.stream_window_bytes
        && *connect_timeout == b.connect_timeout
        && *timeout == b.timeout
        && *idle_timeout == b.idle_timeout
        && *max_rps == b.max_rps
        && *breaker == b.breaker
}

fn has_same_authorities(a: Option<&TlsClient>, b: Option<&TlsClient>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a.has_authorities_of(b),
        (a, b) => a.is_none() && b.is_none(),
    }
}
