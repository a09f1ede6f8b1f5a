//! Events (events.k8s.io/v1) about objects that make no rule: where `kubectl describe` shows them.
//!
//! Their names hang on what they say alone, so that the daemons of all nodes mean the same Event. Who has made it
//! keeps it fresh; for the others it is there already, and they ask again only after hours, each at another time. When its
//! maker is gone it runs out after an hour, and one of them makes it anew.

use super::Shared;
use crate::cluster::api::{self, Fault};
use crate::cluster::backoff::chance;
use crate::cluster::event::{self, GROUP};
use crate::kube::{Finding, Kind, ObjectRef, Reason, Subject};
use crate::telemetry::logging::Throttle;
use ::kube::Client;
use serde_json::{Value, json};
use siphasher::sip::SipHasher13;
use std::collections::HashMap;
use std::hash::Hasher;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::sleep;

/// Time between two Events, once [`BURST`] of them were written.
const INTERVAL: Duration = Duration::from_secs(2);
/// Events that may be written one after the other.
const BURST: u32 = 20;
/// Most Events that are kept fresh, and most of others that are remembered.
const MAX_OWN: usize = 1_000;
/// How long an Event that another daemon has made is left alone: between this and twice as long.
const LEFT_ALONE: Duration = Duration::from_secs(4 * 3_600);
/// Longest note, in characters; API servers allow 1024 bytes.
const MAX_NOTE_CHARS: usize = 250;
/// Longest part of an Event's name that is the object's own.
const MAX_NAME_BYTES: usize = 200;

/// What can become of an Event.
pub(super) const OUTCOMES: [&str; 5] = ["created", "refreshed", "exists", "forbidden", "failed"];

/// An Event that is wanted.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// What it says.
    pub(super) finding: Finding,
    /// What tells its object from others of the same name; empty: nothing is known.
    pub(super) uid: String,
}

/// Writes Events as they are wanted. Ends when nobody can want one.
pub(super) async fn write(client: Client, shared: Arc<Shared>, mut event_rx: mpsc::Receiver<Wanted>) {
    let mut writer = Writer::new(client, Instant::now());
    while let Some(wanted) = event_rx.recv().await {
        let Some(event) = Event::of(&wanted) else { continue };
        if writer.is_others(&event.name, Instant::now()) {
            continue;
        }
        sleep(writer.pause(Instant::now())).await;
        let outcome = writer.write(&event).await;
        shared.statuses().event(outcome);
    }
}

struct Writer {
    client: Client,
    /// Events that this daemon has made, and how often it has written each.
    own: HashMap<String, u32>,
    /// Events that others have made, and until when they are left alone.
    others: HashMap<String, Instant>,
    tokens: u32,
    refilled: Instant,
}

impl Writer {
    fn new(client: Client, now: Instant) -> Self {
        Self { client, own: HashMap::new(), others: HashMap::new(), tokens: BURST, refilled: now }
    }

    /// Whether an Event is somebody else's, and is to be left alone.
    fn is_others(&self, name: &str, now: Instant) -> bool {
        self.others.get(name).is_some_and(|until| now < *until)
    }

    /// An Event is there already.
    fn leave_alone(&mut self, name: &str, now: Instant) {
        if self.others.len() >= MAX_OWN {
            self.others.clear();
        }
        let wait = LEFT_ALONE.saturating_add(LEFT_ALONE.mul_f64(chance()));
        self.others.insert(name.to_owned(), now.checked_add(wait).unwrap_or(now));
    }

    /// How long to wait before the next Event.
    fn pause(&mut self, now: Instant) -> Duration {
        while self.tokens < BURST
            && let Some(next) = self.refilled.checked_add(INTERVAL).filter(|next| *next <= now)
        {
            self.refilled = next;
            self.tokens = self.tokens.saturating_add(1);
        }
        if self.tokens == BURST {
            self.refilled = now;
        }
        match self.tokens.checked_sub(1) {
            Some(left) => {
                self.tokens = left;
                Duration::ZERO
            }
            None => {
                self.refilled = self.refilled.checked_add(INTERVAL).unwrap_or(now);
                self.refilled.saturating_duration_since(now)
            }
        }
    }

    /// What became of it.
    async fn write(&mut self, event: &Event<'_>) -> &'static str {
        let refreshed = match self.own.get(&event.name).map(|count| count.saturating_add(1)) {
            None => None,
            Some(count) => match api::patch(&self.client, &event.own_uri(), &event.series(count)).await {
                // It has run out.
                Err(Fault::NotFound(_)) => None,
                written => Some(written.map(|()| ("refreshed", count))),
            },
        };
        let written = match refreshed {
            Some(written) => written,
            None => api::post(&self.client, &event.uri(), &event.body()).await.map(|()| ("created", 1)),
        };
        match written {
            Ok((outcome, count)) => {
                if self.own.len() >= MAX_OWN {
                    self.own.clear();
                }
                self.own.insert(event.name.clone(), count);
                outcome
            }
            // Another node's daemon has made it.
            Err(Fault::Conflict(_)) => {
                self.leave_alone(&event.name, Instant::now());
                "exists"
            }
            Err(fault) => {
                complain(&fault);
                if is_refusal(&fault) { "forbidden" } else { "failed" }
            }
        }
    }
}

/// Nothing can be made in a namespace that is being deleted, whatever roles say.
fn is_refusal(fault: &Fault) -> bool {
    matches!(fault, Fault::Forbidden(message) if !message.contains("being terminated"))
}

fn complain(fault: &Fault) {
    static REFUSED: Throttle = Throttle::every(Duration::from_secs(3_600));
    static FAILED: Throttle = Throttle::every(Duration::from_secs(600));
    let now = Instant::now();
    if !is_refusal(fault) {
        if let Some(suppressed) = FAILED.admit(now) {
            tracing::warn!(suppressed, "an Event can't be written: {fault}");
        }
    } else if let Some(suppressed) = REFUSED.admit(now) {
        tracing::warn!(
            verb = "create",
            group = GROUP,
            resource = "events",
            suppressed,
            "the daemon's account may not write Events: findings are in this log only. Give it a ClusterRole with the \
             verbs create and patch for events of the API group {GROUP:?}. The API server says: {fault}"
        );
    }
}

/// An Event about an object.
struct Event<'a> {
    name: String,
    object: &'a ObjectRef,
    wanted: &'a Wanted,
}

impl<'a> Event<'a> {
    /// `None`: there is nothing that the object's owner could do, or no object.
    fn of(wanted: &'a Wanted) -> Option<Self> {
        let Finding { object, path, reason, message } = &wanted.finding;
        let Subject::Object(object) = object else { return None };
        // Other gateways are other people's business; what has no uid is not there.
        if matches!(reason, Reason::GatewayNotBound | Reason::Duplicate | Reason::InvalidManifest)
            || wanted.uid.is_empty()
            || !object.kind.is_namespaced()
        {
            return None;
        }
        let mut hasher = SipHasher13::new();
        for part in [&wanted.uid, object.kind.name(), path, reason.label(), message] {
            hasher.write(part.as_bytes());
            hasher.write_u8(0xff);
        }
        let front = object.name.get(..MAX_NAME_BYTES).unwrap_or(&object.name);
        let name = format!("{}.{:016x}", front.trim_end_matches(['.', '-']), hasher.finish());
        Some(Self { name, object, wanted })
    }

    fn uri(&self) -> String {
        event::uri(&self.object.namespace)
    }

    fn own_uri(&self) -> String {
        format!("{}/{}", self.uri(), self.name)
    }

    fn body(&self) -> Value {
        let ObjectRef { kind, namespace, name } = self.object;
        let Finding { path, reason, message, .. } = &self.wanted.finding;
        let whole = if path.is_empty() { message.clone() } else { format!("{path}: {message}") };
        let note: String = whole.chars().filter(|found| !found.is_control()).take(MAX_NOTE_CHARS).collect();
        let regarding = json!({
            "apiVersion": api_version(*kind),
            "kind": kind.name(),
            "namespace": namespace,
            "name": name,
            "uid": self.wanted.uid,
        });
        let told = event::Event {
            name: &self.name,
            namespace,
            regarding,
            is_warning: *reason != Reason::AlreadyMirrored,
            reason: reason.label(),
            note: &note,
        };
        told.body()
    }

    fn series(&self, count: u32) -> Value {
        json!({ "series": { "count": count, "lastObservedTime": event::now() } })
    }
}

fn api_version(kind: Kind) -> String {
    let version = kind.versions().first().copied().unwrap_or_default();
    match kind.group() {
        "" => version.to_owned(),
        group => format!("{group}/{version}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(name: &str, reason: Reason, uid: &str) -> Wanted {
        let object = ObjectRef { kind: Kind::HttpRoute, namespace: "shop".to_owned(), name: name.to_owned() };
        let finding = Finding::new(&object, "spec.rules[0].filters[0]", reason, "no grant\u{1b}[31m");
        Wanted { finding, uid: uid.to_owned() }
    }

    #[test]
    fn name_hangs_on_what_is_said_and_on_nothing_else() {
        let name = |wanted: &Wanted| Event::of(wanted).unwrap().name;
        let first = wanted("cart", Reason::RefNotPermitted, "u1");
        assert_eq!(name(&first), name(&first.clone()));
        assert!(name(&first).starts_with("cart."), "{}", name(&first));
        assert_ne!(name(&first), name(&wanted("cart", Reason::RefNotPermitted, "u2")), "another object");
        assert_ne!(name(&first), name(&wanted("cart", Reason::BackendNotFound, "u1")));
        let long = name(&wanted(&"a-.".repeat(80), Reason::RefNotPermitted, "u1"));
        assert!(crate::kube::is_subdomain(&long.replace("-.", "x.")) && long.len() < 253, "{long}");
    }

    #[test]
    fn findings_that_nobody_there_can_act_upon_make_no_event() {
        assert!(Event::of(&wanted("cart", Reason::GatewayNotBound, "u")).is_none());
        assert!(Event::of(&wanted("cart", Reason::RefNotPermitted, "")).is_none());
        let mut other = wanted("cart", Reason::RefNotPermitted, "u");
        other.finding.object = Subject::Other("HTTPRoute".to_owned());
        assert!(Event::of(&other).is_none());
    }

    #[test]
    fn event_says_what_is_wrong_where_without_control_characters() {
        let wanted = wanted("cart", Reason::RefNotPermitted, "u");
        let event = Event::of(&wanted).unwrap();
        let body = event.body();
        assert_eq!(body["note"], "spec.rules[0].filters[0]: no grant[31m");
        assert_eq!(body["regarding"]["apiVersion"], "gateway.networking.k8s.io/v1");
        assert_eq!((&body["reason"], &body["type"]), (&json!("RefNotPermitted"), &json!("Warning")));
        assert_eq!(event.uri(), "/apis/events.k8s.io/v1/namespaces/shop/events");
    }

    #[tokio::test]
    async fn events_of_others_are_left_alone_for_hours() {
        let config = ::kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        let start = Instant::now();
        let mut writer = Writer::new(crate::cluster::client::client(config).unwrap(), start);
        assert!(!writer.is_others("a", start));
        writer.leave_alone("a", start);
        assert!(writer.is_others("a", start + LEFT_ALONE / 2) && !writer.is_others("b", start));
        assert!(!writer.is_others("a", start + LEFT_ALONE * 2));
        for index in 0..=MAX_OWN {
            writer.leave_alone(&index.to_string(), start);
        }
        assert!(writer.others.len() <= MAX_OWN);
    }

    #[tokio::test]
    async fn events_beyond_a_burst_wait() {
        let config = ::kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        let client = crate::cluster::client::client(config).unwrap();
        let start = Instant::now();
        let mut writer = Writer::new(client, start);
        for _ in 0..BURST {
            assert_eq!(writer.pause(start), Duration::ZERO);
        }
        assert_eq!(writer.pause(start), INTERVAL);
        assert_eq!(writer.pause(start + INTERVAL), INTERVAL);
        let later = start + INTERVAL * 1_000;
        for _ in 0..BURST {
            assert_eq!(writer.pause(later), Duration::ZERO);
        }
        assert_eq!(writer.pause(later), INTERVAL);
    }
}
