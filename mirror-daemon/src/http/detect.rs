//! Tells from the first bytes of a connection what it carries: a PROXY protocol header, then HTTP/1, HTTP/2 or
//! something else.
//!
//! ```text
//! Proxy ─┬▶ (header longer than what was seen) Skipping ─▶ Protocol ─▶ found
//!        └▶ Protocol
//! ```
//!
//! A TLS connection is something else: its bytes say nothing.

mod proxy;

use super::h1::{Plausible, request_line};
use crate::drop_reason::DropReason;
use crate::flow::{Chunk, SeqNumber};
use proxy::ProxyHeader;
use std::net::IpAddr;

/// The HTTP/2 connection preface (RFC 9113, 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a connection carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/1.0 or HTTP/1.1.
    Http1,
    /// HTTP/2 by prior knowledge. Its preface is the first of the bytes that follow.
    Http2,
    /// Neither.
    Other(DropReason),
}

/// What was found, and the bytes it was found in.
#[derive(Debug)]
pub(super) struct Found {
    /// The protocol.
    pub(super) protocol: Protocol,
    /// Its first bytes where they are not those of the last chunk, or only some of them.
    pub(super) bytes: Rest,
}

/// Where the first bytes of the protocol are.
#[derive(Debug)]
pub(super) enum Rest {
    /// In the last chunk, from this offset on.
    InChunk(usize),
    /// Here: they came in several chunks.
    Buffered(Vec<u8>, SeqNumber),
}

/// Detection in progress. Takes memory only while the first bytes come in pieces, and then at most those of
/// one chunk and the longest beginning that decides nothing (a PROXY header of 107 bytes).
#[derive(Debug)]
pub(super) struct Detect {
    stage: Stage,
    pending: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Proxy,
    /// Bytes of a PROXY header that are of no interest.
    Skipping(usize),
    Protocol,
}

impl Detect {
    /// At the start of a connection; `proxy_protocol`: a PROXY header may come first.
    pub(super) fn new(proxy_protocol: bool) -> Self {
        Self { stage: if proxy_protocol { Stage::Proxy } else { Stage::Protocol }, pending: Vec::new() }
    }

    /// Goes on with a chunk. `client` is told the address that a PROXY header names.
    pub(super) fn handle_chunk(&mut self, chunk: &Chunk<'_>, client: impl FnMut(IpAddr)) -> Option<Found> {
        if self.pending.is_empty() {
            let (used, protocol) = self.decide(chunk.bytes, client);
            let rest = chunk.bytes.get(used..).unwrap_or_default();
            let Some(protocol) = protocol else {
                self.pending.extend_from_slice(rest);
                return None;
            };
            return Some(Found { protocol, bytes: Rest::InChunk(used) });
        }
        let start = chunk.start.sub(u32::try_from(self.pending.len()).unwrap_or(u32::MAX));
        let mut bytes = std::mem::take(&mut self.pending);
        bytes.extend_from_slice(chunk.bytes);
        let (used, protocol) = self.decide(&bytes, client);
        bytes.drain(..used.min(bytes.len()));
        let Some(protocol) = protocol else {
            self.pending = bytes;
            return None;
        };
        let start = start.add(u32::try_from(used).unwrap_or(u32::MAX));
        Some(Found { protocol, bytes: Rest::Buffered(bytes, start) })
    }

    pub(super) fn allocated_bytes(&self) -> usize {
        self.pending.capacity()
    }

    /// Bytes used up, and the protocol, if it is decided.
    fn decide(&mut self, bytes: &[u8], mut client: impl FnMut(IpAddr)) -> (usize, Option<Protocol>) {
        let mut used = 0_usize;
        loop {
            let rest = bytes.get(used..).unwrap_or_default();
            match self.stage {
                Stage::Proxy => match proxy::read(rest) {
                    ProxyHeader::Partial => return (used, None),
                    ProxyHeader::Absent => self.stage = Stage::Protocol,
                    ProxyHeader::Invalid => return (used, Some(Protocol::Other(DropReason::NotHttp))),
                    ProxyHeader::Whole { header_bytes, client_ip } => {
                        client_ip.into_iter().for_each(&mut client);
                        self.stage = Stage::Skipping(header_bytes);
                    }
                },
                Stage::Skipping(left) => {
                    let skipped = left.min(rest.len());
                    used = used.saturating_add(skipped);
                    match left.saturating_sub(skipped) {
                        0 => self.stage = Stage::Protocol,
                        left => {
                            self.stage = Stage::Skipping(left);
                            return (used, None);
                        }
                    }
                }
                Stage::Protocol => {
                    // RFC 9112, 2.2: empty lines before a request line are ignored.
                    let empty = rest.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
                    used = used.saturating_add(empty);
                    return (used, protocol(rest.get(empty..).unwrap_or_default()));
                }
            }
        }
    }
}

/// The protocol that starts with `bytes`; `None` while that can't be told.
fn protocol(bytes: &[u8]) -> Option<Protocol> {
    if bytes.starts_with(HTTP2_PREFACE) {
        return Some(Protocol::Http2);
    }
    if HTTP2_PREFACE.starts_with(bytes) {
        return None;
    }
    match request_line(bytes) {
        Plausible::No => Some(Protocol::Other(DropReason::NotHttp)),
        // The rest of the line may still say otherwise; HTTP/1's own reader bounds and refuses it.
        Plausible::Yes | Plausible::Partial => Some(Protocol::Http1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_are_told_by_their_first_bytes() {
        assert_eq!(protocol(b"G"), Some(Protocol::Http1));
        assert_eq!(protocol(b"PR"), None);
        assert_eq!(protocol(b"PROPFIND /"), Some(Protocol::Http1));
        assert_eq!(protocol(HTTP2_PREFACE), Some(Protocol::Http2));
        for other in [&b"\x16\x03\x01\x02\x00\x01"[..], b"SSH-2.0-x\r\n", b"PRI * HTTP/2.0\r\n\r\nSX", b"\0"]
        {
            assert_eq!(protocol(other), Some(Protocol::Other(DropReason::NotHttp)), "{other:?}");
        }
    }
}
