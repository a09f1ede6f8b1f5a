//! What header fields say of a message's framing and of the connection (RFC 9112, 6 and 9; RFC 9110, 7.8).

use crate::drop_reason::DropReason;
use crate::http::{BodyLength, Field, Version};

/// How a request asks to leave HTTP/1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UpgradeKind {
    /// `Upgrade`: a 101 answer leaves HTTP/1 (RFC 9110, 7.8).
    Upgrade,
    /// `Upgrade: h2c`: behind a 101 answer the connection goes on in HTTP/2, and its first stream is this request
    /// (RFC 7540, 3.2).
    Http2,
    /// CONNECT: a 2xx answer opens a tunnel (RFC 9110, 9.3.6).
    Connect,
}

impl UpgradeKind {
    /// True when a final answer with `status` leaves HTTP/1.
    pub(super) const fn is_switched_by(self, status: u16) -> bool {
        match self {
            Self::Upgrade | Self::Http2 => status == 101,
            Self::Connect => matches!(status, 101 | 200..=299),
        }
    }
}

/// The length of a request's body (RFC 9112, 6.3).
///
/// # Errors
/// [`DropReason::Smuggling`] where two servers could see two lengths; [`DropReason::UnsupportedProtocol`] for codings
/// other than chunked, whose content could not be described truly to the shadow; [`DropReason::Malformed`]
/// for several Host fields (RFC 9112, 3.2).
pub(super) fn request_body(version: Version, fields: &[Field<'_>]) -> Result<BodyLength, DropReason> {
    let mut length = None;
    let mut codings: Option<Codings> = None;
    let mut hosts = 0_u8;
    for field in fields {
        // The lengths of the three names are a cheap first look.
        match field.name.len() {
            4 if field.is("host") => hosts = hosts.saturating_add(1),
            14 if field.is("content-length") => {
                let value = content_length(field.value).ok_or(DropReason::Smuggling)?;
                if length.is_some_and(|length| length != value) {
                    return Err(DropReason::Smuggling);
                }
                length = Some(value);
            }
            17 if field.is("transfer-encoding") => codings.get_or_insert_default().extend(field.value),
            _ => {}
        }
    }
    if hosts > 1 {
        return Err(DropReason::Malformed);
    }
    match (codings, length) {
        (None, None) => Ok(BodyLength::None),
        (None, Some(bytes)) => Ok(BodyLength::Known(bytes)),
        (Some(_), Some(_)) => Err(DropReason::Smuggling),
        (Some(_), None) if version == Version::Http10 => Err(DropReason::Smuggling),
        (Some(codings), None) => codings.length(),
    }
}

/// The members of all Transfer-Encoding fields together.
#[derive(Clone, Copy, Debug, Default)]
struct Codings {
    total: u32,
    chunked: u32,
    last_is_chunked: bool,
}

impl Codings {
    fn extend(&mut self, value: &[u8]) {
        // Not `list`: an empty member is refused, for some servers take it for no coding that they know.
        for coding in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            self.last_is_chunked = coding.eq_ignore_ascii_case(b"chunked");
            self.chunked = self.chunked.saturating_add(self.last_is_chunked.into());
            self.total = self.total.saturating_add(1);
        }
    }

    fn length(self) -> Result<BodyLength, DropReason> {
        match (self.last_is_chunked, self.chunked, self.total) {
            (true, 1, 1) => Ok(BodyLength::Chunked),
            (true, 1, _) => Err(DropReason::UnsupportedProtocol),
            _ => Err(DropReason::Smuggling),
        }
    }
}

/// Whether, and how, the request may leave HTTP/1. An Upgrade field is enough, though RFC 9110, 7.8 wants it
/// named by Connection and sent with HTTP/1.1: gateways are often told to ask for the upgrade themselves when a
/// client sends the field (nginx: `proxy_set_header Connection upgrade`).
pub(super) fn upgrade(method: &str, fields: &[Field<'_>]) -> Option<UpgradeKind> {
    if method == "CONNECT" {
        return Some(UpgradeKind::Connect);
    }
    let mut asked = fields.iter().filter(|field| field.is("upgrade")).map(|field| field.value);
    let first = asked.next()?;
    let is_http2 = first.eq_ignore_ascii_case(b"h2c") && asked.next().is_none();
    Some(if is_http2 { UpgradeKind::Http2 } else { UpgradeKind::Upgrade })
}

/// Whether the server must read no request behind this one (RFC 9112, 9.3 and 9.6). Like nginx it looks for
/// `close` anywhere in a Connection field: where servers differ, the stricter reading is taken.
pub(super) fn is_last(version: Version, fields: &[Field<'_>]) -> bool {
    let mut keeps_alive = version == Version::Http11;
    for field in fields.iter().filter(|field| field.is("connection")) {
        if field.value.windows(5).any(|part| part.eq_ignore_ascii_case(b"close")) {
            return true;
        }
        keeps_alive |= list(field.value).any(|option| option.eq_ignore_ascii_case(b"keep-alive"));
    }
    !keeps_alive
}

/// `Expect: 100-continue` (RFC 9110, 10.1.1).
pub(super) fn expects_continue(fields: &[Field<'_>]) -> bool {
    fields.iter().any(|field| field.is("expect") && field.value.eq_ignore_ascii_case(b"100-continue"))
}

/// True for the names whose values decide where a message ends or whom it is for.
pub(super) fn is_framing_name(name: &[u8]) -> bool {
    [&b"content-length"[..], b"transfer-encoding", b"host", b"connection"]
        .iter()
        .any(|framing| name.eq_ignore_ascii_case(framing))
}

/// The members of a comma-separated list without white space around them; empty members are left out
/// (RFC 9110, 5.6.1).
pub(super) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}

/// A Content-Length value: digits only, or a list of one and the same number (RFC 9112, 6.3, point 5).
/// `None` for anything else, also for what does not fit 64 bits.
pub(super) fn content_length(value: &[u8]) -> Option<u64> {
    let mut numbers = value.split(|byte| *byte == b',').map(|member| digits(member.trim_ascii()));
    let first = numbers.next()??;
    numbers.all(|number| number == Some(first)).then_some(first)
}

fn digits(text: &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for byte in text {
        let digit = byte.is_ascii_digit().then(|| byte.wrapping_sub(b'0'))?;
        number = number.checked_mul(10)?.checked_add(digit.into())?;
    }
    (!text.is_empty()).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(of: &[(&'static str, &'static str)]) -> Vec<Field<'static>> {
        of.iter().map(|(name, value)| Field { name, value: value.as_bytes(), line: b"" }).collect()
    }

    fn body(of: &[(&'static str, &'static str)]) -> Result<BodyLength, DropReason> {
        request_body(Version::Http11, &fields(of))
    }

    const CL: &str = "Content-Length";
    const TE: &str = "transfer-encoding";

    #[test]
    fn one_length_or_equal_lengths_are_right() {
        assert_eq!(body(&[]), Ok(BodyLength::None));
        assert_eq!(body(&[(CL, "007")]), Ok(BodyLength::Known(7)));
        assert_eq!(body(&[(CL, "5, 5"), (CL, "5")]), Ok(BodyLength::Known(5)));
        assert_eq!(body(&[(CL, "18446744073709551615")]), Ok(BodyLength::Known(u64::MAX)));
        assert_eq!(body(&[(TE, "CHUNKED")]), Ok(BodyLength::Chunked));
    }

    #[test]
    fn ambiguous_lengths_are_smuggling() {
        let cases: [&[(&str, &str)]; 18] = [
            &[(CL, "5"), (TE, "chunked")],
            &[(CL, "5"), (CL, "6")],
            &[(CL, "5, 6")],
            &[(CL, "5,")],
            &[(CL, "")],
            &[(CL, "+5")],
            &[(CL, "-5")],
            &[(CL, "5 5")],
            &[(CL, "0x5")],
            &[(CL, "18446744073709551616")],
            &[(TE, "")],
            &[(TE, "xchunked")],
            &[(TE, "chunked,")],
            &[(TE, "chunked, identity")],
            &[(TE, "chunked"), (TE, "chunked")],
            &[(TE, "chunked;q=1")],
            &[(TE, "identity")],
            &[(TE, "chunked"), (TE, "gzip")],
        ];
        for case in cases {
            assert_eq!(body(case), Err(DropReason::Smuggling), "{case:?}");
        }
        let old = request_body(Version::Http10, &fields(&[(TE, "chunked")]));
        assert_eq!(old, Err(DropReason::Smuggling));
    }

    #[test]
    fn other_codings_are_not_supported() {
        assert_eq!(body(&[(TE, "gzip, chunked")]), Err(DropReason::UnsupportedProtocol));
        assert_eq!(body(&[(TE, ", chunked")]), Err(DropReason::UnsupportedProtocol));
        assert_eq!(body(&[(TE, "gzip"), (TE, "chunked")]), Err(DropReason::UnsupportedProtocol));
    }

    #[test]
    fn upgrade_field_is_enough_to_be_held() {
        let asks = fields(&[("Upgrade", "websocket"), ("Connection", "keep-alive, Upgrade")]);
        assert_eq!(upgrade("GET", &asks), Some(UpgradeKind::Upgrade));
        assert_eq!(upgrade("GET", &asks[..1]), Some(UpgradeKind::Upgrade));
        assert_eq!(upgrade("GET", &asks[1..]), None);
        assert_eq!(upgrade("CONNECT", &[]), Some(UpgradeKind::Connect));
    }

    #[test]
    fn last_request_is_told_by_version_and_connection() {
        let is_last = |version, value: &'static str| is_last(version, &fields(&[("Connection", value)]));
        for value in ["close", "Close", "keep-alive, close", "x-close"] {
            assert!(is_last(Version::Http11, value) && is_last(Version::Http10, value), "{value}");
        }
        for value in ["", "keep-alive", "clos, upgrade"] {
            assert!(!is_last(Version::Http11, value), "{value}");
        }
        assert!(is_last(Version::Http10, "upgrade") && !is_last(Version::Http10, "Keep-Alive"));
    }
}
