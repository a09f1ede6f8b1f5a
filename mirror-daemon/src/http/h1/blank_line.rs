//! Finds the blank line that ends a head or a trailer section, across any cut of the bytes, looking at
//! each byte once.
//!
//! A line ends with CRLF or, as servers accept it (RFC 9112, 2.2), with a bare LF. A CR elsewhere is left to
//! the parser, which refuses it.

/// Where the search stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum BlankLine {
    /// Inside a line: where a head starts.
    #[default]
    InLine,
    /// Behind a line end: where a trailer section starts.
    LineStart,
    /// Behind a line end and a CR.
    LineStartCr,
}

impl BlankLine {
    /// Goes on with `bytes`; the number of bytes up to and with the blank line, once it is found.
    pub(super) fn find(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0_usize;
        loop {
            let rest = bytes.get(at..)?;
            let first = *rest.first()?;
            let (next, step) = match (*self, first) {
                (Self::InLine, _) => (Self::LineStart, memchr::memchr(b'\n', rest)?.saturating_add(1)),
                (Self::LineStart | Self::LineStartCr, b'\n') => {
                    *self = Self::InLine;
                    return Some(at.saturating_add(1));
                }
                (Self::LineStart, b'\r') => (Self::LineStartCr, 1),
                (Self::LineStart | Self::LineStartCr, _) => (Self::InLine, 0),
            };
            *self = next;
            at = at.saturating_add(step);
        }
    }
}

/// What a [`Section`] made of more bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SectionStep {
    /// All bytes were taken; the blank line is still to come.
    Partial,
    /// The whole section is the first so many bytes of those just given: nothing was copied.
    InPlace(usize),
    /// The section was completed by the first so many bytes just given, and lies in the buffer.
    Buffered(usize),
    /// The section is larger than the limit.
    TooLarge,
}

/// A head or trailer section that may come in pieces. Holds memory only while it is in pieces.
#[derive(Debug, Default)]
pub(super) struct Section {
    bytes: Vec<u8>,
    blank_line: BlankLine,
}

impl Section {
    /// A head: the first line is not blank.
    pub(super) fn head() -> Self {
        Self { bytes: Vec::new(), blank_line: BlankLine::InLine }
    }

    /// A trailer section: it may be nothing but the blank line.
    pub(super) fn trailers() -> Self {
        Self { bytes: Vec::new(), blank_line: BlankLine::LineStart }
    }

    /// True while no byte has been given.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The bytes kept so far.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Bytes on the heap.
    pub(super) fn allocated_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// The buffered bytes, which leave the section empty and without memory.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    /// Goes on with `input`; at most `limit_bytes` make a section.
    pub(super) fn push(&mut self, input: &[u8], limit_bytes: usize) -> SectionStep {
        let end = self.blank_line.find(input);
        let taken = input.get(..end.unwrap_or(input.len())).unwrap_or(input);
        if self.bytes.len().saturating_add(taken.len()) > limit_bytes {
            return SectionStep::TooLarge;
        }
        match end {
            Some(end) if self.bytes.is_empty() => SectionStep::InPlace(end),
            Some(end) => {
                self.bytes.extend_from_slice(taken);
                SectionStep::Buffered(end)
            }
            None => {
                self.bytes.extend_from_slice(taken);
                SectionStep::Partial
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests {
    use super::*;

    #[test]
    fn blank_line_is_found_whatever_the_cut() {
        for text in [&b"GET / HTTP/1.1\r\na: b\r\n\r\nrest"[..], b"GET /\na: b\n\nrest", b"x\r\n\nrest"] {
            let want = text.len() - 4;
            for cut in 0..=want {
                let mut search = BlankLine::default();
                let found =
                    search.find(&text[..cut]).or_else(|| search.find(&text[cut..]).map(|found| found + cut));
                assert_eq!(found, Some(want), "cut at {cut}");
            }
        }
    }

    #[test]
    fn lone_cr_at_line_start_ends_nothing() {
        assert_eq!(BlankLine::LineStart.find(b"\rx\r\n"), None);
        assert_eq!(BlankLine::LineStart.find(b"\r\n"), Some(2));
    }

    #[test]
    fn section_refuses_the_first_byte_over_its_limit() {
        for (limit, want) in
            [(6, SectionStep::TooLarge), (7, SectionStep::Buffered(4)), (8, SectionStep::Buffered(4))]
        {
            let mut section = Section::head();
            assert_eq!(section.push(b"abc", limit), SectionStep::Partial);
            assert_eq!(section.push(b"\r\n\r\n", limit), want);
        }
    }

    #[test]
    fn whole_section_is_not_copied() {
        let mut section = Section::trailers();
        assert_eq!(section.push(b"\r\nnext", 10), SectionStep::InPlace(2));
        assert_eq!(section.bytes.capacity(), 0);
    }
}
