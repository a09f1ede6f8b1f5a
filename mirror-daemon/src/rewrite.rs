//! PURE. Turns a captured head into the head that a shadow gets.
//!
//! In: a [`RequestHead`], a [`RewriteConfig`], the loop mark, and the [`HeadForm`] wanted. Out: a [`ShadowHead`],
//! ready to be written: the one copy that captured head bytes see on their way from the ring to the socket.
//!
//! From HTTP/1 to HTTP/1, field lines go out as they were captured: order, case, duplicates, spacing. What
//! differs, and nothing else:
//!
//! - the Host lines and the authority of an absolute-form target (`authority`);
//! - hop-by-hop fields, and the fields that frame the body, which say what is really sent (`headers`);
//! - configured edits, redaction, and the loop mark at the end;
//! - the version, always HTTP/1.1, and line ends, always CRLF. A request of HTTP/1.0 keeps its meaning: what
//!   1.0 allows, 1.1 allows too, and a missing Host is added.
//!
//! From and to HTTP/2, besides: what the request line and Host say stands in pseudo-header fields (`front`,
//! `authority`), names are in lower case, only HTTP/1 has chunks to announce, and cookie crumbs become one field
//! of HTTP/1 (`cookies`).
//!
//! No line can be split in two: values are looked over for CR, LF and NUL once more on their way out. And
//! no name can become what it was not: but for captured lines of HTTP/1, only tokens go out.

mod authority;
mod cookies;
mod front;
mod headers;
mod redaction;
mod wire;

use crate::config::{HeaderEdit, RewriteConfig, ShadowProtocol, is_token};
use crate::http::{Field, RequestHead, Version};
use authority::Hosts;
use bytes::Bytes;
use cookies::Cookies;
use headers::{ConnectionOptions, FieldKind};
use wire::Wire;

/// What the loop mark header says.
pub const LOOP_MARK_VALUE: &str = "mirror-daemon";

/// The version of HTTP that a shadow's head is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadForm {
    /// HTTP/1.1: from the request line to the blank line, ready for the wire.
    Http1,
    /// HTTP/2: one line for each field, `name: value` and CRLF, names in lower case. First `:method`, `:scheme`,
    /// `:authority` (unless there is none) and `:path`, in this order; no blank line at the end.
    Http2,
}

impl HeadForm {
    /// The form for a shadow that is spoken to in `protocol`, of a request that was captured in `version`.
    #[must_use]
    pub const fn of(protocol: ShadowProtocol, version: Version) -> Self {
        match (protocol, version) {
            (ShadowProtocol::Http2, _) | (ShadowProtocol::Same, Version::Http2) => Self::Http2,
            (ShadowProtocol::Http1, _) | (ShadowProtocol::Same, Version::Http10 | Version::Http11) => {
                Self::Http1
            }
        }
    }
}

/// The head of a shadow request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShadowHead {
    /// The head, as `form` says.
    pub wire: Bytes,
    /// In which form.
    pub form: HeadForm,
    /// How the body that follows is framed: what `wire` says of it.
    pub framing: Framing,
    /// What the replayer has to know of the method.
    pub method: MethodTraits,
}

/// How a shadow request's body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No body.
    None,
    /// Content-Length says so many bytes. In HTTP/2 trailers may follow.
    Length(u64),
    /// Chunked; in HTTP/2 the stream's end is its end. Trailers may follow.
    Chunked,
}

/// Traits of a method that the replayer needs (RFC 9110, 9.2 and 9.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MethodTraits {
    /// Safe: may be sent once more when a pooled connection closes before any byte of the answer.
    pub is_safe: bool,
    /// HEAD: its answer has no body whatever its head says.
    pub is_head: bool,
}

/// Where the host of a shadow request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostSource {
    /// From the captured request, or from the configuration.
    Known,
    /// The captured request named no host: the shadow's own authority. To be counted.
    OwnAuthority,
}

/// What [`shadow_head`] makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewritten {
    /// The head.
    pub head: ShadowHead,
    /// Where its host comes from.
    pub host: HostSource,
}

/// The head that a shadow gets in place of `head`. `loop_mark` is the name of the header that marks it.
#[must_use]
pub fn shadow_head(
    head: &RequestHead<'_>,
    rewrite: &RewriteConfig,
    loop_mark: &str,
    form: HeadForm,
) -> Rewritten {
    let mut wire = Wire::with_capacity(capacity(head, rewrite, loop_mark), form);
    let framing = headers::framing(head, form);
    let hosts = Hosts::of(head, rewrite, form);
    let host_in_front = front::put_front(&mut wire, head, &hosts, rewrite);
    let host_in_fields = put_fields(&mut wire, head, &hosts, framing, rewrite);
    put_edits(&mut wire, &rewrite.edits);
    wire.put_field(loop_mark.as_bytes(), LOOP_MARK_VALUE.as_bytes());
    if form == HeadForm::Http1 {
        wire.put(b"\r\n");
    }
    let shadow = ShadowHead { wire: wire.freeze(), form, framing, method: traits(head.method) };
    Rewritten { head: shadow, host: host_in_front.or(host_in_fields).unwrap_or(HostSource::Known) }
}

/// The trailer field lines that a shadow gets, each with its line end; without the blank line that follows.
/// For a head in HTTP/2 form, as in it: names in lower case, no pseudo-header field.
///
/// Fields that a head alone may carry (framing, routing, hop-by-hop; RFC 9110, 6.5.1) are left out. Edits
/// take fields away here but add none.
#[must_use]
pub fn shadow_trailers(fields: &[Field<'_>], rewrite: &RewriteConfig, form: HeadForm) -> Bytes {
    let bytes = fields.iter().map(line_bytes).fold(0, usize::saturating_add);
    let mut wire = Wire::with_capacity(bytes, form);
    let mut cookies = Cookies::apart(&rewrite.redact);
    for field in fields {
        if !can_go_out(field, form) || is_taken_away(field, &rewrite.edits) {
            continue;
        }
        match FieldKind::of(field.name) {
            FieldKind::Cookie => cookies.put(&mut wire, field),
            FieldKind::Other => redaction::put_field(&mut wire, field, &rewrite.redact),
            _ => {}
        }
    }
    wire.freeze()
}

/// Writes the captured fields that stay. Says where the host comes from when a Host field is among them.
fn put_fields(
    wire: &mut Wire,
    head: &RequestHead<'_>,
    hosts: &Hosts<'_>,
    framing: Framing,
    rewrite: &RewriteConfig,
) -> Option<HostSource> {
    let form = wire.form();
    let options = ConnectionOptions::of(head.fields);
    let mut cookies = Cookies::of(head, &rewrite.redact, form);
    let mut host = None;
    let mut is_framed = false;
    for field in head.ordinary_fields().iter().filter(|field| can_go_out(field, form)) {
        let kind = FieldKind::of(field.name);
        match kind {
            FieldKind::Host if hosts.keeps_field() && host.is_none() => {
                host = Some(wire.put_edited(field, |wire| hosts.put_host(wire, field.value)));
            }
            FieldKind::Host | FieldKind::HopByHop => {}
            FieldKind::Http2Settings if form == HeadForm::Http2 && !is_http2(head) => {}
            FieldKind::ContentLength | FieldKind::TransferEncoding => {
                is_framed |= headers::put_framing(wire, field, kind, framing, is_framed);
            }
            FieldKind::Te => headers::put_te(wire, field),
            _ if options.names(field.name) || is_taken_away(field, &rewrite.edits) => {}
            FieldKind::Cookie => cookies.put(wire, field),
            FieldKind::Other | FieldKind::Http2Settings => {
                redaction::put_field(wire, field, &rewrite.redact);
            }
        }
    }
    if !is_framed {
        headers::put_missing_framing(wire, framing);
    }
    host
}

/// Whether a name is what its captured line began with, or may begin a line that is made (RFC 9113, 8.2.1): no
/// pseudo-header field may come out of an ordinary one.
fn can_go_out(field: &Field<'_>, form: HeadForm) -> bool {
    (form == HeadForm::Http1 && !field.line.is_empty()) || is_token(field.name)
}

/// What remains of the edits once later ones have undone earlier ones, at the end of the head.
fn put_edits(wire: &mut Wire, edits: &[HeaderEdit]) {
    for (index, edit) in edits.iter().enumerate() {
        let (HeaderEdit::Set { name, value } | HeaderEdit::Append { name, value }) = edit else { continue };
        let later = edits.get(index.saturating_add(1)..).unwrap_or_default();
        if !later.iter().any(|later| takes_away(later, name)) {
            wire.put_field(name.as_bytes(), value.as_bytes());
        }
    }
}

fn is_taken_away(field: &Field<'_>, edits: &[HeaderEdit]) -> bool {
    edits.iter().any(|edit| takes_away(edit, field.name))
}

fn takes_away(edit: &HeaderEdit, field_name: &str) -> bool {
    match edit {
        HeaderEdit::Set { name, .. } | HeaderEdit::Remove { name } => name.eq_ignore_ascii_case(field_name),
        HeaderEdit::Append { .. } => false,
    }
}

fn is_http2(head: &RequestHead<'_>) -> bool {
    head.version == Version::Http2
}

/// Enough for the whole head, so that the buffer grows only when redaction makes many short values longer.
fn capacity(head: &RequestHead<'_>, rewrite: &RewriteConfig, loop_mark: &str) -> usize {
    /// Request line or names of pseudo-header fields, blank line, `Host: `, a framing line of our own.
    const FIXED_BYTES: usize = 160;
    let host = match &rewrite.host {
        crate::config::HostRewrite::Suffix(text) | crate::config::HostRewrite::Literal(text) => text.len(),
        crate::config::HostRewrite::Keep => 0,
    };
    let edits = rewrite.edits.iter().map(|edit| match edit {
        HeaderEdit::Set { name, value } | HeaderEdit::Append { name, value } => {
            name.len().saturating_add(value.len()).saturating_add(4)
        }
        HeaderEdit::Remove { .. } => 0,
    });
    let own =
        [head.method.len(), head.target.len(), host, host, rewrite.own_authority.len(), loop_mark.len()];
    let lines = head.fields.iter().map(line_bytes);
    own.into_iter().chain(edits).chain(lines).fold(FIXED_BYTES, usize::saturating_add)
}

/// Bytes of a field line, one more for a CR that may be missing.
fn line_bytes(field: &Field<'_>) -> usize {
    let made = field.name.len().saturating_add(field.value.len()).saturating_add(4);
    field.line.len().saturating_add(1).max(made)
}

fn traits(method: &str) -> MethodTraits {
    MethodTraits { is_safe: crate::rule::MethodGuard::Safe.allows(method), is_head: method == "HEAD" }
}

#[cfg(test)]
mod tests;
