//! Tells from its first bytes whether something can be a request line (RFC 9112, 3).

/// Most bytes of a method: longer ones count as no HTTP.
pub(in crate::http) const MAX_METHOD_BYTES: usize = 32;

/// Whether bytes begin with a request line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum Plausible {
    /// A whole line: method, target, `HTTP/1.` and a digit.
    Yes,
    /// So far.
    Partial,
    /// No.
    No,
}

/// Looks at the beginning of `bytes`.
pub(in crate::http) fn request_line(bytes: &[u8]) -> Plausible {
    let method_bytes = bytes.iter().take_while(|byte| is_token(**byte)).count();
    if method_bytes > MAX_METHOD_BYTES {
        return Plausible::No;
    }
    let Some(rest) = bytes.get(method_bytes..).filter(|rest| !rest.is_empty()) else {
        return Plausible::Partial;
    };
    let Some(target) = rest.strip_prefix(b" ").filter(|_| method_bytes > 0) else { return Plausible::No };
    let target_bytes = target.iter().take_while(|byte| matches!(**byte, b'!'..=b'~' | 0x80..)).count();
    let Some(rest) = target.get(target_bytes..).filter(|rest| !rest.is_empty()) else {
        return Plausible::Partial;
    };
    if target_bytes == 0 { Plausible::No } else { version(rest) }
}

fn version(rest: &[u8]) -> Plausible {
    let mut rest = rest.iter();
    for want in b" HTTP/1." {
        match rest.next() {
            Some(byte) if byte == want => {}
            Some(_) => return Plausible::No,
            None => return Plausible::Partial,
        }
    }
    match (rest.next(), rest.next(), rest.next()) {
        (None, ..) | (Some(b'0'..=b'9'), None, _) | (Some(b'0'..=b'9'), Some(b'\r'), None) => {
            Plausible::Partial
        }
        (Some(b'0'..=b'9'), Some(b'\n'), _) | (Some(b'0'..=b'9'), Some(b'\r'), Some(b'\n')) => Plausible::Yes,
        _ => Plausible::No,
    }
}

/// RFC 9110, 5.6.2.
const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_beginning_of_a_request_line_is_plausible() {
        for line in [&b"GET / HTTP/1.1\r\n"[..], b"M-SEARCH * HTTP/1.0\n", b"CONNECT h:1 HTTP/1.1\r\n"] {
            for cut in 0..line.len() {
                assert_eq!(request_line(&line[..cut]), Plausible::Partial, "{cut}");
            }
            assert_eq!(request_line(line), Plausible::Yes);
        }
    }

    #[test]
    fn other_beginnings_are_not() {
        let others: [&[u8]; 9] = [
            b" GET / HTTP/1.1\r\n",
            b"GET  / HTTP/1.1\r\n",
            b"GET / HTTP/2.0\r\n",
            b"GET /\r\n",
            b"\x16\x03\x01",
            b"HTTP/1.1 200 OK\r\n",
            b"GET / HTTP/1.1x",
            b"GET / HTTP/1.1\rx",
            b"5\r\nhello\r\n",
        ];
        for other in others {
            assert_eq!(request_line(other), Plausible::No, "{other:?}");
        }
        assert_eq!(request_line(&[b'A'; MAX_METHOD_BYTES]), Plausible::Partial);
        assert_eq!(request_line(&[b'A'; MAX_METHOD_BYTES + 1]), Plausible::No);
    }
}
