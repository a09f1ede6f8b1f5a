//! `run --config`: capture, pipeline threads, replay, pages, reload, and the order in which all of it ends.
//!
//! ```text
//! main thread: tokio, current-thread     replay's connection tasks, pages, signals, reload
//! one thread per ring shard              ring, flow, http, rule, rewrite (shard.rs)
//! one control thread                     heartbeat, shed level, opens and closes (control.rs)
//! ```
//!
//! The end, on SIGTERM: capture threads take what is in their rings and end; the programs are detached; the
//! replayer finishes what it has until the deadline; the pages stop last.

use super::cluster::Cluster;
use super::control::Control;
use super::losses::LossLog;
use super::pages::{self, EndOfCapture, ReloadBooks, Sources};
use super::pods::{self, Place, Pods};
use super::reload::{Changed, Reloader};
use super::shard::{Generation, LiveOutlet, Shard};
use super::source::{Base, Source};
use super::stats::ShardStats;
use super::{Failure, start};
use crate::admin::{AdminListener, AdminServer, Pages};
use crate::capture::{self, AttacherLink, Capture, Prepared, SocketMarker, TestKnobs, Waker};
use crate::cluster::discovery::PodPoint;
use crate::config::Config;
use crate::drain::{Shutdown, Signals};
use crate::kube::Terms;
use crate::pipeline::{Pipeline, View};
use crate::privilege;
use crate::reload::ConfigWatch;
use crate::replay::{Marking, Replayer};
use crate::telemetry::Ledger;
use crate::telemetry::logging::in_words;
use crate::telemetry::snapshot::LedgerReading;
use anyhow::{Context, anyhow};
use arc_swap::ArcSwap;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

/// Opens and closes that wait for one capture thread, at most; more are left out: they are hints.
const LIFECYCLES_WAITING: usize = 4096;

/// Runs until told to end.
pub(super) fn run(source: &Source, place: &Place, link: AttacherLink) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the async runtime can't be started")
        .map_err(Failure::Running)?;
    runtime.block_on(Box::pin(run_async(source, place, link)))
}

async fn run_async(source: &Source, place: &Place, mut link: AttacherLink) -> Result<(), Failure> {
    // Before the first read, so that no change is missed.
    let watches = Watches {
        file: source.file.as_deref().map(ConfigWatch::new),
        manifests: source.manifests.as_deref().map(ConfigWatch::of_tree),
    };
    let signals =
        Signals::of(link.take_orders()).context("signals can't be handled").map_err(Failure::Running)?;
    let restarts = link.restarts();
    let (base, config) = source.read().map_err(Failure::Usage)?;
    let config = Arc::new(config);
    step_back(config.nice);
    let (prepared, pages) = take_privileged(&config, place, link)?;
    let marking = prepared.as_ref().map_or(Marking::Own, |prepared| marking_by(prepared.marker()));
    let ledger = Arc::new(Ledger::default());
    let view = Arc::new(View::new(1, Arc::clone(&config), &ledger));
    let runtime = tokio::runtime::Handle::current();
    let replayer = Replayer::start_marking(&runtime, view.shadows(), marking).map_err(Failure::usage)?;
    let replayer = Arc::new(replayer);
    let admin = pages.map(AdminServer::listen).transpose().map_err(Failure::usage)?;
    let generation = Generation { view, replay: replayer.handle() };
    let current = Arc::new(ArcSwap::from_pointee(generation));
    let shutdown = Shutdown::new();
    let cluster = Cluster::new(place.kubeconfig());
    cluster.resolve(&Terms::of(&config)).map_err(Failure::Usage)?;
    let pods = place.find_pods(&config)?;
    let (engine, mut attached) = start_capture(&config, prepared, &ledger, &current, &shutdown)?;
    if let (Some(_), Some(attached)) = (&pods, &mut attached) {
        pods::get_ready(&mut attached.attacher, &config);
    }

    let (capture, reload) = (Mutex::new(attached), ReloadBooks::default());
    let latest = Mutex::default();
    let sources = Arc::new(Sources {
        ledger,
        replayer,
        current,
        shutdown,
        engine,
        capture,
        latest,
        pods,
        cluster,
        reload,
        restarts,
    });
    serve(sources, admin, watches, signals, (source.clone(), base)).await
}

/// What takes a privilege: maps the rings and binds the pages' address. Then every privilege is given up, before there is
/// another thread, before anything is attached, and before anybody can connect.
fn take_privileged(
    config: &Config,
    place: &Place,
    link: AttacherLink,
) -> Result<(Option<Prepared>, Option<AdminServer>), Failure> {
    let prepared = match config.capture.points.is_empty() && !place.wants_pods(config) {
        true => None,
        false => Some(link.prepare(&config.capture, TestKnobs::default()).map_err(Failure::usage)?),
    };
    let pages = config.admin.listen.map(AdminServer::bind).transpose().map_err(Failure::usage)?;
    privilege::give_up().map_err(Failure::running)?;
    Ok((prepared, pages))
}

fn marking_by(marker: Arc<SocketMarker>) -> Marking {
    Marking::Other(Arc::new(move |socket| marker.mark(socket).map_err(|error| in_words(&error))))
}

/// What tells that the configuration may have changed.
struct Watches {
    file: Option<ConfigWatch>,
    manifests: Option<ConfigWatch>,
}

/// Makes this thread, and so every thread that it starts, give way to others: the gateway runs on the same
/// processors.
fn step_back(nice: u8) {
    if let Err(error) = rustix::process::setpriority_process(None, nice.into()) {
        tracing::warn!(nice, %error, "the daemon's priority can't be lowered: it competes with the gateway");
    }
}

/// Everything is attached and runs: answers pages, signals and changes of the configuration until the end.
async fn serve(
    sources: Arc<Sources>,
    admin: Option<AdminListener>,
    watches: Watches,
    signals: Signals,
    (origin, base): (Source, Base),
) -> Result<(), Failure> {
    // From signals and what is watched to the reloader below; one that waits stands for all.
    let (reload_tx, mut reload_rx) = mpsc::channel(1);
    let drain_timeout = {
        let current = Arc::clone(&sources.current);
        move || current.load().view.config.drain_timeout
    };
    let obeying = tokio::spawn(signals.obey(sources.shutdown.clone(), drain_timeout, reload_tx.clone()));
    let watching = [watches.file, watches.manifests].into_iter().flatten();
    let watching: Vec<_> = watching.map(|watch| tokio::spawn(watch.report(reload_tx.clone()))).collect();
    let (pages_end_tx, pages_end_rx) = tokio::sync::oneshot::channel::<()>();
    let pages = admin.map(|admin| {
        tracing::info!(address = %admin.address(), "pages are served");
        let pages = Pages::new(pages::snapshot_source(&sources), pages::health_source(&sources));
        tokio::spawn(admin.serve(pages, async {
            let _ = pages_end_rx.await;
        }))
    });
    let mut pod_points = sources.pods.as_ref().map(Pods::points);
    let reloader = Arc::new(Reloader::new(Arc::clone(&sources), origin, base));
    let mut upkeep = tokio::time::interval(pages::KEEP_ATTACHED_EVERY);
    upkeep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = sources.shutdown.drained() => break,
            Some(_) = reload_rx.recv() => {
                let reloader = Arc::clone(&reloader);
                // Loading kernel programs takes its time, and the replayer goes on meanwhile.
                let _ = tokio::task::spawn_blocking(move || reloader.reload(Changed::Files)).await;
            }
            () = sources.cluster.changed() => {
                let reloader = Arc::clone(&reloader);
                let _ = tokio::task::spawn_blocking(move || reloader.reload(Changed::Cluster)).await;
            }
            () = changed(pod_points.as_mut()) => {
                let reloader = Arc::clone(&reloader);
                let _ = tokio::task::spawn_blocking(move || reloader.follow_pods()).await;
            }
            _ = upkeep.tick() => sources.keep_attached().await,
        }
    }
    watching.iter().for_each(tokio::task::JoinHandle::abort);
    let outcome = end(&sources).await;
    let _ = pages_end_tx.send(());
    if let Some(pages) = pages {
        let _ = pages.await;
    }
    sources.shutdown.stop();
    let _ = obeying.await;
    outcome
}

/// Waits until other capture points of pods are wanted.
async fn changed(points: Option<&mut watch::Receiver<Arc<Vec<PodPoint>>>>) {
    if let Some(points) = points
        && points.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// Ends capture, then replay. The books balance afterwards.
async fn end(sources: &Arc<Sources>) -> Result<(), Failure> {
    let capture = Arc::clone(sources);
    // Not on this thread: the replayer goes on meanwhile with what the rings still give.
    let ended = tokio::task::spawn_blocking(move || capture.end_capture()).await;
    let deadline = sources.shutdown.deadline().map_or_else(Instant::now, |deadline| deadline.at());
    tokio::select! {
        () = sources.replayer.drain(deadline.into()) => {}
        () = sources.shutdown.stopped() => sources.replayer.drain(Instant::now().into()).await,
    }
    let EndOfCapture { outcome, kernel_complete } = ended.unwrap_or_else(|panicked| EndOfCapture {
        outcome: Err(anyhow::Error::new(panicked).context("the end of capturing panicked")),
        kernel_complete: false,
    });
    let books = LedgerReading::of(&sources.ledger);
    let (seen, matched, copies) = (books.seen(), books.matched, books.all_shadows());
    let (replayed, shed) = (copies.replayed, copies.shed.total());
    let dropped = books.dropped.total().saturating_add(copies.dropped.total());
    tracing::info!(seen, matched, replayed, shed, dropped, kernel_complete, "the books are closed");
    outcome.map_err(Failure::Running)
}

fn join(thread: EngineThread) -> Result<(), anyhow::Error> {
    let EngineThread { name, handle, .. } = thread;
    match handle.join() {
        Ok(result) => result.with_context(|| format!("{name} failed")),
        Err(_) => Err(anyhow!("{name} panicked; its message is above")),
    }
}

/// The threads of the capture side.
#[derive(Debug, Default)]
pub(super) struct Engine {
    threads: Mutex<Vec<EngineThread>>,
    pub(super) stats: Vec<Arc<ShardStats>>,
}

#[derive(Debug)]
struct EngineThread {
    name: String,
    waker: Waker,
    handle: JoinHandle<anyhow::Result<()>>,
}

impl Engine {
    /// Wakes every thread and waits for its end; the shutdown has begun. The first failure of them, if there was one.
    pub(super) fn end(&self) -> Result<(), anyhow::Error> {
        let threads = self.take();
        threads.iter().for_each(|thread| thread.waker.wake());
        threads.into_iter().map(join).fold(Ok(()), Result::and)
    }

    fn take(&self) -> Vec<EngineThread> {
        std::mem::take(&mut self.threads.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    fn start(
        &mut self,
        name: String,
        waker: Waker,
        shutdown: Shutdown,
        work: impl FnOnce() -> anyhow::Result<()> + Send + 'static,
    ) -> Result<(), Failure> {
        // A thread that ends before it was told to takes the daemon with it: half a daemon helps nobody.
        let guarded = move || {
            let _guard = EndsDaemon(shutdown);
            work()
        };
        let handle = std::thread::Builder::new()
            .name(name.clone())
            .spawn(guarded)
            .with_context(|| format!("{name} can't be started"))
            .map_err(Failure::Running)?;
        self.threads.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner).push(EngineThread {
            name,
            waker,
            handle,
        });
        Ok(())
    }
}

struct EndsDaemon(Shutdown);

impl Drop for EndsDaemon {
    fn drop(&mut self) {
        self.0.drain(crate::drain::Deadline::after(Instant::now(), std::time::Duration::from_secs(1)));
    }
}

/// What is left of the capture side for the main thread, once its threads have theirs.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) attacher: capture::AttacherClient,
    pub(super) counters: Arc<capture::CounterReader>,
    losses: LossLog,
}

impl Attached {
    /// Logs, from time to time, what the kernel programs lost since.
    pub(super) fn log_losses(&mut self, now: Instant) {
        // Counters that can't be read are told by the pages.
        if let Ok(counters) = self.counters.snapshot() {
            self.losses.handle_reading(&counters, now);
        }
    }
}

fn start_capture(
    config: &Config,
    prepared: Option<Prepared>,
    ledger: &Arc<Ledger>,
    current: &Arc<ArcSwap<Generation>>,
    shutdown: &Shutdown,
) -> Result<(Engine, Option<Attached>), Failure> {
    let mut engine = Engine::default();
    let Some(prepared) = prepared else {
        tracing::warn!("no capture point is configured: nothing will be mirrored");
        return Ok((engine, None));
    };
    let Capture { attacher, readers, control, counters, mut live, verdicts } =
        prepared.attach(&config.capture).map_err(Failure::usage)?;
    start::refuse_missing_points(&attacher)?;
    let generation = current.load_full();
    let view = View::clone(&generation.view);
    let points = attacher.points().into_iter().map(|point| (point.number, point.point));
    let view = view.at_points(&config.capture, points);
    let replay = generation.replay.clone();
    current.store(Arc::new(Generation { view: Arc::new(view), replay }));
    // Ready means capturing: the programs do nothing until the first beat.
    live.beat().map_err(Failure::usage)?;
    let mut lifecycle_txs = Vec::new();
    for (reader, verdicts) in readers.into_iter().zip(verdicts) {
        let name = format!("shard {}", reader.shard());
        // From the control thread to this capture thread.
        let (lifecycle_tx, lifecycle_rx) = std::sync::mpsc::sync_channel(LIFECYCLES_WAITING);
        lifecycle_txs.push(lifecycle_tx);
        let stats = Arc::new(ShardStats::new(Instant::now()));
        engine.stats.push(Arc::clone(&stats));
        let generation = current.load();
        let outlet = LiveOutlet { replay: generation.replay.clone(), verdicts };
        let pipeline =
            Pipeline::new(Arc::clone(&generation.view), Arc::clone(ledger), start::seed()?, outlet);
        let (waker, current, shard_shutdown) = (reader.waker(), Arc::clone(current), shutdown.clone());
        let shard = Shard { reader, pipeline, current, lifecycle_rx, shutdown: shard_shutdown, stats };
        engine.start(name, waker, shutdown.clone(), move || Ok(shard.run()?))?;
    }
    let (waker, counters) = (control.waker(), Arc::new(counters));
    let control = Control::new(control, Arc::clone(&counters), live, attacher.numbers(), lifecycle_txs);
    let control_shutdown = shutdown.clone();
    engine
        .start("control".to_owned(), waker, shutdown.clone(), move || Ok(control.run(&control_shutdown)?))?;
    for point in attacher.points() {
        tracing::info!(point = %point.point, state = %point.state, "capturing");
    }
    Ok((engine, Some(Attached { attacher, counters, losses: LossLog::default() })))
}
