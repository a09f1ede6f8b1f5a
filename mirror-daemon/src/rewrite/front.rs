//! What stands in front of the fields: a request line, or pseudo-header fields.

use super::authority::{self, Hosts};
use super::wire::Wire;
use super::{HeadForm, HostSource, is_http2, redaction};
use crate::config::RewriteConfig;
use crate::http::RequestHead;

/// Writes what stands in front of the fields; says where the host comes from when it is written here.
pub(super) fn put_front(
    wire: &mut Wire,
    head: &RequestHead<'_>,
    hosts: &Hosts<'_>,
    rewrite: &RewriteConfig,
) -> Option<HostSource> {
    match wire.form() {
        HeadForm::Http1 => {
            wire.put_visible(head.method.as_bytes());
            wire.put(b" ");
            match is_http2(head) {
                true => put_path(wire, head.method, head.target, rewrite),
                false => authority::put_target(wire, head.target, rewrite),
            }
            wire.put(b" HTTP/1.1\r\n");
            hosts.put_front(wire)
        }
        HeadForm::Http2 => put_pseudo(wire, head, hosts, rewrite),
    }
}

/// RFC 9113, 8.3.1.
fn put_pseudo(
    wire: &mut Wire,
    head: &RequestHead<'_>,
    hosts: &Hosts<'_>,
    rewrite: &RewriteConfig,
) -> Option<HostSource> {
    wire.put(b":method: ");
    wire.put_visible(head.method.as_bytes());
    wire.put(b"\r\n:scheme: ");
    if is_http2(head) {
        wire.put_visible(head.field(":scheme").unwrap_or(rewrite.own_scheme.as_bytes()));
        wire.put(b"\r\n");
        let source = hosts.put_front(wire);
        wire.put(b":path: ");
        redaction::put_target(wire, head.target, &rewrite.redact);
        wire.put(b"\r\n");
        return source;
    }
    let absolute = authority::split_target(head.target);
    let scheme = absolute.and_then(|(scheme, ..)| known_scheme(scheme)).unwrap_or(rewrite.own_scheme);
    wire.put(scheme.as_bytes());
    wire.put(b"\r\n");
    let source = hosts.put_front(wire);
    wire.put(b":path: ");
    let path = match absolute {
        // RFC 9112, 3.2.4: what a client says so that the last proxy asks for `*`.
        Some((.., "")) if head.method == "OPTIONS" => "*",
        Some((.., rest)) => rest,
        None => head.target,
    };
    put_path(wire, head.method, path, rewrite);
    wire.put(b"\r\n");
    source
}

/// Writes a path as origin form or `*` (RFC 9112, 3.2.1 and 3.2.4): what either version can say of a path of
/// the other. An empty path is `/`.
fn put_path(wire: &mut Wire, method: &str, path: &str, rewrite: &RewriteConfig) {
    let is_asterisk = path == "*" && method == "OPTIONS";
    if !is_asterisk && !path.starts_with('/') {
        wire.put(b"/");
    }
    redaction::put_target(wire, path, &rewrite.redact);
}

fn known_scheme(scheme: &str) -> Option<&'static str> {
    let is = |name: &str| scheme.strip_suffix("://").is_some_and(|scheme| scheme.eq_ignore_ascii_case(name));
    if is("http") {
        Some("http")
    } else if is("https") {
        Some("https")
    } else {
        None
    }
}
