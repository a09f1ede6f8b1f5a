//! From an skb to a TCP segment's header fields, by `bpf_skb_load_bytes` alone: direct packet access would
//! need CAP_PERFMON, and `bpf_skb_pull_data` changes the production skb.

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_skb_load_bytes};
use core::mem::MaybeUninit;
use mirror_common::KernelCounter;

const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
const ETH_P_8021Q: u16 = 0x8100;
const ETH_P_8021AD: u16 = 0x88a8;

const IPPROTO_HOPOPTS: u8 = 0;
const IPPROTO_TCP: u8 = 6;
const IPPROTO_ROUTING: u8 = 43;
const IPPROTO_FRAGMENT: u8 = 44;
const IPPROTO_AH: u8 = 51;
const IPPROTO_DSTOPTS: u8 = 60;
const IPPROTO_MH: u8 = 135;

const MAX_VLAN_TAGS: u32 = 2;
const MAX_EXTENSION_HEADERS: u32 = 6;

/// "More fragments" and the fragment offset (RFC 791, 3.1); the same bits of an IPv6 fragment header are
/// `IPV6_FRAGMENT_MASK` (RFC 8200, 4.5).
const IPV4_FRAGMENT_MASK: u16 = 0x3fff;
const IPV6_FRAGMENT_MASK: u16 = 0xfff9;

/// What of a TCP segment's headers is needed later.
#[derive(Clone, Copy)]
pub(crate) struct TcpSegment {
    /// Network byte order, IPv4 mapped.
    pub(crate) src: [u32; 4],
    /// Network byte order, IPv4 mapped.
    pub(crate) dst: [u32; 4],
    pub(crate) src_port: u16,
    pub(crate) dst_port: u16,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    /// Where the payload starts in the skb.
    pub(crate) payload_offset: u32,
    pub(crate) payload_bytes: u32,
}

/// The IP layer, once its headers are read.
struct IpLayer {
    src: [u32; 4],
    dst: [u32; 4],
    tcp_offset: u32,
    /// Where the packet ends in the skb; padding of short frames lies beyond.
    end: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct VlanTag {
    tci: u16,
    protocol: u16,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Ipv4Header {
    version_ihl: u8,
    tos: u8,
    total_bytes: u16,
    id: u16,
    fragment: u16,
    ttl: u8,
    protocol: u8,
    checksum: u16,
    src: u32,
    dst: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Ipv6Header {
    version_class_label: u32,
    payload_bytes: u16,
    next_header: u8,
    hop_limit: u8,
    src: [u32; 4],
    dst: [u32; 4],
}

#[repr(C)]
#[derive(Clone, Copy)]
struct ExtensionHeader {
    next_header: u8,
    length: u8,
    fragment: u16,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct TcpHeader {
    src_port: u16,
    dst_port: u16,
    seq: u32,
    ack: u32,
    data_offset: u8,
    flags: u8,
    window: u16,
    checksum: u16,
    urgent: u16,
}

/// Reads the headers of the packet in `skb`, whose IP header (or first VLAN tag) starts `link_header_bytes`
/// behind the skb's data. `Err` names the counter of what it is instead.
#[inline(always)]
pub(crate) fn segment(skb: *mut __sk_buff, link_header_bytes: u32) -> Result<TcpSegment, KernelCounter> {
    // SAFETY: reads of context fields, which the verifier allows for every skb program.
    let (mut protocol, skb_bytes) = unsafe { (u16::from_be((*skb).protocol as u16), (*skb).len) };
    let mut offset = link_header_bytes;
    for _ in 0..MAX_VLAN_TAGS {
        if protocol != ETH_P_8021Q && protocol != ETH_P_8021AD {
            break;
        }
        let tag: VlanTag = load(skb, offset)?;
        protocol = u16::from_be(tag.protocol);
        offset += size_of::<VlanTag>() as u32;
    }
    let layer = match protocol {
        ETH_P_IP => ipv4(skb, offset, skb_bytes)?,
        ETH_P_IPV6 => ipv6(skb, offset, skb_bytes)?,
        ETH_P_8021Q | ETH_P_8021AD => return Err(KernelCounter::VlanDepth),
        _ => return Err(KernelCounter::NotIp),
    };
    tcp(skb, &layer)
}

/// RFC 791, 3.1.
#[inline(always)]
fn ipv4(skb: *mut __sk_buff, offset: u32, skb_bytes: u32) -> Result<IpLayer, KernelCounter> {
    let ip: Ipv4Header = load(skb, offset)?;
    if ip.protocol != IPPROTO_TCP {
        return Err(KernelCounter::NotTcp);
    }
    if u16::from_be(ip.fragment) & IPV4_FRAGMENT_MASK != 0 {
        return Err(KernelCounter::Fragment);
    }
    let header_bytes = u32::from(ip.version_ihl & 0x0f) * 4;
    if ip.version_ihl >> 4 != 4 || header_bytes < size_of::<Ipv4Header>() as u32 {
        return Err(KernelCounter::Truncated);
    }
    Ok(IpLayer {
        src: mapped(ip.src),
        dst: mapped(ip.dst),
        tcp_offset: offset + header_bytes,
        end: packet_end(offset, u32::from(u16::from_be(ip.total_bytes)), skb_bytes),
    })
}

/// RFC 8200, 3 and 4.
#[inline(always)]
fn ipv6(skb: *mut __sk_buff, offset: u32, skb_bytes: u32) -> Result<IpLayer, KernelCounter> {
    let ip: Ipv6Header = load(skb, offset)?;
    let body = offset + size_of::<Ipv6Header>() as u32;
    let tcp_offset = skip_extension_headers(skb, ip.next_header, body)?;
    let payload_bytes = u32::from(u16::from_be(ip.payload_bytes));
    let total_bytes = if payload_bytes == 0 { 0 } else { payload_bytes + size_of::<Ipv6Header>() as u32 };
    Ok(IpLayer { src: ip.src, dst: ip.dst, tcp_offset, end: packet_end(offset, total_bytes, skb_bytes) })
}

/// The offset of the TCP header behind the extension headers that start at `offset`.
#[inline(always)]
fn skip_extension_headers(
    skb: *mut __sk_buff,
    mut next_header: u8,
    mut offset: u32,
) -> Result<u32, KernelCounter> {
    for _ in 0..=MAX_EXTENSION_HEADERS {
        if next_header == IPPROTO_TCP {
            return Ok(offset);
        }
        let length_unit_bytes = match next_header {
            IPPROTO_HOPOPTS | IPPROTO_ROUTING | IPPROTO_DSTOPTS | IPPROTO_MH => 8,
            IPPROTO_AH => 4,
            IPPROTO_FRAGMENT => 0,
            _ => return Err(KernelCounter::NotTcp),
        };
        let header: ExtensionHeader = load(skb, offset)?;
        if next_header == IPPROTO_FRAGMENT && u16::from_be(header.fragment) & IPV6_FRAGMENT_MASK != 0 {
            return Err(KernelCounter::Fragment);
        }
        // AH counts 4-byte units beyond the first two, the others 8-byte units beyond the first one: the
        // fixed part is 8 bytes in every case (RFC 4302, 2.2; RFC 8200, 4.3 to 4.6).
        offset += 8 + u32::from(header.length) * length_unit_bytes;
        next_header = header.next_header;
    }
    Err(KernelCounter::ExtensionHeader)
}

/// RFC 9293, 3.1.
#[inline(always)]
fn tcp(skb: *mut __sk_buff, layer: &IpLayer) -> Result<TcpSegment, KernelCounter> {
    let tcp: TcpHeader = load(skb, layer.tcp_offset)?;
    let header_bytes = u32::from(tcp.data_offset >> 4) * 4;
    let payload_offset = layer.tcp_offset + header_bytes;
    if header_bytes < size_of::<TcpHeader>() as u32 || payload_offset > layer.end {
        return Err(KernelCounter::Truncated);
    }
    Ok(TcpSegment {
        src: layer.src,
        dst: layer.dst,
        src_port: u16::from_be(tcp.src_port),
        dst_port: u16::from_be(tcp.dst_port),
        seq: u32::from_be(tcp.seq),
        ack: u32::from_be(tcp.ack),
        flags: tcp.flags,
        payload_offset,
        payload_bytes: layer.end - payload_offset,
    })
}

/// Where the packet ends in the skb. A length of 0 is a packet beyond 64 KiB (BIG TCP), which ends with the
/// skb. One that claims more than the skb has ends at 0, so that it counts as truncated.
#[inline(always)]
fn packet_end(offset: u32, total_bytes: u32, skb_bytes: u32) -> u32 {
    if total_bytes == 0 {
        skb_bytes
    } else if offset + total_bytes > skb_bytes {
        0
    } else {
        offset + total_bytes
    }
}

/// RFC 4291, 2.5.5.2; `addr` and the result are in network byte order.
#[inline(always)]
pub(crate) fn mapped(addr: u32) -> [u32; 4] {
    [0, 0, 0xffff_u32.to_be(), addr]
}

/// Copies a header out of the skb, linear or not.
#[inline(always)]
fn load<T: Copy>(skb: *mut __sk_buff, offset: u32) -> Result<T, KernelCounter> {
    let mut header = MaybeUninit::<T>::uninit();
    // SAFETY: the destination has room for the size given; on success all of it is written, and `T` is one of
    // the plain header types of this file.
    unsafe {
        if bpf_skb_load_bytes(skb.cast(), offset, header.as_mut_ptr().cast(), size_of::<T>() as u32) == 0 {
            Ok(header.assume_init())
        } else {
            Err(KernelCounter::Truncated)
        }
    }
}
