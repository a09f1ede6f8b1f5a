//! Hosts: how an authority splits, which patterns there are, and which one a host belongs to.

use memchr::{memchr_iter, memrchr};
use siphasher::sip::SipHasher13;
use std::collections::HashMap;
use std::fmt;
use std::hash::BuildHasherDefault;

/// Longest host that can match a pattern, in bytes (RFC 1035, 2.3.4). A longer one is matched only by routes
/// without hosts.
pub const MAX_HOST_BYTES: usize = 255;

/// An authority (RFC 3986, 3.2) in its parts; together they are the whole, byte for byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authority<'a> {
    /// With its `@`; empty when there is none.
    pub userinfo: &'a [u8],
    /// IPv6 addresses keep their brackets.
    pub host: &'a [u8],
    /// With its `:`; empty when there is none.
    pub port: &'a [u8],
}

impl<'a> Authority<'a> {
    /// Splits an authority. Never fails: what is no port belongs to the host. An IPv6 address without its
    /// brackets has several colons and therefore no port.
    #[must_use]
    pub fn split(whole: &'a [u8]) -> Self {
        let host_start = memrchr(b'@', whole).map_or(0, |at| at.saturating_add(1));
        let (userinfo, rest) = whole.split_at_checked(host_start).unwrap_or((&[], whole));
        let after_bracket = if rest.starts_with(b"[") { memrchr(b']', rest) } else { None };
        let colon = match after_bracket {
            Some(bracket) => memrchr(b':', rest).filter(|colon| *colon > bracket),
            None => {
                let mut colons = memchr_iter(b':', rest);
                colons.next().filter(|_| colons.next().is_none())
            }
        };
        let (host, port) = rest.split_at_checked(colon.unwrap_or(rest.len())).unwrap_or((rest, &[]));
        Self { userinfo, host, port }
    }
}

/// A host as a route names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// Exactly this host, lower case.
    Exact(String),
    /// One or more labels in front of this suffix (kept without `*.`), lower case.
    Wildcard(String),
}

/// Why a text is no host pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostPatternFault {
    /// Nothing there, or only `*`.
    #[error("is no host; leave `hosts` out to match every host")]
    Everything,
    /// A port.
    #[error("has a port; ports are ignored when hosts are matched, write the host alone")]
    Port,
    /// A `*` that is not a first label of its own.
    #[error("has a `*` that is not its whole first label; write `*.example.com`")]
    Wildcard,
    /// A character that no host has, an empty label, or too long.
    #[error(
        "is no host name; allowed are letters, digits, `-` and `_` in labels with dots between, or an IP address"
    )]
    Name,
}

impl HostPattern {
    /// Reads `example.com`, `*.example.com`, `192.0.2.1` or `[2001:db8::1]`.
    ///
    /// # Errors
    /// It is none of these.
    pub fn parse(text: &str) -> Result<Self, HostPatternFault> {
        let lower = text.to_ascii_lowercase();
        if lower.is_empty() || lower == "*" {
            return Err(HostPatternFault::Everything);
        }
        let address = lower.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        if address.is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok()) {
            return Ok(Self::Exact(lower));
        }
        if !Authority::split(lower.as_bytes()).port.is_empty() {
            return Err(HostPatternFault::Port);
        }
        let (suffix, is_wildcard) = match lower.strip_prefix("*.") {
            Some(suffix) => (suffix, true),
            None => (lower.as_str(), false),
        };
        if suffix.contains('*') {
            return Err(HostPatternFault::Wildcard);
        }
        let suffix = suffix.strip_suffix('.').unwrap_or(suffix);
        if suffix.len() > MAX_HOST_BYTES || !suffix.split('.').all(is_label) {
            return Err(HostPatternFault::Name);
        }
        Ok(if is_wildcard { Self::Wildcard(suffix.to_owned()) } else { Self::Exact(suffix.to_owned()) })
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => f.write_str(host),
            Self::Wildcard(suffix) => write!(f, "*.{suffix}"),
        }
    }
}

/// A request's host, lower case, without port and without the dot that may end it; on the stack.
pub(super) struct LowerHost {
    bytes: [u8; MAX_HOST_BYTES],
    len: usize,
}

impl LowerHost {
    /// The host of an authority; empty when there is none, or when it is too long to match anything.
    pub(super) fn of(authority: Option<&str>) -> Self {
        let mut lower = Self { bytes: [0; MAX_HOST_BYTES], len: 0 };
        let host = Authority::split(authority.unwrap_or_default().as_bytes()).host;
        let host = host.strip_suffix(b".").unwrap_or(host);
        if let Some(slot) = lower.bytes.get_mut(..host.len()) {
            slot.copy_from_slice(host);
            slot.make_ascii_lowercase();
            lower.len = host.len();
        }
        lower
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

type Table = HashMap<Box<[u8]>, Vec<usize>, BuildHasherDefault<SipHasher13>>;

/// Which candidates a host can have, most specific pattern first. The keys come from the configuration, so
/// the hash needs no secret.
#[derive(Debug, Default)]
pub(super) struct HostIndex {
    exact: Table,
    wildcard: Table,
    any: Vec<usize>,
}

impl HostIndex {
    /// `hosts_of` yields each candidate's hosts, in order of precedence.
    pub(super) fn new<'a>(hosts_of: impl Iterator<Item = &'a [HostPattern]>) -> Self {
        let mut index = Self::default();
        for (candidate, hosts) in hosts_of.enumerate() {
            if hosts.is_empty() {
                index.any.push(candidate);
            }
            for host in hosts {
                let (table, name) = match host {
                    HostPattern::Exact(name) => (&mut index.exact, name),
                    HostPattern::Wildcard(suffix) => (&mut index.wildcard, suffix),
                };
                table.entry(name.as_bytes().into()).or_default().push(candidate);
            }
        }
        index
    }

    /// Candidates for `host`: of the exact host, then of the wildcards from the longest to the shortest,
    /// then of the routes without hosts; within each in order of precedence.
    pub(super) fn candidates<'a>(&'a self, host: &'a LowerHost) -> impl Iterator<Item = usize> + 'a {
        let host = host.as_bytes();
        let exact = self.exact.get(host);
        // A wildcard stands for at least one label, which is not empty.
        let dots = memchr_iter(b'.', host).filter(|dot| *dot > 0);
        let suffixes = dots.filter_map(move |dot| host.get(dot.saturating_add(1)..));
        let wildcards = suffixes.filter_map(|suffix| self.wildcard.get(suffix));
        exact.into_iter().chain(wildcards).chain(std::iter::once(&self.any)).flatten().copied()
    }
}

fn is_label(label: &str) -> bool {
    !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}
