//! As much of a Kubernetes API server as a daemon that watches pods needs: lists, watches that go on from a version,
//! Events that are posted. It can be stopped, started again at the same address, and told to refuse.
//!
//! One thread per connection; objects are JSON.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::cleanup::RunDir;
use crate::netns::Netns;
use crate::server::listen;

/// How long a watch or an accept waits before it looks whether it should end.
const LOOK: Duration = Duration::from_millis(20);

/// A running server.
#[derive(Debug)]
pub struct ApiServer {
    netns: Netns,
    address: SocketAddr,
    store: Arc<Store>,
    accepting: Option<Accepting>,
    dir: RunDir,
}

#[derive(Debug)]
struct Accepting {
    ends: Arc<AtomicBool>,
    thread: JoinHandle<()>,
    connections: Arc<Mutex<HashMap<u64, TcpStream>>>,
}

#[derive(Debug, Default)]
struct Store {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    version: u64,
    /// By plural, namespace and name.
    objects: BTreeMap<[String; 3], Value>,
    history: Vec<Change>,
    /// Watches from an earlier version are refused with 410.
    compacted: u64,
    /// The status that every request is refused with.
    refusal: Option<u16>,
    requests: Vec<String>,
    posted: Vec<Value>,
}

#[derive(Clone, Debug)]
struct Change {
    version: u64,
    kind: &'static str,
    plural: String,
    object: Value,
}

/// What a request asks for.
struct Query {
    plural: String,
    namespace: Option<String>,
    options: HashMap<String, String>,
}

impl ApiServer {
    /// Starts one on the loopback of `netns`.
    ///
    /// # Errors
    /// When nothing can listen there.
    pub fn start(netns: &Netns) -> Result<Self> {
        let listener = netns.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))??;
        let (address, store) = (listener.local_addr()?, Arc::<Store>::default());
        let accepting = Some(Accepting::start(listener, &store)?);
        let dir = RunDir::new()?;
        let kubeconfig = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
             contexts: [{{ name: test, context: {{ cluster: test, user: test }} }}]\n\
             users: [{{ name: test, user: {{ token: test }} }}]\n\
             clusters: [{{ name: test, cluster: {{ server: \"http://{address}\" }} }}]\n"
        );
        std::fs::write(dir.path().join("kubeconfig"), kubeconfig)?;
        Ok(Self { netns: netns.clone(), address, store, accepting, dir })
    }

    /// A kubeconfig file that leads here.
    #[must_use]
    pub fn kubeconfig(&self) -> std::path::PathBuf {
        self.dir.path().join("kubeconfig")
    }

    /// Stops to listen, and cuts every connection. Objects stay.
    pub fn stop(&mut self) {
        self.accepting = None;
    }

    /// Listens again, at the same address.
    ///
    /// # Errors
    /// When the address was taken meanwhile.
    pub fn start_again(&mut self) -> Result<()> {
        let listener = self.netns.run(|| listen(self.address))??;
        self.accepting = Some(Accepting::start(listener, &self.store)?);
        Ok(())
    }

    /// Refuses every request from now on, and cuts the watches that run; `None`: not any more.
    pub fn refuse(&self, status: Option<u16>) {
        self.store.lock().refusal = status;
        if let Some(accepting) = &self.accepting {
            accepting.cut();
        }
    }

    /// Creates or replaces an object.
    pub fn apply(&self, plural: &str, mut object: Value) {
        let mut state = self.store.lock();
        state.version += 1;
        object["metadata"]["resourceVersion"] = json!(state.version.to_string());
        let kind = if state.objects.insert(key(plural, &object), object.clone()).is_some() {
            "MODIFIED"
        } else {
            "ADDED"
        };
        state.note(kind, plural, object);
        drop(state);
        self.store.changed.notify_all();
    }

    /// Deletes an object, if it is there.
    pub fn delete(&self, plural: &str, namespace: &str, name: &str) {
        let mut state = self.store.lock();
        let key = [plural, namespace, name].map(str::to_owned);
        if let Some(mut object) = state.objects.remove(&key) {
            state.version += 1;
            object["metadata"]["resourceVersion"] = json!(state.version.to_string());
            state.note("DELETED", plural, object);
        }
        drop(state);
        self.store.changed.notify_all();
    }

    /// Forgets all changes so far: a watch that goes on from before must list anew.
    pub fn compact(&self) {
        let mut state = self.store.lock();
        state.compacted = state.version;
        state.history.clear();
    }

    /// Every request so far: method and target.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        self.store.lock().requests.clone()
    }

    /// Every object that was posted so far.
    #[must_use]
    pub fn posted(&self) -> Vec<Value> {
        self.store.lock().posted.clone()
    }
}

impl Store {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn note(&mut self, kind: &'static str, plural: &str, object: Value) {
        self.history.push(Change { version: self.version, kind, plural: plural.to_owned(), object });
    }
}

impl Accepting {
    fn start(listener: TcpListener, store: &Arc<Store>) -> Result<Self> {
        listener.set_nonblocking(true)?;
        let (ends, connections) = (Arc::new(AtomicBool::new(false)), Arc::<Mutex<_>>::default());
        let (over, open, store) = (Arc::clone(&ends), Arc::clone(&connections), Arc::clone(store));
        let thread = std::thread::spawn(move || accept(&listener, &store, &over, &open));
        Ok(Self { ends, thread, connections })
    }

    fn cut(&self) {
        for (_, connection) in self.connections.lock().unwrap_or_else(PoisonError::into_inner).drain() {
            drop(connection.shutdown(Shutdown::Both));
        }
    }
}

impl Drop for Accepting {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        while !self.thread.is_finished() {
            std::thread::sleep(LOOK);
        }
        self.cut();
    }
}

fn accept(
    listener: &TcpListener,
    store: &Arc<Store>,
    ends: &Arc<AtomicBool>,
    open: &Arc<Mutex<HashMap<u64, TcpStream>>>,
) {
    for number in 0.. {
        let connection = loop {
            if ends.load(Ordering::Relaxed) {
                return;
            }
            match listener.accept() {
                Ok((connection, _)) => break connection,
                Err(_) => std::thread::sleep(LOOK),
            }
        };
        drop(connection.set_nonblocking(false));
        if let Ok(clone) = connection.try_clone() {
            open.lock().unwrap_or_else(PoisonError::into_inner).insert(number, clone);
        }
        let (store, ends, open) = (Arc::clone(store), Arc::clone(ends), Arc::clone(open));
        std::thread::spawn(move || {
            // It ends when either side closes.
            drop(serve(connection, &store, &ends));
            open.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
        });
    }
}

fn serve(mut connection: TcpStream, store: &Store, ends: &AtomicBool) -> Result<()> {
    let mut reader = BufReader::new(connection.try_clone()?);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut length = 0;
        loop {
            let mut field = String::new();
            reader.read_line(&mut field)?;
            let field = field.trim().to_ascii_lowercase();
            if field.is_empty() {
                break;
            }
            if let Some(value) = field.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let mut words = line.split(' ');
        let (method, target) = (words.next().context("a method")?, words.next().context("a target")?);
        answer(&mut connection, store, ends, (method, target, &body))?;
    }
}

fn answer(
    connection: &mut TcpStream,
    store: &Store,
    ends: &AtomicBool,
    (method, target, body): (&str, &str, &[u8]),
) -> Result<()> {
    let mut state = store.lock();
    state.requests.push(format!("{method} {target}"));
    if let Some(code) = state.refusal {
        return reply(connection, code, &status(code, "Forbidden"));
    }
    if method != "GET" {
        let object: Value = serde_json::from_slice(body)?;
        state.posted.push(object.clone());
        return reply(connection, 201, &object);
    }
    let query = Query::of(target);
    if query.options.get("watch").is_some_and(|value| value == "true" || value == "1") {
        drop(state);
        return watch(connection, store, ends, &query);
    }
    let items: Vec<&Value> = state
        .objects
        .iter()
        .filter(|([plural, ..], object)| *plural == query.plural && query.is_meant(object))
        .map(|(_, object)| object)
        .collect();
    let list = json!({
        "kind": "List", "apiVersion": "v1", "items": items,
        "metadata": { "resourceVersion": state.version.to_string() }
    });
    drop(state);
    reply(connection, 200, &list)
}

fn watch(connection: &mut TcpStream, store: &Store, ends: &AtomicBool, query: &Query) -> Result<()> {
    let mut from: u64 = query.options.get("resourceVersion").and_then(|text| text.parse().ok()).unwrap_or(0);
    write!(
        connection,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    )?;
    let mut state = store.lock();
    while !ends.load(Ordering::Relaxed) {
        if from < state.compacted {
            let gone = json!({ "type": "ERROR", "object": status(410, "Expired") });
            chunk(connection, &gone)?;
            write!(connection, "0\r\n\r\n")?;
            return Ok(());
        }
        let is_new = |change: &&Change| {
            change.version > from && change.plural == query.plural && query.is_meant(&change.object)
        };
        let fresh: Vec<Change> = state.history.iter().filter(is_new).cloned().collect();
        from = from.max(state.version);
        drop(state);
        for Change { kind, object, .. } in fresh {
            chunk(connection, &json!({ "type": kind, "object": object }))?;
        }
        let waited = store.changed.wait_timeout(store.lock(), LOOK);
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
    }
    Ok(())
}

impl Query {
    /// `/api/v1/pods`, `/apis/GROUP/VERSION/namespaces/NS/PLURAL`, with options.
    fn of(target: &str) -> Self {
        let (path, options) = target.split_once('?').unwrap_or((target, ""));
        let decoded = |text: &str| text.replace("%3D", "=").replace("%2C", ",");
        let option = |pair: &str| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (key.to_owned(), decoded(value))
        };
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let namespace = parts.iter().position(|part| *part == "namespaces");
        let namespace = namespace.and_then(|at| parts.get(at + 1)).map(|name| (*name).to_owned());
        Self {
            plural: parts.last().copied().unwrap_or_default().to_owned(),
            namespace,
            options: options.split('&').filter(|pair| !pair.is_empty()).map(option).collect(),
        }
    }

    fn is_meant(&self, object: &Value) -> bool {
        let is_here = |namespace: &String| object["metadata"]["namespace"] == namespace.as_str();
        let node = self.options.get("fieldSelector").and_then(|text| text.strip_prefix("spec.nodeName="));
        self.namespace.as_ref().is_none_or(is_here)
            && node.is_none_or(|node| object["spec"]["nodeName"] == node)
    }
}

fn key(plural: &str, object: &Value) -> [String; 3] {
    let of = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    [plural.to_owned(), of("namespace"), of("name")]
}

fn status(code: u16, reason: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "metadata": {},
        "code": code, "reason": reason, "message": format!("refused by the test: {reason}")
    })
}

fn reply(connection: &mut TcpStream, code: u16, body: &Value) -> Result<()> {
    let body = body.to_string();
    let length = body.len();
    let head =
        format!("HTTP/1.1 {code} X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n");
    Ok(connection.write_all(&[head.as_bytes(), body.as_bytes()].concat())?)
}

fn chunk(connection: &mut TcpStream, line: &Value) -> Result<()> {
    let line = format!("{line}\n");
    Ok(connection.write_all(format!("{:x}\r\n{line}\r\n", line.len()).as_bytes())?)
}

/// A pod object, as the API server has it.
#[must_use]
pub fn pod(namespace: &str, name: &str, uid: &str, node: &str) -> Value {
    json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": { "namespace": namespace, "name": name, "uid": uid, "labels": { "app": "gateway" } },
        "spec": { "nodeName": node, "containers": [] },
        "status": { "phase": "Pending", "conditions": [] }
    })
}

/// The pod, Ready and with an address.
#[must_use]
pub fn ready(mut pod: Value, address: &str) -> Value {
    pod["status"] = json!({
        "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }],
        "conditions": [{ "type": "Ready", "status": "True" }]
    });
    pod
}
