//! I/O. The pages for people and monitors: HTTP/1.1, read-only, on a loopback address unless told otherwise.
//!
//! | page | says |
//! |---|---|
//! | `/` | every page, one line each |
//! | `/metrics` | all metrics, OpenMetrics text; `docs/METRICS.md` explains them |
//! | `/healthz` | 200 while the process works; 503 names the threads that are stuck |
//! | `/readyz` | 200 when every capture point that is wanted is attached and all rules are known; 503 names what is missing |
//! | `/ledger` | where every request went, as JSON |
//!
//! Bounds: [`MAX_CONNECTIONS`] at once, of which a further one closes the oldest, so that nobody who holds them keeps
//! monitors and probes out; [`HEAD_TIMEOUT`] for a request head and
//! for an idle connection; [`MAX_HEAD_BYTES`]; no request bodies; [`CONNECTION_LIFETIME`] for a connection.
//! Left out: anything that changes the daemon.

mod ledger_page;
mod pages;

pub use ledger_page::render as ledger_page;
pub use pages::{Health, Pages};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time;

/// Most connections at once; for a further one the oldest is closed.
pub const MAX_CONNECTIONS: usize = 32;
/// Most bytes of a request head; a larger one is answered 431.
pub const MAX_HEAD_BYTES: usize = 8 * 1024;
/// Time for a request head to arrive, and for a connection to stay idle.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Time after which a connection is closed behind the answer it is at.
pub const CONNECTION_LIFETIME: Duration = Duration::from_secs(300);
/// Time for answers under way to be read, when a connection or the server ends.
pub const LINGER: Duration = Duration::from_secs(2);

/// Most connections that wait to be accepted.
const BACKLOG: u32 = 128;

const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the pages can't be served.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Another process has the address.
    #[error(
        "admin address {listen} is in use by another process (`ss -ltnp 'sport = :{port}'` shows which); set \
         admin.listen to another address, or to port 0 to let the kernel choose",
        port = listen.port()
    )]
    InUse {
        /// The address wanted.
        listen: SocketAddr,
    },
    /// No interface has the address.
    #[error("admin address {listen} belongs to no interface of this host; set admin.listen to one that does")]
    NotOurs {
        /// The address wanted.
        listen: SocketAddr,
    },
    /// Ports below 1024 need a privilege.
    #[error("admin address {listen} is not permitted; set admin.listen to a port of 1024 or above")]
    NotPermitted {
        /// The address wanted.
        listen: SocketAddr,
    },
    /// Anything else.
    #[error("listening on admin address {listen} failed: {source}")]
    Listen {
        /// The address wanted.
        listen: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
}

impl AdminError {
    fn new(listen: SocketAddr, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::InUse { listen },
            io::ErrorKind::AddrNotAvailable => Self::NotOurs { listen },
            io::ErrorKind::PermissionDenied => Self::NotPermitted { listen },
            _ => Self::Listen { listen, source },
        }
    }
}

/// A socket that is bound, and that nobody is served on yet.
#[derive(Debug)]
pub struct AdminServer {
    socket: TcpSocket,
    address: SocketAddr,
}

impl AdminServer {
    /// Takes the address `listen`; port 0 lets the kernel choose. Nobody can connect before [`Self::listen`].
    ///
    /// # Errors
    /// When the address is in use, not this host's, or not permitted.
    pub fn bind(listen: SocketAddr) -> Result<Self, AdminError> {
        let bound = || {
            let socket = if listen.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
            socket.set_reuseaddr(true)?;
            socket.bind(listen)?;
            let address = socket.local_addr()?;
            Ok(Self { socket, address })
        };
        bound().map_err(|source| AdminError::new(listen, source))
    }

    /// Lets clients connect.
    ///
    /// # Errors
    /// When another process has begun to listen there.
    pub fn listen(self) -> Result<AdminListener, AdminError> {
        let Self { socket, address } = self;
        let listener = socket.listen(BACKLOG).map_err(|source| AdminError::new(address, source))?;
        Ok(AdminListener { listener, address })
    }
}

/// A listening socket that nobody is served on yet.
#[derive(Debug)]
pub struct AdminListener {
    listener: TcpListener,
    address: SocketAddr,
}

impl AdminListener {
    /// Where it listens, with the port that the kernel chose.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves `pages` until `stop` is ready. Then no more connections are accepted, and answers under way get
    /// [`LINGER`] to be read. All of its tasks end with it, also when it is dropped.
    pub async fn serve(self, pages: Pages, stop: impl Future<Output = ()>) {
        let pages = Arc::new(pages);
        // From here to each connection's task: that the server stops.
        let (stop_tx, stop_rx) = watch::channel(false);
        let mut connections = JoinSet::new();
        // Of these, the oldest first, and some that have ended.
        let mut by_age: VecDeque<AbortHandle> = VecDeque::new();
        let mut stop = pin!(stop);
        loop {
            let accepted = tokio::select! {
                () = &mut stop => break,
                Some(_) = connections.join_next() => continue,
                accepted = self.listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, or a connection that died in the queue: neither is worth a busy loop.
                    tracing::debug!(%error, "accepting an admin connection failed");
                    time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            by_age.retain(|connection| !connection.is_finished());
            if by_age.len() >= MAX_CONNECTIONS
                && let Some(oldest) = by_age.pop_front()
            {
                oldest.abort();
            }
            let connection = serve_connection(stream, Arc::clone(&pages), stop_rx.clone());
            by_age.push_back(connections.spawn(connection));
        }
        drop(self.listener);
        let _ = stop_tx.send(true);
        let all_ended = async { while connections.join_next().await.is_some() {} };
        let _ = time::timeout(LINGER, all_ended).await;
    }
}

/// Serves one connection until it ends, its lifetime is over, or the server stops.
async fn serve_connection(stream: TcpStream, pages: Arc<Pages>, mut stop_rx: watch::Receiver<bool>) {
    let service = service_fn(move |request| {
        let answer = pages.answer(&request);
        async move { Ok::<_, Infallible>(answer) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        _ = &mut connection => return,
        () = time::sleep(CONNECTION_LIFETIME) => {}
        _ = stop_rx.wait_for(|stopped| *stopped) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = time::timeout(LINGER, connection).await;
}

#[cfg(test)]
mod tests;
