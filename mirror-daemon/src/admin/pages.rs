//! What each page says. No sockets: a request in, an answer out.

use super::ledger_page;
use crate::telemetry::metrics::{CONTENT_TYPE, Metrics};
use crate::telemetry::snapshot::{RulesStatus, Snapshot, Source, WatchState, WatchStatus};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Body;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE as TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Request, Response, StatusCode};
use std::fmt::{self, Write};
use std::time::SystemTime;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

const PAGES: [(&str, &str); 5] = [
    ("/", "this list"),
    ("/metrics", "all metrics, OpenMetrics text"),
    ("/healthz", "200 while the process works; 503 names the threads that are stuck"),
    (
        "/readyz",
        "200 when every wanted capture point is attached and all rules are known; 503 names what is missing",
    ),
    ("/ledger", "where every request went, JSON"),
];

/// Whether the process works.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// One line for each thread that gives no sign of life, e.g. `shard 0: silent for 12 s`. Empty: healthy.
    pub stalled: Vec<String>,
}

type HealthSource = Box<dyn Fn() -> Health + Send + Sync>;

/// All pages, and where their content comes from.
pub struct Pages {
    source: Source,
    health: HealthSource,
    metrics: Metrics,
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages").field("metrics", &self.metrics).finish_non_exhaustive()
    }
}

impl Pages {
    /// Pages that ask `source` and `health` once per request. Neither may block.
    #[must_use]
    pub fn new(source: Source, health: impl Fn() -> Health + Send + Sync + 'static) -> Self {
        let metrics = Metrics::new(Source::clone(&source), SystemTime::now());
        Self { source, health: Box::new(health), metrics }
    }

    /// The answer to `request`, whose body, if any, is not read.
    pub(super) fn answer<B: Body>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        if !request.body().is_end_stream() {
            let mut answer = text(StatusCode::PAYLOAD_TOO_LARGE, "no page takes a request body\n".to_owned());
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            return answer;
        }
        let path = request.uri().path();
        if !PAGES.iter().any(|(known, _)| *known == path) {
            return text(StatusCode::NOT_FOUND, format!("no such page; there are:\n{}", list()));
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "pages can only be read\n".to_owned());
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        match path {
            "/metrics" => self.metrics(),
            "/healthz" => healthz(&(self.health)()),
            "/readyz" => readyz(&(self.source)()),
            "/ledger" => answer(StatusCode::OK, JSON, ledger_page::render(&(self.source)())),
            _ => text(StatusCode::OK, list()),
        }
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        match self.metrics.render() {
            Ok(page) => answer(StatusCode::OK, CONTENT_TYPE, page),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    }
}

fn healthz(health: &Health) -> Response<Full<Bytes>> {
    if health.stalled.is_empty() {
        return text(StatusCode::OK, "ok\n".to_owned());
    }
    text(StatusCode::SERVICE_UNAVAILABLE, lines("stalled", health.stalled.iter().map(String::as_str)))
}

fn readyz(now: &Snapshot) -> Response<Full<Bytes>> {
    if now.draining {
        return text(StatusCode::SERVICE_UNAVAILABLE, "draining: the daemon is about to end\n".to_owned());
    }
    if now.pods.as_ref().is_some_and(|pods| !pods.is_known) {
        return text(StatusCode::SERVICE_UNAVAILABLE, "the pods of this node are not known yet\n".to_owned());
    }
    let rules = now.rules.as_ref().map(watches_that_fail).unwrap_or_default();
    if now.rules.as_ref().is_some_and(|rules| !rules.is_synced) {
        let page = format!("the cluster's rules are not known yet; those of the files hold\n{rules}");
        return text(StatusCode::SERVICE_UNAVAILABLE, page);
    }
    let missing: Vec<_> = now.points.iter().filter(|point| !point.attached).collect();
    let names = lines("not attached", missing.iter().map(|point| point.name.as_str()));
    // Pods come and go by themselves; that one can't be attached says nothing of this daemon.
    if missing.iter().any(|point| !point.is_pod) {
        return text(StatusCode::SERVICE_UNAVAILABLE, names);
    }
    let all = now.points.len();
    let attached = all.saturating_sub(missing.len());
    text(StatusCode::OK, format!("ready: {attached} of {all} capture points attached\n{names}{rules}"))
}

/// The kinds whose objects can't be read now. What was known of them holds.
fn watches_that_fail(rules: &RulesStatus) -> String {
    let fails = |kind: &&WatchStatus| !matches!(kind.state, WatchState::Watching | WatchState::Absent);
    let kinds = rules.kinds.iter().filter(fails);
    let said: Vec<String> = kinds.map(|kind| format!("{} {}", kind.kind, kind.state.label())).collect();
    lines("rules of the cluster", said.iter().map(String::as_str))
}

fn lines<'a>(what: &str, items: impl Iterator<Item = &'a str>) -> String {
    let mut page = String::new();
    for item in items {
        // Writing to a string does not fail.
        let _ = writeln!(page, "{what}: {item}");
    }
    page
}

fn list() -> String {
    let mut page = String::new();
    for (path, meaning) in PAGES {
        let _ = writeln!(page, "{path:<10} {meaning}");
    }
    page
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    answer(status, TEXT, body)
}

fn answer(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}
