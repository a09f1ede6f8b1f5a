//! The TCP sockets of the calling thread's network namespace, by inet_diag: what a connection's cgroup is and
//! who accepted it, also where it is older than this process.
//!
//! Messages: sock_diag(7); layouts: `linux/inet_diag.h`. The cgroup came with Linux 5.8, as ring buffers did.

use super::error::CaptureError;
use super::netlink::{NLM_F_DUMP, Netlink, Request, attributes, put, u16_at, u32_at};
use rustix::net::netlink::SOCK_DIAG;
use std::collections::HashSet;
use std::net::Ipv4Addr;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// struct inet_diag_req_v2: family, protocol, extensions, pad, states, then an id, which a dump leaves zero.
const REQUEST_BYTES: usize = 56;
/// struct inet_diag_msg: family, state, timer, retransmissions, id, five words.
const MESSAGE_BYTES: usize = 72;
/// `INET_DIAG_CGROUP_ID`: 64 bits, host byte order, always there.
const CGROUP_ID: u16 = 21;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
const TCP_LISTEN: u8 = 10;
/// `1 << TCP_*`: ESTABLISHED to FIN_WAIT2, CLOSE_WAIT, LAST_ACK, LISTEN, CLOSING. Not TIME_WAIT, which belongs to
/// nobody any more.
const STATES: u32 = 0x3e | 1 << 8 | 1 << 9 | 1 << TCP_LISTEN | 1 << 11;

/// One open connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Connection {
    /// IPv4 mapped.
    pub(crate) local_addr: [u8; 16],
    /// IPv4 mapped.
    pub(crate) remote_addr: [u8; 16],
    pub(crate) local_port: u16,
    pub(crate) remote_port: u16,
    /// The inode of the cgroup v2 directory that the socket belongs to.
    pub(crate) cgroup_id: u64,
}

/// What a namespace has open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sockets {
    pub(crate) connections: Vec<Connection>,
    /// Local ports with a listener.
    pub(crate) listening: HashSet<u16>,
}

impl Sockets {
    /// All of the calling thread's namespace.
    ///
    /// # Errors
    /// When the kernel refuses, or was built without inet_diag.
    pub(crate) fn of_this_namespace() -> Result<Self, CaptureError> {
        let netlink = Netlink::open(Some(SOCK_DIAG))?;
        let mut sockets = Self::default();
        for family in [AF_INET, AF_INET6] {
            let mut body = vec![0_u8; REQUEST_BYTES];
            put(&mut body, 0, &[family, IPPROTO_TCP]);
            put(&mut body, 4, &STATES.to_ne_bytes());
            let request =
                Request { what: "list sockets", kind: SOCK_DIAG_BY_FAMILY, flags: NLM_F_DUMP, body: &body };
            netlink.ask(&request, |kind, body| {
                if kind == SOCK_DIAG_BY_FAMILY {
                    let _ = sockets.note(body);
                }
            })?;
        }
        Ok(sockets)
    }

    /// `None` when the message is cut short.
    fn note(&mut self, message: &[u8]) -> Option<()> {
        let (family, state) = (*message.first()?, *message.get(1)?);
        let local_port = u16::from_be(u16_at(message, 4)?);
        if state == TCP_LISTEN {
            self.listening.insert(local_port);
            return Some(());
        }
        let (local_addr, remote_addr) = (addr(family, message, 8)?, addr(family, message, 24)?);
        let remote_port = u16::from_be(u16_at(message, 6)?);
        let cgroup_id = attributes(message.get(MESSAGE_BYTES..)?)
            .find(|(kind, _)| *kind == CGROUP_ID)
            .and_then(|(_, value)| Some(u64::from_ne_bytes(*value.first_chunk()?)))?;
        self.connections.push(Connection { local_addr, remote_addr, local_port, remote_port, cgroup_id });
        Some(())
    }
}

fn addr(family: u8, message: &[u8], offset: usize) -> Option<[u8; 16]> {
    match family {
        AF_INET => {
            let octets = u32_at(message, offset)?.to_ne_bytes();
            Some(Ipv4Addr::from(octets).to_ipv6_mapped().octets())
        }
        AF_INET6 => message.get(offset..)?.first_chunk().copied(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv6Addr, TcpListener, TcpStream};

    fn found(sockets: &Sockets, stream: &TcpStream) -> Option<Connection> {
        let (local, remote) = (stream.local_addr().expect("open"), stream.peer_addr().expect("open"));
        sockets.connections.iter().copied().find(|connection| {
            (connection.local_port, connection.remote_port) == (local.port(), remote.port())
        })
    }

    #[test]
    fn own_connections_and_listeners_are_listed_in_both_families() {
        for (bound, octets) in [
            ("127.0.0.1:0", Ipv4Addr::LOCALHOST.to_ipv6_mapped().octets()),
            ("[::1]:0", Ipv6Addr::LOCALHOST.octets()),
        ] {
            let Ok(listener) = TcpListener::bind(bound) else { continue };
            let here = listener.local_addr().expect("bound");
            let client = TcpStream::connect(here).expect("a listener");
            let (server, _) = listener.accept().expect("the client");
            let Ok(sockets) = Sockets::of_this_namespace() else { continue };
            assert!(sockets.listening.contains(&here.port()));
            let seen = [found(&sockets, &client).expect("listed"), found(&sockets, &server).expect("listed")];
            assert!(seen.iter().all(|end| end.local_addr == octets && end.remote_addr == octets));
            assert_eq!(seen[0].cgroup_id, seen[1].cgroup_id);
        }
    }

    #[test]
    fn cut_messages_are_left_out() {
        let mut message = vec![0_u8; MESSAGE_BYTES];
        put(&mut message, 0, &[AF_INET, 1]);
        message.extend_from_slice(&[12, 0, 21, 0, 7, 0, 0, 0, 0, 0, 0, 0]);
        for cut in 0..message.len() {
            let mut sockets = Sockets::default();
            assert_eq!(sockets.note(&message[..cut]), None);
            assert_eq!(sockets, Sockets::default());
        }
        let mut sockets = Sockets::default();
        sockets.note(&message).expect("whole");
        assert_eq!(sockets.connections[0].cgroup_id, 7);
    }
}
