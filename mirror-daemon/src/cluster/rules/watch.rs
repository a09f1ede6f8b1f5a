//! Follows one kind of object: a list of all, then what changes, for as long as the daemon lives.
//!
//! ```text
//!          ┌──────────────404: next version, or later again──────────────┐
//!          ▼                                                             │
//!        list ──pages──▶ watch from there ──cut, ended, busy, 403──▶ watch from where it was
//!          ▲                    │
//!          └────410, unreadable─┘
//! ```
//!
//! A list is read only where a watch can't go on, and never twice without a pause. `kube`'s own watcher would go
//! round without one where a server ends each watch at once, and pass over a line that it can't read.

use super::Shared;
use super::item::{Event, EventKind, Page};
use super::status::Counted;
use super::store::{MAX_OBJECTS, Store};
use crate::cluster::api::{self, Fault};
use crate::cluster::backoff::{Backoff, jittered};
use crate::cluster::page::PageSize;
use crate::kube::Kind;
use crate::telemetry::snapshot::WatchState;
use ::kube::Client;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Objects of one page, at first; fewer where they are large.
const PAGE_ITEMS: u32 = 200;
/// A watch that ends sooner is no reason to begin the next one at once.
const SHORT_WATCH: Duration = Duration::from_secs(1);
/// A watch that has lasted so long may be followed by a list at once.
const LONG_WATCH: Duration = Duration::from_secs(60);
/// How much longer than asked for a watch may be silent before it is given up.
const WATCH_GRACE: Duration = Duration::from_secs(15);
/// How often a failure that goes on is told again.
const TELL_AGAIN: Duration = Duration::from_secs(600);
/// In how many looks in a row a kind must be missing before its objects are given up.
const MISSING_LOOKS: u32 = 2;

/// See the module.
pub(super) struct Watch {
    kind: Kind,
    client: Client,
    shared: Arc<Shared>,
    version: &'static str,
    page: PageSize,
    /// What is being tried, as roles call it.
    verb: &'static str,
    /// Before what failed is tried again.
    backoff: Backoff,
    /// Before all is listed again.
    relist: Backoff,
    is_absence_told: bool,
    /// The failure that was told last, and when.
    told: Option<(&'static str, Instant)>,
}

impl Watch {
    pub(super) fn new(kind: Kind, client: Client, shared: Arc<Shared>) -> Self {
        Self {
            kind,
            client,
            shared,
            version: "",
            page: PageSize::new(PAGE_ITEMS),
            verb: "list",
            backoff: Backoff::default(),
            relist: Backoff::default(),
            is_absence_told: false,
            told: None,
        }
    }

    /// Never ends by itself.
    pub(super) async fn follow(mut self) {
        let [mut until_look, longest] = self.shared.pace.absent;
        let mut missing_looks: u32 = 0;
        loop {
            match self.follow_known().await {
                Fault::NotFound(_) => {
                    missing_looks = missing_looks.saturating_add(1);
                    self.miss(missing_looks);
                    sleep(jittered(until_look)).await;
                    until_look = until_look.saturating_mul(2).min(longest);
                }
                fault => {
                    [until_look, _] = self.shared.pace.absent;
                    missing_looks = 0;
                    self.fail(&fault);
                    let pause = match self.verb {
                        "watch" => self.relist.pause(self.shared.pace.refused),
                        _ => self.pause_after(&fault),
                    };
                    sleep(pause).await;
                }
            }
        }
    }

    /// Lists and watches in the first version that the API server knows, until that fails.
    async fn follow_known(&mut self) -> Fault {
        let mut fault = Fault::NotFound(String::new());
        for version in self.kind.versions() {
            self.version = version;
            fault = match self.list().await {
                Ok(resource_version) => self.watch(resource_version).await,
                Err(fault) => fault,
            };
            if !matches!(fault, Fault::NotFound(_)) {
                break;
            }
        }
        if matches!(&fault, Fault::TooLarge(_)) {
            self.page.halve();
        }
        fault
    }

    /// Reads all objects, page by page. From which version on a watch tells the rest.
    async fn list(&mut self) -> Result<String, Fault> {
        let kind = self.kind;
        self.verb = "list";
        self.shared.statuses().list(kind);
        self.shared.change(kind, |store| {
            store.begin_list(kind);
            false
        });
        let (mut next, mut read): (_, usize) = (String::new(), 0);
        let resource_version = loop {
            let page: Page = api::get(&self.client, &self.list_uri(&next)).await?;
            read = read.saturating_add(page.items.len());
            let version = self.version;
            self.shared.change(kind, |store| {
                page.items.into_iter().fold(false, |changed, item| store.put(kind, version, item) | changed)
            });
            next = page.metadata.r#continue;
            // What is beyond would not be held.
            if next.is_empty() || read > MAX_OBJECTS {
                break page.metadata.resource_version;
            }
        };
        if resource_version.is_empty() {
            return Err(Fault::Garbage("a list without a resource version".to_owned()));
        }
        self.shared.change(kind, |store| store.end_list(kind));
        self.heard(Counted::List);
        if self.shared.statuses().know(kind) {
            tracing::info!(kind = kind.name(), objects = read, "all objects of the kind are known");
            self.shared.is_dirty.notify_one();
        }
        Ok(resource_version)
    }

    /// Takes in what changes, in one watch after the other, until one can't go on where the former ended.
    async fn watch(&mut self, mut resource_version: String) -> Fault {
        self.verb = "watch";
        loop {
            let begun = Instant::now();
            let outcome = self.watch_once(&mut resource_version).await;
            let lasted = begun.elapsed();
            if lasted >= SHORT_WATCH {
                self.backoff.reset();
            }
            if lasted >= LONG_WATCH {
                self.relist.reset();
            }
            let pause = match outcome {
                Ok(()) if lasted >= SHORT_WATCH => continue,
                Ok(()) => self.backoff.pause(self.shared.pace.unreachable),
                Err(fault) if can_resume(&fault) => {
                    self.fail(&fault);
                    self.pause_after(&fault)
                }
                Err(fault) => return fault,
            };
            sleep(pause).await;
        }
    }

    /// One watch, until the server ends it.
    async fn watch_once(&mut self, resource_version: &mut String) -> Result<(), Fault> {
        let kind = self.kind;
        let most = self.shared.pace.watch;
        let mut lines = api::watch(&self.client, &self.watch_uri(resource_version, jittered(most))).await?;
        self.enter(WatchState::Watching);
        self.heard(Counted::Watch);
        while let Some(line) = lines.next(most.saturating_add(WATCH_GRACE)).await? {
            let event: Event =
                serde_json::from_slice(&line).map_err(|error| Fault::Garbage(error.to_string()))?;
            if event.kind == EventKind::Error {
                return Err(event.object.into_fault());
            }
            if event.object.resource_version().is_empty() {
                return Err(Fault::Garbage("an event without a resource version".to_owned()));
            }
            event.object.resource_version().clone_into(resource_version);
            self.heard(if event.kind == EventKind::Bookmark { Counted::Nothing } else { Counted::Change });
            let version = self.version;
            self.shared.change(kind, |store| take(store, kind, version, event));
        }
        Ok(())
    }

    /// The API server does not know the kind.
    fn miss(&mut self, looks: u32) {
        let kind = self.kind;
        self.enter(WatchState::Absent);
        if !std::mem::replace(&mut self.is_absence_told, true) {
            tracing::info!(
                kind = kind.name(),
                group = kind.group(),
                "the API server does not know this kind; it is looked for again now and then"
            );
        }
        // One look may come while the kind's definition is replaced.
        if looks >= MISSING_LOOKS {
            self.shared.change(kind, |store| {
                store.begin_list(kind);
                store.end_list(kind)
            });
        }
        if self.shared.statuses().know(kind) {
            self.shared.is_dirty.notify_one();
        }
    }

    /// A request failed; what is known stays.
    fn fail(&mut self, fault: &Fault) {
        let (kind, verb) = (self.kind, self.verb);
        self.shared.statuses().fail(kind, fault);
        let is_forbidden = matches!(fault, Fault::Forbidden(_));
        self.enter(if is_forbidden { WatchState::Forbidden } else { WatchState::Failing });
        // Rules may be possible without it.
        self.shared.is_dirty.notify_one();
        if let Fault::Gone(_) = fault {
            // As after each restart of an API server; the list that follows mends it.
            tracing::debug!(resource = kind.plural(), "a watch was too old to go on: {fault}");
            return;
        }
        if !self.tells(fault.label()) {
            return;
        }
        let (group, resource) = (kind.group(), kind.plural());
        match fault {
            Fault::Forbidden(message) => tracing::warn!(
                verb,
                group,
                resource,
                "the daemon's account may not {verb} {resource} of the API group {group:?}: give it a ClusterRole with the \
                 verbs list and watch for them; what was known of them stays. The API server says: {message}"
            ),
            fault => tracing::warn!(
                verb,
                group,
                resource,
                "the cluster's {resource} can't be read now; what was known of them stays: {fault}"
            ),
        }
    }

    /// Whether a failure is to be told: it is another than the last one, or that was long ago.
    fn tells(&mut self, label: &'static str) -> bool {
        let now = Instant::now();
        let is_known = self
            .told
            .is_some_and(|(told, at)| told == label && now.saturating_duration_since(at) < TELL_AGAIN);
        if !is_known {
            self.told = Some((label, now));
        }
        !is_known
    }

    fn enter(&mut self, state: WatchState) {
        self.shared.statuses().enter(self.kind, state);
        if state != WatchState::Watching {
            return;
        }
        self.is_absence_told = false;
        if self.told.take().is_some() {
            tracing::info!(kind = self.kind.name(), "watched again");
        }
    }

    fn heard(&self, what: Counted) {
        self.shared.statuses().hear(self.kind, what, Instant::now());
    }

    fn pause_after(&mut self, fault: &Fault) -> Duration {
        let pace = self.shared.pace;
        let is_cheap = matches!(fault, Fault::Unreachable(_) | Fault::Gone(_) | Fault::TooLarge(_));
        self.backoff.pause(if is_cheap { pace.unreachable } else { pace.refused })
    }

    fn list_uri(&self, page: &str) -> String {
        let uri = format!("{}?limit={}", self.path(), self.page.items());
        // The token is base64 for use in URLs.
        if page.is_empty() { uri } else { format!("{uri}&continue={page}") }
    }

    fn watch_uri(&self, resource_version: &str, lasting: Duration) -> String {
        let seconds = lasting.as_secs().max(1);
        format!(
            "{}?watch=true&allowWatchBookmarks=true&timeoutSeconds={seconds}&resourceVersion={resource_version}",
            self.path()
        )
    }

    fn path(&self) -> String {
        let (group, version, resource) = (self.kind.group(), self.version, self.kind.plural());
        match group {
            "" => format!("/api/{version}/{resource}"),
            group => format!("/apis/{group}/{version}/{resource}"),
        }
    }
}

/// Whether a watch can go on where the one that failed had come to.
const fn can_resume(fault: &Fault) -> bool {
    match fault {
        Fault::Unauthorized(_)
        | Fault::Forbidden(_)
        | Fault::Busy { .. }
        | Fault::Unreachable(_)
        | Fault::Silent(_) => true,
        // Something was missed, or the version is unknown.
        Fault::Gone(_)
        | Fault::NotFound(_)
        | Fault::Conflict(_)
        | Fault::Refused { .. }
        | Fault::Garbage(_)
        | Fault::TooLarge(_) => false,
    }
}

fn take(store: &mut Store, kind: Kind, version: &str, event: Event) -> bool {
    match event.kind {
        EventKind::Added | EventKind::Modified => store.put(kind, version, event.object),
        EventKind::Deleted => event.object.reference(kind).is_some_and(|name| store.remove(&name)),
        EventKind::Bookmark | EventKind::Error => false,
    }
}
