//! Takes a changed configuration as a whole, or leaves the running one as it is.

use super::live::Attached;
use super::pages::Sources;
use super::shard::Generation;
use super::source::Source;
use crate::capture::{AttacherClient, Trial};
use crate::config::{CaptureConfig, Config};
use crate::pipeline::View;
use crate::replay;
use crate::telemetry::logging::in_words;
use anyhow::bail;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

/// See the module.
#[derive(Debug)]
pub(super) struct Reloader {
    sources: Arc<Sources>,
    origin: Source,
}

impl Reloader {
    pub(super) fn new(sources: Arc<Sources>, origin: Source) -> Self {
        Self { sources, origin }
    }

    /// Reads the file and the manifests again and takes them, or says why not. Blocks.
    pub(super) fn reload(&self) {
        let outcome = self.take();
        let failed = outcome.is_err();
        let books = &self.sources.reload;
        books.last_failed.store(failed, Ordering::Relaxed);
        match outcome {
            Ok(generation) => {
                tracing::info!(generation, source = self.origin.describe(), "configuration taken")
            }
            Err(error) => {
                books.failures.fetch_add(1, Ordering::Relaxed);
                let why = in_words(error.as_ref());
                tracing::error!("configuration refused, the running one stays: {why}");
            }
        }
    }

    fn take(&self) -> anyhow::Result<u64> {
        let config = Arc::new(self.origin.load()?);
        let running = Arc::clone(&self.sources.current.load().view);
        refuse_what_takes_a_restart(&running.config, &config)?;
        for shadow in &config.shadows {
            // Before its books are opened, which stay.
            replay::check_tls(shadow)?;
        }
        let mut capture = self.sources.capture.lock().unwrap_or_else(PoisonError::into_inner);
        let trial =
            capture.as_mut().map(|attached| try_out(&mut attached.attacher, &config.capture)).transpose()?;
        let view = View::new(running.generation.saturating_add(1), Arc::clone(&config), &self.sources.ledger);
        let reconfigured = self.sources.replayer.reconfigure(view.shadows());
        let Some((Attached { attacher, .. }, trial)) = capture.as_mut().zip(trial) else {
            reconfigured?;
            return Ok(self.take_up(view));
        };
        if let Err(error) = reconfigured {
            attacher.abandon(trial);
            return Err(error.into());
        }
        // From here on nothing is refused: the replayer has let go of shadows, and the rules must follow.
        let committed = attacher.commit(trial);
        let view = view.at_points(attacher.points().into_iter().map(|point| (point.number, point.point)));
        let generation = self.take_up(view);
        committed?;
        Ok(generation)
    }

    /// The capture threads take the view up when they look at their rings next.
    fn take_up(&self, view: View) -> u64 {
        let generation = view.generation;
        let replay = self.sources.replayer.handle();
        self.sources.current.store(Arc::new(Generation { view: Arc::new(view), replay }));
        generation
    }
}

/// Attaches what is new, and takes it off again when not all of it can be: the same that keeps a daemon from
/// starting keeps a configuration from being taken.
fn try_out(attacher: &mut AttacherClient, wanted: &CaptureConfig) -> anyhow::Result<Trial> {
    let trial = attacher.try_out(wanted)?;
    let failure = trial.failures().next();
    if let Some((point, why)) = failure {
        attacher.abandon(trial);
        bail!("{point} can't be captured: {why}");
    }
    Ok(trial)
}

/// Ring sizes, threads, the leg and the pages' address are fixed for the life of the process.
fn refuse_what_takes_a_restart(running: &Config, wanted: &Config) -> anyhow::Result<()> {
    let fixed = |capture: &CaptureConfig| {
        let has_points = !capture.points.is_empty();
        (
            capture.ring_bytes,
            capture.shards,
            capture.tick,
            capture.leg,
            capture.proxy_protocol,
            capture.limits.clone(),
            has_points,
        )
    };
    if fixed(&running.capture) != fixed(&wanted.capture) {
        bail!(
            "capture.ring_bytes, shards, tick, leg, proxy_protocol, limits, and whether there is any capture point at all \
             can't change while the daemon runs: restart it"
        );
    }
    if running.admin != wanted.admin {
        bail!("admin.listen can't change while the daemon runs: restart it");
    }
    Ok(())
}
