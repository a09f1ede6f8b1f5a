//! What the fields of a request or of its trailers mean, and whether they may stand there (RFC 9113, 8.2
//! and 8.3).

use super::hpack::{DecodedField, FieldBlock};
use super::kind::closed_kinds;
use crate::drop_reason::DropReason;
use crate::http::{BodyLength, Field, RequestHead, Version};

closed_kinds! {
    /// Why the fields of a request cannot be used.
    HeadError;
    /// A field name that is empty, no token, or has upper case letters (8.2, 8.2.1).
    FieldName = "field_name", "field name is no lower case token";
    /// A field value with NUL, CR or LF, or with white space at an end (8.2.1).
    FieldValue = "field_value", "field value has a forbidden octet";
    /// A field that belongs to one HTTP/1 connection (8.2.2).
    ConnectionSpecific = "connection_specific", "connection-specific field";
    /// A pseudo-header field behind an ordinary one (8.3).
    PseudoOrder = "pseudo_order", "pseudo-header field behind an ordinary field";
    /// A pseudo-header field twice (8.3).
    PseudoDuplicate = "pseudo_duplicate", "pseudo-header field twice";
    /// A pseudo-header field that requests do not have, or any in trailers (8.1, 8.3).
    PseudoUnknown = "pseudo_unknown", "pseudo-header field that may not stand here";
    /// A pseudo-header field is missing (8.3.1, 8.5).
    PseudoMissing = "pseudo_missing", "pseudo-header field missing";
    /// A pseudo-header field with a value that it may not have (8.3.1).
    PseudoValue = "pseudo_value", "pseudo-header field with a forbidden value";
    /// Content-Length is no number, or there are two that differ (8.1.1).
    ContentLength = "content_length", "content-length is no number, or there are two";
    /// The DATA frames hold more or less than Content-Length says (8.1.1).
    ContentLengthMismatch = "content_length_mismatch", "body differs from its content-length";
    /// Trailers that do not end the stream (8.1).
    TrailersOpen = "trailers_open", "trailers without END_STREAM";
    /// A field refers to a part of the dynamic table that was never seen. No violation.
    Undecodable = "undecodable", "field refers to a table entry that was never seen";
    /// CONNECT, extended or not (8.5, RFC 8441). No violation; it is never mirrored.
    Connect = "connect", "request is CONNECT";
}

impl HeadError {
    /// What the ledger says of it.
    #[must_use]
    pub const fn drop_reason(self) -> DropReason {
        match self {
            Self::Undecodable => DropReason::Undecodable,
            Self::Connect => DropReason::Upgrade,
            Self::ContentLength => DropReason::Smuggling,
            _ => DropReason::Malformed,
        }
    }
}

/// What the caller knows beside the fields.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context {
    /// No body follows.
    pub(super) end_stream: bool,
    /// Leave out ordinary fields that are unknown, instead of refusing the request.
    pub(super) tolerate_unknown_fields: bool,
}

/// Pseudo-header fields of a request.
#[derive(Clone, Copy, Default)]
struct Pseudo<'a> {
    method: Option<&'a str>,
    scheme: Option<&'a str>,
    authority: Option<&'a str>,
    path: Option<&'a str>,
    protocol: Option<&'a str>,
}

/// Reads the head of a request. `lines` is empty, and takes the fields that the head borrows: `:scheme`,
/// `:authority` and `:protocol` as far as they are there, then the ordinary fields.
pub(super) fn read_request<'h, 'f: 'h>(
    block: &'f FieldBlock,
    lines: &'h mut Vec<Field<'f>>,
    context: Context,
) -> Result<RequestHead<'h>, HeadError> {
    let mut pseudo = Pseudo::default();
    let (mut unknown, mut declared) = (0_usize, None);
    for field in block.iter() {
        let DecodedField::Known { name, value, .. } = field else {
            unknown = unknown.saturating_add(1);
            continue;
        };
        if let Some((b':', _)) = name.split_first() {
            if lines.len() > pseudo.line_count() {
                return Err(HeadError::PseudoOrder);
            }
            pseudo.set(name, value)?;
            if let Some(line) = pseudo.line(name) {
                lines.push(line);
            }
        } else {
            let line = ordinary(name, value)?;
            if line.name == "content-length" {
                declared = Some(content_length(value, declared)?);
            }
            lines.push(line);
        }
    }
    if unknown > 0 && !(context.tolerate_unknown_fields && pseudo.is_certain()) {
        return Err(if pseudo.method == Some("CONNECT") {
            HeadError::Connect
        } else {
            HeadError::Undecodable
        });
    }
    let (method, target) = pseudo.check()?;
    let body = body_length(declared, context.end_stream)?;
    Ok(RequestHead { method, target, version: Version::Http2, fields: lines, body })
}

/// Reads trailers into `lines`, which is empty.
pub(super) fn read_trailers<'f>(
    block: &'f FieldBlock,
    lines: &mut Vec<Field<'f>>,
    context: Context,
) -> Result<(), HeadError> {
    if !context.end_stream {
        return Err(HeadError::TrailersOpen);
    }
    for field in block.iter() {
        match field {
            DecodedField::Known { name, .. } if name.first() == Some(&b':') => {
                return Err(HeadError::PseudoUnknown);
            }
            DecodedField::Known { name, value, .. } => lines.push(ordinary(name, value)?),
            DecodedField::Unknown { .. } if context.tolerate_unknown_fields => {}
            DecodedField::Unknown { .. } => return Err(HeadError::Undecodable),
        }
    }
    Ok(())
}

impl<'a> Pseudo<'a> {
    fn set(&mut self, name: &[u8], value: &'a [u8]) -> Result<(), HeadError> {
        let place = match name {
            b":method" => &mut self.method,
            b":scheme" => &mut self.scheme,
            b":authority" => &mut self.authority,
            b":path" => &mut self.path,
            b":protocol" => &mut self.protocol,
            _ => return Err(HeadError::PseudoUnknown),
        };
        if place.is_some() {
            return Err(HeadError::PseudoDuplicate);
        }
        // No octet at or below the space: none of these values can hold one, and it would split a request
        // line (RFC 9110, 7.1; RFC 3986, 2).
        if value.iter().any(|&octet| octet <= b' ' || octet == 0x7f) {
            return Err(HeadError::PseudoValue);
        }
        *place = Some(std::str::from_utf8(value).map_err(|_| HeadError::PseudoValue)?);
        Ok(())
    }

    /// The line for those that have no place of their own in a [`RequestHead`].
    fn line(&self, name: &'a [u8]) -> Option<Field<'a>> {
        let (name, value) = match name {
            b":scheme" => (":scheme", self.scheme),
            b":authority" => (":authority", self.authority),
            b":protocol" => (":protocol", self.protocol),
            _ => return None,
        };
        Some(Field { name, value: value?.as_bytes(), line: b"" })
    }

    fn line_count(&self) -> usize {
        [self.scheme, self.authority, self.protocol].iter().flatten().count()
    }

    /// True when no unknown field can be a pseudo-header field: all are there that such a request can have.
    fn is_certain(&self) -> bool {
        let all = [self.method, self.scheme, self.authority, self.path].iter().all(Option::is_some);
        all && self.method != Some("CONNECT")
    }

    /// Method and target, when the request is right as a whole.
    fn check(&self) -> Result<(&'a str, &'a str), HeadError> {
        let method = self.method.ok_or(HeadError::PseudoMissing)?;
        if method.is_empty() || !method.bytes().all(is_token_octet) {
            return Err(HeadError::PseudoValue);
        }
        if method == "CONNECT" {
            return Err(self.check_connect());
        }
        let (scheme, path) = self.scheme.zip(self.path).ok_or(HeadError::PseudoMissing)?;
        let is_http = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
        let right = !is_http || path.starts_with('/') || (path == "*" && method == "OPTIONS");
        // `:protocol` needs CONNECT (RFC 8441, 4).
        if !right || self.protocol.is_some() {
            return Err(HeadError::PseudoValue);
        }
        Ok((method, path))
    }

    fn check_connect(&self) -> HeadError {
        let extended = [self.scheme, self.path, self.protocol].iter().flatten().count();
        match (self.authority, extended) {
            (Some(_), 0 | 3) => HeadError::Connect,
            _ => HeadError::PseudoMissing,
        }
    }
}

fn ordinary<'f>(name: &'f [u8], value: &'f [u8]) -> Result<Field<'f>, HeadError> {
    let right =
        !name.is_empty() && name.iter().all(|&octet| is_token_octet(octet) && !octet.is_ascii_uppercase());
    let name = if right { std::str::from_utf8(name).ok() } else { None }.ok_or(HeadError::FieldName)?;
    if value.iter().any(|octet| matches!(octet, 0 | b'\r' | b'\n')) {
        return Err(HeadError::FieldValue);
    }
    let is_white = |octet: Option<&u8>| matches!(octet, Some(b' ' | b'\t'));
    if is_white(value.first()) || is_white(value.last()) {
        return Err(HeadError::FieldValue);
    }
    match name {
        "connection" | "proxy-connection" | "keep-alive" | "transfer-encoding" | "upgrade" => {
            Err(HeadError::ConnectionSpecific)
        }
        "te" if !value.eq_ignore_ascii_case(b"trailers") => Err(HeadError::ConnectionSpecific),
        _ => Ok(Field { name, value, line: b"" }),
    }
}

fn content_length(value: &[u8], earlier: Option<u64>) -> Result<u64, HeadError> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let text = if digits { std::str::from_utf8(value).ok() } else { None };
    let length = text.and_then(|text| text.parse().ok()).ok_or(HeadError::ContentLength)?;
    if earlier.is_some_and(|earlier| earlier != length) { Err(HeadError::ContentLength) } else { Ok(length) }
}

/// Without Content-Length the end of the stream is the end of the body, as the last chunk is in HTTP/1.
fn body_length(declared: Option<u64>, end_stream: bool) -> Result<BodyLength, HeadError> {
    match (declared, end_stream) {
        (Some(length), true) if length != 0 => Err(HeadError::ContentLengthMismatch),
        (Some(length), _) => Ok(BodyLength::Known(length)),
        (None, true) => Ok(BodyLength::None),
        (None, false) => Ok(BodyLength::Chunked),
    }
}

/// An octet of a token (RFC 9110, 5.6.2).
fn is_token_octet(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&octet)
}
