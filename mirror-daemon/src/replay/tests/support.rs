//! A replayer, its books, and shadows made of a listener and a script.

use crate::config::{
    BreakerConfig, Endpoint, EndpointHost, HostRewrite, Redaction, RewriteConfig, ShadowConfig, ShadowId,
    ShadowProtocol,
};
use crate::replay::resolve::Resolver;
use crate::replay::{ReplayHandle, Replayer, ShadowBody, ShadowRequest, ShadowStatus};
use crate::rewrite::{Framing, HeadForm, MethodTraits, ShadowHead};
use crate::telemetry::ShadowLedger;
use bytes::Bytes;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};

pub(super) const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/// Nothing here takes longer, on the slowest machine.
pub(super) const LIMIT: Duration = Duration::from_secs(20);

/// A shadow with generous limits.
pub(super) fn config(address: SocketAddr) -> ShadowConfig {
    ShadowConfig {
        name: "test".to_owned(),
        endpoint: Endpoint { host: EndpointHost::Ip(address.ip()), port: address.port() },
        tls: None,
        protocol: ShadowProtocol::Same,
        max_in_flight: 64,
        max_connections: 64,
        queue_items: 10_000,
        queue_bytes: 64 * 1024 * 1024,
        buffer_body_bytes: 64 * 1024,
        stream_window_bytes: 256 * 1024,
        connect_timeout: Duration::from_secs(5),
        timeout: Duration::from_secs(10),
        idle_timeout: Duration::from_secs(60),
        max_rps: None,
        breaker: BreakerConfig { failures: 0, open_for: Duration::from_secs(60) },
        rewrite: RewriteConfig {
            host: HostRewrite::Keep,
            own_authority: "test".to_owned(),
            own_scheme: "http",
            edits: Vec::new(),
            redact: Redaction::default(),
        },
    }
}

/// One shadow under test.
pub(super) struct Rig {
    pub(super) replayer: Replayer,
    pub(super) handle: ReplayHandle,
    pub(super) ledger: Arc<ShadowLedger>,
}

impl Rig {
    pub(super) fn new(config: ShadowConfig) -> Self {
        Self::with_resolver(config, Resolver::system())
    }

    pub(super) fn with_resolver(config: ShadowConfig, resolver: Resolver) -> Self {
        let ledger = Arc::new(ShadowLedger::default());
        let shadows = vec![(Arc::new(config), Arc::clone(&ledger))];
        let replayer = Replayer::start_with(&Handle::current(), shadows, resolver).unwrap();
        let handle = replayer.handle();
        Self { replayer, handle, ledger }
    }

    /// Offers without handing over.
    pub(super) fn offer(&mut self, request: ShadowRequest) {
        self.ledger.owed.increment();
        self.handle.offer(ShadowId(0), request);
    }

    /// Offers and hands over.
    pub(super) fn send(&mut self, request: ShadowRequest) {
        self.offer(request);
        self.handle.flush();
    }

    /// Sends and waits until the request is booked.
    pub(super) async fn send_and_settle(&mut self, request: ShadowRequest) {
        self.send(request);
        self.settled().await;
    }

    /// Waits until every request is booked.
    pub(super) async fn settled(&self) {
        until(|| self.ledger.open() == 0).await;
    }

    /// Drains in the time given, and looks that nothing is left: no connection, no request, none that ended in no
    /// entry or in two, no byte.
    pub(super) async fn drain_and_assert_balanced(&mut self, limit: Duration) {
        self.handle.flush();
        self.replayer.drain(tokio::time::Instant::now() + limit).await;
        let status = self.status();
        assert_eq!((status.open_connections, status.connecting, status.in_flight), (0, 0, 0));
        assert_eq!((status.queued_items, status.held_bytes), (0, 0));
        let ledger = &self.ledger;
        let booked = ledger.replayed.value() + ledger.shed.total() + ledger.dropped.total();
        assert_eq!((ledger.owed.value(), ledger.streaming_bytes.value()), (booked, 0));
    }

    pub(super) fn status(&self) -> ShadowStatus {
        self.replayer.status().remove(0)
    }
}

/// What is logged on this thread while it lives.
#[derive(Clone, Default)]
pub(super) struct Log(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    pub(super) fn of_this_thread() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// Waits until `condition` holds.
pub(super) async fn until(mut condition: impl FnMut() -> bool) {
    let waiting = async {
        while !condition() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(LIMIT, waiting).await.expect("condition never came about");
}

pub(super) fn request(method: &str, framing: Framing, fields: &str, body: ShadowBody) -> ShadowRequest {
    let wire = format!("{method} /path HTTP/1.1\r\nHost: test-shadow\r\n{fields}\r\n");
    let is_safe = matches!(method, "GET" | "HEAD");
    let method = MethodTraits { is_safe, is_head: method == "HEAD" };
    let head = ShadowHead { wire: wire.into(), form: HeadForm::Http1, framing, method };
    ShadowRequest { head, body, original: None }
}

pub(super) fn buffered(bytes: &[u8], trailers: &'static str) -> ShadowBody {
    ShadowBody::Buffered {
        bytes: Bytes::copy_from_slice(bytes),
        trailers: Bytes::from_static(trailers.as_bytes()),
    }
}

pub(super) fn get() -> ShadowRequest {
    request("GET", Framing::None, "", buffered(b"", ""))
}

pub(super) fn post(body: &[u8]) -> ShadowRequest {
    let fields = format!("Content-Length: {}\r\n", body.len());
    request("POST", Framing::Length(body.len() as u64), &fields, buffered(body, ""))
}

pub(super) fn chunked(body: ShadowBody) -> ShadowRequest {
    request("POST", Framing::Chunked, "Transfer-Encoding: chunked\r\n", body)
}

/// The shadow's end of one connection.
pub(super) struct Peer<S = TcpStream> {
    pub(super) stream: S,
    pub(super) received: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    pub(super) const fn new(stream: S) -> Self {
        Self { stream, received: Vec::new() }
    }

    /// The next whole request, as its bytes; `None` when the connection closed before.
    pub(super) async fn request(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(len) = request_len(&self.received) {
                let rest = self.received.split_off(len);
                return Some(std::mem::replace(&mut self.received, rest));
            }
            let mut buffer = vec![0; 64 * 1024];
            match self.stream.read(&mut buffer).await {
                Ok(read @ 1..) => self.received.extend_from_slice(&buffer[..read]),
                Ok(_) | Err(_) => return None,
            }
        }
    }

    pub(super) async fn say(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    /// Answers every request with [`OK`] until the connection closes; returns how many there were.
    pub(super) async fn serve(&mut self) -> usize {
        let mut served = 0;
        while self.request().await.is_some() {
            self.say(OK).await;
            served += 1;
        }
        served
    }
}

/// The length of the whole request that `bytes` begin with.
pub(super) fn request_len(bytes: &[u8]) -> Option<usize> {
    let head_len = find(bytes, b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..head_len]).to_lowercase();
    let body = &bytes[head_len..];
    if head.contains("transfer-encoding: chunked") {
        let mut at = 0;
        loop {
            let line_len = find(&body[at..], b"\r\n")?;
            let size =
                usize::from_str_radix(std::str::from_utf8(&body[at..at + line_len]).unwrap(), 16).unwrap();
            at += line_len + 2;
            if size == 0 {
                let end =
                    if body[at..].starts_with(b"\r\n") { 2 } else { find(&body[at..], b"\r\n\r\n")? + 4 };
                return (body.len() >= at + end).then_some(head_len + at + end);
            }
            at += size + 2;
            body.get(at..)?;
        }
    }
    let length = head
        .split("content-length: ")
        .nth(1)
        .map_or(0, |rest| rest.split("\r\n").next().unwrap().parse().unwrap());
    (body.len() >= length).then_some(head_len + length)
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// A shadow that runs `script` for each connection, with the connection's number.
pub(super) async fn shadow<F, R>(script: F) -> SocketAddr
where
    F: Fn(usize, Peer) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for number in 0.. {
            let Ok((stream, _)) = listener.accept().await else { return };
            stream.set_nodelay(true).unwrap();
            tokio::spawn(script(number, Peer::new(stream)));
        }
    });
    address
}

/// A shadow that answers everything.
pub(super) async fn good_shadow() -> SocketAddr {
    shadow(|_, mut peer| async move {
        peer.serve().await;
    })
    .await
}
