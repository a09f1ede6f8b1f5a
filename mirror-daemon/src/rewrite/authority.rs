//! Host and authority: the suffix, as Envoy appends it, between host and port.

use super::wire::Wire;
use super::{HostSource, redaction};
use crate::config::{HostRewrite, RewriteConfig};
use crate::http::message::split_absolute;
use crate::rule::Authority;

/// Writes the value of a Host field. An empty one takes the authority of an absolute-form target (which
/// counts before Host anyway, RFC 9112, 3.2.2), and where that is missing too, the shadow's own.
pub(super) fn put_host(
    wire: &mut Wire,
    captured: &[u8],
    target_authority: &[u8],
    rewrite: &RewriteConfig,
) -> HostSource {
    let known = if captured.is_empty() { target_authority } else { captured };
    if known.is_empty() && !matches!(rewrite.host, HostRewrite::Literal(_)) {
        wire.put(rewrite.own_authority.as_bytes());
        return HostSource::OwnAuthority;
    }
    put_authority(wire, known, &rewrite.host);
    HostSource::Known
}

/// Writes a request target: authority rewritten where it has one, query redacted.
pub(super) fn put_target(wire: &mut Wire, target: &str, rewrite: &RewriteConfig) {
    // `://` further on, as in `*?x=http://y`, is no scheme's.
    let absolute = split_absolute(target).filter(|(scheme, ..)| is_scheme(scheme));
    let Some((scheme, authority, rest)) = absolute else {
        redaction::put_target(wire, target, &rewrite.redact);
        return;
    };
    wire.put_target(scheme);
    if !authority.is_empty() {
        put_authority(wire, authority.as_bytes(), &rewrite.host);
    }
    redaction::put_target(wire, rest, &rewrite.redact);
}

/// Writes an authority that is not empty.
fn put_authority(wire: &mut Wire, authority: &[u8], host: &HostRewrite) {
    match host {
        HostRewrite::Keep => wire.put_value(authority),
        HostRewrite::Literal(literal) => wire.put_value(literal.as_bytes()),
        HostRewrite::Suffix(suffix) => {
            let parts = Authority::split(authority);
            wire.put_value(parts.userinfo);
            wire.put_value(parts.host);
            wire.put_value(suffix.as_bytes());
            wire.put_value(parts.port);
        }
    }
}

/// `scheme://` with a scheme as RFC 3986, 3.1 has it.
fn is_scheme(scheme: &str) -> bool {
    let name = scheme.strip_suffix("://").unwrap_or(scheme);
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}
