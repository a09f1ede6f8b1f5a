//! The requests that both mirrors are given: every kind, numbered by `id` in the query.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use h2::SendStream;
use h2::client::ResponseFuture;
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use mirror_tests::client::{Answer, Connection, Step};
use mirror_tests::netns::Netns;
use mirror_tests::server::answer::pattern;
use mirror_tests::wait;
use tokio::task::JoinSet;

/// Streams that are open at once.
const STREAMS: usize = 20;

/// How long copies of large bodies are waited for before more are sent.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(60);

/// How a kind is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speech {
    /// HTTP/1.1, one connection for all while the gateway keeps it.
    Http1,
    /// The same, the body only when the gateway has asked for it.
    Expecting,
    /// HTTP/1.0.
    Http10,
    /// HTTP/2 by prior knowledge.
    Http2,
    /// The same, each a call of gRPC's form.
    Grpc,
}

/// What a request's body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    /// As it is, with `ID` for the number; its framing is among the lines and in it.
    Text(&'static str),
    /// So many bytes with Content-Length.
    Length(usize),
    /// So many bytes, chunked.
    Chunked(usize),
}

/// A kind of request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    /// Its name: also how its path begins.
    pub(super) name: &'static str,
    speech: Speech,
    /// Request line (with `ID` for the number) and fields; the Host line is put behind the first.
    lines: &'static [&'static str],
    body: Body,
}

/// What is sent of a kind, and where to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Errand<'a> {
    pub(super) netns: &'a Netns,
    pub(super) gateway: SocketAddr,
    pub(super) host: &'a str,
    /// Requests number 0 to this.
    pub(super) count: u64,
}

const NONE: Body = Body::Text("");
const KIB: usize = 1024;

/// All of them.
pub(super) const KINDS: [Kind; 29] = [
    Kind::new("get", Speech::Http1, &["GET /get?id=ID", "Accept: */*", "User-Agent: beside/1"], NONE),
    Kind::new("head", Speech::Http1, &["HEAD /head?id=ID", "Accept: */*"], NONE),
    Kind::new("put", Speech::Http1, &["PUT /put?id=ID", "Content-Length: 5"], Body::Text("a put")),
    Kind::new("delete", Speech::Http1, &["DELETE /delete?id=ID", "If-Match: \"ID\""], NONE),
    Kind::new("options", Speech::Http1, &["OPTIONS /options?id=ID", "Origin: http://a.example"], NONE),
    Kind::new("odd-methods", Speech::Http1, &["METHOD /odd-methods?id=ID", "Content-Length: 0"], NONE),
    Kind::new("own-method", Speech::Http1, &["BREW /own-method?id=ID", "Content-Length: 0"], NONE),
    Kind::new("length-0", Speech::Http1, &["POST /length-0?id=ID"], Body::Length(0)),
    Kind::new("length-1k", Speech::Http1, &["POST /length-1k?id=ID"], Body::Length(KIB)),
    Kind::new("length-64k", Speech::Http1, &["POST /length-64k?id=ID"], Body::Length(64 * KIB)),
    Kind::new("length-1m", Speech::Http1, &["POST /length-1m?id=ID"], Body::Length(LARGE_BODY_BYTES)),
    Kind::new("chunked-0", Speech::Http1, &["POST /chunked-0?id=ID"], Body::Chunked(0)),
    Kind::new("chunked-1k", Speech::Http1, &["POST /chunked-1k?id=ID"], Body::Chunked(KIB)),
    Kind::new("chunked-64k", Speech::Http1, &["POST /chunked-64k?id=ID"], Body::Chunked(64 * KIB)),
    Kind::new("chunked-1m", Speech::Http1, &["POST /chunked-1m?id=ID"], Body::Chunked(LARGE_BODY_BYTES)),
    Kind::new(
        "trailers",
        Speech::Http1,
        &["POST /trailers?id=ID", "Content-Type: text/plain", "Transfer-Encoding: chunked", "Trailer: X-Sum"],
        Body::Text("5\r\nfirst\r\n6;ext=1\r\nsecond\r\n0\r\nX-Sum: ID\r\n\r\n"),
    ),
    Kind::new("large-field", Speech::Http1, &["GET /large-field?id=ID", LARGE, "X-After: 1"], NONE),
    Kind::new(
        "cookies",
        Speech::Http1,
        &["GET /cookies?id=ID", "Cookie: a=1; b=\"two words\"; c=%20", "Cookie: d=4"],
        NONE,
    ),
    Kind::new(
        "query",
        Speech::Http1,
        &["GET /query?id=ID&a=1&a=2&b=%20%2F%zz&c=+&d=&e&f=x;y&g=[1]&h=%c3%bc&q='\"?/%3F&&", "Accept: */*"],
        NONE,
    ),
    Kind::new(
        "path",
        Speech::Http1,
        &["GET /path//a/./b/../c;v=1/%7Euser/%41%20?id=ID", "Accept: */*"],
        NONE,
    ),
    Kind::new("slashes", Speech::Http1, &["GET /slashes/a%2Fb?id=ID", "Accept: */*"], NONE),
    Kind::new(
        "repeated",
        Speech::Http1,
        &["GET /repeated?id=ID", "x-twice: 1", "X-One: 1", "X-Twice: 2"],
        NONE,
    ),
    Kind::new("fields", Speech::Http1, FIELDS, NONE),
    Kind::new("http10", Speech::Http10, &["GET /http10?id=ID", "Accept: */*"], NONE),
    Kind::new(
        "expect",
        Speech::Expecting,
        &["PUT /expect?id=ID", "Content-Length: 4", "Expect: 100-continue"],
        Body::Text("body"),
    ),
    Kind::new(
        "http2",
        Speech::Http2,
        &["GET /http2?id=ID", "accept: */*", "cookie: a=1", "cookie: b=2"],
        NONE,
    ),
    Kind::new("http2-post", Speech::Http2, &["POST /http2-post?id=ID"], Body::Text("a body of HTTP/2")),
    Kind::new("http2-64k", Speech::Http2, &["PUT /http2-64k?id=ID"], Body::Length(64 * KIB)),
    Kind::new(
        "grpc",
        Speech::Grpc,
        &["POST /grpc/Call?id=ID", "content-type: application/grpc", "te: trailers", "grpc-timeout: 30S"],
        Body::Text("\0\0\0\0\u{5}hello"),
    ),
];

/// For the rule with one half.
pub(super) const HALF: Kind = Kind::new("half", Speech::Http1, &["GET /half?id=ID"], NONE);

/// Fields of many sorts: hop by hop, of proxies, of traces, with odd case and spaces.
const FIELDS: &[&str] = &[
    "GET /fields?id=ID",
    "X-Mixed-Case: One",
    "X-Empty:",
    "X-Padded:   a  b  ",
    "X-Request-Id: 6d0f6c9e-0000-4000-8000-000000000001",
    "X-Forwarded-For: 10.77.9.9",
    "X-Forwarded-Proto: https",
    "Forwarded: for=10.77.9.9",
    "Via: 1.0 before",
    "Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "Connection: keep-alive, X-Hop",
    "X-Hop: 1",
    "Keep-Alive: timeout=5",
    "TE: trailers",
];

/// A large body, and how many bytes of a chunked one are in a chunk.
const LARGE_BODY_BYTES: usize = 1024 * KIB;
const CHUNK_BYTES: usize = 8000;

/// Bodies that may be ahead of their copies, in bytes: what the daemon holds is bounded.
const AHEAD_BYTES: usize = 4 * LARGE_BODY_BYTES;

/// From this length on bodies wait for their copies.
const PACED_BYTES: usize = 64 * KIB;

/// 8 KB of one field.
const LARGE: &str = "X-Large: LARGE";
const LARGE_BYTES: usize = 8192;

/// The methods that take turns.
const METHODS: [&str; 5] = ["PATCH", "PROPFIND", "REPORT", "PURGE", "MKCOL"];

/// Statuses that production answered, with how often.
pub(super) type Statuses = BTreeMap<u16, u64>;

impl Kind {
    const fn new(name: &'static str, speech: Speech, lines: &'static [&'static str], body: Body) -> Self {
        Self { name, speech, lines, body }
    }

    /// Sends them. `copied` tells how many copies have come: large bodies wait until they have caught up.
    ///
    /// # Errors
    /// When the gateway does not answer, or copies of large bodies do not come.
    pub(super) fn send(&self, errand: Errand<'_>, copied: &dyn Fn() -> u64) -> Result<Statuses> {
        let sent = match self.speech {
            Speech::Http1 | Speech::Expecting | Speech::Http10 => self.send_http1(errand, copied),
            Speech::Http2 | Speech::Grpc => self.send_http2(errand, copied),
        };
        sent.with_context(|| format!("requests of the kind {} for {}", self.name, errand.host))
    }

    /// Waits until more may be sent, after so many.
    fn keep_pace(&self, sent: u64, copied: &dyn Fn() -> u64) -> Result<()> {
        let bytes = match self.body {
            Body::Length(bytes) | Body::Chunked(bytes) if bytes >= PACED_BYTES => bytes,
            _ => return Ok(()),
        };
        let ahead = (AHEAD_BYTES / bytes) as u64;
        let is_near = || copied() + ahead >= sent;
        wait::until_true("copies catch up", CATCH_UP_LIMIT, is_near)
            .with_context(|| format!("{} copies of {sent} requests", copied()))
    }

    fn send_http1(&self, errand: Errand<'_>, copied: &dyn Fn() -> u64) -> Result<Statuses> {
        let mut statuses = Statuses::new();
        let mut open = None;
        for id in 0..errand.count {
            let mut connection = match open.take() {
                Some(connection) => connection,
                None => Connection::open(errand.netns, errand.gateway)?,
            };
            let answer = self.exchange(&mut connection, self.head(errand.host, id), self.body(id))?;
            *statuses.entry(answer.status).or_default() += 1;
            let closes = answer.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
            open = (!closes).then_some(connection);
            self.keep_pace(id + 1, copied)?;
        }
        Ok(statuses)
    }

    fn exchange(&self, connection: &mut Connection, head: Vec<u8>, body: Vec<u8>) -> Result<Answer> {
        if self.speech == Speech::Expecting {
            let steps = [Step::Send(head), Step::ReadInterim, Step::Send(body), Step::Read(1)];
            return connection.play(&steps)?.pop().context("no answer");
        }
        connection.exchange(&[head, body].concat())
    }

    fn head(&self, host: &str, id: u64) -> Vec<u8> {
        let version = if self.speech == Speech::Http10 { "HTTP/1.0" } else { "HTTP/1.1" };
        let mut head = String::new();
        for (at, line) in self.lines.iter().enumerate() {
            head.push_str(&filled(line, id));
            head.push_str(&if at == 0 {
                format!(" {version}\r\nHost: {host}\r\n")
            } else {
                "\r\n".to_owned()
            });
        }
        match self.body {
            Body::Text(_) => {}
            Body::Length(bytes) => head.push_str(&format!("Content-Length: {bytes}\r\n")),
            Body::Chunked(_) => head.push_str("Transfer-Encoding: chunked\r\n"),
        }
        head.push_str("\r\n");
        head.into_bytes()
    }

    fn body(&self, id: u64) -> Vec<u8> {
        let bytes = match self.body {
            Body::Text(text) => return filled(text, id).into_bytes(),
            Body::Length(bytes) | Body::Chunked(bytes) => bytes,
        };
        // No two requests have the same.
        let mut content = pattern(bytes);
        content.iter_mut().zip(id.to_string().bytes()).for_each(|(place, digit)| *place = digit);
        match self.body {
            Body::Chunked(_) => chunks(&content),
            _ => content,
        }
    }

    fn send_http2(&self, errand: Errand<'_>, copied: &dyn Fn() -> u64) -> Result<Statuses> {
        let stream = errand.netns.run(|| std::net::TcpStream::connect(errand.gateway))??;
        stream.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let stream = tokio::net::TcpStream::from_std(stream)?;
            let (mut client, connection) = h2::client::handshake(stream).await?;
            let driving = tokio::spawn(connection);
            let mut statuses = Statuses::new();
            for first in (0..errand.count).step_by(STREAMS) {
                let mut answers = JoinSet::new();
                for id in first..errand.count.min(first + STREAMS as u64) {
                    client = client.ready().await?;
                    let (body, trailers) = (self.body(id), self.trailers(id));
                    let is_all = body.is_empty() && trailers.is_none();
                    let (answer, sending) = client.send_request(self.request(errand.host, id)?, is_all)?;
                    let sending = (!is_all).then_some(sending);
                    answers.spawn(exchange(answer, sending, body.into(), trailers));
                }
                while let Some(status) = answers.join_next().await {
                    *statuses.entry(status??).or_default() += 1;
                }
                self.keep_pace(statuses.values().sum(), copied)?;
            }
            driving.abort();
            Ok(statuses)
        })
    }

    fn request(&self, host: &str, id: u64) -> Result<Request<()>> {
        let (line, fields) = self.lines.split_first().context("no request line")?;
        let line = filled(line, id);
        let (method, target) = line.split_once(' ').context("no target")?;
        let mut request = Request::builder().method(method).uri(format!("http://{host}{target}"));
        for field in fields {
            let (name, value) = field.split_once(": ").context("no value")?;
            request = request.header(name, value);
        }
        Ok(request.body(())?)
    }

    fn trailers(&self, id: u64) -> Option<HeaderMap> {
        let trailers = HeaderMap::from_iter([(HeaderName::from_static("x-sum"), HeaderValue::from(id))]);
        (self.speech == Speech::Grpc).then_some(trailers)
    }
}

/// Sends a stream's body as its window allows, and reads the answer to its end.
async fn exchange(
    answer: ResponseFuture,
    sending: Option<SendStream<Bytes>>,
    body: Bytes,
    trailers: Option<HeaderMap>,
) -> Result<u16> {
    if let Some(sending) = sending {
        send(sending, body, trailers).await?;
    }
    let answer = answer.await?;
    let (status, mut body) = (answer.status().as_u16(), answer.into_body());
    while let Some(bytes) = body.data().await {
        let bytes = bytes?;
        body.flow_control().release_capacity(bytes.len())?;
    }
    Ok(status)
}

async fn send(mut sending: SendStream<Bytes>, mut body: Bytes, trailers: Option<HeaderMap>) -> Result<()> {
    while !body.is_empty() {
        sending.reserve_capacity(body.len());
        let room = poll_fn(|cx| sending.poll_capacity(cx)).await.context("the stream was reset")??;
        sending.send_data(body.split_to(room.min(body.len())), false)?;
    }
    match trailers {
        Some(trailers) => sending.send_trailers(trailers)?,
        None => sending.send_data(Bytes::new(), true)?,
    }
    Ok(())
}

fn filled(text: &str, id: u64) -> String {
    let method = METHODS[(id % METHODS.len() as u64) as usize];
    let large = "0123456789abcdef".repeat(LARGE_BYTES / 16);
    text.replace("METHOD", method).replace(" LARGE", &format!(" {large}")).replace("ID", &id.to_string())
}

fn chunks(content: &[u8]) -> Vec<u8> {
    let mut framed = Vec::with_capacity(content.len() + content.len() / 100 + 16);
    for chunk in content.chunks(CHUNK_BYTES) {
        framed.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        framed.extend_from_slice(chunk);
        framed.extend_from_slice(b"\r\n");
    }
    framed.extend_from_slice(b"0\r\n\r\n");
    framed
}

#[test]
fn kinds_are_numbered_and_their_names_begin_their_paths() -> Result<()> {
    for kind in KINDS {
        let head = String::from_utf8(kind.head("h", 7))?;
        ensure!(head.contains("id=7") && head.contains(&format!(" /{}", kind.name)), "{head}");
        ensure!(
            head.contains(" HTTP/1.") && head.ends_with("\r\n\r\n") && head.contains("\r\nHost: h\r\n"),
            "{head}"
        );
    }
    Ok(())
}
