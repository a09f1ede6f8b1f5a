//! The rules that users have in the cluster: their objects are watched, made into rules, and what is wrong with
//! them is told where they will look.
//!
//! ```text
//! watch of each kind ─▶ Store ─▶ collect ─▶ kube::resolve ─▶ changed? ─▶ reload
//!                                     └───▶ findings ─▶ log, Events
//! ```
//!
//! Nothing is taken before every kind has been listed once: half of the objects would make other rules. From then
//! on what is known stays, whatever becomes of the API server, until it says otherwise.

mod collect;
mod event;
mod item;
mod report;
mod status;
mod store;
mod watch;

pub use store::{MAX_OBJECT_BYTES, MAX_OBJECTS, MAX_TOTAL_BYTES};

use crate::kube::{self, Finding, Kind, Resolved, Terms};
use crate::telemetry::snapshot::RulesStatus;
use ::kube::Client;
use status::Statuses;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use store::{Limits, Store};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// The rules in the cluster. The watches end when it is dropped.
#[derive(Debug)]
pub struct ClusterRules {
    shared: Arc<Shared>,
    tasks: Vec<AbortHandle>,
}

/// How long is waited for what, so that tests need not wait as long.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// Longest pause before an API server that is not reached is tried again.
    unreachable: Duration,
    /// Longest pause before what it has refused is tried again.
    refused: Duration,
    /// First and longest pause before a kind that it does not know is looked for again.
    absent: [Duration; 2],
    /// How long one watch lasts, at most; the server ends it then.
    watch: Duration,
    /// How long changes are collected before they are looked at, at least.
    collect: Duration,
    /// How long a finding must last before it is told. Objects that are applied together come one by one.
    report: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            unreachable: Duration::from_secs(5),
            refused: Duration::from_secs(10),
            absent: [Duration::from_secs(5), Duration::from_secs(60)],
            watch: Duration::from_secs(300),
            collect: Duration::from_millis(150),
            report: Duration::from_secs(3),
        }
    }
}

/// What the tasks share with whoever asks.
#[derive(Debug)]
struct Shared {
    books: Mutex<Books>,
    statuses: Mutex<Statuses>,
    /// Something in the store has changed.
    is_dirty: Notify,
    /// To whoever runs the rules.
    has_changed: Arc<Notify>,
    pace: Pace,
}

#[derive(Debug)]
struct Books {
    store: Store,
    /// Every kind was listed once, or is not there.
    is_synced: bool,
    terms: Terms,
    /// Made from the store as it is now, with these terms; `None`: has to be made.
    resolved: Option<Arc<Resolved>>,
    /// The rules that were told of last, or taken.
    told: String,
}

impl ClusterRules {
    /// Starts to watch, on the runtime of `handle`, on which `client` was made. `has_changed` is told when the rules
    /// are known for the first time, and when they are no longer those that were told of, or taken.
    #[must_use]
    pub fn start(handle: &Handle, client: Client, terms: Terms, has_changed: Arc<Notify>) -> Self {
        let books = Books::new(terms, Limits::default());
        Self::start_with(handle, client, books, has_changed, Pace::default())
    }

    fn start_with(
        handle: &Handle,
        client: Client,
        books: Books,
        has_changed: Arc<Notify>,
        pace: Pace,
    ) -> Self {
        let shared = Arc::new(Shared {
            books: Mutex::new(books),
            statuses: Mutex::default(),
            is_dirty: Notify::new(),
            has_changed,
            pace,
        });
        let watches = Kind::ALL.map(|kind| {
            let watch = watch::Watch::new(kind, client.clone(), Arc::clone(&shared));
            handle.spawn(watch.follow()).abort_handle()
        });
        // From the collector to who writes Events. A report is given again later where this is full.
        let (event_tx, event_rx) = tokio::sync::mpsc::channel(report::MAX_KNOWN);
        let collecting = handle.spawn(collect::collect(Arc::clone(&shared), event_tx)).abort_handle();
        let writing = handle.spawn(event::write(client, Arc::clone(&shared), event_rx)).abort_handle();
        let tasks = watches.into_iter().chain([collecting, writing]).collect();
        Self { shared, tasks }
    }

    /// The rules as the cluster has them now, with `terms`; `None`: not all is known yet. Blocks while they are
    /// made.
    #[must_use]
    pub fn resolve(&self, terms: &Terms) -> Option<Arc<Resolved>> {
        let mut books = self.shared.books();
        if !books.is_synced {
            return None;
        }
        if books.terms == *terms {
            return Some(books.resolve());
        }
        Some(Arc::new(kube::resolve(books.store.objects(), terms)))
    }

    /// What [`ClusterRules::resolve`] gave, with these terms, is what runs now: changes are told against it.
    pub fn taken(&self, terms: &Terms, resolved: Option<&Resolved>) {
        let mut books = self.shared.books();
        books.told = resolved.map(Resolved::to_toml).unwrap_or_default();
        if books.terms != *terms {
            books.terms.clone_from(terms);
            books.resolved = None;
        }
        drop(books);
        // What has changed meanwhile is told.
        self.shared.is_dirty.notify_one();
    }

    /// How it stands.
    #[must_use]
    pub fn status(&self) -> RulesStatus {
        self.shared.statuses().reading()
    }
}

impl Drop for ClusterRules {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Shared {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn statuses(&self) -> MutexGuard<'_, Statuses> {
        self.statuses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is known, and has it looked at where that made a difference.
    fn change(&self, kind: Kind, change: impl FnOnce(&mut Store) -> bool) {
        let mut books = self.books();
        let has_changed = change(&mut books.store);
        let (amount, bytes) = (books.store.amount(kind), books.store.bytes());
        if has_changed {
            books.resolved = None;
        }
        drop(books);
        self.statuses().hold(kind, amount, bytes);
        if has_changed {
            self.is_dirty.notify_one();
        }
    }
}

impl Books {
    fn new(terms: Terms, limits: Limits) -> Self {
        let store = Store::new(limits);
        Self { store, is_synced: false, terms, resolved: None, told: String::new() }
    }

    fn resolve(&mut self) -> Arc<Resolved> {
        let made =
            self.resolved.get_or_insert_with(|| Arc::new(kube::resolve(self.store.objects(), &self.terms)));
        Arc::clone(made)
    }

    /// All that is wrong: objects that can't be read, and references that lead nowhere.
    fn findings(&mut self) -> Vec<Finding> {
        let resolved = self.resolve();
        self.store.findings().chain(resolved.findings()).cloned().collect()
    }
}

#[cfg(test)]
mod tests;
