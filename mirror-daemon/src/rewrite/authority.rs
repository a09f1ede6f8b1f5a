//! Host and authority: the suffix, as Envoy appends it, between host and port.

use super::wire::Wire;
use super::{HeadForm, HostSource, is_http2, redaction};
use crate::config::{HostRewrite, RewriteConfig};
use crate::http::RequestHead;
use crate::http::message::split_absolute;
use crate::rule::Authority;

/// What a request says of its host, and where the shadow's head says it.
///
/// | captured | HTTP/1 head | HTTP/2 head |
/// |---|---|---|
/// | HTTP/1 | Host in its place; in front where there is none | `:authority` from an absolute-form target, else from Host, which is left out |
/// | HTTP/2 | Host in front from `:authority`, and `host` is left out; without `:authority` `host` in its place | `:authority` and `host`, each if it is there |
///
/// Of several Host fields the first goes out: it is the one that rules are matched with.
pub(super) struct Hosts<'a> {
    rewrite: &'a RewriteConfig,
    /// Of an absolute-form target, or `:authority`; empty when there is none. It counts before Host (RFC 9112,
    /// 3.2.2; RFC 9113, 8.3.1).
    authority: &'a [u8],
    /// The value of the first Host field.
    host: Option<&'a [u8]>,
    is_http2: bool,
    form: HeadForm,
}

impl<'a> Hosts<'a> {
    pub(super) fn of(head: &RequestHead<'a>, rewrite: &'a RewriteConfig, form: HeadForm) -> Self {
        let is_http2 = is_http2(head);
        let authority = match is_http2 {
            true => head.field(":authority").unwrap_or_default(),
            false => split_target(head.target).map_or(&[][..], |(_, authority, _)| authority.as_bytes()),
        };
        Self { rewrite, authority, host: head.field("host"), is_http2, form }
    }

    /// Writes the line in front of the captured fields, if there is to be one: `Host` or `:authority`.
    pub(super) fn put_front(&self, wire: &mut Wire) -> Option<HostSource> {
        let known = self.front()?;
        wire.put(match self.form {
            HeadForm::Http1 => b"Host: ",
            HeadForm::Http2 => b":authority: ",
        });
        let source = self.put_value(wire, known);
        wire.put(b"\r\n");
        Some(source)
    }

    /// Writes the value of a Host field that stays in its place. An empty one takes the authority of an
    /// absolute-form target, and where that is missing too, the shadow's own.
    pub(super) fn put_host(&self, wire: &mut Wire, captured: &[u8]) -> HostSource {
        self.put_value(wire, if captured.is_empty() { self.authority } else { captured })
    }

    /// Whether the Host field stays in its place.
    pub(super) const fn keeps_field(&self) -> bool {
        match (self.is_http2, self.form) {
            (false, HeadForm::Http1) | (true, HeadForm::Http2) => true,
            (false, HeadForm::Http2) => false,
            (true, HeadForm::Http1) => self.authority.is_empty(),
        }
    }

    /// What the line in front is made of; empty: of nothing.
    fn front(&self) -> Option<&'a [u8]> {
        match (self.is_http2, self.form) {
            (false, HeadForm::Http1) => self.host.is_none().then_some(self.authority),
            (false, HeadForm::Http2) if self.authority.is_empty() => Some(self.host.unwrap_or_default()),
            (false, HeadForm::Http2) => Some(self.authority),
            (true, _) => (!self.authority.is_empty() || self.host.is_none()).then_some(self.authority),
        }
    }

    fn put_value(&self, wire: &mut Wire, known: &[u8]) -> HostSource {
        if known.is_empty() && !matches!(self.rewrite.host, HostRewrite::Literal(_)) {
            wire.put(self.rewrite.own_authority.as_bytes());
            return HostSource::OwnAuthority;
        }
        // Neither Host nor `:authority` has user information (RFC 9110, 7.2; RFC 9113, 8.3.1). A shadow that is
        // spoken to in the captured version gets what its client sent.
        let is_translated = self.is_http2 != (self.form == HeadForm::Http2);
        let known = if is_translated { without_userinfo(known) } else { known };
        match self.form {
            HeadForm::Http1 => put_authority(wire, known, &self.rewrite.host, Wire::put_value),
            HeadForm::Http2 => put_authority(wire, known, &self.rewrite.host, Wire::put_visible),
        }
        HostSource::Known
    }
}

/// Writes the target of a request line that was captured as one: authority rewritten where it has one, query
/// redacted.
pub(super) fn put_target(wire: &mut Wire, target: &str, rewrite: &RewriteConfig) {
    let Some((scheme, authority, rest)) = split_target(target) else {
        redaction::put_target(wire, target, &rewrite.redact);
        return;
    };
    wire.put_visible(scheme.as_bytes());
    if !authority.is_empty() {
        put_authority(wire, authority.as_bytes(), &rewrite.host, Wire::put_visible);
    }
    redaction::put_target(wire, rest, &rewrite.redact);
}

/// Splits an absolute-form target into scheme with `://`, authority and the rest.
pub(super) fn split_target(target: &str) -> Option<(&str, &str, &str)> {
    // `://` further on, as in `*?x=http://y`, is no scheme's.
    split_absolute(target).filter(|(scheme, ..)| is_scheme(scheme))
}

/// Writes an authority that is not empty.
fn put_authority(wire: &mut Wire, authority: &[u8], host: &HostRewrite, put: fn(&mut Wire, &[u8])) {
    match host {
        HostRewrite::Keep => put(wire, authority),
        HostRewrite::Literal(literal) => put(wire, literal.as_bytes()),
        HostRewrite::Suffix(suffix) => {
            let parts = Authority::split(authority);
            put(wire, parts.userinfo);
            put(wire, parts.host);
            put(wire, suffix.as_bytes());
            put(wire, parts.port);
        }
    }
}

fn without_userinfo(authority: &[u8]) -> &[u8] {
    let userinfo_bytes = Authority::split(authority).userinfo.len();
    authority.get(userinfo_bytes..).unwrap_or_default()
}

/// `scheme://` with a scheme as RFC 3986, 3.1 has it.
fn is_scheme(scheme: &str) -> bool {
    let name = scheme.strip_suffix("://").unwrap_or(scheme);
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}
