//! The PROXY protocol, versions 1 and 2 (haproxy.org, proxy-protocol.txt): what a load balancer says of the
//! client before the first byte of the connection proper.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest version 1 header, with its CRLF.
const MAX_V1_BYTES: usize = 107;
const V1_SIGNATURE: &[u8] = b"PROXY ";
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2: signature, version and command, family, length.
const V2_FIXED_BYTES: usize = 16;

/// What stands at the start of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProxyHeader {
    /// Perhaps the beginning of a header.
    Partial,
    /// No header.
    Absent,
    /// A header that breaks the protocol.
    Invalid,
    /// A header; with version 2, its last fields may still be to come.
    Whole {
        /// Its length; may be more than what was seen.
        header_bytes: usize,
        /// The client; `None` where the header names none (UNKNOWN, LOCAL, AF_UNSPEC, AF_UNIX).
        client_ip: Option<IpAddr>,
    },
}

/// Looks for a header at the start of `bytes`.
pub(super) fn read(bytes: &[u8]) -> ProxyHeader {
    if begins(bytes, V2_SIGNATURE) {
        return if bytes.len() < V2_FIXED_BYTES { ProxyHeader::Partial } else { read_v2(bytes) };
    }
    if begins(bytes, V1_SIGNATURE) { read_v1(bytes) } else { ProxyHeader::Absent }
}

/// True when the shorter of the two begins the other.
fn begins(bytes: &[u8], signature: &[u8]) -> bool {
    bytes.iter().zip(signature).all(|(byte, want)| byte == want)
}

fn read_v1(bytes: &[u8]) -> ProxyHeader {
    let window = bytes.get(..MAX_V1_BYTES).unwrap_or(bytes);
    let Some(line_end) = memchr::memchr(b'\n', window) else {
        return if window.len() < MAX_V1_BYTES { ProxyHeader::Partial } else { ProxyHeader::Invalid };
    };
    let line = window.get(..line_end).and_then(|line| line.strip_suffix(b"\r"));
    let Some(line) = line.and_then(|line| std::str::from_utf8(line).ok()) else {
        return ProxyHeader::Invalid;
    };
    let header_bytes = line_end.saturating_add(1);
    let words: Vec<&str> = line.split(' ').take(7).collect();
    let client_ip = match words.as_slice() {
        ["PROXY", "UNKNOWN", ..] => return ProxyHeader::Whole { header_bytes, client_ip: None },
        ["PROXY", "TCP4", source, _, _, _] => source.parse().ok().map(IpAddr::V4),
        ["PROXY", "TCP6", source, _, _, _] => source.parse().ok().map(IpAddr::V6),
        _ => None,
    };
    match client_ip {
        Some(_) => ProxyHeader::Whole { header_bytes, client_ip },
        None => ProxyHeader::Invalid,
    }
}

/// `bytes` holds at least the fixed part.
fn read_v2(bytes: &[u8]) -> ProxyHeader {
    let &[command, family, length_high, length_low] =
        bytes.get(V2_SIGNATURE.len()..).and_then(|fixed| fixed.first_chunk::<4>()).unwrap_or(&[0; 4]);
    let addresses = bytes.get(V2_FIXED_BYTES..).unwrap_or_default();
    let length = usize::from(u16::from_be_bytes([length_high, length_low]));
    let header_bytes = V2_FIXED_BYTES.saturating_add(length);
    // The high half of `family` is the address family, the low half the transport, of no interest here.
    let (needed, is_v4) = match (command, family >> 4) {
        (0x20, _) | (0x21, 0 | 3) => return ProxyHeader::Whole { header_bytes, client_ip: None },
        (0x21, 1) => (12, true),
        (0x21, 2) => (36, false),
        _ => return ProxyHeader::Invalid,
    };
    if length < needed {
        return ProxyHeader::Invalid;
    }
    let client_ip = if is_v4 {
        addresses.first_chunk::<4>().map(|source| IpAddr::V4(Ipv4Addr::from(*source)))
    } else {
        addresses.first_chunk::<16>().map(|source| IpAddr::V6(Ipv6Addr::from(*source)))
    };
    match client_ip {
        Some(_) => ProxyHeader::Whole { header_bytes, client_ip },
        None => ProxyHeader::Partial,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [V2_SIGNATURE, &[command, family], &length, rest].concat()
    }

    fn whole(header: &[u8], ip: Option<&str>) -> ProxyHeader {
        ProxyHeader::Whole { header_bytes: header.len(), client_ip: ip.map(|ip| ip.parse().unwrap()) }
    }

    #[test]
    fn v1_names_the_client() {
        let cases = [
            ("PROXY TCP4 192.0.2.1 198.51.100.1 5000 80\r\n", Some("192.0.2.1")),
            ("PROXY TCP6 2001:db8::1 2001:db8::2 5000 80\r\n", Some("2001:db8::1")),
            ("PROXY UNKNOWN\r\n", None),
            ("PROXY UNKNOWN ff:: ff:: 1 2\r\n", None),
        ];
        for (text, ip) in cases {
            for cut in 0..text.len() {
                assert_eq!(read(&text.as_bytes()[..cut]), ProxyHeader::Partial, "{text} cut at {cut}");
            }
            assert_eq!(read(text.as_bytes()), whole(text.as_bytes(), ip), "{text}");
        }
    }

    #[test]
    fn faulty_v1_is_invalid() {
        let long = format!("PROXY UNKNOWN {}", "x".repeat(100));
        for text in ["PROXY TCP4 ::1 ::2 1 2\r\n", "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n", "PROXY \r\n", &long] {
            assert_eq!(read(text.as_bytes()), ProxyHeader::Invalid, "{text}");
        }
    }

    #[test]
    fn v2_names_the_client_and_its_tlvs_are_skipped() {
        let v4 = v2(0x21, 0x11, &[192, 0, 2, 1, 198, 51, 100, 1, 1, 2, 3, 4, 4, 0, 1, 9]);
        assert_eq!(read(&v4), whole(&v4, Some("192.0.2.1")));
        let mut addresses = [0_u8; 36];
        addresses[15] = 1;
        let v6 = v2(0x21, 0x21, &addresses);
        assert_eq!(read(&v6), whole(&v6, Some("::1")));
        for cut in 0..V2_FIXED_BYTES + 4 {
            assert_eq!(read(&v4[..cut]), ProxyHeader::Partial, "cut at {cut}");
        }
    }

    #[test]
    fn v2_may_name_nobody() {
        for header in
            [v2(0x20, 0, &[]), v2(0x20, 0x11, &[1; 12]), v2(0x21, 0, &[7; 5]), v2(0x21, 0x31, &[0; 216])]
        {
            assert_eq!(read(&header), whole(&header, None));
        }
    }

    #[test]
    fn faulty_v2_is_invalid() {
        for header in [
            v2(0x31, 0x11, &[0; 12]),
            v2(0x22, 0x11, &[0; 12]),
            v2(0x21, 0x41, &[0; 12]),
            v2(0x21, 0x11, &[0; 11]),
        ] {
            assert_eq!(read(&header), ProxyHeader::Invalid, "{header:?}");
        }
    }

    #[test]
    fn other_beginnings_are_no_header() {
        for text in [&b"GET / HTTP/1.1\r\n"[..], b"PROPFIND", b"\r\nGET", b"\r\n\r\nG"] {
            assert_eq!(read(text), ProxyHeader::Absent);
        }
        assert_eq!(read(b""), ProxyHeader::Partial);
    }
}
