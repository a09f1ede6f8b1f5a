//! Chunked transfer coding (RFC 9112, 7.1), up to the line of the last chunk; the trailer section behind
//! it is for the caller.
//!
//! ```text
//! Size ─┬▶ SizeSpace ─┬▶ Extension ─┬▶ SizeLf ─┬─▶ Data ─▶ DataCr ─▶ DataLf ─▶ Size
//!       └─────────────┴─────────────┘          └─▶ (size 0) Last
//! ```
//!
//! Stricter than RFC 9112, 2.2 allows for heads: a bare LF ends no chunk line, and control characters are refused
//! in extensions, because parsers that differ here are what smuggling through chunk extensions lives on.

/// Most bytes of one chunk line, size and extensions, without CRLF. A longer one is refused.
pub(super) const MAX_CHUNK_LINE_BYTES: u16 = 4096;

/// The rule of the chunked coding that was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkedError {
    /// A byte that can't stand where it stood.
    #[error("byte {byte:#04x} in a {place}")]
    Byte {
        /// The byte.
        byte: u8,
        /// Where.
        place: &'static str,
    },
    /// The chunk size does not fit 64 bits.
    #[error("chunk size over 64 bits")]
    Overflow,
    /// The line is longer than [`MAX_CHUNK_LINE_BYTES`].
    #[error("chunk line over {MAX_CHUNK_LINE_BYTES} bytes")]
    LineTooLong,
}

/// What the next bytes of a chunked body are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChunkedPiece<'a> {
    /// Framing, or nothing: go on behind it.
    Framing,
    /// Content, never empty.
    Content(&'a [u8]),
    /// The last chunk's line is over: the trailer section follows.
    Last,
}

/// Reads the framing of one chunked body.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ChunkedDecoder {
    state: State,
    /// Size of the chunk whose line is being read; then what is still to come of it.
    remaining: u64,
    line_bytes: u16,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    SizeStart,
    Size,
    SizeSpace,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    Last,
}

impl ChunkedDecoder {
    /// Reads on; the number of bytes used and what they were. Uses at least one byte unless `bytes` is empty
    /// or the last chunk has been read.
    ///
    /// # Errors
    /// The framing is broken, and where the body ends is no longer known.
    pub(super) fn step<'a>(&mut self, bytes: &'a [u8]) -> Result<(usize, ChunkedPiece<'a>), ChunkedError> {
        if self.state == State::Last {
            return Ok((0, ChunkedPiece::Last));
        }
        if self.state == State::Data {
            let want = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(bytes.len());
            let Some(content) = bytes.get(..want).filter(|content| !content.is_empty()) else {
                return Ok((0, ChunkedPiece::Framing));
            };
            self.remaining = self.remaining.saturating_sub(want as u64);
            if self.remaining == 0 {
                self.state = State::DataCr;
            }
            return Ok((want, ChunkedPiece::Content(content)));
        }
        let mut used = 0_usize;
        for &byte in bytes {
            self.state = self.after_framing(byte)?;
            used = used.saturating_add(1);
            match self.state {
                State::Data => break,
                State::Last => return Ok((used, ChunkedPiece::Last)),
                _ => {}
            }
        }
        Ok((used, ChunkedPiece::Framing))
    }

    /// The state behind one byte of framing.
    fn after_framing(&mut self, byte: u8) -> Result<State, ChunkedError> {
        let refused = |place| Err(ChunkedError::Byte { byte, place });
        match (self.state, byte) {
            (State::SizeStart, _) => {
                self.remaining = 0;
                self.line_bytes = 0;
                self.size_digit(byte)
            }
            (State::Size | State::SizeSpace | State::Extension, b'\r') => Ok(State::SizeLf),
            (State::Size | State::SizeSpace, b' ' | b'\t') => self.line_grows(State::SizeSpace),
            (State::Size | State::SizeSpace, b';') => self.line_grows(State::Extension),
            (State::Size, _) => self.size_digit(byte),
            (State::SizeSpace, _) => refused("chunk size"),
            (State::Extension, b'\t' | b' '..=b'~' | 0x80..) => self.line_grows(State::Extension),
            (State::Extension, _) => refused("chunk extension"),
            (State::SizeLf, b'\n') if self.remaining == 0 => Ok(State::Last),
            (State::SizeLf, b'\n') => Ok(State::Data),
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(State::SizeStart),
            (State::SizeLf, _) => refused("chunk line end"),
            (State::DataCr | State::DataLf, _) => refused("chunk end"),
            // `step` handles these two before it looks at framing.
            (State::Data | State::Last, _) => Ok(self.state),
        }
    }

    fn size_digit(&mut self, byte: u8) -> Result<State, ChunkedError> {
        let digit = match byte {
            b'0'..=b'9' => byte.wrapping_sub(b'0'),
            b'a'..=b'f' => byte.wrapping_sub(b'a').wrapping_add(10),
            b'A'..=b'F' => byte.wrapping_sub(b'A').wrapping_add(10),
            _ => return Err(ChunkedError::Byte { byte, place: "chunk size" }),
        };
        let size = self.remaining.checked_mul(16).and_then(|size| size.checked_add(digit.into()));
        self.remaining = size.ok_or(ChunkedError::Overflow)?;
        self.line_grows(State::Size)
    }

    fn line_grows(&mut self, next: State) -> Result<State, ChunkedError> {
        self.line_bytes = self.line_bytes.saturating_add(1);
        if self.line_bytes > MAX_CHUNK_LINE_BYTES { Err(ChunkedError::LineTooLong) } else { Ok(next) }
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests {
    use super::*;

    /// Content, and bytes used up to the end of the last chunk's line.
    fn decode(mut bytes: &[u8], piece_bytes: usize) -> Result<(Vec<u8>, Option<usize>), ChunkedError> {
        let (mut decoder, mut content, mut total) = (ChunkedDecoder::default(), Vec::new(), 0);
        while !bytes.is_empty() {
            let (used, piece) = decoder.step(&bytes[..piece_bytes.min(bytes.len())])?;
            total += used;
            bytes = &bytes[used..];
            match piece {
                ChunkedPiece::Framing => {}
                ChunkedPiece::Content(some) => content.extend_from_slice(some),
                ChunkedPiece::Last => return Ok((content, Some(total))),
            }
        }
        Ok((content, None))
    }

    #[test]
    fn content_is_the_same_whatever_the_cut() {
        let body = b"5;name=\"value\"\r\nhello\r\nA \t; x\r\n0123456789\r\n000\r\n\r\n";
        for piece_bytes in 1..=body.len() {
            assert_eq!(decode(body, piece_bytes), Ok((b"hello0123456789".to_vec(), Some(body.len() - 2))));
        }
    }

    #[test]
    fn faulty_chunk_lines_are_refused() {
        let faults: [&[u8]; 12] = [
            b"\r\n",
            b";x\r\n",
            b"g\r\n",
            b"0x5\r\n",
            b"+5\r\n",
            b"-1\r\n",
            b" 5\r\n",
            b"5\n",
            b"5;x\nhello",
            b"5\rx",
            b"5 5\r\n",
            b"5;\x00\r\n",
        ];
        for fault in faults {
            assert!(matches!(decode(fault, 99), Err(ChunkedError::Byte { .. })), "{fault:?}");
        }
        assert!(decode(b"3\r\nabcd\r\n", 99).is_err(), "content longer than its size");
        assert!(decode(b"3\r\nabc\n0\r\n", 99).is_err(), "bare LF behind content");
    }

    #[test]
    fn size_may_take_64_bits_and_no_more() {
        assert!(decode(b"ffffffffffffffff\r\n", 99).is_ok());
        assert_eq!(decode(b"10000000000000000\r\n", 99), Err(ChunkedError::Overflow));
    }

    #[test]
    fn chunk_line_is_bounded() {
        let line = |bytes: u16| [b"1;".as_slice(), &vec![b'x'; usize::from(bytes) - 2], b"\r\n"].concat();
        for (bytes, right) in [
            (MAX_CHUNK_LINE_BYTES - 1, true),
            (MAX_CHUNK_LINE_BYTES, true),
            (MAX_CHUNK_LINE_BYTES + 1, false),
        ] {
            assert_eq!(decode(&line(bytes), 9999).is_ok(), right, "{bytes}");
        }
    }
}
