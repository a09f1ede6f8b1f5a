//! From a packet to the TCP segment in it.

use crate::config::Leg;
use crate::flow::{Direction, FlowKey, Segment, SeqNumber, TcpFlags, Timestamp};
use etherparse::err::packet::SliceError;
use etherparse::{EtherType, IpNumber, LaxNetSlice, LaxSlicedPacket, TcpSlice, TransportSlice};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Link types, as tcpdump.org numbers them.
const NULL: i32 = 0;
const ETHERNET: i32 = 1;
/// Raw IP: the `DLT` numbers of most systems, OpenBSD's, and the official ones.
const RAW_IP: [i32; 5] = [12, 14, 101, 228, 229];
const LOOP: i32 = 108;
const LINUX_SLL: i32 = 113;
const LINUX_SLL2: i32 = 276;

/// One captured packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet<'a> {
    /// `None`: of an interface that was not described.
    pub(super) link_type: Option<i32>,
    pub(super) at: Timestamp,
    /// Length on the wire, the link header included.
    pub(super) wire_bytes: u32,
    pub(super) bytes: &'a [u8],
}

/// Why a packet gives no segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Skip {
    NotIp,
    NotTcp,
    Fragment,
    CutHeaders,
    Malformed,
    OtherPort,
    LinkType,
}

/// Which connections are wanted, and which end of them is the gateway.
#[derive(Debug)]
pub(super) struct PortSelection {
    leg: Leg,
    ports: Vec<u16>,
}

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct End {
    port: u16,
    addr: [u8; 16],
}

pub(super) fn is_supported(link_type: i32) -> bool {
    [NULL, ETHERNET, LOOP, LINUX_SLL, LINUX_SLL2].contains(&link_type) || RAW_IP.contains(&link_type)
}

/// Finds the segment in a packet.
pub(super) fn parse<'a>(packet: &Packet<'a>, selection: &PortSelection) -> Result<Segment<'a>, Skip> {
    let sliced = slice_link(packet)?;
    let Some(net) = &sliced.net else { return Err(stopped(&sliced, Skip::NotIp)) };
    let Some(ip) = net.ip_payload_ref() else { return Err(Skip::NotIp) };
    if ip.fragmented {
        return Err(Skip::Fragment);
    }
    let Some(TransportSlice::Tcp(tcp)) = &sliced.transport else {
        let is_other = ip.ip_number != IpNumber::TCP;
        return Err(stopped(&sliced, if is_other { Skip::NotTcp } else { Skip::CutHeaders }));
    };
    let (source_addr, destination_addr) = addresses(net).ok_or(Skip::NotIp)?;
    let source = End { port: tcp.source_port(), addr: source_addr };
    let destination = End { port: tcp.destination_port(), addr: destination_addr };
    let (key, direction) = selection.place(source, destination).ok_or(Skip::OtherPort)?;
    let segment_bytes = wire_payload_bytes(packet, net, tcp).ok_or(Skip::Malformed)?;
    if u64::from(segment_bytes) < tcp.payload().len() as u64 {
        return Err(Skip::Malformed);
    }
    Ok(Segment {
        key,
        direction,
        seq: SeqNumber(tcp.sequence_number()),
        ack: SeqNumber(tcp.acknowledgment_number()),
        flags: flags(tcp),
        selected: None,
        at: packet.at,
        segment_bytes,
        offset_bytes: 0,
        payload: tcp.payload(),
    })
}

fn slice_link<'a>(packet: &Packet<'a>) -> Result<LaxSlicedPacket<'a>, Skip> {
    let bytes = packet.bytes;
    let ether_type = |at: usize| {
        let number = bytes.get(at..).and_then(<[u8]>::first_chunk::<2>).ok_or(Skip::CutHeaders)?;
        Ok(EtherType(u16::from_be_bytes(*number)))
    };
    let behind = |at: usize| bytes.get(at..).ok_or(Skip::CutHeaders);
    match packet.link_type.ok_or(Skip::LinkType)? {
        ETHERNET => LaxSlicedPacket::from_ethernet(bytes).map_err(|_| Skip::CutHeaders),
        LINUX_SLL => Ok(LaxSlicedPacket::from_ether_type(ether_type(14)?, behind(16)?)),
        LINUX_SLL2 => Ok(LaxSlicedPacket::from_ether_type(ether_type(0)?, behind(20)?)),
        // Four bytes name the address family, in either byte order; the IP version says it better.
        NULL | LOOP => slice_ip(behind(4)?),
        raw if RAW_IP.contains(&raw) => slice_ip(bytes),
        _ => Err(Skip::LinkType),
    }
}

fn slice_ip(bytes: &[u8]) -> Result<LaxSlicedPacket<'_>, Skip> {
    match bytes.first().map(|first| first >> 4) {
        None => Err(Skip::CutHeaders),
        Some(4 | 6) => LaxSlicedPacket::from_ip(bytes).map_err(|error| match error {
            etherparse::err::ip::LaxHeaderSliceError::Len(_) => Skip::CutHeaders,
            etherparse::err::ip::LaxHeaderSliceError::Content(_) => Skip::Malformed,
        }),
        Some(_) => Err(Skip::NotIp),
    }
}

/// Why slicing stopped, or `otherwise` when nothing stopped it.
fn stopped(sliced: &LaxSlicedPacket<'_>, otherwise: Skip) -> Skip {
    match &sliced.stop_err {
        None => otherwise,
        Some((SliceError::Len(_), _)) => Skip::CutHeaders,
        Some(_) => Skip::Malformed,
    }
}

fn addresses(net: &LaxNetSlice<'_>) -> Option<([u8; 16], [u8; 16])> {
    let mapped = |addr: [u8; 4]| Ipv4Addr::from(addr).to_ipv6_mapped().octets();
    match net {
        LaxNetSlice::Ipv4(ip) => Some((mapped(ip.header().source()), mapped(ip.header().destination()))),
        LaxNetSlice::Ipv6(ip) => {
            let header = ip.header();
            let octets = |addr: Ipv6Addr| addr.octets();
            Some((octets(header.source_addr()), octets(header.destination_addr())))
        }
        LaxNetSlice::Arp(_) => None,
    }
}

/// Payload bytes that the segment had on the wire, whatever the snap length left of them. `None`: the
/// lengths contradict each other.
fn wire_payload_bytes(packet: &Packet<'_>, net: &LaxNetSlice<'_>, tcp: &TcpSlice<'_>) -> Option<u32> {
    let header_bytes = tcp.header_slice().len();
    let declared = match net {
        LaxNetSlice::Ipv4(ip) => {
            let extensions = ip.extensions().auth.map_or(0, |auth| auth.slice().len());
            // 0: a packet beyond 64 KiB (BIG TCP), or one whose length the card was to fill in.
            let total = usize::from(ip.header().total_len());
            (total > 0).then(|| total.checked_sub(ip.header().slice().len())?.checked_sub(extensions))
        }
        LaxNetSlice::Ipv6(ip) => {
            let extensions = ip.extensions().slice().len();
            let total = usize::from(ip.header().payload_length());
            (total > 0).then(|| total.checked_sub(extensions))
        }
        LaxNetSlice::Arp(_) => return None,
    };
    if let Some(declared) = declared {
        return u32::try_from(declared?.checked_sub(header_bytes)?).ok();
    }
    let captured = u32::try_from(packet.bytes.len()).ok()?;
    let uncaptured = packet.wire_bytes.saturating_sub(captured);
    u32::try_from(tcp.payload().len()).ok()?.checked_add(uncaptured)
}

fn flags(tcp: &TcpSlice<'_>) -> TcpFlags {
    let flags = [
        (tcp.fin(), TcpFlags::FIN),
        (tcp.syn(), TcpFlags::SYN),
        (tcp.rst(), TcpFlags::RST),
        (tcp.ack(), TcpFlags::ACK),
    ];
    let set = flags.iter().filter(|(is_set, _)| *is_set);
    TcpFlags(set.fold(0, |bits, (_, flag)| bits | flag.0))
}

impl PortSelection {
    pub(super) fn new(leg: Leg, ports: &[u16]) -> Self {
        Self { leg, ports: ports.to_vec() }
    }

    /// The connection between two ends and which way a segment between them travels; `None` when it is not
    /// wanted. Where both ports are wanted, the lower one is taken for that of who accepts.
    fn place(&self, source: End, destination: End) -> Option<(FlowKey, Direction)> {
        let wants = |end: &End| self.ports.contains(&end.port);
        let direction = match (wants(&source), wants(&destination)) {
            (false, false) => return None,
            (false, true) => Direction::Request,
            (true, false) => Direction::Answer,
            (true, true) if destination <= source => Direction::Request,
            (true, true) => Direction::Answer,
        };
        let (opener, accepter) = match direction {
            Direction::Request => (source, destination),
            Direction::Answer => (destination, source),
        };
        let (gateway, remote) = match self.leg {
            Leg::Downstream => (accepter, opener),
            Leg::Upstream => (opener, accepter),
        };
        let key = FlowKey {
            gateway_addr: gateway.addr,
            remote_addr: remote.addr,
            gateway_port: gateway.port,
            remote_port: remote.port,
            capture_point: 0,
        };
        Some((key, direction))
    }
}
