//! The client's address behind trusted proxies.

use crate::http::RequestHead;
use std::net::{IpAddr, SocketAddr};

/// The client's address: the one that the outermost of `trusted_proxies` proxies put into
/// `X-Forwarded-For`, which is the entry so many places from the right end (all such fields are one list,
/// RFC 9110, 5.3). When no proxy is trusted, or the list is shorter, or the entry is no address, it is
/// `peer`: what a client writes itself is never believed.
#[must_use]
pub fn client_ip(head: &RequestHead<'_>, trusted_proxies: u32, peer: IpAddr) -> IpAddr {
    forwarded_for(head, trusted_proxies).unwrap_or(peer).to_canonical()
}

/// The address in a [`FlowKey`](crate::flow::FlowKey): an IPv4-mapped one is IPv4.
#[must_use]
pub fn ip_of(addr: &[u8; 16]) -> IpAddr {
    IpAddr::from(*addr).to_canonical()
}

fn forwarded_for(head: &RequestHead<'_>, trusted_proxies: u32) -> Option<IpAddr> {
    let from_right = usize::try_from(trusted_proxies).ok()?.checked_sub(1)?;
    let fields = head.fields.iter().rev().filter(|field| field.is("x-forwarded-for"));
    let mut entries = fields.flat_map(|field| field.value.rsplit(|byte| *byte == b','));
    let entry = std::str::from_utf8(entries.nth(from_right)?).ok()?.trim();
    parse_entry(entry)
}

/// An address, alone or with a port; IPv6 with or without brackets.
fn parse_entry(entry: &str) -> Option<IpAddr> {
    if let Ok(address) = entry.parse::<IpAddr>() {
        return Some(address);
    }
    if let Ok(with_port) = entry.parse::<SocketAddr>() {
        return Some(with_port.ip());
    }
    entry.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}
