//! Reads an answer from the bytes of a response stream: head, framing, end (RFC 9112, 6.3).
//!
//! The content is measured and thrown away. Interim answers (1xx) are skipped; 101 is final, since nothing
//! behind it is HTTP/1.
//!
//! ```text
//! Head ─┬▶ Length ──────────────────┬▶ Done
//!       ├▶ Chunked ─▶ Trailers ─────┤
//!       ├▶ UntilClose ─(eof)────────┤
//!       └▶ (no content) ────────────┘
//! ```

use super::blank_line::{Section, SectionStep};
use super::chunked::{ChunkedDecoder, ChunkedError, ChunkedPiece};
use crate::http::{MAX_FIELDS, MAX_HEAD_BYTES, Version};

/// Reads one answer. Start a new one for the next answer on the connection.
#[derive(Debug)]
pub struct AnswerDecoder {
    is_head: bool,
    state: State,
    summary: AnswerSummary,
}

/// What [`AnswerDecoder::handle_bytes`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerProgress {
    /// Bytes that belong to this answer; all of them unless it is done.
    pub consumed: usize,
    /// The answer ended with the last consumed byte.
    pub done: Option<AnswerSummary>,
}

/// A whole answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AnswerSummary {
    /// Final status, 101 or 200 to 999.
    pub status: u16,
    /// Content bytes, transfer coding removed.
    pub body_bytes: u64,
    /// Another request may be sent on the connection (RFC 9112, 9.3).
    pub reusable: bool,
}

/// Why an answer can't be read. The connection is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// The connection closed before any byte of the answer.
    #[error("closed before any byte of the answer")]
    ClosedBeforeAnswer,
    /// The connection closed inside the answer.
    #[error("closed inside the answer")]
    Truncated,
    /// The head is larger than [`MAX_HEAD_BYTES`].
    #[error("head over {MAX_HEAD_BYTES} bytes")]
    HeadTooLarge,
    /// The head is no answer head (RFC 9112, 4 and 5).
    #[error("malformed head: {0}")]
    Head(httparse::Error),
    /// The status is below 100.
    #[error("status {0} is below 100")]
    Status(u16),
    /// Content-Length is no number, does not fit 64 bits, or there are differing ones.
    #[error("content-length that is no single number")]
    ContentLength,
    /// The chunked coding is broken.
    #[error("chunked coding: {0}")]
    Chunked(#[from] ChunkedError),
}

#[derive(Debug)]
enum State {
    Head(Section),
    Length(u64),
    Chunked(ChunkedDecoder),
    Trailers(Section),
    UntilClose,
    Done,
    Failed(AnswerError),
}

/// What a head says of the answer.
struct AnswerHead {
    status: u16,
    keeps_open: bool,
    content: Content,
}

enum Content {
    Length(u64),
    Chunked,
    UntilClose,
}

impl AnswerDecoder {
    /// For the answer to a request; `is_head`: its method is HEAD, so that the answer has no content.
    #[must_use]
    pub fn new(is_head: bool) -> Self {
        Self { is_head, state: State::Head(Section::head()), summary: AnswerSummary::default() }
    }

    /// Goes on with the next bytes of the stream. Once done, further calls consume nothing.
    ///
    /// # Errors
    /// The answer can't be read; every further call says the same.
    pub fn handle_bytes(&mut self, bytes: &[u8]) -> Result<AnswerProgress, AnswerError> {
        let mut consumed = 0_usize;
        loop {
            if matches!(self.state, State::Done) {
                return Ok(AnswerProgress { consumed, done: Some(self.summary) });
            }
            let rest = bytes.get(consumed..).unwrap_or_default();
            if rest.is_empty() {
                return Ok(AnswerProgress { consumed, done: None });
            }
            match self.step(rest) {
                Ok(used) => consumed = consumed.saturating_add(used),
                Err(error) => {
                    self.state = State::Failed(error);
                    return Err(error);
                }
            }
        }
    }

    /// The stream is over.
    ///
    /// # Errors
    /// The answer is not whole, or could not be read.
    pub fn handle_eof(&mut self) -> Result<AnswerSummary, AnswerError> {
        let error = match &self.state {
            State::Done => return Ok(self.summary),
            State::UntilClose => {
                self.state = State::Done;
                return Ok(self.summary);
            }
            State::Failed(error) => *error,
            // An interim answer is an answer's byte: its status is kept until the next head.
            State::Head(section) if section.is_empty() && self.summary.status == 0 => {
                AnswerError::ClosedBeforeAnswer
            }
            _ => AnswerError::Truncated,
        };
        self.state = State::Failed(error);
        Err(error)
    }

    /// Takes a first part of `rest` and says how long it was.
    fn step(&mut self, rest: &[u8]) -> Result<usize, AnswerError> {
        match &mut self.state {
            State::Head(section) => match section.push(rest, MAX_HEAD_BYTES) {
                SectionStep::Partial => Ok(rest.len()),
                SectionStep::TooLarge => Err(AnswerError::HeadTooLarge),
                SectionStep::InPlace(end) => {
                    self.begin_content(rest.get(..end).unwrap_or_default())?;
                    Ok(end)
                }
                SectionStep::Buffered(end) => {
                    let head = section.take();
                    self.begin_content(&head)?;
                    Ok(end)
                }
            },
            State::Length(remaining) => {
                let used = usize::try_from(*remaining).unwrap_or(usize::MAX).min(rest.len());
                *remaining = remaining.saturating_sub(used as u64);
                if *remaining == 0 {
                    self.state = State::Done;
                }
                self.count(used);
                Ok(used)
            }
            State::Chunked(decoder) => {
                let (used, piece) = decoder.step(rest)?;
                match piece {
                    ChunkedPiece::Framing => {}
                    ChunkedPiece::Content(content) => self.count(content.len()),
                    ChunkedPiece::Last => self.state = State::Trailers(Section::trailers()),
                }
                Ok(used)
            }
            State::Trailers(section) => match section.push(rest, MAX_HEAD_BYTES) {
                SectionStep::Partial => Ok(rest.len()),
                SectionStep::TooLarge => Err(AnswerError::HeadTooLarge),
                SectionStep::InPlace(end) | SectionStep::Buffered(end) => {
                    self.state = State::Done;
                    Ok(end)
                }
            },
            State::UntilClose => {
                self.count(rest.len());
                Ok(rest.len())
            }
            State::Done => Ok(0),
            State::Failed(error) => Err(*error),
        }
    }

    fn count(&mut self, content_bytes: usize) {
        self.summary.body_bytes = self.summary.body_bytes.saturating_add(content_bytes as u64);
    }

    /// Sets the state behind a whole head.
    fn begin_content(&mut self, head: &[u8]) -> Result<(), AnswerError> {
        let head = match parse::<32>(head) {
            Err(AnswerError::Head(httparse::Error::TooManyHeaders)) => parse::<MAX_FIELDS>(head)?,
            parsed => parsed?,
        };
        self.summary.status = head.status;
        self.summary.reusable = head.keeps_open;
        self.state = match head.status {
            101 => {
                self.summary.reusable = false;
                State::Done
            }
            100..=199 => State::Head(Section::head()),
            204 | 304 => State::Done,
            _ if self.is_head => State::Done,
            _ => match head.content {
                Content::Length(0) => State::Done,
                Content::Length(bytes) => State::Length(bytes),
                Content::Chunked => State::Chunked(ChunkedDecoder::default()),
                Content::UntilClose => {
                    self.summary.reusable = false;
                    State::UntilClose
                }
            },
        };
        Ok(())
    }
}

fn parse<const FIELDS: usize>(bytes: &[u8]) -> Result<AnswerHead, AnswerError> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    if response.parse(bytes).map_err(AnswerError::Head)?.is_partial() {
        return Err(AnswerError::Head(httparse::Error::NewLine));
    }
    let status = response.code.unwrap_or_default();
    if status < 100 {
        return Err(AnswerError::Status(status));
    }
    let version = if response.version == Some(0) { Version::Http10 } else { Version::Http11 };
    framing(status, version, response.headers)
}

/// RFC 9112, 6.3 and 9.3. Both framing headers together: the transfer coding holds, the connection is done.
fn framing(
    status: u16,
    version: Version,
    fields: &[httparse::Header<'_>],
) -> Result<AnswerHead, AnswerError> {
    let mut length = None;
    let mut coding: Option<bool> = None;
    let (mut says_close, mut says_keep_alive) = (false, false);
    for field in fields {
        if field.name.eq_ignore_ascii_case("content-length") {
            let value = super::framing::content_length(field.value).ok_or(AnswerError::ContentLength)?;
            if length.is_some_and(|length| length != value) {
                return Err(AnswerError::ContentLength);
            }
            length = Some(value);
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            let last = super::framing::list(field.value).last().unwrap_or_default();
            coding = Some(last.eq_ignore_ascii_case(b"chunked"));
        } else if field.name.eq_ignore_ascii_case("connection") {
            says_close |=
                super::framing::list(field.value).any(|option| option.eq_ignore_ascii_case(b"close"));
            says_keep_alive |=
                super::framing::list(field.value).any(|option| option.eq_ignore_ascii_case(b"keep-alive"));
        }
    }
    let is_old = version == Version::Http10;
    let content = match (coding, length) {
        (Some(true), _) if !is_old => Content::Chunked,
        (Some(_), _) | (None, None) => Content::UntilClose,
        (None, Some(bytes)) => Content::Length(bytes),
    };
    let is_ambiguous = coding.is_some() && (length.is_some() || is_old);
    let keeps_open = !says_close && !is_ambiguous && (!is_old || says_keep_alive);
    Ok(AnswerHead { status, keeps_open, content })
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests {
    use super::*;

    /// Feeds `bytes` in pieces; the summary and the bytes consumed.
    fn read(is_head: bool, bytes: &[u8], piece_bytes: usize) -> Result<(AnswerSummary, usize), AnswerError> {
        let mut decoder = AnswerDecoder::new(is_head);
        let mut total = 0;
        for piece in bytes.chunks(piece_bytes.max(1)) {
            let progress = decoder.handle_bytes(piece)?;
            total += progress.consumed;
            if let Some(summary) = progress.done {
                return Ok((summary, total));
            }
            assert_eq!(progress.consumed, piece.len());
        }
        decoder.handle_eof().map(|summary| (summary, total))
    }

    #[track_caller]
    fn assert_reads(is_head: bool, text: &str, left_over: usize, want: (u16, u64, bool)) {
        let want = AnswerSummary { status: want.0, body_bytes: want.1, reusable: want.2 };
        for piece_bytes in 1..=text.len() {
            let got = read(is_head, text.as_bytes(), piece_bytes);
            assert_eq!(got, Ok((want, text.len() - left_over)), "{text:?} in pieces of {piece_bytes}");
        }
    }

    #[test]
    fn answer_of_known_length_ends_with_its_last_byte() {
        assert_reads(false, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP", 4, (200, 5, true));
        assert_reads(false, "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", 0, (200, 0, true));
        assert_reads(false, "HTTP/1.1 200 OK\ncontent-length: 5, 5\n\nhello", 0, (200, 5, true));
    }

    #[test]
    fn chunked_answer_ends_behind_its_trailers() {
        let text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, Chunked\r\n\r\n5;x=y\r\nhello\r\n1\r\n!\r\n0\r\nDigest: x\r\n\r\nH";
        assert_reads(false, text, 1, (200, 6, true));
    }

    #[test]
    fn answer_without_framing_ends_with_the_connection() {
        assert_reads(false, "HTTP/1.1 200 OK\r\n\r\nhello", 0, (200, 5, false));
        assert_reads(false, "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc", 0, (200, 3, false));
        let old = "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\nabc";
        assert_reads(false, old, 0, (200, 3, false));
    }

    #[test]
    fn answers_that_never_have_content_end_with_their_head() {
        assert_reads(true, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nH", 1, (200, 0, true));
        assert_reads(true, "HTTP/1.1 200 OK\r\n\r\nH", 1, (200, 0, true));
        assert_reads(false, "HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\nH", 1, (204, 0, true));
        assert_reads(false, "HTTP/1.1 304 Not\r\nContent-Length: 5\r\n\r\nH", 1, (304, 0, true));
    }

    #[test]
    fn interim_answers_are_skipped_and_101_is_final() {
        let text = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\nno";
        assert_reads(false, text, 0, (404, 2, true));
        assert_reads(false, "HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n\x01\x02", 2, (101, 0, false));
    }

    #[test]
    fn connection_is_reused_only_when_both_ends_keep_it() {
        let with = |start: &str, fields: &str| format!("{start} 200 OK\r\n{fields}Content-Length: 0\r\n\r\n");
        assert_reads(false, &with("HTTP/1.1", "Connection: x, CLOSE\r\n"), 0, (200, 0, false));
        assert_reads(false, &with("HTTP/1.0", ""), 0, (200, 0, false));
        assert_reads(false, &with("HTTP/1.0", "Connection: Keep-Alive\r\n"), 0, (200, 0, true));
        let both = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
        assert_reads(false, both, 0, (200, 0, false));
    }

    #[test]
    fn end_of_stream_tells_no_answer_from_half_an_answer() {
        assert_eq!(AnswerDecoder::new(false).handle_eof(), Err(AnswerError::ClosedBeforeAnswer));
        for half in ["H", "HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell"]
        {
            assert_eq!(read(false, half.as_bytes(), 99), Err(AnswerError::Truncated), "{half:?}");
        }
    }

    #[test]
    fn faulty_answers_are_refused_for_good() {
        let length = |value: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: {value}\r\n\r\n");
        for value in ["-1", "+1", "1 2", "1, 2", "", "0x5", "18446744073709551616"] {
            assert_eq!(read(false, length(value).as_bytes(), 99), Err(AnswerError::ContentLength), "{value}");
        }
        for text in
            ["GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 20\r\n\r\n", "\r\n\r\n", "HTTP/1.1 200 OK\r\na b: c\r\n\r\n"]
        {
            assert!(matches!(read(false, text.as_bytes(), 99), Err(AnswerError::Head(_))), "{text:?}");
        }
        assert_eq!(read(false, b"HTTP/1.1 099 X\r\n\r\n", 99), Err(AnswerError::Status(99)));
        let mut decoder = AnswerDecoder::new(false);
        let error = decoder.handle_bytes(b"\r\n\r\n").unwrap_err();
        assert_eq!(decoder.handle_bytes(b"HTTP/1.1 200 OK\r\n\r\n"), Err(error));
    }

    #[test]
    fn head_is_bounded_in_bytes_and_fields() {
        let mut decoder = AnswerDecoder::new(false);
        let line = [b'x'; 1024];
        for _ in 0..MAX_HEAD_BYTES / line.len() {
            assert!(decoder.handle_bytes(&line).is_ok());
        }
        assert_eq!(decoder.handle_bytes(b"x"), Err(AnswerError::HeadTooLarge));
        let fields = |count: usize| format!("HTTP/1.1 204 No\r\n{}\r\n", "a: b\r\n".repeat(count));
        assert!(read(false, fields(MAX_FIELDS).as_bytes(), 9999).is_ok());
        let error = AnswerError::Head(httparse::Error::TooManyHeaders);
        assert_eq!(read(false, fields(MAX_FIELDS + 1).as_bytes(), 9999), Err(error));
    }

    proptest::proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(0_u8.., 0..300), is_head: bool) {
            let mut text = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            text.extend_from_slice(&bytes);
            let _ = read(is_head, &text, 7);
            let _ = read(is_head, &bytes, 3);
        }
    }
}
