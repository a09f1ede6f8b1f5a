//! Cookie fields: hidden cookies, and the crumbs that HTTP/2 cuts a field into (RFC 9113, 8.2.3).

use super::wire::{Wire, trim};
use super::{HeadForm, is_http2, redaction};
use crate::config::Redaction;
use crate::http::{Field, RequestHead};
use memchr::memchr;

/// The Cookie fields of a head, in order. All of them are read as the one field that a server joins them to: a
/// hidden value in quotes goes on in the next.
pub(super) struct Cookies<'a> {
    redact: &'a Redaction,
    /// The fields that one line is made of; empty: each has a line of its own.
    joined: &'a [Field<'a>],
    is_begun: bool,
    is_in_quotes: bool,
}

impl<'a> Cookies<'a> {
    /// The crumbs of HTTP/2 become one field of HTTP/1.
    pub(super) fn of(head: &RequestHead<'a>, redact: &'a Redaction, form: HeadForm) -> Self {
        let is_joined = is_http2(head) && form == HeadForm::Http1;
        let joined = if is_joined { head.ordinary_fields() } else { &[] };
        Self { joined, ..Self::apart(redact) }
    }

    /// Each field has a line of its own.
    pub(super) const fn apart(redact: &'a Redaction) -> Self {
        Self { redact, joined: &[], is_begun: false, is_in_quotes: false }
    }

    /// Writes a Cookie field, or all of them when it is the first of those to be joined.
    pub(super) fn put(&mut self, wire: &mut Wire, field: &Field<'_>) {
        let is_first = !std::mem::replace(&mut self.is_begun, true);
        if !is_first && !self.joined.is_empty() {
            return;
        }
        if redaction::is_hidden(field, self.redact) {
            wire.put_edited(field, |wire| wire.put(redaction::REDACTED));
        } else if !self.joined.is_empty() {
            wire.put_edited(field, |wire| self.put_joined(wire));
        } else if self.redact.cookies.is_empty() {
            wire.put_line(field);
        } else if !self.is_in_quotes {
            wire.put_edited(field, |wire| self.put_pairs(wire, trim(field.value)));
        } else if let Some(rest) = self.after_quotes(field.value) {
            wire.put_edited(field, |wire| self.put_pairs(wire, trim(rest)));
        }
    }

    fn put_joined(&mut self, wire: &mut Wire) {
        let mut is_first = true;
        for crumb in self.joined.iter().filter(|field| field.is("cookie")) {
            let value = if self.is_in_quotes { self.after_quotes(crumb.value) } else { Some(crumb.value) };
            let Some(value) = value.map(trim).filter(|value| !value.is_empty()) else { continue };
            if !std::mem::replace(&mut is_first, false) {
                wire.put(b"; ");
            }
            self.put_pairs(wire, value);
        }
    }

    /// What follows the hidden value that an earlier field began; `None` when that is nothing.
    fn after_quotes<'v>(&mut self, value: &'v [u8]) -> Option<&'v [u8]> {
        let quoted_bytes = quoted_bytes(value)?;
        self.is_in_quotes = false;
        let behind = value.get(quoted_bytes..)?;
        let rest = behind.get(memchr(b';', behind)?.checked_add(1)?..)?.trim_ascii_start();
        (!rest.is_empty()).then_some(rest)
    }

    /// Writes the pairs of a Cookie field (RFC 6265, 4.2.1). A hidden value that starts with a quote goes on to
    /// the closing quote, for some servers read a `;` inside quotes as part of the value.
    fn put_pairs(&mut self, wire: &mut Wire, cookies: &[u8]) {
        let hidden = &self.redact.cookies;
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
                wire.put(redaction::REDACTED);
                let value_start = name_end.saturating_add(1);
                match hidden_bytes(rest.get(value_start..).unwrap_or_default()) {
                    Some(bytes) => value_start.saturating_add(bytes),
                    None => {
                        self.is_in_quotes = true;
                        return;
                    }
                }
            } else {
                wire.put_value(pair);
                pair_end
            };
            let Some(after) = rest.get(end..).and_then(|after| after.strip_prefix(b";")) else { return };
            wire.put(b";");
            rest = after;
        }
    }
}

/// How many bytes the value at the start of `rest` has, up to the `;` that ends it or to the end. `None`: a quote
/// opens and none closes.
fn hidden_bytes(rest: &[u8]) -> Option<usize> {
    let value = rest.trim_ascii_start();
    let spaces = rest.len().saturating_sub(value.len());
    let quoted = match value.strip_prefix(b"\"") {
        Some(inner) => spaces.saturating_add(quoted_bytes(inner)?).saturating_add(1),
        None => 0,
    };
    let behind = rest.get(quoted..).unwrap_or_default();
    Some(quoted.saturating_add(memchr(b';', behind).unwrap_or(behind.len())))
}

/// Bytes up to and with the closing quote; a backslash takes the next byte with it. `None` when none closes.
fn quoted_bytes(inner: &[u8]) -> Option<usize> {
    let mut is_escaped = false;
    let close = inner.iter().position(|byte| {
        let closes = *byte == b'"' && !is_escaped;
        is_escaped = *byte == b'\\' && !is_escaped;
        closes
    });
    close.map(|close| close.saturating_add(1))
}
