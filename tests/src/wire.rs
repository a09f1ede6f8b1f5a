//! HTTP/1.1 framing for both ends of a test, written apart from the daemon's so that it can judge it.
//!
//! Strict where the daemon must be right: anything else than well-formed framing is an error.

use std::hash::Hasher as _;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use anyhow::{Context as _, Result, bail, ensure};
use siphasher::sip128::{Hasher128 as _, SipHasher13};

/// Bytes of one head or chunk line, at most.
const MAX_HEAD_BYTES: usize = 4 * 1024 * 1024;

/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;

/// A connection with what has been read from it and not yet used.
#[derive(Debug)]
pub struct Wire<S = TcpStream> {
    stream: S,
    /// What was read is from `used` to `end`; the rest is room.
    buffer: Vec<u8>,
    used: usize,
    end: usize,
}

/// What is known of a body after it was read.
#[derive(Debug)]
pub struct BodyDigest {
    /// Bytes, without chunk framing.
    pub bytes: u64,
    hasher: SipHasher13,
}

/// How a body is delimited (RFC 9112, 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// Content-Length.
    Length(u64),
    /// Transfer-Encoding: chunked.
    Chunked,
    /// Until the connection closes: answers only.
    UntilClose,
}

impl<S: Read + Write> Wire<S> {
    /// Takes over a connection.
    pub fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::new(), used: 0, end: 0 }
    }

    /// The connection.
    pub fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Bytes that were read and not yet used.
    #[must_use]
    pub fn waiting(&self) -> &[u8] {
        &self.buffer[self.used..self.end]
    }

    /// Reads a head with the empty line that ends it; `None` when the peer closed before its first byte.
    ///
    /// # Errors
    /// When the connection ends within the head, or the head is too large.
    pub fn read_head(&mut self) -> Result<Option<Vec<u8>>> {
        self.read_through(b"\r\n\r\n")
    }

    /// Reads a body, handing its bytes to `sink`, and gives the trailer section (empty if none).
    ///
    /// # Errors
    /// When the framing is broken or the connection ends too early.
    pub fn read_body(&mut self, framing: Framing, sink: &mut dyn FnMut(&[u8])) -> Result<Vec<u8>> {
        match framing {
            Framing::None => {}
            Framing::Length(bytes) => self.read_bytes(bytes, sink)?,
            Framing::Chunked => return self.read_chunks(sink),
            Framing::UntilClose => {
                while self.fill()? {
                    sink(&self.buffer[self.used..self.end]);
                    self.used = self.end;
                }
            }
        }
        Ok(Vec::new())
    }

    fn read_chunks(&mut self, sink: &mut dyn FnMut(&[u8])) -> Result<Vec<u8>> {
        loop {
            let line = self.read_through(b"\r\n")?.context("closed before a chunk")?;
            let text = std::str::from_utf8(&line)?.trim_end();
            let digits = text.split(';').next().unwrap_or_default().trim();
            let bytes = u64::from_str_radix(digits, 16).with_context(|| format!("chunk line {text:?}"))?;
            if bytes == 0 {
                return self.read_trailers();
            }
            self.read_bytes(bytes, sink)?;
            let end = self.read_through(b"\r\n")?.context("closed after a chunk")?;
            ensure!(end == b"\r\n", "a chunk of {bytes} bytes is not followed by an empty line");
        }
    }

    fn read_trailers(&mut self) -> Result<Vec<u8>> {
        let mut trailers = Vec::new();
        loop {
            let line = self.read_through(b"\r\n")?.context("closed within the trailers")?;
            if line == b"\r\n" {
                return Ok(trailers);
            }
            trailers.extend_from_slice(&line);
        }
    }

    fn read_bytes(&mut self, mut bytes: u64, sink: &mut dyn FnMut(&[u8])) -> Result<()> {
        while bytes > 0 {
            if self.waiting().is_empty() && !self.fill()? {
                bail!("closed {bytes} bytes before the end of a body");
            }
            let taken = usize::try_from(bytes).unwrap_or(usize::MAX).min(self.waiting().len());
            sink(&self.buffer[self.used..self.used + taken]);
            self.used += taken;
            bytes -= taken as u64;
        }
        Ok(())
    }

    /// Takes everything up to and with `end`; `None` when the peer closed before the first byte.
    fn read_through(&mut self, end: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut looked = 0;
        loop {
            let waiting = &self.buffer[self.used..self.end];
            let from = looked.min(waiting.len());
            if let Some(at) = waiting[from..].windows(end.len()).position(|window| window == end) {
                let taken = waiting[..from + at + end.len()].to_vec();
                self.used += taken.len();
                return Ok(Some(taken));
            }
            looked = (waiting.len() + 1).saturating_sub(end.len());
            ensure!(waiting.len() < MAX_HEAD_BYTES, "a head or line of more than {MAX_HEAD_BYTES} bytes");
            if !self.fill()? {
                ensure!(self.waiting().is_empty(), "closed within a head or line");
                return Ok(None);
            }
        }
    }

    /// Reads more; false at the end of the stream.
    fn fill(&mut self) -> Result<bool> {
        if self.used == self.end {
            (self.used, self.end) = (0, 0);
        } else if self.end == self.buffer.len() && self.used > 0 {
            self.buffer.copy_within(self.used..self.end, 0);
            (self.used, self.end) = (0, self.end - self.used);
        }
        if self.end == self.buffer.len() {
            self.buffer.resize(self.end + READ_BYTES, 0);
        }
        let got = loop {
            match self.stream.read(&mut self.buffer[self.end..]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        self.end += got;
        Ok(got > 0)
    }
}

impl Default for BodyDigest {
    fn default() -> Self {
        Self { bytes: 0, hasher: SipHasher13::new_with_keys(0, 0) }
    }
}

impl BodyDigest {
    /// Adds bytes; how they are cut makes no difference.
    pub fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.hasher.write(bytes);
    }

    /// The hash of all bytes, in hex.
    #[must_use]
    pub fn hex(&self) -> String {
        format!("{:032x}", self.hasher.finish128().as_u128())
    }
}

/// The hash that the test app logs for a body.
#[must_use]
pub fn body_hash(body: &[u8]) -> String {
    let mut digest = BodyDigest::default();
    digest.add(body);
    digest.hex()
}

/// The fields of a head (or of a trailer section given with an empty first line): names and values as sent,
/// values without the white space around them.
pub fn fields(head: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    head.split(|byte| *byte == b'\n').skip(1).filter_map(|line| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        // A pseudo-header's own colon does not end its name.
        let colon = 1 + line.iter().skip(1).position(|byte| *byte == b':')?;
        Some((&line[..colon], line[colon + 1..].trim_ascii()))
    })
}

/// The first field of that name, whatever its case.
#[must_use]
pub fn field<'a>(head: &'a [u8], name: &str) -> Option<&'a [u8]> {
    fields(head).find(|(found, _)| found.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
}

/// The framing that a head declares, without the rules that depend on method or status.
///
/// # Errors
/// When Content-Length is no number, or Transfer-Encoding is not exactly `chunked`.
pub fn declared_framing(head: &[u8]) -> Result<Framing> {
    if let Some(coding) = field(head, "transfer-encoding") {
        ensure!(coding.eq_ignore_ascii_case(b"chunked"), "transfer-encoding {:?}", latin1(coding));
        return Ok(Framing::Chunked);
    }
    let Some(length) = field(head, "content-length") else { return Ok(Framing::None) };
    let length = std::str::from_utf8(length).ok().and_then(|digits| digits.parse().ok());
    Ok(Framing::Length(length.context("content-length is no number")?))
}

/// Bytes as text without loss: one character for one byte.
#[must_use]
pub fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// The bytes that [`latin1`] was given.
///
/// # Errors
/// When the text was not made by it.
pub fn from_latin1(text: &str) -> Result<Vec<u8>> {
    text.chars().map(|c| u8::try_from(u32::from(c)).context("not latin-1")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn wire(bytes: &[u8]) -> Wire<Cursor<Vec<u8>>> {
        Wire::new(Cursor::new(bytes.to_vec()))
    }

    #[test]
    fn pipelined_heads_and_bodies_are_read_apart() {
        let mut wire = wire(b"POST /a HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET /b HTTP/1.1\r\n\r\n");
        let head = wire.read_head().unwrap().unwrap();
        let mut body = Vec::new();
        let framing = declared_framing(&head).unwrap();
        assert_eq!(framing, Framing::Length(3));
        wire.read_body(framing, &mut |bytes| body.extend_from_slice(bytes)).unwrap();
        assert_eq!(body, b"abc");
        assert_eq!(wire.read_head().unwrap().unwrap(), b"GET /b HTTP/1.1\r\n\r\n");
        assert!(wire.read_head().unwrap().is_none());
    }

    #[test]
    fn chunks_are_joined_and_trailers_kept() {
        let mut wire = wire(b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 1\r\nX-More: 2\r\n\r\nrest");
        let mut digest = BodyDigest::default();
        let trailers = wire.read_body(Framing::Chunked, &mut |bytes| digest.add(bytes)).unwrap();
        assert_eq!(trailers, b"X-Sum: 1\r\nX-More: 2\r\n");
        assert_eq!((digest.bytes, digest.hex()), (5, body_hash(b"abcde")));
        assert_eq!(wire.waiting(), b"rest");
    }

    #[test]
    fn cut_body_and_broken_chunk_are_errors() {
        assert!(wire(b"ab").read_body(Framing::Length(3), &mut |_| {}).is_err());
        assert!(wire(b"2\r\nabc\r\n0\r\n\r\n").read_body(Framing::Chunked, &mut |_| {}).is_err());
        assert!(wire(b"GET / HT").read_head().is_err());
    }

    #[test]
    fn latin1_keeps_every_byte() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(from_latin1(&latin1(&all)).unwrap(), all);
    }
}
