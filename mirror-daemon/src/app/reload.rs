//! Takes a changed configuration as a whole, or leaves the running one as it is.

use super::pages::Sources;
use super::shard::Generation;
use crate::config::{CaptureConfig, Config};
use crate::pipeline::View;
use anyhow::{Context, bail};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

/// See the module.
#[derive(Debug)]
pub(super) struct Reloader {
    sources: Arc<Sources>,
    path: PathBuf,
}

impl Reloader {
    pub(super) fn new(sources: Arc<Sources>, path: &Path) -> Self {
        Self { sources, path: path.to_owned() }
    }

    /// Reads the file again and takes it, or says why not.
    pub(super) fn reload(&mut self) {
        let outcome = self.take();
        let failed = outcome.is_err();
        let books = &self.sources.reload;
        books.last_failed.store(failed, Ordering::Relaxed);
        match outcome {
            Ok(generation) => tracing::info!(generation, path = %self.path.display(), "configuration taken"),
            Err(error) => {
                books.failures.fetch_add(1, Ordering::Relaxed);
                tracing::error!("configuration refused, the running one stays: {error:#}");
            }
        }
    }

    fn take(&self) -> anyhow::Result<u64> {
        let text = std::fs::read_to_string(&self.path)
            .with_context(|| format!("{} can't be read", self.path.display()))?;
        let config = Arc::new(Config::from_toml(&text, &self.path.display().to_string())?);
        let running = Arc::clone(&self.sources.current.load().view);
        refuse_what_takes_a_restart(&running.config, &config)?;
        let view = View::new(running.generation.saturating_add(1), Arc::clone(&config), &self.sources.ledger);
        // Capture first, for it can be put back: once the replayer has let go of a shadow, the rules that run
        // have lost theirs.
        self.apply(&running.config.capture, &config.capture)?;
        if let Err(error) = self.sources.replayer.reconfigure(view.shadows()) {
            self.apply(&config.capture, &running.config.capture)?;
            return Err(error.into());
        }
        let generation = view.generation;
        let replay = self.sources.replayer.handle();
        self.sources.current.store(Arc::new(Generation { view: Arc::new(view), replay }));
        Ok(generation)
    }

    /// Captures what `wanted` says; where that can't be, what `running` says.
    fn apply(&self, running: &CaptureConfig, wanted: &CaptureConfig) -> anyhow::Result<()> {
        let mut capture = self.sources.capture.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(attached) = &mut *capture else { return Ok(()) };
        attached.attacher.apply(wanted).or_else(|error| {
            attached.attacher.apply(running)?;
            Err(error.into())
        })
    }
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
