//! What the app answers: a function of the request alone, so that two runs can be compared byte for byte.
//!
//! | path | answer |
//! |---|---|
//! | `/bytes/N` | N bytes of a fixed pattern |
//! | `/chunked/N` | the same, chunked, with a trailer |
//! | `/until-close/N` | the same, without a length; then the connection closes |
//! | `/status/N` | that status, empty |
//! | `/delay/MS` | `{}` after so many milliseconds |
//! | `/echo-hash` | length and hash of the request's body |
//! | `/close` | `{}`, with `Connection: close` |
//! | `/never` | nothing, ever |
//! | `/echo` | over HTTP/2, what comes as it comes, trailers too; over HTTP/1.1 as any other |
//! | any other | the request's method, target and headers, as httpbin's `/anything` |

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::log::LoggedRequest;

/// How the app treats every request, before its path is looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Behaviour {
    /// By its path.
    #[default]
    Normal,
    /// Reads requests and never answers.
    Silent,
    /// Answers late by this much.
    Slow(Duration),
    /// Closes when it has read a head, without an answer.
    CloseAfterHead,
    /// Answers everything with this status and no body.
    Status(u16),
}

/// What happens to the connection after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    KeepAlive,
    Close,
    Never,
}

/// Bytes of one chunk of `/chunked`.
const CHUNK_BYTES: usize = 1000;

/// The body of `/bytes/N`: a pattern that shows shifted, missing and doubled bytes.
#[must_use]
pub fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| b'!' + ((at + at / 89) % 89) as u8).collect()
}

/// How long the answer to `target` waits.
pub(super) fn delay(target: &str, behaviour: Behaviour) -> Duration {
    let path = target.split('?').next().unwrap_or_default();
    let by_path = path.strip_prefix("/delay/").and_then(|delay_ms| delay_ms.parse().ok());
    match behaviour {
        Behaviour::Slow(delay) => delay,
        _ => Duration::from_millis(by_path.unwrap_or(0)),
    }
}

/// Writes the answer to `request` behind those in `answers`, at once: see [`delay`].
pub(super) fn answer(request: &LoggedRequest, behaviour: Behaviour, answers: &mut Vec<u8>) -> Next {
    match behaviour {
        Behaviour::Silent => return Next::Never,
        Behaviour::Status(status) => {
            write_head(answers, status, &length_line(status, 0), "");
            return next(request);
        }
        Behaviour::Normal | Behaviour::Slow(_) | Behaviour::CloseAfterHead => {}
    }
    let path = request.target().split('?').next().unwrap_or_default();
    let mut parts = path.trim_start_matches('/').splitn(2, '/');
    let (word, number) = (parts.next().unwrap_or_default(), parts.next().and_then(|n| n.parse().ok()));
    let begun = answers.len();
    let after = by_path(request, (word, number), answers);
    if request.method() == "HEAD" {
        cut_body(answers, begun);
    }
    after
}

fn by_path(request: &LoggedRequest, path: (&str, Option<usize>), answers: &mut Vec<u8>) -> Next {
    match path {
        ("bytes", Some(bytes)) => {
            write_head(answers, 200, &length_line(200, bytes), "application/octet-stream");
            answers.extend_from_slice(&pattern(bytes));
        }
        ("chunked", Some(bytes)) => write_chunked(answers, bytes),
        ("until-close", Some(bytes)) => {
            write_head(answers, 200, "Connection: close\r\n", "application/octet-stream");
            answers.extend_from_slice(&pattern(bytes));
            return Next::Close;
        }
        ("status", Some(status)) => {
            let status = u16::try_from(status).unwrap_or(500);
            write_head(answers, status, &length_line(status, 0), "");
        }
        ("delay", Some(_)) => write(answers, 200, "{}", "application/json"),
        ("echo-hash", None) => {
            let body = json!({ "bytes": request.body_bytes, "hash": request.body_hash }).to_string();
            write(answers, 200, &body, "application/json");
        }
        ("close", None) => {
            write_head(answers, 200, "Content-Length: 2\r\nConnection: close\r\n", "application/json");
            answers.extend_from_slice(b"{}");
            return Next::Close;
        }
        ("never", None) => return Next::Never,
        _ => write(answers, 200, &describe(request), "application/json"),
    }
    next(request)
}

/// Writes an answer with a text body.
pub(super) fn write(answers: &mut Vec<u8>, status: u16, body: &str, kind: &str) {
    write_head(answers, status, &length_line(status, body.len()), kind);
    answers.extend_from_slice(body.as_bytes());
}

/// The number that a query parameter of `target` holds.
pub fn query_number(target: &str, name: &str) -> Option<u64> {
    let query = target.split_once('?')?.1;
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
}

fn write_head(answers: &mut Vec<u8>, status: u16, framing: &str, kind: &str) {
    answers.extend_from_slice(format!("HTTP/1.1 {status} {}\r\n", reason(status)).as_bytes());
    if !kind.is_empty() {
        answers.extend_from_slice(format!("Content-Type: {kind}\r\n").as_bytes());
    }
    answers.extend_from_slice(framing.as_bytes());
    answers.extend_from_slice(b"\r\n");
}

fn write_chunked(answers: &mut Vec<u8>, bytes: usize) {
    let framing = "Transfer-Encoding: chunked\r\nTrailer: X-Body-Bytes\r\n";
    write_head(answers, 200, framing, "application/octet-stream");
    for chunk in pattern(bytes).chunks(CHUNK_BYTES) {
        answers.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        answers.extend_from_slice(chunk);
        answers.extend_from_slice(b"\r\n");
    }
    answers.extend_from_slice(format!("0\r\nX-Body-Bytes: {bytes}\r\n\r\n").as_bytes());
}

/// 1xx and 204 have no Content-Length (RFC 9110, 8.6).
fn length_line(status: u16, bytes: usize) -> String {
    if status == 204 || status < 200 { String::new() } else { format!("Content-Length: {bytes}\r\n") }
}

/// An answer to HEAD is the same without its body (RFC 9110, 9.3.2).
fn cut_body(answers: &mut Vec<u8>, begun: usize) {
    let end = answers[begun..].windows(4).position(|window| window == b"\r\n\r\n");
    if let Some(end) = end {
        answers.truncate(begun + end + 4);
    }
}

fn next(request: &LoggedRequest) -> Next {
    let closes = request.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    if closes || request.version() != "HTTP/1.1" { Next::Close } else { Next::KeepAlive }
}

fn describe(request: &LoggedRequest) -> String {
    let mut headers = Map::new();
    for (name, value) in request.fields() {
        headers.insert(name, Value::from(value));
    }
    let described = json!({ "method": request.method(), "target": request.target(), "headers": headers });
    format!("{described:#}\n")
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        304 => "Not Modified",
        404 => "Not Found",
        503 => "Service Unavailable",
        _ => "Status",
    }
}
