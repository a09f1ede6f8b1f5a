//! What must not leave the node: values of named header fields, cookies and query parameters become
//! [`REDACTED`]. Everything around them stays, byte for byte.
//!
//! Where bytes can be read in two ways, the reading that hides more is taken. Referer and bodies are left
//! alone: name the whole field in `redact.headers` where that matters.

use super::headers::FieldKind;
use super::wire::Wire;
use crate::config::Redaction;
use crate::http::Field;
use memchr::memchr;

/// What stands in place of a hidden value.
pub(super) const REDACTED: &[u8] = b"redacted";

/// Writes a field line, its value or some of its cookies hidden if so configured.
pub(super) fn put_field(wire: &mut Wire, field: &Field<'_>, kind: FieldKind, redact: &Redaction) {
    if redact.headers.iter().any(|name| field.is(name)) {
        wire.put_edited(field, |wire| wire.put(REDACTED));
    } else if kind == FieldKind::Cookie && !redact.cookies.is_empty() {
        wire.put_edited(field, |wire| put_cookies(wire, field.value, &redact.cookies));
    } else {
        wire.put_line(field);
    }
}

/// Writes a target, or the rest of one, with the values of hidden query parameters replaced.
pub(super) fn put_target(wire: &mut Wire, target: &str, redact: &Redaction) {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) if !redact.query.is_empty() => (path, query),
        _ => return wire.put_target(target),
    };
    wire.put_target(path);
    for (index, parameter) in query.split('&').enumerate() {
        wire.put(if index == 0 { b"?" } else { b"&" });
        put_parameter(wire, parameter, &redact.query);
    }
}

/// Writes what stands between two `&`. Some servers read `;` as another `&`: a hidden name counts behind one, too,
/// and its value goes on to the next `&`.
fn put_parameter(wire: &mut Wire, parameter: &str, hidden: &[String]) {
    for (index, part) in parameter.split(';').enumerate() {
        if index > 0 {
            wire.put(b";");
        }
        match part.split_once('=') {
            Some((name, _)) if hidden.iter().any(|hidden| decodes_to(name, hidden)) => {
                wire.put_target(name);
                wire.put(b"=");
                return wire.put(REDACTED);
            }
            _ => wire.put_target(part),
        }
    }
}

/// Writes the pairs of a Cookie field (RFC 6265, 4.2.1). A hidden value that starts with a quote goes on to
/// the closing quote, for some servers read a `;` inside quotes as part of the value.
fn put_cookies(wire: &mut Wire, cookies: &[u8], hidden: &[String]) {
    let mut rest = cookies;
    loop {
        let pair_end = memchr(b';', rest).unwrap_or(rest.len());
        let (pair, _) = rest.split_at_checked(pair_end).unwrap_or((rest, &[]));
        let name_end = memchr(b'=', pair).unwrap_or(pair.len());
        let (name, value) = pair.split_at_checked(name_end).unwrap_or((pair, &[]));
        let is_hidden =
            !value.is_empty() && hidden.iter().any(|hidden| hidden.as_bytes() == name.trim_ascii());
        let end = if is_hidden {
            wire.put_value(name);
            wire.put(b"=");
            wire.put(REDACTED);
            let value_start = name_end.saturating_add(1);
            value_start.saturating_add(hidden_bytes(rest.get(value_start..).unwrap_or_default()))
        } else {
            wire.put_value(pair);
            pair_end
        };
        let Some(after) = rest.get(end..).and_then(|after| after.strip_prefix(b";")) else { return };
        wire.put(b";");
        rest = after;
    }
}

/// How many bytes the value at the start of `rest` has, up to the `;` that ends it or to the end.
fn hidden_bytes(rest: &[u8]) -> usize {
    let value = rest.trim_ascii_start();
    let spaces = rest.len().saturating_sub(value.len());
    let quoted = match value.strip_prefix(b"\"") {
        Some(inner) => spaces.saturating_add(quoted_bytes(inner)).saturating_add(1),
        None => 0,
    };
    let behind = rest.get(quoted..).unwrap_or_default();
    quoted.saturating_add(memchr(b';', behind).unwrap_or(behind.len()))
}

/// Bytes up to and with the closing quote; a backslash takes the next byte with it. All when none closes.
fn quoted_bytes(inner: &[u8]) -> usize {
    let mut is_escaped = false;
    let close = inner.iter().position(|byte| {
        let closes = *byte == b'"' && !is_escaped;
        is_escaped = *byte == b'\\' && !is_escaped;
        closes
    });
    close.map_or(inner.len(), |close| close.saturating_add(1))
}

/// Whether `text` is `name` once percent-decoded, `+` read as a space.
fn decodes_to(text: &str, name: &str) -> bool {
    let mut rest = text.as_bytes();
    let decoded = std::iter::from_fn(|| {
        let (first, behind) = rest.split_first()?;
        let (byte, behind) = match (first, behind) {
            (b'%', [high, low, behind @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => ((high << 4) | low, behind),
                _ => (b'%', rest.get(1..).unwrap_or_default()),
            },
            (b'+', _) => (b' ', behind),
            _ => (*first, behind),
        };
        rest = behind;
        Some(byte)
    });
    decoded.eq(name.bytes())
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}
