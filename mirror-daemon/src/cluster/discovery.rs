//! Finds the gateway's pods on this node, and where to attach to them.
//!
//! ```text
//!  API server ──pods of this node──▶ watch ─┐
//!                                           ├─▶ points (pure) ──wanted capture points──▶ app ─▶ attacher
//!  cgroup tree ──inotify────────▶ cgroups ──┘      ▲                                             │
//!                                                  └───────────── attached, or why not ◀─────────┘
//! ```
//!
//! What decides is pure and gets `now` as an argument: `points` says what is wanted and when to tell, `silence` which
//! pod should have had traffic and had none. Nothing here attaches; nothing here needs a privilege but to read the
//! cgroup tree.

mod cgroups;
mod event;
mod latency;
pub(super) mod pod;
mod points;
mod selection;
mod silence;
mod watch;

pub(crate) use cgroups::{cgroup2_roots, pods_below};
pub use latency::{ATTACH_BUCKETS_SECONDS, Latency};
pub use points::{Outcome, PodCounts, PodPoint};
pub use selection::Selection;
pub use watch::WatchState;

use super::client::Access;
use crate::config::CapturePoint;
use cgroups::{CgroupWatch, Change};
use kube::Client;
use points::{Notice, PodPoints};
use silence::{Listened, Silence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch as channel};
use tokio::task::JoinHandle;

/// What the pages tell of it.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// Pods by state.
    pub pods: PodCounts,
    /// Attached pods that are Ready, and at which nothing was ever captured.
    pub silent: u64,
    /// How it stands with the watch of pods.
    pub watch: WatchState,
    /// How often the watch broke off, or could not begin.
    pub watch_failures: u64,
    /// The pods of this node were listed once since the start, or none is looked for.
    pub is_known: bool,
    /// How long it took from when a pod could be attached until it was.
    pub attach: Latency,
}

/// Looks for pods until it is dropped.
#[derive(Debug)]
pub struct Discovery {
    shared: Arc<Shared>,
    /// To the watch.
    selection_tx: channel::Sender<Arc<Selection>>,
    /// From the joining of all that is told.
    points_rx: channel::Receiver<Arc<Vec<PodPoint>>>,
    runtime: Handle,
    tasks: [JoinHandle<()>; 2],
}

/// What both tasks and the app share.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// The state has changed.
    changed: Notify,
    /// To the app.
    points_tx: channel::Sender<Arc<Vec<PodPoint>>>,
}

#[derive(Debug)]
struct State {
    points: PodPoints,
    silence: Silence,
    attach: Latency,
    watch: WatchState,
    watch_failures: u64,
    /// What was logged last of the watch.
    watch_told: Option<String>,
    is_known: bool,
    /// Once there is one.
    client: Option<ApiClient>,
}

struct ApiClient(Client);

impl std::fmt::Debug for ApiClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ApiClient")
    }
}

impl Discovery {
    /// Starts to look for the pods of `node` that `selection` wants, on `runtime`.
    #[must_use]
    pub fn start(runtime: &Handle, access: Access, node: String, selection: Selection) -> Self {
        let (points_tx, points_rx) = channel::channel(Arc::default());
        let (selection_tx, selection_rx) = channel::channel(Arc::new(selection));
        let state = State {
            points: PodPoints::new(),
            silence: Silence::default(),
            attach: Latency::default(),
            watch: WatchState::default(),
            watch_failures: 0,
            watch_told: None,
            is_known: false,
            client: None,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Notify::new(), points_tx });
        let watching = runtime.spawn(watch::run(access, node, selection_rx, Arc::clone(&shared)));
        let joining = runtime.spawn(join(Arc::clone(&shared)));
        Self { shared, selection_tx, points_rx, runtime: runtime.clone(), tasks: [watching, joining] }
    }

    /// From now on other pods are wanted.
    pub fn select(&self, selection: Selection) {
        self.selection_tx.send_if_modified(|present| {
            let is_other = **present != selection;
            if is_other {
                *present = Arc::new(selection);
            }
            is_other
        });
    }

    /// The capture points that are wanted now, those wanted for longest first; and how to wait for others.
    #[must_use]
    pub fn points(&self) -> channel::Receiver<Arc<Vec<PodPoint>>> {
        self.points_rx.clone()
    }

    /// Takes what became of wanted points. To be called after each change, and now and then.
    pub fn handle_outcome(&self, now: Instant, outcome: impl Fn(&CapturePoint) -> Option<Outcome>) {
        self.shared.with_points(|points| points.handle_outcome(now, outcome));
    }

    /// Listens for pods at which nothing is captured. `segments`: how many were captured so far under a number of
    /// capture points. To be called every few seconds.
    pub fn handle_segments(&self, now: Instant, after: Option<Duration>, segments: impl Fn(u32) -> u64) {
        let mut state = self.shared.lock();
        let listened: Vec<Listened> = state
            .points
            .attached()
            .map(|one| Listened {
                uid: one.uid.to_owned(),
                is_ready: one.pod.is_ready,
                number: one.number,
                segments: segments(one.number),
            })
            .collect();
        let silent = state.silence.handle_pods(now, after, &listened);
        for one in state.points.attached().filter(|one| silent.iter().any(|uid| uid == one.uid)) {
            let seconds = after.map_or(0, |after| after.as_secs());
            tracing::warn!(
                pod = one.pod.full_name(),
                seconds,
                "a Ready pod has had no traffic that is captured: does it listen on one of capture.ports, and do its \
                 connections pass the capture point?"
            );
            if let (Some(ApiClient(client)), Some(after)) = (&state.client, after) {
                self.runtime.spawn(event::tell(client.clone(), one.pod.clone(), after));
            }
        }
    }

    /// What the pages tell of it.
    #[must_use]
    pub fn reading(&self) -> Reading {
        let state = self.shared.lock();
        Reading {
            pods: state.points.counts(),
            silent: u64::try_from(state.silence.silent()).unwrap_or(u64::MAX),
            watch: state.watch,
            watch_failures: state.watch_failures,
            is_known: state.is_known,
            attach: state.attach.clone(),
        }
    }
}

impl Drop for Discovery {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_points<T>(&self, work: impl FnOnce(&mut PodPoints) -> T) -> T {
        let done = work(&mut self.lock().points);
        self.changed.notify_one();
        done
    }

    fn handle_selection(&self, selection: &Selection) {
        let now = Instant::now();
        self.with_points(|points| points.handle_selection(now, selection.clone()));
    }

    fn set_client(&self, client: Client) {
        self.lock().client = Some(ApiClient(client));
    }

    fn set_watch(&self, watch: WatchState) {
        let mut state = self.lock();
        if watch == WatchState::Synchronised {
            if state.watch_told.take().is_some() {
                tracing::info!("the pods of this node are watched again");
            }
            state.is_known = true;
        }
        state.is_known |= watch == WatchState::Off;
        state.watch = watch;
    }

    /// Logs each reason once until it works again.
    fn handle_watch_error(&self, watch: WatchState, why: &str) {
        let mut state = self.lock();
        state.watch_failures = state.watch_failures.saturating_add(1);
        state.watch = watch;
        if state.watch_told.as_deref() == Some(why) {
            return;
        }
        state.watch_told = Some(why.to_owned());
        if watch == WatchState::Forbidden {
            tracing::error!(
                why,
                "the API server refuses to tell of this node's pods: give the daemon's ServiceAccount `list` and \
                 `watch` of pods; what is attached stays, and it is tried again"
            );
        } else {
            tracing::warn!(
                why,
                "the pods of this node can't be watched: what is attached stays, and it is tried again"
            );
        }
    }

    /// Passes on what there is to tell.
    fn tell(&self, now: Instant) {
        let mut state = self.lock();
        while let Some(notice) = state.points.poll_notice() {
            if let Notice::Attached { took, .. } = &notice {
                state.attach.add(*took);
            }
            log(&notice);
        }
        if let Some(points) = state.points.poll_change(now) {
            self.points_tx.send_replace(Arc::new(points));
        }
    }
}

/// Joins what is told of pods with what happens to cgroups, for ever.
async fn join(shared: Arc<Shared>) {
    // The mounts of a process of its own do not change.
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut cgroups = CgroupWatch::new(cgroup2_roots(&mounts));
    loop {
        let due = shared.lock().points.next_timeout();
        tokio::select! {
            changes = cgroups.next() => {
                let now = Instant::now();
                shared.with_points(|points| changes.into_iter().for_each(|change| take(points, now, change)));
            }
            () = shared.changed.notified() => {}
            () = until(due) => {}
        }
        shared.tell(Instant::now());
    }
}

fn take(points: &mut PodPoints, now: Instant, change: Change) {
    match change {
        Change::All(cgroups) => points.handle_cgroups(now, cgroups),
        Change::Appeared(cgroup) => points.handle_appeared(now, cgroup),
        Change::Vanished(cgroup) => points.handle_vanished(now, &cgroup),
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

fn log(notice: &Notice) {
    match notice {
        Notice::Attached { pod, point, took } => {
            let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            tracing::info!(pod, %point, took_ms, "pod is captured");
        }
        Notice::Failed { pod, why } => {
            tracing::warn!(pod, why, "pod can't be captured: it is tried again");
        }
        Notice::Gone { pod } => tracing::info!(pod, "pod is gone"),
        Notice::HostNetwork { pod } => {
            tracing::warn!(
                pod,
                "pod uses the node's network: its interface is the node's own, so its cgroup is captured instead"
            );
        }
    }
}
