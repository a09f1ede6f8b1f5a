//! Reads a whole request head (RFC 9112, 3 and 5), without an allocation.
//!
//! Lines may end with a bare LF, as `httparse` and nginx accept it; `Field::line` keeps them as captured.
//! Folded lines (obs-fold) are refused everywhere: servers read them in different ways. A target that is no UTF-8
//! is refused as malformed, though some servers take it.

use super::framing::{self, UpgradeKind};
use crate::drop_reason::DropReason;
use crate::http::{BodyLength, Field, MAX_FIELDS, RequestHead, Version};

/// Fields that fit the small array; heads with more use one of [`MAX_FIELDS`].
const FEW_FIELDS: usize = 32;

/// What the decoder itself has to know of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HeadTraits {
    /// Framing of the body.
    pub(super) body: BodyLength,
    /// The request may leave HTTP/1.
    pub(super) upgrade: Option<UpgradeKind>,
    /// The server must read no request behind this one.
    pub(super) is_last: bool,
    /// `Expect: 100-continue`.
    pub(super) expects_continue: bool,
}

/// Reads the head in `bytes`, request line to blank line, and shows it to `show`.
///
/// # Errors
/// Why the head is refused; `show` has then not been called.
pub(super) fn read(
    bytes: &[u8],
    show: impl FnOnce(RequestHead<'_>, HeadTraits),
) -> Result<HeadTraits, DropReason> {
    match lines(bytes).saturating_sub(2) {
        few if few <= FEW_FIELDS => read_into::<FEW_FIELDS>(bytes, show),
        many if many <= MAX_FIELDS => read_into::<MAX_FIELDS>(bytes, show),
        _ => Err(DropReason::HeadTooLarge),
    }
}

/// Reads the trailer section in `bytes`, blank line included, and shows it to `show` unless it is empty.
///
/// # Errors
/// Why it is refused.
pub(super) fn read_trailers(bytes: &[u8], show: impl FnOnce(&[Field<'_>])) -> Result<(), DropReason> {
    match lines(bytes).saturating_sub(1) {
        0 => Ok(()),
        few if few <= FEW_FIELDS => read_trailers_into::<FEW_FIELDS>(bytes, show),
        many if many <= MAX_FIELDS => read_trailers_into::<MAX_FIELDS>(bytes, show),
        _ => Err(DropReason::HeadTooLarge),
    }
}

fn lines(bytes: &[u8]) -> usize {
    memchr::memchr_iter(b'\n', bytes).count()
}

fn read_into<const FIELDS: usize>(
    bytes: &[u8],
    show: impl FnOnce(RequestHead<'_>, HeadTraits),
) -> Result<HeadTraits, DropReason> {
    let mut parsed = [httparse::EMPTY_HEADER; FIELDS];
    let mut request = httparse::Request::new(&mut parsed);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(used)) if used == bytes.len() => {}
        _ => return Err(fault(bytes)),
    }
    let (Some(method), Some(target)) = (request.method, request.path) else {
        return Err(DropReason::Malformed);
    };
    let version = if request.version == Some(0) { Version::Http10 } else { Version::Http11 };
    let mut fields = [NO_FIELD; FIELDS];
    let fields = with_lines(bytes, request.headers, &mut fields);
    let body = framing::request_body(version, fields)?;
    let traits = HeadTraits {
        body,
        upgrade: framing::upgrade(method, fields),
        is_last: framing::is_last(version, fields),
        expects_continue: framing::expects_continue(fields),
    };
    show(RequestHead { method, target, version, fields, body }, traits);
    Ok(traits)
}

fn read_trailers_into<const FIELDS: usize>(
    bytes: &[u8],
    show: impl FnOnce(&[Field<'_>]),
) -> Result<(), DropReason> {
    let mut parsed = [httparse::EMPTY_HEADER; FIELDS];
    match httparse::parse_headers(bytes, &mut parsed) {
        Ok(httparse::Status::Complete((used, headers))) if used == bytes.len() => {
            let mut fields = [NO_FIELD; FIELDS];
            show(with_lines(bytes, headers, &mut fields));
            Ok(())
        }
        _ => Err(DropReason::Malformed),
    }
}

const NO_FIELD: Field<'static> = Field { name: "", value: b"", line: b"" };

/// Adds to each header the line it was captured in. Without folded lines, a line ends where the next name
/// starts, and the last one where the blank line does.
fn with_lines<'a, 'f>(
    bytes: &'a [u8],
    headers: &[httparse::Header<'a>],
    fields: &'f mut [Field<'a>],
) -> &'f [Field<'a>] {
    let start_of =
        |header: &httparse::Header<'_>| header.name.as_ptr().addr().wrapping_sub(bytes.as_ptr().addr());
    let blank_line_bytes = if bytes.ends_with(b"\r\n") { 2 } else { 1 };
    let fields_end = bytes.len().saturating_sub(blank_line_bytes);
    let ends = headers.iter().skip(1).map(start_of).chain([fields_end]);
    let mut count = 0_usize;
    for ((slot, header), end) in fields.iter_mut().zip(headers).zip(ends) {
        let line = bytes.get(start_of(header)..end).unwrap_or_default();
        *slot = Field { name: header.name, value: header.value, line };
        count = count.saturating_add(1);
    }
    fields.get(..count).unwrap_or_default()
}

/// Why the parser refused a head: what servers are known to read in different ways is smuggling.
fn fault(bytes: &[u8]) -> DropReason {
    let mut reason = DropReason::Malformed;
    // White space right behind the request line is the oldest trick (RFC 9112, 2.2), so it starts as framing.
    let mut is_framing_line = true;
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.contains(&b'\r') {
            return DropReason::Smuggling;
        }
        if index == 0 {
            continue;
        }
        if matches!(line, [b' ' | b'\t', ..]) {
            if is_framing_line {
                return DropReason::Smuggling;
            }
            continue;
        }
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        is_framing_line = framing::is_framing_name(name.trim_ascii());
        if name.len() < line.len() && name.last().is_some_and(u8::is_ascii_whitespace) {
            reason = DropReason::Smuggling;
        }
    }
    reason
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> DropReason {
        read(text.as_bytes(), |_, _| panic!("shown")).unwrap_err()
    }

    #[test]
    fn fields_keep_their_lines_as_captured() {
        let text = "GET /a HTTP/1.1\r\nHost:h\r\nX-Empty:\r\nx-PAD: \t v w  \r\nx: 1\n\r\n";
        let mut seen = false;
        let traits = read(text.as_bytes(), |head, _| {
            seen = true;
            assert_eq!((head.method, head.target, head.version), ("GET", "/a", Version::Http11));
            let lines: Vec<_> =
                head.fields.iter().map(|field| std::str::from_utf8(field.line).unwrap()).collect();
            assert_eq!(lines, ["Host:h\r\n", "X-Empty:\r\n", "x-PAD: \t v w  \r\n", "x: 1\n"]);
            let values: Vec<_> = head.fields.iter().map(|field| field.value).collect();
            assert_eq!(values, [&b"h"[..], b"", b"v w", b"1"]);
        });
        assert!(seen && traits.is_ok());
    }

    #[test]
    fn head_may_have_max_fields_and_no_more() {
        for (count, right) in [
            (0, true),
            (FEW_FIELDS, true),
            (FEW_FIELDS + 1, true),
            (MAX_FIELDS, true),
            (MAX_FIELDS + 1, false),
        ] {
            let text = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(count));
            let mut shown = None;
            let result = read(text.as_bytes(), |head, _| shown = Some(head.fields.len()));
            assert_eq!(shown, right.then_some(count));
            assert_eq!(result.is_ok(), right);
        }
        assert_eq!(
            refused(&format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(300))),
            DropReason::HeadTooLarge
        );
    }

    #[test]
    fn ambiguous_lines_are_smuggling() {
        for fields in [
            "Content-Length: 1\r\n 0\r\n",
            "Transfer-Encoding:\r\n\tchunked\r\n",
            " Host: h\r\n",
            "Content-Length : 5\r\n",
            "X : y\r\n",
            "a: b\rc: d\r\n",
            "Content-Length: 5\rX: y\r\n",
        ] {
            assert_eq!(
                refused(&format!("POST / HTTP/1.1\r\n{fields}\r\n")),
                DropReason::Smuggling,
                "{fields:?}"
            );
        }
    }

    #[test]
    fn other_faults_are_malformed() {
        for text in [
            "GET / HTTP/1.1\r\nX: y\r\n folded\r\n\r\n",
            "GET / HTTP/1.1\r\nno colon\r\n\r\n",
            "GET / HTTP/1.2\r\n\r\n",
            "GET / HTTP/1.1\r\na: \x00\r\n\r\n",
            "GET / HTTP/1.1\r\n: x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n",
        ] {
            assert_eq!(refused(text), DropReason::Malformed, "{text:?}");
        }
    }

    #[test]
    fn trailers_keep_their_lines() {
        let mut seen = Vec::new();
        let read = read_trailers(b"A: b\r\nC:d\r\n\r\n", |fields| {
            seen = fields.iter().map(|field| field.line.to_vec()).collect();
        });
        assert_eq!((read, seen), (Ok(()), vec![b"A: b\r\n".to_vec(), b"C:d\r\n".to_vec()]));
        assert_eq!(read_trailers(b"\r\n", |_| panic!("shown")), Ok(()));
        assert_eq!(read_trailers(b"A: b\r\n c\r\n\r\n", |_| panic!("shown")), Err(DropReason::Malformed));
    }
}
