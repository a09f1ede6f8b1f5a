//! The output buffer, and the ways in which a field line gets into it.

use super::HeadForm;
use crate::http::Field;
use bytes::{Bytes, BytesMut};
use memchr::memchr3;

/// A head, or trailers, on the way to a shadow.
///
/// In HTTP/1 form a captured line goes out as it is; in HTTP/2 form every line is made anew: the name in lower
/// case, the value without white space around it (RFC 9113, 8.2 and 8.2.1).
pub(super) struct Wire {
    bytes: BytesMut,
    form: HeadForm,
}

impl Wire {
    pub(super) fn with_capacity(bytes: usize, form: HeadForm) -> Self {
        Self { bytes: BytesMut::with_capacity(bytes), form }
    }

    pub(super) const fn form(&self) -> HeadForm {
        self.form
    }

    pub(super) fn freeze(self) -> Bytes {
        self.bytes.freeze()
    }

    /// Bytes as they are.
    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Bytes of a field line; whatever would end the line becomes a space.
    pub(super) fn put_value(&mut self, mut bytes: &[u8]) {
        while let Some(at) = memchr3(b'\r', b'\n', 0, bytes) {
            let (before, rest) = bytes.split_at_checked(at).unwrap_or((bytes, &[]));
            self.put(before);
            self.put(b" ");
            bytes = rest.get(1..).unwrap_or_default();
        }
        self.put(bytes);
    }

    /// Bytes of a request target or of a pseudo-header field; controls, spaces and DEL are percent-encoded.
    pub(super) fn put_visible(&mut self, mut bytes: &[u8]) {
        const HEX: &[u8; 16] = b"0123456789ABCDEF";
        while let Some(at) = bytes.iter().position(|byte| *byte <= b' ' || *byte == 0x7f) {
            let (before, from) = bytes.split_at_checked(at).unwrap_or((bytes, &[]));
            self.put(before);
            let byte = from.first().copied().unwrap_or_default();
            let digit = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or(b'0');
            self.put(&[b'%', digit(byte >> 4), digit(byte & 0x0f)]);
            bytes = from.get(1..).unwrap_or_default();
        }
        self.put(bytes);
    }

    /// A name with its `: `.
    pub(super) fn put_name(&mut self, name: &[u8]) {
        let start = self.bytes.len();
        self.put_value(name);
        if self.form == HeadForm::Http2
            && let Some(written) = self.bytes.get_mut(start..)
        {
            written.make_ascii_lowercase();
        }
        self.put(b": ");
    }

    /// `name: value`.
    pub(super) fn put_field(&mut self, name: &[u8], value: &[u8]) {
        self.put_name(name);
        self.put_value(match self.form {
            HeadForm::Http1 => value,
            HeadForm::Http2 => trim(value),
        });
        self.put(b"\r\n");
    }

    /// A field line as it was captured.
    pub(super) fn put_line(&mut self, field: &Field<'_>) {
        let line = without_line_end(field.line);
        let is_made = self.form == HeadForm::Http2 || line.is_empty();
        if is_made || memchr3(b'\r', b'\n', 0, line).is_some() {
            self.put_field(field.name.as_bytes(), field.value);
        } else {
            self.put(line);
            self.put(b"\r\n");
        }
    }

    /// A field line as it was captured, name and spacing kept, but with what `put_value` writes as its value.
    pub(super) fn put_edited<T>(&mut self, field: &Field<'_>, put_value: impl FnOnce(&mut Self) -> T) -> T {
        let around = if self.form == HeadForm::Http1 { around_value(field) } else { None };
        let (before, after) = around.unwrap_or((&[], &[]));
        if before.is_empty() {
            self.put_name(field.name.as_bytes());
        } else {
            self.put_value(before);
        }
        let made = put_value(self);
        self.put_value(after);
        self.put(b"\r\n");
        made
    }
}

/// The value without what would be white space at its ends.
pub(super) fn trim(mut value: &[u8]) -> &[u8] {
    const BLANK: &[u8] = b" \t\r\n\0";
    while let [first, rest @ ..] = value
        && BLANK.contains(first)
    {
        value = rest;
    }
    while let [rest @ .., last] = value
        && BLANK.contains(last)
    {
        value = rest;
    }
    value
}

/// What stands before and behind the value in a captured line; `None` when the line is not `name:value`.
fn around_value<'a>(field: &Field<'a>) -> Option<(&'a [u8], &'a [u8])> {
    let line = without_line_end(field.line);
    let name_bytes = field.name.len();
    let rest = line.get(name_bytes..)?.strip_prefix(b":")?;
    let spaces = rest.len().saturating_sub(rest.trim_ascii_start().len());
    // An empty value has all the spacing before it: a new value stands behind the first space.
    let spaces = if field.value.is_empty() { spaces.min(1) } else { spaces };
    let start = name_bytes.checked_add(1)?.checked_add(spaces)?;
    let (before, rest) = line.split_at_checked(start)?;
    let after = rest.strip_prefix(field.value)?;
    after.trim_ascii().is_empty().then_some((before, after))
}

fn without_line_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}
