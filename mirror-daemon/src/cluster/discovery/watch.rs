//! I/O. Watches the pods of this node at the API server.
//!
//! One list and one watch, which goes on where it broke off; with growing pauses while the server is away or refuses.
//! Meanwhile all that is known stays. Each daemon asks for its own node's pods only.

use super::Shared;
use super::pod::{Pod, PodMeta, PodSpec, PodStatus};
use super::points::MAX_PODS;
use super::selection::Selection;
use crate::cluster::client::{Access, TooLarge, is_watch};
use crate::cluster::page::PageSize;
use crate::telemetry::logging::in_words;
use futures_util::StreamExt;
use hyper::Request;
use kube::api::{Api, ApiResource, Object};
use kube::client::Body;
use kube::runtime::WatchStreamExt;
use kube::runtime::utils::{Backoff, ResetTimerBackoff};
use kube::runtime::watcher::{self, Config, Event, watcher};
use kube::{Client, Resource};
use siphasher::sip::SipHasher13;
use std::hash::Hasher;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Pauses between attempts: the first, doubled up to the longest, and up to a quarter less of each.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// After so long without an error pauses begin from the first again.
const CALM: Duration = Duration::from_secs(60);
/// Between attempts to read the credentials.
const CREDENTIALS_PAUSE: Duration = Duration::from_secs(10);
/// Pods that one answer of a list has, at first; fewer where they are large.
const PAGE_ITEMS: u32 = 250;

/// How it stands with the watch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WatchState {
    /// No pod is to be captured.
    #[default]
    Off,
    /// The first list is under way.
    Listing,
    /// All that the server knows is known.
    Synchronised,
    /// The server does not answer, or not what is asked.
    Unreachable,
    /// The server refuses.
    Forbidden,
}

impl WatchState {
    /// Every state.
    pub const ALL: [Self; 5] =
        [Self::Off, Self::Listing, Self::Synchronised, Self::Unreachable, Self::Forbidden];

    /// The word for this state.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Listing => "listing",
            Self::Synchronised => "synchronised",
            Self::Unreachable => "unreachable",
            Self::Forbidden => "forbidden",
        }
    }
}

type PodObject = Object<PodSpec, PodStatus>;

/// Watches for as long as there is somebody who selects.
pub(super) async fn run(
    access: Access,
    node: String,
    mut selection_rx: watch::Receiver<Arc<Selection>>,
    shared: Arc<Shared>,
) {
    loop {
        let selection = Arc::clone(&selection_rx.borrow_and_update());
        shared.handle_selection(&selection);
        tokio::select! {
            () = follow(&access, &node, &selection, &shared) => {}
            changed = selection_rx.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}

/// Watches the pods that `selection` may want, for ever.
async fn follow(access: &Access, node: &str, selection: &Selection, shared: &Arc<Shared>) {
    if selection.is_empty() {
        shared.set_watch(WatchState::Off);
        return std::future::pending().await;
    }
    shared.set_watch(WatchState::Listing);
    let client = loop {
        match access.client().await {
            Ok(client) => break client,
            Err(error) => shared.handle_watch_error(WatchState::Unreachable, &in_words(&error)),
        }
        tokio::time::sleep(CREDENTIALS_PAUSE).await;
    };
    shared.set_client(client.clone());
    let client = telling(client, Arc::clone(shared));
    let (mut page, mut listed) = (PageSize::new(PAGE_ITEMS), Vec::new());
    loop {
        let config = Config::default().fields(&format!("spec.nodeName={node}")).page_size(page.items());
        let pauses = ResetTimerBackoff::new(Pauses::of(node), CALM);
        let events = watcher(pods(client.clone(), selection), config).backoff(pauses);
        let mut events = pin!(events);
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => handle(event, selection, &mut listed, shared),
                Err(error) => {
                    shared.handle_watch_error(state_of(&error), &in_words(&error));
                    if is_long_page(&error) && page.halve() {
                        break;
                    }
                }
            }
        }
        tokio::time::sleep(FIRST_PAUSE).await;
    }
}

/// A client that tells when a watch was granted. The watcher does not: where it goes on after a failure, nothing is heard
/// of it until a pod changes, which may take days.
fn telling(client: Client, shared: Arc<Shared>) -> Client {
    let namespace = client.default_namespace().to_owned();
    let service = tower::service_fn(move |request: Request<Body>| {
        let (client, shared) = (client.clone(), Arc::clone(&shared));
        async move {
            let is_watch = is_watch(request.uri());
            let answer = client.send(request).await?;
            if is_watch && answer.status().is_success() {
                shared.set_watch(WatchState::Synchronised);
            }
            Ok::<_, kube::Error>(answer)
        }
    });
    Client::new(service, namespace)
}

/// Whether a page of the list was longer than is read.
fn is_long_page(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::InitialListFailed(_)) && TooLarge::caused(error)
}

fn pods(client: Client, selection: &Selection) -> Api<PodObject> {
    let pods = ApiResource::erase::<k8s_openapi::api::core::v1::Pod>(&());
    match selection.only_namespace() {
        Some(namespace) => Api::namespaced_with(client, namespace, &pods),
        None => Api::all_with(client, &pods),
    }
}

fn handle(event: Event<PodObject>, selection: &Selection, listed: &mut Vec<Pod>, shared: &Shared) {
    let now = Instant::now();
    match event {
        Event::Init => listed.clear(),
        Event::InitApply(object) => {
            let pod = reduced(object).filter(|pod| selection.target(pod).is_some());
            // A few more than are kept, so that some can be counted as left out.
            if listed.len() < MAX_PODS.saturating_mul(2) {
                listed.extend(pod);
            }
        }
        Event::InitDone => {
            let pods = std::mem::take(listed);
            shared.with_points(|points| points.handle_list(now, pods));
            shared.set_watch(WatchState::Synchronised);
        }
        Event::Apply(object) => {
            if let Some(pod) = reduced(object) {
                shared.with_points(|points| points.handle_pod(now, pod));
            }
            shared.set_watch(WatchState::Synchronised);
        }
        Event::Delete(object) => {
            if let Some(pod) = reduced(object) {
                shared.with_points(|points| points.handle_deleted(now, &pod));
            }
            shared.set_watch(WatchState::Synchronised);
        }
    }
}

/// What is used of a pod; the rest is let go of at once.
fn reduced(mut object: PodObject) -> Option<Pod> {
    let meta = std::mem::take(object.meta_mut());
    let meta = PodMeta {
        uid: meta.uid.unwrap_or_default(),
        namespace: meta.namespace.unwrap_or_default(),
        name: meta.name.unwrap_or_default(),
        labels: meta.labels.unwrap_or_default(),
        annotations: meta.annotations.unwrap_or_default(),
    };
    Pod::of(meta, &object.spec, &object.status.unwrap_or_default())
}

fn state_of(error: &watcher::Error) -> WatchState {
    let refused = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => matches!(status.code, 401 | 403),
        _ => false,
    };
    if refused { WatchState::Forbidden } else { WatchState::Unreachable }
}

/// Pauses between attempts. Those of many nodes differ, so that a server that comes back is not asked by all at once.
#[derive(Debug)]
struct Pauses {
    next: Duration,
    /// Of a node.
    random: SipHasher13,
}

impl Pauses {
    fn of(node: &str) -> Self {
        let mut random = SipHasher13::new();
        random.write(node.as_bytes());
        Self { next: FIRST_PAUSE, random }
    }
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let whole = self.next;
        self.next = whole.saturating_mul(2).min(LONGEST_PAUSE);
        self.random.write_u8(0);
        let share = u32::try_from(self.random.finish() >> 32).unwrap_or(0);
        let part = f64::from(share) / f64::from(u32::MAX) / 4.0;
        Some(whole.mul_f64(1.0 - part))
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        self.next = FIRST_PAUSE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_differ_between_nodes() {
        let of = |node: &str| -> Vec<Duration> { Pauses::of(node).take(8).collect() };
        let (one, other) = (of("node-1"), of("node-2"));
        assert_ne!(one, other);
        for (index, pause) in one.iter().chain(&other).enumerate() {
            let whole = FIRST_PAUSE.saturating_mul(1 << (index % 8)).min(LONGEST_PAUSE);
            assert!(*pause <= whole && *pause >= whole * 3 / 4, "{index}: {pause:?}");
        }
        let mut pauses = Pauses::of("node-1");
        assert!(pauses.by_ref().take(5).last().unwrap() > FIRST_PAUSE);
        pauses.reset();
        assert!(pauses.next().unwrap() <= FIRST_PAUSE);
    }

    #[tokio::test]
    async fn list_whose_page_is_too_long_is_told_from_other_failures() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await;
            let length = crate::cluster::client::MAX_PAGE_BYTES + 1;
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
            let _ = stream.write_all(head.as_bytes()).await;
            let _ = stream.write_all(&vec![b' '; length]).await;
        });
        let config = kube::Config::new(format!("http://{address}").parse().unwrap());
        let client = crate::cluster::client::client(config).unwrap();
        let pods = pods(client, &Selection::default());
        let mut events = pin!(watcher(pods, Config::default().page_size(PAGE_ITEMS)));
        let failed = loop {
            if let Some(Err(error)) = events.next().await {
                break error;
            }
        };
        assert!(is_long_page(&failed), "{failed:?}");
        assert!(!is_long_page(&watcher::Error::NoResourceVersion));
    }

    #[test]
    fn refusal_is_told_from_a_server_that_is_away() {
        let refused = |code| {
            let status = kube::core::Status { code, ..kube::core::Status::default() };
            state_of(&watcher::Error::InitialListFailed(kube::Error::Api(Box::new(status))))
        };
        assert_eq!(refused(403), WatchState::Forbidden);
        assert_eq!(refused(401), WatchState::Forbidden);
        assert_eq!(refused(500), WatchState::Unreachable);
        assert_eq!(state_of(&watcher::Error::NoResourceVersion), WatchState::Unreachable);
    }
}
