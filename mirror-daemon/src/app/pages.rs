//! What the pages are told: one reading of everything that runs.

use super::cluster::Cluster;
use super::live::{Attached, Engine};
use super::losses;
use super::pods::Pods;
use super::shard::Generation;
use crate::admin::Health;
use crate::capture::{self, PointState};
use crate::drain::{Phase, Shutdown};
use crate::replay::Replayer;
use crate::telemetry::Ledger;
use crate::telemetry::snapshot::{ConfigStatus, LabelledCount, LedgerReading, PointStatus, Snapshot, Source};
use arc_swap::ArcSwap;
use mirror_common::KernelCounter;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often capture points are looked after: interfaces come and go.
pub(super) const KEEP_ATTACHED_EVERY: Duration = Duration::from_secs(2);

/// Everything that runs, for whoever asks.
#[derive(Debug)]
pub(super) struct Sources {
    pub(super) ledger: Arc<Ledger>,
    pub(super) replayer: Arc<Replayer>,
    pub(super) current: Arc<ArcSwap<Generation>>,
    pub(super) shutdown: Shutdown,
    pub(super) engine: Engine,
    pub(super) capture: Mutex<Option<Attached>>,
    /// What the pages tell of it: whoever attaches holds the lock above for long.
    pub(super) seen: Mutex<Seen>,
    /// `None`: no pod is looked for.
    pub(super) pods: Option<Pods>,
    pub(super) cluster: Cluster,
    pub(super) reload: ReloadBooks,
}

/// The capture side, as it was when it was looked at last.
#[derive(Debug, Default)]
pub(super) struct Seen {
    points: Vec<capture::PointStatus>,
    counters: Option<Arc<capture::CounterReader>>,
}

impl Seen {
    pub(super) fn of(attached: &Attached) -> Self {
        Self { points: attached.attacher.points(), counters: Some(Arc::clone(&attached.counters)) }
    }
}

/// How reloads went.
#[derive(Debug, Default)]
pub(super) struct ReloadBooks {
    pub(super) failures: AtomicU64,
    pub(super) last_failed: AtomicBool,
}

/// How capturing ended.
#[derive(Debug)]
pub(super) struct EndOfCapture {
    /// The first failure of a capture thread.
    pub(super) outcome: anyhow::Result<()>,
    /// As on `/ledger`: the kernel programs lost nothing.
    pub(super) kernel_complete: bool,
}

impl Sources {
    /// Tries again what could not be attached, and logs what the kernel lost. To be called every
    /// [`KEEP_ATTACHED_EVERY`].
    pub(super) async fn keep_attached(self: &Arc<Self>) {
        let sources = Arc::clone(self);
        let looked = tokio::task::spawn_blocking(move || {
            if let Some(attached) = &mut *sources.capture.lock().unwrap_or_else(PoisonError::into_inner) {
                attached.attacher.check();
                attached.log_losses(Instant::now());
                sources.look_at(attached);
                if let Some(pods) = &sources.pods {
                    pods.listen(sources.current.load().view.config.pods.silent_after, &sources.engine.stats);
                }
            }
        });
        let _ = looked.await;
    }

    /// Tells the pages, and those who look for pods, what became of capture points. To be called after each change.
    pub(super) fn look_at(&self, attached: &Attached) {
        let seen = Seen::of(attached);
        if let Some(pods) = &self.pods {
            pods.report(&seen.points);
        }
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
    }

    /// Ends the capture threads, which take what is in their rings, then detaches every kernel program. Blocks.
    pub(super) fn end_capture(&self) -> EndOfCapture {
        let outcome = self.engine.end();
        let attached = self.capture.lock().unwrap_or_else(PoisonError::into_inner).take();
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Seen::default();
        let counters = attached.map(|attached| Arc::clone(&attached.counters));
        let kernel_complete = counters.is_none_or(|counters| {
            counters.snapshot().is_ok_and(|now| losses::of(&now).all(|(_, count)| count == 0))
        });
        EndOfCapture { outcome, kernel_complete }
    }

    fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot {
            ledger: LedgerReading::of(&self.ledger),
            shadows: self.replayer.status(),
            config: self.config_status(),
            draining: self.shutdown.phase() != Phase::Running,
            pods: self.pods.as_ref().map(Pods::reading),
            rules: self.cluster.status(),
            ..Snapshot::default()
        };
        self.read_capture(&mut snapshot);
        for stats in &self.engine.stats {
            let reading = stats.reading();
            snapshot.flow.extend(reading.flow.labelled());
            snapshot.flow.extend([
                ("passed_over_not_http", reading.pipeline.passed_over_not_http),
                ("passed_over_upgrade", reading.pipeline.passed_over_upgrade),
                ("passed_over_unsupported_protocol", reading.pipeline.passed_over_unsupported_protocol),
                ("requests_without_host", reading.pipeline.without_host),
            ]);
            snapshot.http2.extend(reading.http2.labelled());
            snapshot.http2_connections.extend([
                ("searching", reading.pipeline.http2_searching),
                ("unproven", reading.pipeline.http2_unproven),
                ("synchronised", reading.pipeline.http2_synchronised),
            ]);
            snapshot.flows_open = snapshot.flows_open.saturating_add(reading.flows_open as u64);
            snapshot.flow_buffered_bytes =
                snapshot.flow_buffered_bytes.saturating_add(reading.held_bytes as u64);
        }
        snapshot
    }

    fn read_capture(&self, snapshot: &mut Snapshot) {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(counters) = &seen.counters else { return };
        if let Ok(counters) = counters.snapshot() {
            let labelled =
                |counter: &KernelCounter| -> LabelledCount { (counter.label(), counters.of(*counter)) };
            let (losses, others): (Vec<_>, Vec<_>) =
                KernelCounter::ALL.iter().partition(|counter| counter.is_loss());
            snapshot.kernel_losses = losses.into_iter().map(labelled).collect();
            snapshot.kernel = others.into_iter().map(labelled).collect();
        }
        snapshot.points = seen
            .points
            .iter()
            .map(|point| {
                let pod = self.pods.as_ref().and_then(|pods| pods.pod_at(&point.point));
                PointStatus {
                    name: pod
                        .as_ref()
                        .map_or_else(|| point.point.to_string(), |pod| format!("pod {pod}: {}", point.point)),
                    attached: matches!(point.state, PointState::Attached(_)),
                    is_pod: pod.is_some(),
                }
            })
            .collect();
    }

    fn config_status(&self) -> ConfigStatus {
        ConfigStatus {
            last_reload_ok: !self.reload.last_failed.load(Ordering::Relaxed),
            generation: self.current.load().view.generation,
            reload_failures: self.reload.failures.load(Ordering::Relaxed),
        }
    }

    fn health(&self) -> Health {
        let now = Instant::now();
        let stalled = self.engine.stats.iter().enumerate().filter_map(|(shard, stats)| {
            let silent = stats.heartbeat.stale(now)?;
            Some(format!("shard {shard}: silent for {} s", silent.as_secs()))
        });
        Health { stalled: stalled.collect() }
    }
}

/// Where `/metrics`, `/readyz` and `/ledger` get their numbers.
pub(super) fn snapshot_source(sources: &Arc<Sources>) -> Source {
    let sources = Arc::clone(sources);
    Arc::new(move || sources.snapshot())
}

/// Where `/healthz` gets its answer.
pub(super) fn health_source(sources: &Arc<Sources>) -> impl Fn() -> Health + Send + Sync + 'static {
    let sources = Arc::clone(sources);
    move || sources.health()
}
