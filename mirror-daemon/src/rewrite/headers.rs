//! Fields that are not simply copied: hop-by-hop ones, and those that frame the body.

use super::wire::Wire;
use super::{Framing, HeadForm, is_http2};
use crate::http::{BodyLength, Field, RequestHead};

/// What a field's name makes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FieldKind {
    Host,
    ContentLength,
    TransferEncoding,
    Te,
    /// Connection, Keep-Alive, Proxy-Connection, Upgrade (RFC 9110, 7.6.1).
    HopByHop,
    /// HTTP2-Settings, which belongs to an upgrade (RFC 7540, 3.2.1): Connection names it, and should it not,
    /// HTTP/2 is no place for it all the same.
    Http2Settings,
    Cookie,
    Other,
}

impl FieldKind {
    pub(super) fn of(name: &str) -> Self {
        const KINDS: [(&str, FieldKind); 10] = [
            ("host", FieldKind::Host),
            ("content-length", FieldKind::ContentLength),
            ("transfer-encoding", FieldKind::TransferEncoding),
            ("te", FieldKind::Te),
            ("connection", FieldKind::HopByHop),
            ("keep-alive", FieldKind::HopByHop),
            ("proxy-connection", FieldKind::HopByHop),
            ("upgrade", FieldKind::HopByHop),
            ("http2-settings", FieldKind::Http2Settings),
            ("cookie", FieldKind::Cookie),
        ];
        let found = KINDS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map_or(Self::Other, |(_, kind)| *kind)
    }
}

/// Fields that a Connection field must not name, for they are meant for the recipient of the content (RFC
/// 9110, 7.6.1). A client that names them all the same hides nothing from the shadow: gateways hand them on.
/// Host and framing fields are not even looked up here.
const END_TO_END: [&str; 26] = [
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "authorization",
    "cache-control",
    "content-encoding",
    "content-language",
    "content-location",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "expect",
    "forwarded",
    "from",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "max-forwards",
    "range",
    "referer",
    "trailer",
    "user-agent",
];

/// Most options of Connection fields that are looked at: a bound on work that a hostile head could cause.
/// Fields that later options name are replayed.
const MAX_CONNECTION_OPTIONS: usize = 32;

/// The fields that Connection fields name, kept without an allocation.
pub(super) struct ConnectionOptions<'a> {
    options: [&'a [u8]; MAX_CONNECTION_OPTIONS],
    count: usize,
}

impl<'a> ConnectionOptions<'a> {
    pub(super) fn of(fields: &[Field<'a>]) -> Self {
        let mut options: [&[u8]; MAX_CONNECTION_OPTIONS] = [&[]; MAX_CONNECTION_OPTIONS];
        let connection = fields.iter().filter(|field| field.is("connection"));
        let all = connection.flat_map(|field| field.value.split(|byte| *byte == b','));
        let named = all.map(<[u8]>::trim_ascii).filter(|option| names_a_field(option));
        let mut count: usize = 0;
        for (slot, option) in options.iter_mut().zip(named) {
            *slot = option;
            count = count.saturating_add(1);
        }
        Self { options, count }
    }

    /// Whether the field of this name is for this hop only.
    pub(super) fn names(&self, name: &str) -> bool {
        let options = self.options.get(..self.count).unwrap_or_default();
        options.iter().any(|option| option.eq_ignore_ascii_case(name.as_bytes()))
    }
}

fn names_a_field(option: &[u8]) -> bool {
    let is = |name: &str| option.eq_ignore_ascii_case(name.as_bytes());
    // The first two are there nearly always, and name no field that FieldKind has not seen to.
    !option.is_empty() && !is("keep-alive") && !is("close") && !END_TO_END.into_iter().any(is)
}

/// How the body is framed. HTTP/2 says of a body what HTTP/1 must say in two ways:
///
/// - Trailers that are announced want chunks in HTTP/1, whatever Content-Length says; others are lost behind it
///   (RFC 9110, 6.5.1).
/// - A method that is made for content says that there is none (RFC 9110, 8.6): some servers insist.
pub(super) fn framing(head: &RequestHead<'_>, form: HeadForm) -> Framing {
    let is_from_http2 = is_http2(head) && form == HeadForm::Http1;
    match head.body {
        BodyLength::None if is_from_http2 && matches!(head.method, "POST" | "PUT" | "PATCH") => {
            Framing::Length(0)
        }
        BodyLength::None => Framing::None,
        BodyLength::Known(_) if is_from_http2 && head.field("trailer").is_some() => Framing::Chunked,
        BodyLength::Known(bytes) => Framing::Length(bytes),
        BodyLength::Chunked => Framing::Chunked,
    }
}

/// Writes a Content-Length or Transfer-Encoding field if it describes the body that follows; true when it
/// was written. Of codings, the decoder lets only `chunked` pass, and that only HTTP/1 can say.
pub(super) fn put_framing(
    wire: &mut Wire,
    field: &Field<'_>,
    kind: FieldKind,
    framing: Framing,
    is_framed: bool,
) -> bool {
    match (kind, framing) {
        (FieldKind::TransferEncoding, Framing::Chunked) if wire.form() == HeadForm::Http1 => {
            wire.put_line(field);
            true
        }
        (FieldKind::ContentLength, Framing::Length(bytes)) if !is_framed => {
            let said = std::str::from_utf8(field.value).ok().and_then(|value| value.parse::<u64>().ok());
            if said == Some(bytes) {
                wire.put_line(field);
            } else {
                // `5, 5` is one length said twice (RFC 9112, 6.3).
                wire.put_edited(field, |wire| put_number(wire, bytes));
            }
            true
        }
        _ => false,
    }
}

/// Writes the framing that no captured field gave. HTTP/2 ends a body by END_STREAM.
pub(super) fn put_missing_framing(wire: &mut Wire, framing: Framing) {
    match (framing, wire.form()) {
        (Framing::None, _) | (Framing::Chunked, HeadForm::Http2) => {}
        (Framing::Length(bytes), _) => {
            wire.put_name(b"Content-Length");
            put_number(wire, bytes);
            wire.put(b"\r\n");
        }
        (Framing::Chunked, HeadForm::Http1) => wire.put(b"Transfer-Encoding: chunked\r\n"),
    }
}

/// Writes `trailers`, the one member of TE that is not about this hop's transfer codings, if it is there.
pub(super) fn put_te(wire: &mut Wire, field: &Field<'_>) {
    if field.value.eq_ignore_ascii_case(b"trailers") {
        wire.put_line(field);
        return;
    }
    let mut members = field.value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    if members.any(|member| member.eq_ignore_ascii_case(b"trailers")) {
        wire.put_edited(field, |wire| wire.put(b"trailers"));
    }
}

/// Decimal digits, without an allocation.
fn put_number(wire: &mut Wire, number: u64) {
    let mut digits = [0_u8; 20];
    let mut rest = number;
    let mut start = digits.len();
    for slot in digits.iter_mut().rev() {
        let digit = u8::try_from(rest.rem_euclid(10)).unwrap_or_default();
        *slot = b'0'.saturating_add(digit);
        rest = rest.div_euclid(10);
        start = start.saturating_sub(1);
        if rest == 0 {
            break;
        }
    }
    wire.put(digits.get(start..).unwrap_or_default());
}
