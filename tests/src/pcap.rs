//! Writes classic pcap files of made-up TCP connections, for tests that need no kernel.
//!
//! Link type Ethernet, nanosecond time stamps, no checksums (no reader of captures relies on them: offloading
//! leaves them unset in real captures too).

use std::io::{self, Write};
use std::net::SocketAddr;

const MAGIC_NANOSECONDS: u32 = 0xa1b2_3c4d;
const LINKTYPE_ETHERNET: u32 = 1;
/// FIN, as in byte 13 of the TCP header.
pub const FIN: u8 = 0x01;
/// SYN.
pub const SYN: u8 = 0x02;
/// RST.
pub const RST: u8 = 0x04;
/// ACK.
pub const ACK: u8 = 0x10;

/// A capture file under construction.
#[derive(Debug)]
pub struct PcapWriter<W> {
    out: W,
    now_ns: u64,
}

impl<W: Write> PcapWriter<W> {
    /// Starts a file.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn new(mut out: W) -> io::Result<Self> {
        for word in [MAGIC_NANOSECONDS, 0x0004_0002, 0, 0, 262_144, LINKTYPE_ETHERNET] {
            out.write_all(&word.to_le_bytes())?;
        }
        Ok(Self { out, now_ns: 1_700_000_000_000_000_000 })
    }

    /// Lets time pass before the next packet.
    pub fn advance_ms(&mut self, ms: u64) {
        self.now_ns = self.now_ns.saturating_add(ms.saturating_mul(1_000_000));
    }

    /// Appends one TCP packet.
    ///
    /// # Errors
    /// When the file cannot be written.
    ///
    /// # Panics
    /// When source and destination are not of one address family, or the payload passes 60,000 bytes.
    pub fn packet(
        &mut self,
        ends: (SocketAddr, SocketAddr),
        numbers: (u32, u32),
        flags: u8,
        payload: &[u8],
    ) -> io::Result<()> {
        self.snapped_packet(ends, numbers, flags, (payload, payload.len()))
    }

    /// Appends one TCP packet, of whose payload only so many bytes were captured.
    ///
    /// # Errors
    /// When the file cannot be written.
    ///
    /// # Panics
    /// As [`packet`](Self::packet), and when more was captured than there is.
    pub fn snapped_packet(
        &mut self,
        ends: (SocketAddr, SocketAddr),
        numbers: (u32, u32),
        flags: u8,
        (payload, captured_bytes): (&[u8], usize),
    ) -> io::Result<()> {
        assert!(payload.len() <= 60_000, "a test packet holds at most 60,000 bytes, not {}", payload.len());
        let mut tcp = Vec::new();
        tcp.extend(ends.0.port().to_be_bytes());
        tcp.extend(ends.1.port().to_be_bytes());
        tcp.extend(numbers.0.to_be_bytes());
        tcp.extend(numbers.1.to_be_bytes());
        tcp.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        tcp.extend(payload);
        let frame = match ends {
            (SocketAddr::V4(from), SocketAddr::V4(to)) => {
                ipv4_frame(from.ip().octets(), to.ip().octets(), &tcp)
            }
            (SocketAddr::V6(from), SocketAddr::V6(to)) => {
                ipv6_frame(from.ip().octets(), to.ip().octets(), &tcp)
            }
            mixed => panic!("one packet, two address families: {mixed:?}"),
        };
        self.now_ns = self.now_ns.saturating_add(1_000);
        let (seconds, nanoseconds) = (self.now_ns / 1_000_000_000, self.now_ns % 1_000_000_000);
        let captured = &frame[..frame.len() - (payload.len() - captured_bytes)];
        for word in [seconds as u32, nanoseconds as u32, captured.len() as u32, frame.len() as u32] {
            self.out.write_all(&word.to_le_bytes())?;
        }
        self.out.write_all(captured)
    }

    /// The file so far.
    pub fn into_inner(self) -> W {
        self.out
    }
}

fn ipv4_frame(from: [u8; 4], to: [u8; 4], tcp: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 12];
    frame.extend(0x0800_u16.to_be_bytes());
    frame.extend([0x45, 0]);
    frame.extend((tcp.len() as u16 + 20).to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
    frame.extend(from);
    frame.extend(to);
    frame.extend(tcp);
    frame
}

fn ipv6_frame(from: [u8; 16], to: [u8; 16], tcp: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 12];
    frame.extend(0x86dd_u16.to_be_bytes());
    frame.extend([0x60, 0, 0, 0]);
    frame.extend((tcp.len() as u16).to_be_bytes());
    frame.extend([6, 64]);
    frame.extend(from);
    frame.extend(to);
    frame.extend(tcp);
    frame
}

/// A well-behaved connection that writes itself into a [`PcapWriter`].
#[derive(Debug)]
pub struct Conversation {
    client: SocketAddr,
    server: SocketAddr,
    client_next: u32,
    server_next: u32,
}

impl Conversation {
    /// A connection that has not begun; its sequence numbers wrap after a few hundred bytes on purpose.
    #[must_use]
    pub fn new(client: SocketAddr, server: SocketAddr) -> Self {
        Self { client, server, client_next: u32::MAX - 300, server_next: u32::MAX - 700 }
    }

    /// SYN, SYN-ACK, ACK.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn open<W: Write>(&mut self, pcap: &mut PcapWriter<W>) -> io::Result<()> {
        pcap.packet((self.client, self.server), (self.client_next, 0), SYN, &[])?;
        self.client_next = self.client_next.wrapping_add(1);
        pcap.packet((self.server, self.client), (self.server_next, self.client_next), SYN | ACK, &[])?;
        self.server_next = self.server_next.wrapping_add(1);
        pcap.packet((self.client, self.server), (self.client_next, self.server_next), ACK, &[])
    }

    /// The client sends one segment.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn request<W: Write>(&mut self, pcap: &mut PcapWriter<W>, bytes: &[u8]) -> io::Result<()> {
        pcap.packet((self.client, self.server), (self.client_next, self.server_next), ACK, bytes)?;
        self.skip_request(bytes.len());
        Ok(())
    }

    /// The client sends one segment that the capture misses.
    pub fn skip_request(&mut self, bytes: usize) {
        self.client_next = self.client_next.wrapping_add(bytes as u32);
    }

    /// The server sends one segment.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn answer<W: Write>(&mut self, pcap: &mut PcapWriter<W>, bytes: &[u8]) -> io::Result<()> {
        pcap.packet((self.server, self.client), (self.server_next, self.client_next), ACK, bytes)?;
        self.server_next = self.server_next.wrapping_add(bytes.len() as u32);
        Ok(())
    }

    /// FIN from both ends.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn close<W: Write>(&mut self, pcap: &mut PcapWriter<W>) -> io::Result<()> {
        pcap.packet((self.client, self.server), (self.client_next, self.server_next), FIN | ACK, &[])?;
        self.client_next = self.client_next.wrapping_add(1);
        pcap.packet((self.server, self.client), (self.server_next, self.client_next), FIN | ACK, &[])
    }
}
