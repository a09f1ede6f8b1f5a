//! Makes connections to one shadow.

use super::link::{Link, Transport};
use super::resolve::{Addresses, Resolver};
use super::tls::{Alpn, TlsClient, TlsError};
use crate::config::ShadowConfig;
use crate::drop_reason::DropReason;
use mirror_common::SHADOW_SOCKET_MARK;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Once};
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout_at};

/// Least time one address gets before the next one is tried, while there is time at all.
const MIN_ADDRESS_TIME: Duration = Duration::from_millis(250);

/// Why there is no connection: the entry in the books, and words for the log.
#[derive(Debug)]
pub(super) struct ConnectFailure {
    pub(super) reason: DropReason,
    pub(super) why: String,
}

impl ConnectFailure {
    pub(super) fn new(reason: DropReason, why: impl ToString) -> Self {
        Self { reason, why: why.to_string() }
    }
}

/// A connection over which nothing has been sent yet.
#[derive(Debug)]
pub(super) struct Connected {
    pub(super) transport: Transport,
    pub(super) peer: SocketAddr,
    /// The addresses that `peer` was among.
    pub(super) generation: u64,
}

/// How to reach one shadow.
#[derive(Debug)]
pub(super) struct Connector {
    pub(super) addresses: Addresses,
    pub(super) tls: Option<TlsClient>,
    /// For resolve, connect and handshake together.
    time_limit: Duration,
    marking: Marking,
}

/// How the sockets to shadows are marked as the daemon's own, by which the kernel programs leave them out.
#[derive(Clone, Default)]
pub enum Marking {
    /// By this process itself; best effort, for it takes CAP_NET_ADMIN.
    #[default]
    Own,
    /// By another that may. Called before a socket connects, and may take milliseconds.
    Other(Arc<Mark>),
}

/// Marks a socket, or says why not, in words.
pub type Mark = dyn Fn(BorrowedFd<'_>) -> Result<(), String> + Send + Sync;

impl std::fmt::Debug for Marking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if matches!(self, Self::Own) { "Own" } else { "Other" })
    }
}

impl Connector {
    /// # Errors
    /// The shadow's TLS settings are unusable.
    pub(super) fn new(shadow: &ShadowConfig, resolver: Resolver, marking: Marking) -> Result<Self, TlsError> {
        Ok(Self {
            addresses: Addresses::new(&shadow.endpoint, resolver),
            tls: TlsClient::build(shadow)?,
            time_limit: shadow.connect_timeout,
            marking,
        })
    }

    /// An HTTP/1 connection, ready for its first request.
    ///
    /// # Errors
    /// Where it failed, or where it was when the time was up.
    pub(super) async fn connect(&self) -> Result<Link, ConnectFailure> {
        let connected = self.connect_until(self.deadline(), Alpn::Http1).await?;
        Ok(Link::new(connected.transport, connected.peer, connected.generation))
    }

    /// When a connection that is begun now must stand.
    pub(super) fn deadline(&self) -> Instant {
        let now = Instant::now();
        now.checked_add(self.time_limit).unwrap_or(now)
    }

    /// Resolves, connects, shakes hands.
    ///
    /// # Errors
    /// Where it failed, or where it was when the time was up.
    pub(super) async fn connect_until(
        &self,
        deadline: Instant,
        alpn: Alpn,
    ) -> Result<Connected, ConnectFailure> {
        let generation = self.addresses.generation();
        let candidates = timeout_at(deadline, self.addresses.candidates())
            .await
            .map_err(|_| ConnectFailure::new(DropReason::Resolve, "name look-up timed out"))?
            .map_err(|error| ConnectFailure::new(DropReason::Resolve, error))?;
        let (stream, peer) = connect_to_any(&candidates, deadline, &self.marking)
            .await
            .map_err(|error| ConnectFailure::new(DropReason::Connect, error))?;
        let transport = match &self.tls {
            None => Transport::Plain(stream),
            Some(tls) => {
                let stream = timeout_at(deadline, tls.handshake(stream, alpn))
                    .await
                    .map_err(|_| ConnectFailure::new(DropReason::Tls, "handshake timed out"))?
                    .map_err(|error| ConnectFailure::new(DropReason::Tls, error))?;
                Transport::Tls(Box::new(stream))
            }
        };
        Ok(Connected { transport, peer, generation })
    }
}

/// Tries one address after the other, each with its share of the time that is left.
async fn connect_to_any(
    candidates: &[SocketAddr],
    deadline: Instant,
    marking: &Marking,
) -> io::Result<(TcpStream, SocketAddr)> {
    let mut last_error = io::Error::new(io::ErrorKind::AddrNotAvailable, "no address");
    for (index, address) in candidates.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let addresses_left = u32::try_from(candidates.len().saturating_sub(index)).unwrap_or(u32::MAX);
        let share = left.checked_div(addresses_left).unwrap_or(left).max(MIN_ADDRESS_TIME).min(left);
        let until = Instant::now().checked_add(share).unwrap_or(deadline);
        match timeout_at(until, connect_to(*address, marking)).await {
            Ok(Ok(stream)) => return Ok((stream, *address)),
            Ok(Err(error)) => last_error = error,
            Err(_) => last_error = io::Error::new(io::ErrorKind::TimedOut, "connect timed out"),
        }
    }
    Err(last_error)
}

async fn connect_to(address: SocketAddr, marking: &Marking) -> io::Result<TcpStream> {
    let socket = if address.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
    socket.set_nodelay(true)?;
    mark(&socket, marking);
    socket.connect(address).await
}

fn mark(socket: &TcpSocket, marking: &Marking) {
    static LOGGED: Once = Once::new();
    let marked = match marking {
        Marking::Own => {
            let marked = socket2::SockRef::from(socket).set_mark(SHADOW_SOCKET_MARK);
            marked.map_err(|error| error.to_string())
        }
        Marking::Other(mark) => mark(socket.as_fd()),
    };
    if let Err(why) = marked {
        LOGGED.call_once(|| tracing::debug!(why, "sockets to shadows carry no mark"));
    }
}
