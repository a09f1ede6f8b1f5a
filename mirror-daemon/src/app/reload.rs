//! Takes a changed configuration as a whole, or leaves the running one as it is.

use super::cluster::Cluster;
use super::pages::Sources;
use super::pods::joined;
use super::shard::Generation;
use super::source::{Base, Source};
use crate::capture::{AttacherClient, CaptureError, Trial};
use crate::config::{CaptureConfig, CapturePoint, Config};
use crate::kube::{Resolved, Terms};
use crate::pipeline::View;
use crate::replay;
use crate::telemetry::logging::in_words;
use anyhow::bail;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

/// See the module.
#[derive(Debug)]
pub(super) struct Reloader {
    sources: Arc<Sources>,
    origin: Source,
    /// What the files said when they were taken: what a change in the cluster is added to, whatever has become of
    /// them.
    base: Mutex<Base>,
    /// The cluster's rules that run; `None`: there are none.
    rules: Mutex<Option<Arc<Resolved>>>,
}

/// What has changed, or may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Changed {
    /// File or manifests.
    Files,
    /// The cluster's rules.
    Cluster,
}

impl Reloader {
    pub(super) fn new(sources: Arc<Sources>, origin: Source, base: Base) -> Self {
        Self { sources, origin, base: Mutex::new(base), rules: Mutex::default() }
    }

    /// Reads again what has changed and takes it, or says why not. Blocks.
    pub(super) fn reload(&self, changed: Changed) {
        let outcome = self.take(changed);
        let is_whole = matches!(outcome, Ok((_, Ok(()))));
        self.sources.reload.note(changed, !is_whole);
        match outcome {
            Ok((generation, committed)) => {
                let source = match changed {
                    Changed::Files => self.origin.describe(),
                    Changed::Cluster => "the cluster".to_owned(),
                };
                tracing::info!(generation, source, "configuration taken");
                if let Err(error) = committed {
                    tracing::error!(
                        why = in_words(&error),
                        "not all of its capture settings could be changed"
                    );
                }
            }
            Err(error) => {
                self.cluster().refused(&self.sources.current.load().view.config.kubernetes);
                let why = in_words(error.as_ref());
                tracing::error!("configuration refused, the running one stays: {why}");
                if changed == Changed::Cluster
                    && let Err(error) = self.cut()
                {
                    tracing::error!(
                        why = in_words(error.as_ref()),
                        "rules that the cluster has revoked still run"
                    );
                }
            }
        }
    }

    /// The generation of what was taken; and, as its rules hold in any case, whether the kernel has taken its places too.
    fn take(&self, changed: Changed) -> anyhow::Result<(u64, Result<(), CaptureError>)> {
        let (base, own) = match changed {
            Changed::Files => self.origin.read()?,
            Changed::Cluster => {
                let base = self.base();
                let own = base.alone()?;
                (base, own)
            }
        };
        let terms = Terms::of(&own);
        let resolved = self.cluster().resolve(&terms)?;
        let config = match &resolved {
            Some(resolved) => base.with_cluster(resolved)?,
            None => own,
        };
        let taken = self.run(&Arc::new(config), changed)?;
        *self.base.lock().unwrap_or_else(PoisonError::into_inner) = base;
        self.cluster().taken(&terms, resolved.as_deref());
        *self.rules.lock().unwrap_or_else(PoisonError::into_inner) = resolved;
        self.sources.reload.are_rules_cut.store(false, Ordering::Relaxed);
        Ok(taken)
    }

    /// The cluster's rules can't be taken as they are now: of those that run, what no longer is in the cluster goes all
    /// the same, for a ReferenceGrant that is removed must not stay in force.
    fn cut(&self) -> anyhow::Result<()> {
        let running = self.rules.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(running) = running else { return Ok(()) };
        let base = self.base();
        let now = self.cluster().resolve(&Terms::of(&base.alone()?))?;
        let Some(cut) = now.map(|now| running.cut_to(&now)).filter(|cut| *cut != *running) else {
            return Ok(());
        };
        let lost = running.mirror_count().saturating_sub(cut.mirror_count());
        self.run_rules(&Arc::new(base.with_cluster(&cut)?))?;
        *self.rules.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(cut));
        self.sources.reload.are_rules_cut.store(true, Ordering::Relaxed);
        tracing::error!(
            mirrors = lost,
            "mirrors that are no longer in the cluster were taken away; what is new there waits"
        );
        Ok(())
    }

    fn base(&self) -> Base {
        self.base.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn cluster(&self) -> &Cluster {
        &self.sources.cluster
    }

    /// Changes over to `config`, or leaves all as it is. With the generation, whether the kernel has taken the places too.
    fn run(&self, config: &Arc<Config>, changed: Changed) -> anyhow::Result<(u64, Result<(), CaptureError>)> {
        let running = Arc::clone(&self.sources.current.load().view);
        refuse_what_takes_a_restart(&running.config, config, self.sources.pods.is_some())?;
        for shadow in &config.shadows {
            // A file that can't be read any more is no reason to keep rules that were revoked.
            let is_kept = changed == Changed::Cluster
                && running
                    .config
                    .shadows
                    .iter()
                    .any(|old| (&old.name, &old.tls) == (&shadow.name, &shadow.tls));
            // Before its books are opened, which stay.
            if !is_kept {
                replay::check_tls(shadow)?;
            }
        }
        let wanted = self.with_pods(&config.capture);
        let must = &config.capture.points;
        let mut capture = self.sources.capture.lock().unwrap_or_else(PoisonError::into_inner);
        let trial =
            capture.as_mut().map(|attached| try_out(&mut attached.attacher, &wanted, must)).transpose()?;
        let view = View::new(running.generation.saturating_add(1), Arc::clone(config), &self.sources.ledger);
        let reconfigured = self.sources.replayer.reconfigure(view.shadows());
        let Some((attached, trial)) = capture.as_mut().zip(trial) else {
            reconfigured?;
            return Ok((self.take_up(view), Ok(())));
        };
        let attacher = &mut attached.attacher;
        if let Err(error) = reconfigured {
            attacher.abandon(trial);
            return Err(error.into());
        }
        // From here on nothing is refused: the replayer has let go of shadows, and the rules must follow.
        let committed = attacher.commit(trial);
        let view = at_points(view, &wanted, attacher);
        let generation = self.take_up(view);
        self.sources.look_at(attached);
        if let Some(pods) = &self.sources.pods {
            pods.select(config);
        }
        Ok((generation, committed))
    }

    /// Changes over to the rules of `config`, which is the running one otherwise: capture is left as it is.
    fn run_rules(&self, config: &Arc<Config>) -> anyhow::Result<()> {
        let running = Arc::clone(&self.sources.current.load().view);
        let wanted = self.with_pods(&config.capture);
        let capture = self.sources.capture.lock().unwrap_or_else(PoisonError::into_inner);
        let view = View::new(running.generation.saturating_add(1), Arc::clone(config), &self.sources.ledger);
        self.sources.replayer.reconfigure(view.shadows())?;
        self.take_up(match &*capture {
            Some(attached) => at_points(view, &wanted, &attached.attacher),
            None => view,
        });
        Ok(())
    }

    /// Attaches to the pods that are wanted now, and lets go of those that are not any more. What can't be attached
    /// stays wanted. Blocks.
    pub(super) fn follow_pods(&self) {
        let mut capture = self.sources.capture.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(attached) = &mut *capture else { return };
        let attacher = &mut attached.attacher;
        let running = Arc::clone(&self.sources.current.load().view);
        let wanted = self.with_pods(&running.config.capture);
        let changed = attacher.try_out(&wanted).and_then(|trial| attacher.commit(trial));
        // Also after a failure: some of it may have been done.
        self.take_up(at_points(View::clone(&running), &wanted, attacher));
        self.sources.look_at(attached);
        if let Err(error) = changed {
            tracing::error!(why = in_words(&error), "the capture points of pods can't be changed");
        }
    }

    fn with_pods(&self, capture: &CaptureConfig) -> CaptureConfig {
        match &self.sources.pods {
            Some(pods) => joined(capture, &pods.points().borrow()),
            None => capture.clone(),
        }
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
/// starting keeps a configuration from being taken. `must`: the points of the configuration itself; those of pods come
/// and go, and wait until they can be.
fn try_out(
    attacher: &mut AttacherClient,
    wanted: &CaptureConfig,
    must: &[CapturePoint],
) -> anyhow::Result<Trial> {
    let trial = attacher.try_out(wanted)?;
    let failure = trial.failures().find(|(point, _)| must.contains(point));
    if let Some((point, why)) = failure {
        attacher.abandon(trial);
        bail!("{point} can't be captured: {why}");
    }
    Ok(trial)
}

fn at_points(view: View, wanted: &CaptureConfig, attacher: &AttacherClient) -> View {
    view.at_points(wanted, attacher.points().into_iter().map(|point| (point.number, point.point)))
}

/// Ring sizes, threads, the leg and the pages' address are fixed for the life of the process.
fn refuse_what_takes_a_restart(
    running: &Config,
    wanted: &Config,
    looks_for_pods: bool,
) -> anyhow::Result<()> {
    let fixed = |capture: &CaptureConfig| {
        let has_points = looks_for_pods || !capture.points.is_empty();
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
    if !looks_for_pods && !wanted.pods.selections.is_empty() {
        bail!("capture.kubernetes can't begin while the daemon runs: restart it");
    }
    if running.admin != wanted.admin {
        bail!("admin.listen can't change while the daemon runs: restart it");
    }
    Ok(())
}
