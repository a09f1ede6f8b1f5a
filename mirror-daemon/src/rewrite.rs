//! PURE. Turns a captured head into the head that a shadow gets.
//!
//! In: a [`RequestHead`], a [`RewriteConfig`] and the loop mark. Out: a [`ShadowHead`], ready to be written:
//! the one copy that captured head bytes see on their way from the ring to the socket.
//!
//! Field lines go out as they were captured: order, case, duplicates, spacing. What differs, and nothing else:
//!
//! - the Host lines and the authority of an absolute-form target (`authority`);
//! - hop-by-hop fields, and the fields that frame the body, which say what is really sent (`headers`);
//! - configured edits, redaction, and the loop mark at the end;
//! - the version, always HTTP/1.1, and line ends, always CRLF. A request of HTTP/1.0 keeps its meaning: what
//!   1.0 allows, 1.1 allows too, and a missing Host is added.
//!
//! No line can be split in two: values are looked over for CR, LF and NUL once more on their way out.

mod authority;
mod headers;
mod redaction;
mod wire;

use crate::config::{HeaderEdit, RewriteConfig};
use crate::http::{BodyLength, Field, RequestHead, message::split_absolute};
use bytes::Bytes;
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
    /// Content-Length says so many bytes.
    Length(u64),
    /// Chunked; trailers may follow.
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
pub fn shadow_head(head: &RequestHead<'_>, rewrite: &RewriteConfig, loop_mark: &str) -> Rewritten {
    let mut wire = Wire::with_capacity(capacity(head, rewrite, loop_mark));
    wire.put(head.method.as_bytes());
    wire.put(b" ");
    authority::put_target(&mut wire, head.target, rewrite);
    wire.put(b" HTTP/1.1\r\n");

    let mut host = HostSource::Known;
    if !head.fields.iter().any(|field| field.is("host")) {
        wire.put(b"Host: ");
        host = authority::put_host(&mut wire, b"", target_authority(head), rewrite);
        wire.put(b"\r\n");
    }
    let host_in_fields = put_fields(&mut wire, head, rewrite);
    put_edits(&mut wire, &rewrite.edits);
    wire.put_field(loop_mark.as_bytes(), LOOP_MARK_VALUE.as_bytes());
    wire.put(b"\r\n");

    let form = HeadForm::Http1;
    let shadow =
        ShadowHead { wire: wire.freeze(), form, framing: framing(head.body), method: traits(head.method) };
    Rewritten { head: shadow, host: host_in_fields.unwrap_or(host) }
}

/// The trailer field lines that a shadow gets, each with its line end; without the blank line that follows.
///
/// Fields that a head alone may carry (framing, routing, hop-by-hop; RFC 9110, 6.5.1) are left out. Edits
/// take fields away here but add none.
#[must_use]
pub fn shadow_trailers(fields: &[Field<'_>], rewrite: &RewriteConfig) -> Bytes {
    let bytes = fields.iter().map(line_bytes).fold(0, usize::saturating_add);
    let mut wire = Wire::with_capacity(bytes);
    for field in fields {
        let kind = FieldKind::of(field.name);
        if matches!(kind, FieldKind::Other | FieldKind::Cookie) && !is_taken_away(field, &rewrite.edits) {
            redaction::put_field(&mut wire, field, kind, &rewrite.redact);
        }
    }
    wire.freeze()
}

/// Writes the captured fields that stay. Says where the host comes from when there was a Host field.
fn put_fields(wire: &mut Wire, head: &RequestHead<'_>, rewrite: &RewriteConfig) -> Option<HostSource> {
    let options = ConnectionOptions::of(head.fields);
    let mut host = None;
    let mut is_framed = false;
    for field in head.fields {
        let kind = FieldKind::of(field.name);
        match kind {
            FieldKind::Host => {
                let source = wire.put_edited(field, |wire| {
                    authority::put_host(wire, field.value, target_authority(head), rewrite)
                });
                host = host.or(Some(source));
            }
            FieldKind::ContentLength | FieldKind::TransferEncoding => {
                is_framed |= headers::put_framing(wire, field, kind, head.body, is_framed);
            }
            FieldKind::Te => headers::put_te(wire, field),
            FieldKind::HopByHop => {}
            FieldKind::Cookie | FieldKind::Other => {
                if !options.names(field.name) && !is_taken_away(field, &rewrite.edits) {
                    redaction::put_field(wire, field, kind, &rewrite.redact);
                }
            }
        }
    }
    if !is_framed {
        headers::put_missing_framing(wire, head.body);
    }
    host
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

fn target_authority<'a>(head: &RequestHead<'a>) -> &'a [u8] {
    split_absolute(head.target).map_or(&[], |(_, authority, _)| authority.as_bytes())
}

/// Enough for the whole head, so that the buffer grows only when redaction makes many short values longer.
fn capacity(head: &RequestHead<'_>, rewrite: &RewriteConfig, loop_mark: &str) -> usize {
    /// Request line, blank line, `Host: `, a framing line of our own.
    const FIXED_BYTES: usize = 128;
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

const fn framing(body: BodyLength) -> Framing {
    match body {
        BodyLength::None => Framing::None,
        BodyLength::Known(bytes) => Framing::Length(bytes),
        BodyLength::Chunked => Framing::Chunked,
    }
}

fn traits(method: &str) -> MethodTraits {
    MethodTraits { is_safe: crate::rule::MethodGuard::Safe.allows(method), is_head: method == "HEAD" }
}

#[cfg(test)]
mod tests;
