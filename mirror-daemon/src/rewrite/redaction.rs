//! What must not leave the node: values of named header fields, cookies and query parameters become
//! [`REDACTED`]. Everything around them stays, byte for byte.
//!
//! Where bytes can be read in two ways, the reading that hides more is taken. Referer and bodies are left
//! alone: name the whole field in `redact.headers` where that matters.

use super::wire::Wire;
use crate::config::Redaction;
use crate::http::Field;

/// What stands in place of a hidden value.
pub(super) const REDACTED: &[u8] = b"redacted";

/// Writes a field line, its value hidden if so configured.
pub(super) fn put_field(wire: &mut Wire, field: &Field<'_>, redact: &Redaction) {
    if is_hidden(field, redact) {
        wire.put_edited(field, |wire| wire.put(REDACTED));
    } else {
        wire.put_line(field);
    }
}

/// Whether the whole value of a field is hidden.
pub(super) fn is_hidden(field: &Field<'_>, redact: &Redaction) -> bool {
    redact.headers.iter().any(|name| field.is(name))
}

/// Writes a target, or the rest of one, with the values of hidden query parameters replaced.
pub(super) fn put_target(wire: &mut Wire, target: &str, redact: &Redaction) {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) if !redact.query.is_empty() => (path, query),
        _ => return wire.put_visible(target.as_bytes()),
    };
    wire.put_visible(path.as_bytes());
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
                wire.put_visible(name.as_bytes());
                wire.put(b"=");
                return wire.put(REDACTED);
            }
            _ => wire.put_visible(part.as_bytes()),
        }
    }
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
