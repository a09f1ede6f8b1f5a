//! What `tap` prints: one line or one JSON object for each request seen.
//!
//! ```text
//! 2024-05-01T12:00:00.000Z 10.77.0.1:51234 GET http://shop.example/cart HTTP/1.1 body=0 complete
//! ```
//!
//! Of a gRPC call also service and method, and the count and sizes of its messages ([`grpc`]).
//!
//! Everything that came from the network is escaped ([`escape`]): no byte of it can act on a terminal, start a new
//! line, or pretend to be another column. Left out: where the requests come from, and when to end.

mod book;
pub mod escape;
pub mod grpc;
mod json;

pub use book::{MAX_OPEN_REQUESTS, TapBook};

use crate::drop_reason::DropReason;
use crate::flow::FlowKey;
use crate::http::{RequestHead, RequestNumber, Version};
use escape::{Escaped, SafeJson};
use grpc::{GrpcCall, MAX_LISTED_MESSAGES};
use serde::ser::Serialize;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, UNIX_EPOCH};

/// How many bytes of one value are shown to people; JSON has them all.
pub const MAX_SHOWN_BYTES: usize = 2048;

/// One request seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapRecord {
    /// When its head was captured, nanoseconds since 1970.
    pub at_unix_ns: u64,
    /// Who sent it: the peer, or whom PROXY protocol or a trusted `X-Forwarded-For` names.
    pub client_ip: IpAddr,
    /// The connection.
    pub flow: FlowKey,
    /// Its number in the connection, from 0.
    pub number: RequestNumber,
    /// Its head; `None` when it was refused or never seen.
    pub head: Option<TapHead>,
    /// Bytes of its body, transfer coding removed.
    pub body_bytes: u64,
    /// Its trailer fields.
    pub trailers: u64,
    /// Its messages, when it is a gRPC call.
    pub grpc: Option<GrpcCall>,
    /// How it ended.
    pub outcome: Outcome,
}

/// What is kept of a head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapHead {
    /// Method.
    pub method: String,
    /// Authority, from an absolute-form target or the Host field; `None` when there is none.
    pub authority: Option<String>,
    /// Path and query, `*`, or the target of CONNECT.
    pub path: String,
    /// Version.
    pub version: Version,
    /// Field names and values in order; empty unless they were asked for.
    pub headers: Vec<(String, Vec<u8>)>,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Not yet: its head was seen, and another record follows at its end.
    Started,
    /// Every byte was seen.
    Complete,
    /// It would not be replayed.
    Dropped(DropReason),
}

impl TapHead {
    /// Copies what `tap` shows of `head`; its fields only `with_headers`.
    #[must_use]
    pub fn of(head: &RequestHead<'_>, with_headers: bool) -> Self {
        let path = match head.query() {
            Some(query) => format!("{}?{query}", head.path()),
            None => head.path().to_owned(),
        };
        let fields = if with_headers { head.fields } else { &[] };
        Self {
            method: head.method.to_owned(),
            authority: head.authority().map(str::to_owned),
            path,
            version: head.version,
            headers: fields.iter().map(|field| (field.name.to_owned(), field.value.to_vec())).collect(),
        }
    }
}

/// How requests are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TapFormat {
    /// One line for people; header fields, if any, on lines of their own below.
    Lines,
    /// One JSON object a line.
    Json,
}

/// Writes records.
#[derive(Debug)]
pub struct TapWriter<W> {
    out: W,
    format: TapFormat,
    with_numbers: bool,
    written: u64,
}

impl<W: Write> TapWriter<W> {
    /// A writer to `out`, best buffered; the caller flushes when nothing more waits.
    pub const fn new(out: W, format: TapFormat) -> Self {
        Self { out, format, with_numbers: false, written: 0 }
    }

    /// Lines tell the request's number in its connection, too, so that its start and its end are found together.
    #[must_use]
    pub fn with_numbers(self, with_numbers: bool) -> Self {
        Self { with_numbers, ..self }
    }

    /// Writes one record.
    ///
    /// # Errors
    /// Those of the output. `BrokenPipe` means that the reader has seen enough: no failure.
    pub fn write(&mut self, record: &TapRecord) -> io::Result<()> {
        match self.format {
            TapFormat::Lines => write_line(&mut self.out, record, self.with_numbers)?,
            TapFormat::Json => {
                let mut serializer = serde_json::Serializer::with_formatter(&mut self.out, SafeJson);
                record.serialize(&mut serializer)?;
                self.out.write_all(b"\n")?;
            }
        }
        self.written = self.written.saturating_add(1);
        Ok(())
    }

    /// Records written so far.
    #[must_use]
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// Hands everything to the reader.
    ///
    /// # Errors
    /// Those of the output.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl TapRecord {
    fn time(&self) -> impl std::fmt::Display {
        let since = Duration::from_nanos(self.at_unix_ns);
        humantime::format_rfc3339_millis(UNIX_EPOCH.checked_add(since).unwrap_or(UNIX_EPOCH))
    }
}

fn write_line(out: &mut impl Write, record: &TapRecord, with_number: bool) -> io::Result<()> {
    let client = SocketAddr::new(record.client_ip, record.flow.remote_port);
    write!(out, "{} {client} ", record.time())?;
    if with_number {
        write!(out, "#{} ", record.number.0)?;
    }
    match &record.head {
        Some(head) => {
            let authority = head.authority.as_deref().unwrap_or("");
            let word = |text| Escaped::word(text, MAX_SHOWN_BYTES);
            write!(out, "{} ", word(&head.method))?;
            if !authority.is_empty() {
                write!(out, "http://{}", word(authority))?;
            }
            write!(out, "{} {} ", word(&head.path), version(head.version))?;
        }
        None => write!(out, "- - - ")?,
    }
    write!(out, "body={}", record.body_bytes)?;
    if record.trailers > 0 {
        write!(out, " trailers={}", record.trailers)?;
    }
    if let Some((head, call)) = record.head.as_ref().zip(record.grpc.as_ref()) {
        write_call(out, head, call, record.outcome)?;
    }
    match record.outcome {
        Outcome::Started => write!(out, " started")?,
        Outcome::Complete => write!(out, " complete")?,
        Outcome::Dropped(reason) => write!(out, " dropped={}", reason.label())?,
    }
    if let (None, Outcome::Dropped(reason)) = (&record.head, record.outcome) {
        write!(out, " ({})", headless(reason))?;
    }
    writeln!(out)?;
    for (name, value) in record.head.iter().flat_map(|head| &head.headers) {
        let name = Escaped::word(name, MAX_SHOWN_BYTES);
        writeln!(out, "    {name}: {}", Escaped::text(value, MAX_SHOWN_BYTES))?;
    }
    Ok(())
}

/// ` grpc=shop.Cart/Add messages=2 total_bytes=12 message_bytes=5,7`
fn write_call(out: &mut impl Write, head: &TapHead, call: &GrpcCall, outcome: Outcome) -> io::Result<()> {
    let (service, method) = grpc::service_and_method(&head.path);
    let word = |text| Escaped::word(text, MAX_SHOWN_BYTES);
    write!(out, " grpc={}/{}", word(service), word(method))?;
    if outcome == Outcome::Started {
        return Ok(());
    }
    write!(out, " messages={} total_bytes={}", call.messages, call.total_bytes)?;
    for (index, bytes) in call.message_bytes.iter().enumerate() {
        let start = if index == 0 { " message_bytes=" } else { "," };
        write!(out, "{start}{bytes}")?;
    }
    if call.messages > u64::try_from(MAX_LISTED_MESSAGES).unwrap_or(u64::MAX) {
        write!(out, ",...")?;
    }
    if call.compressed > 0 {
        write!(out, " compressed={}", call.compressed)?;
    }
    if let Some(last) = call.truncated() {
        match last.message_bytes {
            Some(bytes) => write!(out, " truncated={}/{bytes}", last.seen_bytes)?,
            None => write!(out, " truncated={}/?", last.seen_bytes)?,
        }
    }
    if call.is_malformed() {
        write!(out, " malformed_message")?;
    }
    Ok(())
}

/// Why nothing is known of a request but that it was there.
const fn headless(reason: DropReason) -> &'static str {
    match reason {
        DropReason::Undecodable => {
            "HTTP/2 stream that can't be decoded: its head refers to header fields sent before this tap saw the connection, or lost"
        }
        _ => "no head: it was refused, or never seen whole",
    }
}

const fn version(version: Version) -> &'static str {
    match version {
        Version::Http10 => "HTTP/1.0",
        Version::Http11 => "HTTP/1.1",
        Version::Http2 => "HTTP/2",
    }
}

#[cfg(test)]
mod tests;
