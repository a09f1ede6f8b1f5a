//! `[[shadow]]`.

use super::rewrite;
use crate::config::read::{Node, Section};
use crate::config::types::{
    BreakerConfig, Endpoint, EndpointHost, ShadowConfig, ShadowId, ShadowProtocol, TlsConfig,
};
use crate::rule::Authority;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

/// Most shadows: each has a queue, a pool and metrics of its own.
pub(crate) const MAX_SHADOWS: usize = 256;
/// Longest name: it is a metrics label.
const MAX_NAME_BYTES: usize = 64;
const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;
const DEFAULT_MAX_IN_FLIGHT: u64 = 256;
const DEFAULT_MAX_CONNECTIONS: u64 = 256;
const DEFAULT_QUEUE_ITEMS: u64 = 4096;
const DEFAULT_QUEUE_BYTES: u64 = 8 * MIB;
const DEFAULT_BUFFER_BODY_BYTES: u64 = MIB;
/// A burst that came through the kernel's ring between two looks must fit.
const DEFAULT_STREAM_WINDOW_BYTES: u64 = 2 * MIB;
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);
const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(30);
const DEFAULT_BREAKER: BreakerConfig = BreakerConfig { failures: 10, open_for: Duration::from_secs(5) };
const MAX_RPS: f64 = 1e9;

/// The names of all shadows, right or wrong otherwise, so that rules can be checked against them; notes names
/// that are there twice.
pub(super) fn names(sections: &[Section<'_>]) -> BTreeMap<String, ShadowId> {
    let mut names = BTreeMap::new();
    for (index, section) in sections.iter().enumerate() {
        let Some(node) = section.node("name") else { continue };
        let (Some(name), Ok(id)) = (node.as_text(), u16::try_from(index)) else { continue };
        if index >= MAX_SHADOWS {
            section.fault(format!("is one shadow too many; allowed are {MAX_SHADOWS}"));
        }
        if names.insert(name.to_owned(), ShadowId(id)).is_some() {
            node.fault(format!("\"{name}\" is another shadow's name too; names must differ"));
        }
    }
    names
}

/// `None` only after a fault was noted.
pub(super) fn shadow(section: Section<'_>, loop_mark: &str) -> Option<ShadowConfig> {
    let name = section.required("name", "a name for rules and metrics, e.g. name = \"v2\"").and_then(name);
    let url = section.required("url", "where it is, e.g. url = \"http://v2.example:8000\"");
    let url = url.and_then(shadow_url);
    let count = |key, default: u64, most: u64| {
        let count = section.or(key, default, |node| node.integer(1..=most));
        u32::try_from(count).unwrap_or(u32::MAX)
    };
    let bytes = |key, default: u64, allowed| section.or(key, default, |node| node.size(allowed));
    let time = |key, default: Duration, most_seconds| {
        let allowed = Duration::from_millis(1)..=Duration::from_secs(most_seconds);
        section.or(key, default, |node| node.duration(allowed))
    };
    let max_in_flight = count("max_in_flight", DEFAULT_MAX_IN_FLIGHT, 65_536);
    let max_connections = count("max_connections", DEFAULT_MAX_CONNECTIONS, 65_536);
    let queue_items = count("queue_items", DEFAULT_QUEUE_ITEMS, 16_777_216);
    let queue_bytes = bytes("queue_bytes", DEFAULT_QUEUE_BYTES, 4 * KIB..=64 * GIB);
    let buffer_body_bytes = bytes("buffer_body", DEFAULT_BUFFER_BODY_BYTES.min(queue_bytes), 0..=GIB);
    let stream_window = bytes("stream_window", DEFAULT_STREAM_WINDOW_BYTES, 16 * KIB..=GIB);
    let connect_timeout = time("connect_timeout", DEFAULT_CONNECT_TIMEOUT, 300);
    let timeout = time("timeout", DEFAULT_TIMEOUT, 86_400);
    let idle_timeout = time("idle_timeout", DEFAULT_IDLE_TIMEOUT, 86_400);
    let max_rps = section.node("max_rps").and_then(requests_per_second);
    let breaker = breaker(section.section("breaker"));
    let tls = tls(&section, url.as_ref());
    let protocol = section.or("protocol", ShadowProtocol::Same, protocol);
    let own = url.as_ref().map(|url| (url.authority.clone(), url.scheme())).unwrap_or_default();
    let rewrite = rewrite::rewrite(&section, own, loop_mark);
    if buffer_body_bytes > queue_bytes {
        section.fault("buffer_body is larger than queue_bytes, so that large bodies would never fit; lower the one or raise the other");
    }
    section.close();
    Some(ShadowConfig {
        name: name?,
        endpoint: url?.endpoint,
        tls,
        protocol,
        max_in_flight,
        max_connections,
        queue_items,
        queue_bytes,
        buffer_body_bytes,
        stream_window_bytes: u32::try_from(stream_window).ok()?,
        connect_timeout,
        timeout,
        idle_timeout,
        max_rps,
        breaker,
        rewrite: rewrite?,
    })
}

fn protocol(node: Node<'_>) -> Option<ShadowProtocol> {
    match node.as_text() {
        Some("same") => Some(ShadowProtocol::Same),
        Some("http1") => Some(ShadowProtocol::Http1),
        Some("http2") => Some(ShadowProtocol::Http2),
        _ => {
            node.fault(format!(
                "{} is no protocol; allowed are \"same\", \"http1\" and \"http2\"",
                node.found()
            ));
            None
        }
    }
}

fn name(node: Node<'_>) -> Option<String> {
    let is_name = |text: &&str| {
        (1..=MAX_NAME_BYTES).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
    };
    let found = node.as_text().filter(is_name);
    if found.is_none() {
        node.fault(format!(
            "{} is no shadow name; allowed are 1 to {MAX_NAME_BYTES} letters, digits, `.`, `_` and `-`",
            node.found()
        ));
    }
    found.map(str::to_owned)
}

/// A shadow's URL in its parts.
struct ShadowUrl {
    is_https: bool,
    endpoint: Endpoint,
    /// Host, and port where it is not the scheme's own.
    authority: String,
}

impl ShadowUrl {
    const fn scheme(&self) -> &'static str {
        if self.is_https { "https" } else { "http" }
    }
}

fn shadow_url(node: Node<'_>) -> Option<ShadowUrl> {
    match node.as_text().map(parse_url) {
        Some(Ok(url)) => return Some(url),
        Some(Err(fault)) => node.fault(format!("{} {fault}", node.found())),
        None => node.wrong_type("a URL such as \"http://v2.example:8000\""),
    }
    None
}

fn parse_url(text: &str) -> Result<ShadowUrl, &'static str> {
    let (scheme, rest) =
        text.split_once("://").ok_or("is no URL; write http://host:port or https://host:port")?;
    let is_https = match scheme.to_ascii_lowercase().as_str() {
        "http" => false,
        "https" => true,
        _ => return Err("has an unknown scheme; allowed are http:// and https://"),
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#']) {
        return Err("has a path or query; captured requests bring their own, end the URL behind the port");
    }
    if authority.contains('@') {
        return Err("has a user name in it; set an Authorization header in `headers` instead");
    }
    let parts = Authority::split(authority.as_bytes());
    let text = |bytes| std::str::from_utf8(bytes).unwrap_or_default();
    let host = endpoint_host(text(parts.host))?;
    let own_port = if is_https { 443 } else { 80 };
    let port = match text(parts.port).strip_prefix(':') {
        None | Some("") => own_port,
        Some(port) => {
            let port = port.parse::<u16>().ok().filter(|found| *found != 0);
            port.ok_or("has a bad port; allowed is 1 to 65535")?
        }
    };
    let authority =
        if port == own_port { text(parts.host).to_owned() } else { format!("{}:{port}", text(parts.host)) };
    Ok(ShadowUrl { is_https, endpoint: Endpoint { host, port }, authority })
}

fn endpoint_host(text: &str) -> Result<EndpointHost, &'static str> {
    if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let address: Ipv6Addr = inner.parse().map_err(|_| "has a bad IPv6 address between its brackets")?;
        return Ok(EndpointHost::Ip(address.into()));
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return if address.is_ipv4() {
            Ok(EndpointHost::Ip(address))
        } else {
            Err("needs [ ] around its IPv6 address")
        };
    }
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.len() > 253 || !name.split('.').all(is_label) {
        return Err("has a bad host; write a name, an IPv4 address, or an IPv6 address in [ ]");
    }
    Ok(EndpointHost::Name(text.to_owned()))
}

fn requests_per_second(node: Node<'_>) -> Option<f64> {
    let found = node.as_decimal().and_then(|text| text.parse::<f64>().ok());
    match found {
        None => node.wrong_type("requests per second as a number"),
        Some(rps) if rps > 0.0 && rps <= MAX_RPS => return Some(rps),
        Some(_) => node.fault(format!(
            "{} is out of range; allowed is above 0 up to {MAX_RPS}; to send nothing use percentage = 0, to send all leave it out",
            node.found()
        )),
    }
    None
}

fn breaker(section: Section<'_>) -> BreakerConfig {
    let failures =
        section.or("failures", DEFAULT_BREAKER.failures.into(), |node| node.integer(1..=1_000_000));
    let allowed = Duration::from_millis(10)..=Duration::from_secs(3600);
    let open_for = section.or("open_for", DEFAULT_BREAKER.open_for, |node| node.duration(allowed));
    section.close();
    BreakerConfig { failures: u32::try_from(failures).unwrap_or(u32::MAX), open_for }
}

fn tls(section: &Section<'_>, url: Option<&ShadowUrl>) -> Option<TlsConfig> {
    let tls = section.section("tls");
    let is_https = url.is_none_or(|url| url.is_https);
    if section.has("tls") && !is_https {
        tls.fault("is of no use with an http:// URL; write https://, or leave [shadow.tls] out");
    }
    let text = |key| tls.node(key).and_then(Node::text).map(str::to_owned);
    let config = TlsConfig {
        ca_file: text("ca_file").map(PathBuf::from),
        server_name: text("server_name"),
        insecure_skip_verify: tls.or("insecure_skip_verify", false, Node::boolean),
    };
    tls.close();
    is_https.then_some(config)
}
