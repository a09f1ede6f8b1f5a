//! What the app notes of each request.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::answer::query_number;
use crate::wire::{self, BodyDigest};

/// The highest request number that is counted by itself: 16 MiB of bits.
const MAX_COUNTED_ID: u64 = 1 << 27;

/// How many missing numbers a summary names.
const MAX_NAMED_MISSING: usize = 20;

/// How long a line may wait in memory before it reaches the file.
const FLUSH_EVERY: Duration = Duration::from_millis(50);

/// How much is noted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogMode {
    /// Only how many.
    None,
    /// Which numbers (`id` in the query), how often.
    Count,
    /// Everything, in memory.
    Full,
    /// Everything, one JSON line each, in a file.
    File(PathBuf),
}

/// One request as the app got it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedRequest {
    /// Which connection, from 1, in the order of acceptance.
    pub connection: u64,
    /// Which request on it, from 1.
    pub number: u64,
    /// The head as it came, request line and empty line included; of HTTP/2, see [`super::h2`].
    pub head: Vec<u8>,
    /// Length of the body, without chunk framing.
    pub body_bytes: u64,
    /// See [`wire::body_hash`].
    pub body_hash: String,
    /// The trailer section as it came, without the empty line; empty if none.
    pub trailers: Vec<u8>,
}

/// What was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Requests that came whole.
    pub requests: u64,
    /// Different numbers among them.
    pub distinct: u64,
    /// Requests whose number had come before.
    pub duplicates: u64,
    /// Requests without a number, or with one too high.
    pub without_id: u64,
    /// Connections that ended within a request, or broke the grammar.
    pub broken: u64,
    /// Bytes of all bodies.
    pub body_bytes: u64,
}

/// The log of an app; shared by its connections.
#[derive(Debug)]
pub struct Log {
    mode: LogMode,
    books: Arc<Mutex<Books>>,
}

#[derive(Debug, Default)]
struct Books {
    summary: Summary,
    seen: Vec<u64>,
    requests: Vec<LoggedRequest>,
    faults: Vec<String>,
    file: Option<BufWriter<File>>,
}

impl LoggedRequest {
    pub(super) fn new(place: (u64, u64), head: Vec<u8>, digest: &BodyDigest, trailers: Vec<u8>) -> Self {
        let (body_bytes, body_hash) = (digest.bytes, digest.hex());
        Self { connection: place.0, number: place.1, head, body_bytes, body_hash, trailers }
    }

    /// The method.
    #[must_use]
    pub fn method(&self) -> &str {
        self.start_line_word(0)
    }

    /// The request target.
    #[must_use]
    pub fn target(&self) -> &str {
        self.start_line_word(1)
    }

    /// The version, `HTTP/1.1` or `HTTP/2`.
    #[must_use]
    pub fn version(&self) -> &str {
        self.start_line_word(2)
    }

    /// The authority: of HTTP/2 `:authority`, else Host.
    #[must_use]
    pub fn host(&self) -> Option<String> {
        self.field(":authority").or_else(|| self.field("host"))
    }

    /// The first field of that name, whatever its case.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<String> {
        wire::field(&self.head, name).map(wire::latin1)
    }

    /// Every field in order, names as they came.
    #[must_use]
    pub fn fields(&self) -> Vec<(String, String)> {
        wire::fields(&self.head).map(|(name, value)| (wire::latin1(name), wire::latin1(value))).collect()
    }

    /// The `id` of the query.
    #[must_use]
    pub fn id(&self) -> Option<u64> {
        query_number(self.target(), "id")
    }

    /// As one line of JSON; bytes as text by [`wire::latin1`].
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "connection": self.connection,
            "number": self.number,
            "method": self.method(),
            "target": self.target(),
            "host": self.host(),
            "head": wire::latin1(&self.head),
            "body_bytes": self.body_bytes,
            "body_hash": self.body_hash,
            "trailers": wire::latin1(&self.trailers),
        })
    }

    /// From what [`Self::to_json`] made.
    ///
    /// # Errors
    /// When a member is missing or of another type.
    pub fn from_json(line: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(line)?;
        let number = |key: &str| value[key].as_u64().with_context(|| format!("no number {key}"));
        let text = |key: &str| value[key].as_str().with_context(|| format!("no text {key}"));
        Ok(Self {
            connection: number("connection")?,
            number: number("number")?,
            head: wire::from_latin1(text("head")?)?,
            body_bytes: number("body_bytes")?,
            body_hash: text("body_hash")?.to_owned(),
            trailers: wire::from_latin1(text("trailers")?)?,
        })
    }

    fn start_line_word(&self, index: usize) -> &str {
        let line = self.head.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let word = line.split(|byte| *byte == b' ').nth(index).unwrap_or_default();
        std::str::from_utf8(word).unwrap_or("(not text)")
    }
}

impl Log {
    pub(super) fn new(mode: LogMode) -> Result<Self> {
        let mut books = Books::default();
        if let LogMode::File(path) = &mode {
            let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
            books.file = Some(BufWriter::with_capacity(1 << 20, file));
        }
        let books = Arc::new(Mutex::new(books));
        if matches!(mode, LogMode::File(_)) {
            let flushed = Arc::downgrade(&books);
            std::thread::spawn(move || flush_while_used(&flushed));
        }
        Ok(Self { mode, books })
    }

    pub(super) fn note(&self, request: LoggedRequest) {
        let line = matches!(self.mode, LogMode::File(_)).then(|| request.to_json().to_string());
        let id = (self.mode != LogMode::None).then(|| request.id()).flatten();
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        books.summary.requests += 1;
        books.summary.body_bytes += request.body_bytes;
        books.count(id);
        if let (Some(line), Some(file)) = (line, &mut books.file) {
            drop(writeln!(file, "{line}"));
        } else if self.mode == LogMode::Full {
            books.requests.push(request);
        }
    }

    pub(super) fn broken(&self, connection: u64, fault: &anyhow::Error) {
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        books.summary.broken += 1;
        if books.faults.len() < MAX_NAMED_MISSING {
            books.faults.push(format!("connection {connection}: {fault:#}"));
        }
    }

    /// What was counted so far.
    #[must_use]
    pub fn summary(&self) -> Summary {
        self.books.lock().unwrap_or_else(PoisonError::into_inner).summary.clone()
    }

    /// The numbers below `expected` that have not come.
    #[must_use]
    pub fn missing(&self, expected: u64) -> Vec<u64> {
        let books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        (0..expected).filter(|id| !books.has(*id)).collect()
    }

    /// What broke connections: the first few.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner).faults.clone()
    }

    /// Every request so far ([`LogMode::Full`] only).
    #[must_use]
    pub fn requests(&self) -> Vec<LoggedRequest> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner).requests.clone()
    }

    /// Forgets everything noted in memory.
    pub fn clear(&self) {
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        let file = books.file.take();
        *books = Books { file, ..Books::default() };
    }

    /// The summary as `/_summary` shows it; with `expected`, also how many numbers below it are missing.
    #[must_use]
    pub fn summary_json(&self, expected: Option<u64>) -> Value {
        let summary = self.summary();
        let mut shown = json!({
            "requests": summary.requests,
            "distinct": summary.distinct,
            "duplicates": summary.duplicates,
            "without_id": summary.without_id,
            "broken": summary.broken,
            "body_bytes": summary.body_bytes,
            "faults": self.faults(),
        });
        if let Some(expected) = expected {
            let missing = self.missing(expected);
            shown["missing"] = Value::from(missing.len());
            shown["missing_first"] = Value::from(missing[..missing.len().min(MAX_NAMED_MISSING)].to_vec());
        }
        shown
    }
}

impl Books {
    fn count(&mut self, id: Option<u64>) {
        let Some(id) = id.filter(|id| *id < MAX_COUNTED_ID) else {
            self.summary.without_id += 1;
            return;
        };
        let (word, bit) = ((id / 64) as usize, 1_u64 << (id % 64));
        if self.seen.len() <= word {
            self.seen.resize(word + 1, 0);
        }
        if self.seen[word] & bit == 0 {
            self.summary.distinct += 1;
        } else {
            self.summary.duplicates += 1;
        }
        self.seen[word] |= bit;
    }

    fn has(&self, id: u64) -> bool {
        self.seen.get((id / 64) as usize).is_some_and(|word| word & (1 << (id % 64)) != 0)
    }
}

/// Requests in `left` that have no equal of their own in `right`, by a key made from each: a key that comes
/// three times on the left and twice on the right is given once.
#[must_use]
pub fn only_left<K: Ord>(
    left: &[LoggedRequest],
    right: &[LoggedRequest],
    key: impl Fn(&LoggedRequest) -> K,
) -> Vec<LoggedRequest> {
    let mut there: BTreeMap<K, usize> = BTreeMap::new();
    for request in right {
        *there.entry(key(request)).or_default() += 1;
    }
    let mut over = left.to_vec();
    over.retain(|request| match there.get_mut(&key(request)) {
        Some(count) if *count > 0 => {
            *count -= 1;
            false
        }
        _ => true,
    });
    over
}

fn flush_while_used(books: &Weak<Mutex<Books>>) {
    while let Some(books) = books.upgrade() {
        if let Some(file) = &mut books.lock().unwrap_or_else(PoisonError::into_inner).file {
            drop(file.flush());
        }
        drop(books);
        std::thread::sleep(FLUSH_EVERY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(target: &str) -> LoggedRequest {
        let head = format!("GET {target} HTTP/1.1\r\nHost: \u{fc}.example\r\nX-A: 1\r\nx-a: 2\r\n\r\n");
        let head = wire::from_latin1(&head).unwrap();
        LoggedRequest::new((1, 1), head, &BodyDigest::default(), b"X-T: 1\r\n".to_vec())
    }

    #[test]
    fn missing_and_duplicate_numbers_are_found() {
        let log = Log::new(LogMode::Count).unwrap();
        for target in ["/?id=0", "/?a=b&id=2", "/?id=2", "/?id=64", "/"] {
            log.note(request(target));
        }
        let summary = log.summary();
        assert_eq!(
            (summary.requests, summary.distinct, summary.duplicates, summary.without_id),
            (5, 3, 1, 1)
        );
        assert_eq!(log.missing(5), [1, 3, 4]);
        assert_eq!(log.summary_json(Some(5))["missing"], 3);
    }

    #[test]
    fn only_left_counts_how_often_a_request_came() {
        let (thrice, twice) = (vec![request("/a"); 3], [request("/a"), request("/b"), request("/a")]);
        let target = |r: &LoggedRequest| r.target().to_owned();
        assert_eq!(only_left(&thrice, &twice, target).len(), 1);
        assert_eq!(only_left(&twice, &thrice, target), [request("/b")]);
    }

    #[test]
    fn json_line_keeps_every_byte_of_the_head() {
        let noted = request("/x?id=7");
        assert_eq!(noted.host().as_deref(), Some("\u{fc}.example"));
        assert_eq!(noted.fields()[1..], [("X-A".into(), "1".into()), ("x-a".into(), "2".into())]);
        assert_eq!(LoggedRequest::from_json(&noted.to_json().to_string()).unwrap(), noted);
    }

    #[test]
    fn file_log_reaches_the_file_without_being_asked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let log = Log::new(LogMode::File(path.clone())).unwrap();
        log.note(request("/?id=1"));
        let written = || std::fs::read_to_string(&path).is_ok_and(|text| text.ends_with('\n'));
        crate::wait::until_true("the line is written", Duration::from_secs(30), written).unwrap();
    }
}
