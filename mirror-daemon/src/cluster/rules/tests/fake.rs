//! An API server, as far as lists, watches and Events need one, that can be made to misbehave. HTTP/1 on loopback.

#![expect(clippy::arithmetic_side_effects, reason = "a test that overflows fails, as it should")]

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

pub(super) const ROUTES: &str = "/apis/gateway.networking.k8s.io/v1/httproutes";
pub(super) const OLD_ROUTES: &str = "/apis/gateway.networking.k8s.io/v1beta1/httproutes";
pub(super) const GRANTS: &str = "/apis/gateway.networking.k8s.io/v1/referencegrants";
pub(super) const GATEWAYS: &str = "/apis/gateway.networking.k8s.io/v1/gateways";
pub(super) const OLD_GATEWAYS: &str = "/apis/gateway.networking.k8s.io/v1beta1/gateways";
pub(super) const NAMESPACES: &str = "/api/v1/namespaces";
pub(super) const OLD_GRANTS: &str = "/apis/gateway.networking.k8s.io/v1beta1/referencegrants";
pub(super) const OPTIONS: &str = "/apis/gateway.solo.io/v1/routeoptions";
pub(super) const UPSTREAMS: &str = "/apis/gloo.solo.io/v1/upstreams";
pub(super) const SERVICES: &str = "/api/v1/services";
const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/";

/// See the module.
pub(super) struct Fake {
    pub(super) address: SocketAddr,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

struct Shared {
    state: Mutex<State>,
    /// Counts changes of the state.
    changed_tx: watch::Sender<u64>,
}

#[derive(Default)]
pub(super) struct State {
    version: u64,
    /// By path and name; each with what it was last changed at.
    objects: BTreeMap<String, BTreeMap<String, Value>>,
    /// Version, path, what a watch says.
    history: Vec<(u64, String, Value)>,
    /// Older versions are gone.
    pub(super) compacted: u64,
    /// Paths that are not known.
    pub(super) unknown: BTreeSet<String>,
    /// Paths that nobody may read or write.
    pub(super) forbidden: BTreeSet<String>,
    /// Paths whose lists do not come.
    pub(super) held_back: BTreeSet<String>,
    /// Lists that are no JSON.
    pub(super) garbage: BTreeSet<String>,
    /// Watches are ended as soon as they have begun.
    pub(super) ends_watches: bool,
    /// Connections that have begun before are cut.
    cuts: u64,
    /// Connections, by how many cuts there were before they began.
    open: BTreeMap<u64, usize>,
    /// `LIST path?query`, `WATCH path?query`, `POST path`, `PATCH path`.
    requests: Vec<String>,
    /// Events by name.
    pub(super) events: BTreeMap<String, Value>,
}

impl Fake {
    pub(super) async fn start() -> Self {
        let shared = Arc::new(Shared { state: Mutex::default(), changed_tx: watch::channel(0).0 });
        let (address, accepting) = listen("127.0.0.1:0".parse().unwrap(), &shared).await;
        Self { address, shared, accepting }
    }

    /// All connections are cut, and new ones refused.
    pub(super) fn stop(&self) {
        self.accepting.abort();
        self.cut();
    }

    /// After [`Fake::stop`]: as if the process was started again.
    pub(super) async fn start_again(&mut self) {
        self.accepting = listen(self.address, &self.shared).await.1;
    }

    pub(super) fn cut(&self) {
        self.with(|state| state.cuts += 1);
    }

    /// Returns once nothing more can come by connections that have begun before.
    pub(super) async fn cut_and_wait(&self) {
        self.cut();
        let mut changed_rx = self.shared.changed_tx.subscribe();
        let is_cut = |state: &State| state.open.range(..state.cuts).all(|(_, count)| *count == 0);
        while !is_cut(&self.shared.state()) {
            let _ = changed_rx.changed().await;
        }
    }

    pub(super) fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.shared.state());
        self.shared.changed_tx.send_modify(|count| *count += 1);
        result
    }

    /// Creates or changes an object.
    pub(super) fn put(&self, path: &str, object: Value) {
        self.with(|state| state.put(path, object));
    }

    pub(super) fn delete(&self, path: &str, namespace: &str, name: &str) {
        self.with(|state| state.delete(path, namespace, name));
    }

    /// A line that is no event, to all watches of `path`.
    pub(super) fn say(&self, path: &str, line: Value) {
        self.with(|state| {
            state.version += 1;
            state.history.push((state.version, path.to_owned(), line));
        });
    }

    /// Requests so far that start like this.
    pub(super) fn requests(&self, front: &str) -> Vec<String> {
        let state = self.shared.state();
        state.requests.iter().filter(|request| request.starts_with(front)).cloned().collect()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn listen(address: SocketAddr, shared: &Arc<Shared>) -> (SocketAddr, AbortHandle) {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let shared = Arc::clone(shared);
    let accepting = tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            tokio::spawn(connection(stream, Arc::clone(&shared)));
        }
    });
    (address, accepting.abort_handle())
}

/// Serves until the client goes, or all connections are cut.
async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    let cuts = {
        let mut state = shared.state();
        let cuts = state.cuts;
        *state.open.entry(cuts).or_default() += 1;
        cuts
    };
    let mut changed_rx = shared.changed_tx.subscribe();
    let cut = async {
        while shared.state().cuts == cuts {
            if changed_rx.changed().await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = cut => {}
        _ = serve(stream, &shared) => {}
    }
    *shared.state().open.entry(cuts).or_default() -= 1;
    shared.changed_tx.send_modify(|count| *count += 1);
}

async fn serve(stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).await? == 0 {
                return Ok(());
            }
        }
        let mut words = head.split(' ');
        let (method, uri) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
        let length = head
            .lines()
            .find_map(|line| line.to_lowercase().strip_prefix("content-length: ").map(str::to_owned));
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        stream.read_exact(&mut body).await?;
        let (path, query) = uri.split_once('?').unwrap_or((&uri, ""));
        let query: BTreeMap<&str, &str> = query.split('&').filter_map(|part| part.split_once('=')).collect();
        let is_watch = query.contains_key("watch");
        let verb = match method.as_str() {
            "GET" if is_watch => "WATCH",
            "GET" => "LIST",
            other => other,
        };
        shared.state().requests.push(format!("{verb} {uri}"));
        let mut changed_rx = shared.changed_tx.subscribe();
        while verb == "LIST" && shared.state().held_back.contains(path) {
            let _ = changed_rx.changed().await;
        }
        let refused = shared.state().refusal(path);
        let (code, answer) = match (refused, verb) {
            (Some(refused), _) => refused,
            (None, "WATCH") => match watch_from(shared, path, &query, &mut stream).await? {
                Some(refused) => refused,
                None => return Ok(()),
            },
            (None, "LIST") => shared.state().list(path, &query),
            (None, _) => shared.state().write(verb, path, &body),
        };
        let head = format!("HTTP/1.1 {code} X\r\nContent-Length: {}\r\n\r\n", answer.len());
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(answer.as_bytes()).await?;
    }
}

/// `Some`: it is refused.
async fn watch_from(
    shared: &Shared,
    path: &str,
    query: &BTreeMap<&str, &str>,
    stream: &mut BufReader<TcpStream>,
) -> std::io::Result<Option<(u16, String)>> {
    let mut from: u64 = query["resourceVersion"].parse().unwrap();
    if from < shared.state().compacted {
        return Ok(Some(status(410, "too old resource version")));
    }
    let mut changed_rx = shared.changed_tx.subscribe();
    stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
    loop {
        let (lines, ends) = {
            let state = shared.state();
            let new = state.history.iter().filter(|(version, of, _)| *version > from && of == path);
            let lines: Vec<String> = new
                .map(|(_, _, line)| match line {
                    Value::String(raw) => format!("{raw}\n"),
                    line => format!("{line}\n"),
                })
                .collect();
            from = state.version;
            (lines, state.ends_watches)
        };
        for line in lines {
            // In two chunks: an event need not come in one piece.
            let (front, back) = line.split_at(line.len() / 2);
            for part in [front, back] {
                stream.write_all(format!("{:x}\r\n{part}\r\n", part.len()).as_bytes()).await?;
            }
        }
        if ends {
            stream.write_all(b"0\r\n\r\n").await?;
            return Ok(None);
        }
        let _ = changed_rx.changed().await;
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl State {
    fn put(&mut self, path: &str, mut object: Value) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        let key = key(&object["metadata"]["namespace"], &object["metadata"]["name"]);
        let former = self.objects.entry(path.to_owned()).or_default().insert(key, object.clone());
        let kind = if former.is_some() { "MODIFIED" } else { "ADDED" };
        self.history.push((self.version, path.to_owned(), json!({ "type": kind, "object": object })));
    }

    fn delete(&mut self, path: &str, namespace: &str, name: &str) {
        self.version += 1;
        let key = format!("{namespace}/{name}");
        let mut object = self.objects.get_mut(path).unwrap().remove(&key).expect("it is there");
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.history.push((self.version, path.to_owned(), json!({ "type": "DELETED", "object": object })));
    }

    /// What is changed from now on can't be learned by a watch that is older.
    pub(super) fn compact(&mut self) {
        self.version += 1;
        self.compacted = self.version;
        self.history.clear();
    }

    fn refusal(&self, path: &str) -> Option<(u16, String)> {
        if self.unknown.contains(path) {
            return Some((404, "404 page not found\n".to_owned()));
        }
        self.forbidden.contains(path).then(|| status(403, "system:serviceaccount:mirror cannot do that"))
    }

    fn list(&self, path: &str, query: &BTreeMap<&str, &str>) -> (u16, String) {
        if self.garbage.contains(path) {
            return (200, "{\"items\": [{]".to_owned());
        }
        let limit: usize = query.get("limit").map_or(usize::MAX, |limit| limit.parse().unwrap());
        let from: usize = query.get("continue").map_or(0, |from| from.parse().unwrap());
        let all: Vec<&Value> = self.objects.get(path).into_iter().flat_map(BTreeMap::values).collect();
        let items: Vec<&Value> = all.iter().skip(from).take(limit).copied().collect();
        let end = from + items.len();
        let next = if end < all.len() { end.to_string() } else { String::new() };
        let metadata = json!({ "resourceVersion": self.version.to_string(), "continue": next });
        (200, json!({ "metadata": metadata, "items": items }).to_string())
    }

    fn write(&mut self, verb: &str, path: &str, body: &[u8]) -> (u16, String) {
        let body: Value = serde_json::from_slice(body).unwrap();
        assert!(path.starts_with(EVENTS), "nothing but Events is ever written: {verb} {path}");
        if verb == "PATCH" {
            let name = path.rsplit('/').next().unwrap();
            let Some(event) = self.events.get_mut(name) else { return status(404, "no such event") };
            event["series"] = body["series"].clone();
            return (200, "{}".to_owned());
        }
        let name = body["metadata"]["name"].as_str().unwrap().to_owned();
        if self.events.contains_key(&name) {
            return status(409, "already exists");
        }
        self.events.insert(name, body);
        (201, "{}".to_owned())
    }
}

fn key(namespace: &Value, name: &Value) -> String {
    format!("{}/{}", namespace.as_str().unwrap_or_default(), name.as_str().unwrap_or_default())
}

fn status(code: u16, message: &str) -> (u16, String) {
    let body =
        json!({ "kind": "Status", "metadata": {}, "status": "Failure", "code": code, "message": message });
    (code, body.to_string())
}
