//! What the pages are told: one reading of everything that runs.

use super::cluster::Cluster;
use super::live::{Attached, Engine};
use super::losses;
use super::pods::Pods;
use super::reload::Changed;
use super::shard::Generation;
use crate::admin::Health;
use crate::capture::PointState;
use crate::drain::{Phase, Shutdown};
use crate::replay::Replayer;
use crate::telemetry::Ledger;
use crate::telemetry::snapshot::{ConfigStatus, LabelledCount, LedgerReading, PointStatus, Snapshot, Source};
use arc_swap::ArcSwap;
use mirror_common::KernelCounter;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, TryLockError};
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
    pub(super) capture: std::sync::Mutex<Option<Attached>>,
    /// What the pages told last of `capture`.
    pub(super) latest: std::sync::Mutex<CaptureReading>,
    /// `None`: no pod is looked for.
    pub(super) pods: Option<Pods>,
    pub(super) cluster: Cluster,
    pub(super) reload: ReloadBooks,
    /// Parsers that died before this one.
    pub(super) restarts: u64,
}

/// What the kernel counted, and what is attached.
#[derive(Clone, Debug, Default)]
pub(super) struct CaptureReading {
    losses: Vec<LabelledCount>,
    others: Vec<LabelledCount>,
    points: Vec<PointStatus>,
}

impl CaptureReading {
    fn of(attached: &Attached, pods: Option<&Pods>) -> Self {
        let mut reading = Self::default();
        if let Ok(counters) = attached.counters.snapshot() {
            let labelled =
                |counter: &KernelCounter| -> LabelledCount { (counter.label(), counters.of(*counter)) };
            let (losses, others): (Vec<_>, Vec<_>) =
                KernelCounter::ALL.iter().partition(|counter| counter.is_loss());
            reading.losses = losses.into_iter().map(labelled).collect();
            reading.others = others.into_iter().map(labelled).collect();
        }
        let points = attached.attacher.points().into_iter().map(|point| {
            let pod = pods.and_then(|pods| pods.pod_at(&point.point));
            let (place, is_pod) = (point.point.to_string(), pod.is_some());
            PointStatus {
                name: pod.map_or(place.clone(), |pod| format!("pod {pod}: {place}")),
                attached: matches!(point.state, PointState::Attached(_)),
                is_pod,
            }
        });
        reading.points = points.collect();
        reading
    }
}

/// How reloads went.
#[derive(Debug, Default)]
pub(super) struct ReloadBooks {
    pub(super) failures: AtomicU64,
    /// The files as they are now were refused, whatever the cluster has said since.
    are_files_refused: AtomicBool,
    /// The cluster's rules as they are now were refused.
    are_rules_refused: AtomicBool,
    /// Of the cluster's rules only a part runs, for a change of them was refused.
    pub(super) are_rules_cut: AtomicBool,
}

impl ReloadBooks {
    /// What came of a reload. Files are read with the cluster's rules, and these without the files.
    pub(super) fn note(&self, changed: Changed, is_refused: bool) {
        if changed == Changed::Files {
            self.are_files_refused.store(is_refused, Ordering::Relaxed);
        }
        if changed == Changed::Cluster || !is_refused {
            self.are_rules_refused.store(is_refused, Ordering::Relaxed);
        }
        self.failures.fetch_add(is_refused.into(), Ordering::Relaxed);
    }

    fn last_was_taken(&self) -> bool {
        !self.are_files_refused.load(Ordering::Relaxed) && !self.are_rules_refused.load(Ordering::Relaxed)
    }
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

    /// Tells those who look for pods what became of capture points. To be called after each change.
    pub(super) fn look_at(&self, attached: &Attached) {
        if let Some(pods) = &self.pods {
            pods.report(&attached.attacher.points());
        }
    }

    /// Ends the capture threads, which take what is in their rings, then detaches every kernel program. Blocks.
    pub(super) fn end_capture(&self) -> EndOfCapture {
        let outcome = self.engine.end();
        let attached = self.capture.lock().unwrap_or_else(PoisonError::into_inner).take();
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
            parser_restarts: self.restarts,
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
                ("verdicts_lost", reading.verdicts_lost),
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

    /// As it was last time, while the attacher is at work: loading programs takes its time, and the pages do not wait.
    fn read_capture(&self, snapshot: &mut Snapshot) {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let capture = match self.capture.try_lock() {
            Ok(capture) => Some(capture),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        };
        if let Some(capture) = capture {
            let reading = |attached| CaptureReading::of(attached, self.pods.as_ref());
            *latest = capture.as_ref().map(reading).unwrap_or_default();
        }
        let CaptureReading { losses, others, points } = latest.clone();
        (snapshot.kernel_losses, snapshot.kernel, snapshot.points) = (losses, others, points);
    }

    fn config_status(&self) -> ConfigStatus {
        ConfigStatus {
            last_reload_ok: self.reload.last_was_taken(),
            generation: self.current.load().view.generation,
            are_rules_cut: self.reload.are_rules_cut.load(Ordering::Relaxed),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_file_stays_refused_until_a_file_is_taken() {
        let books = ReloadBooks::default();
        assert!(books.last_was_taken());
        books.note(Changed::Files, true);
        books.note(Changed::Cluster, false);
        assert!(!books.last_was_taken(), "the cluster's rules say nothing of the file");
        books.note(Changed::Cluster, true);
        books.note(Changed::Files, false);
        assert!(books.last_was_taken(), "with the cluster's rules as they are now");
        assert_eq!(books.failures.load(Ordering::Relaxed), 2);
    }
}
