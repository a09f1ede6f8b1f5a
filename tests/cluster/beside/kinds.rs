//! The requests that both mirrors are given: every kind, numbered by `id` in the query.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, HeaderValue, Request};
use mirror_tests::client::{Connection, Step};
use mirror_tests::netns::Netns;

/// Streams that are open at once.
const STREAMS: u64 = 20;

/// How a kind is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speech {
    /// HTTP/1.1, one connection for all.
    Http1,
    /// The same, the body only when the gateway has asked for it.
    Expecting,
    /// HTTP/1.0, a connection for each.
    Http10,
    /// HTTP/2 by prior knowledge.
    Http2,
    /// The same, each a call of gRPC's form.
    Grpc,
}

/// A kind of request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    /// Its name: also how its path begins.
    pub(super) name: &'static str,
    speech: Speech,
    /// Request line (with `ID` for the number) and fields; the Host line is put behind the first.
    lines: &'static [&'static str],
    /// Body as it is sent; with `ID`.
    body: &'static str,
}

/// All of them.
pub(super) const KINDS: [Kind; 15] = [
    Kind::new("get", Speech::Http1, &["GET /get?id=ID", "Accept: */*", "User-Agent: beside/1"], ""),
    Kind::new("head", Speech::Http1, &["HEAD /head?id=ID", "Accept: */*"], ""),
    Kind::new(
        "length",
        Speech::Http1,
        &["POST /length?id=ID", "Content-Type: text/plain", "Content-Length: 26"],
        "twenty-six bytes of a body",
    ),
    Kind::new(
        "chunked",
        Speech::Http1,
        &["POST /chunked?id=ID", "Content-Type: text/plain", "Transfer-Encoding: chunked", "Trailer: X-Sum"],
        "5\r\nfirst\r\n6;ext=1\r\nsecond\r\n0\r\nX-Sum: ID\r\n\r\n",
    ),
    Kind::new("large", Speech::Http1, &["GET /large?id=ID", LARGE, "X-After: 1"], ""),
    Kind::new(
        "cookies",
        Speech::Http1,
        &["GET /cookies?id=ID", "Cookie: a=1; b=\"two words\"; c=%20", "Cookie: d=4"],
        "",
    ),
    Kind::new(
        "query",
        Speech::Http1,
        &["GET /query?id=ID&a=1&a=2&b=%20%2F%zz&c=+&d=&e&f=x;y&g=[1]&h=%c3%bc&q='\"?/%3F&&", "Accept: */*"],
        "",
    ),
    Kind::new("path", Speech::Http1, &["GET /path//a/./b/../c;v=1/%7Euser/%41?id=ID", "Accept: */*"], ""),
    Kind::new("slashes", Speech::Http1, &["GET /slashes/a%2Fb?id=ID", "Accept: */*"], ""),
    Kind::new("methods", Speech::Http1, &["METHOD /methods?id=ID", "Content-Length: 0"], ""),
    Kind::new(
        "fields",
        Speech::Http1,
        &[
            "GET /fields?id=ID",
            "X-Mixed-Case: One",
            "x-twice: 1",
            "X-Twice: 2",
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
        ],
        "",
    ),
    Kind::new("http10", Speech::Http10, &["GET /http10?id=ID", "Accept: */*"], ""),
    Kind::new(
        "expect",
        Speech::Expecting,
        &["PUT /expect?id=ID", "Content-Length: 4", "Expect: 100-continue"],
        "body",
    ),
    Kind::new("http2", Speech::Http2, &["POST /http2?id=ID", "accept: */*", "cookie: a=1"], "a body of HTTP/2"),
    Kind::new(
        "grpc",
        Speech::Grpc,
        &["POST /grpc/Call?id=ID", "content-type: application/grpc", "te: trailers", "grpc-timeout: 30S"],
        "\0\0\0\0\u{5}hello",
    ),
];

/// 8 KB of one field.
const LARGE: &str = "X-Large: LARGE";
const LARGE_BYTES: usize = 8192;

/// The methods that take turns.
const METHODS: [&str; 5] = ["PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND"];

impl Kind {
    const fn new(
        name: &'static str,
        speech: Speech,
        lines: &'static [&'static str],
        body: &'static str,
    ) -> Self {
        Self { name, speech, lines, body }
    }

    /// Sends requests number 0 to `count` for `host`.
    ///
    /// # Errors
    /// When the gateway does not answer.
    pub(super) fn send(&self, netns: &Netns, to: SocketAddr, host: &str, count: u64) -> Result<()> {
        let sent = match self.speech {
            Speech::Http1 | Speech::Expecting | Speech::Http10 => self.send_http1(netns, to, host, count),
            Speech::Http2 | Speech::Grpc => self.send_http2(netns, to, host, count),
        };
        sent.with_context(|| format!("requests of the kind {} for {host}", self.name))
    }

    fn send_http1(&self, netns: &Netns, to: SocketAddr, host: &str, count: u64) -> Result<()> {
        let mut connection = Connection::open(netns, to)?;
        for id in 0..count {
            let (head, body) = (self.head(host, id), self.body(id));
            if self.speech == Speech::Http10 && id > 0 {
                connection = Connection::open(netns, to)?;
            }
            if self.speech == Speech::Expecting {
                let steps = [Step::Send(head), Step::ReadInterim, Step::Send(body), Step::Read(1)];
                connection.play(&steps)?;
            } else {
                connection.exchange(&[head, body].concat())?;
            }
        }
        Ok(())
    }

    fn head(&self, host: &str, id: u64) -> Vec<u8> {
        let version = if self.speech == Speech::Http10 { "HTTP/1.0" } else { "HTTP/1.1" };
        let mut head = String::new();
        for (at, line) in self.lines.iter().enumerate() {
            head.push_str(&self.filled(line, id));
            head.push_str(&if at == 0 { format!(" {version}\r\nHost: {host}\r\n") } else { "\r\n".to_owned() });
        }
        head.push_str("\r\n");
        head.into_bytes()
    }

    fn body(&self, id: u64) -> Vec<u8> {
        self.filled(self.body, id).into_bytes()
    }

    fn filled(&self, text: &str, id: u64) -> String {
        let method = METHODS[(id % METHODS.len() as u64) as usize];
        let large = "0123456789abcdef".repeat(LARGE_BYTES / 16);
        text.replace("METHOD", method).replace(" LARGE", &format!(" {large}")).replace("ID", &id.to_string())
    }

    fn send_http2(&self, netns: &Netns, to: SocketAddr, host: &str, count: u64) -> Result<()> {
        let stream = netns.run(|| std::net::TcpStream::connect(to))??;
        stream.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let stream = tokio::net::TcpStream::from_std(stream)?;
            let (client, connection) = h2::client::handshake(stream).await?;
            let driving = tokio::spawn(connection);
            let mut client = client;
            let mut id = 0;
            while id < count {
                let mut answers = Vec::new();
                for _ in 0..STREAMS.min(count - id) {
                    client = client.ready().await?;
                    answers.push(self.send_stream(&mut client, host, id)?);
                    id += 1;
                }
                for answer in answers {
                    let mut body = answer.await?.into_body();
                    while let Some(bytes) = body.data().await {
                        let bytes = bytes?;
                        body.flow_control().release_capacity(bytes.len())?;
                    }
                }
            }
            driving.abort();
            Ok(())
        })
    }

    fn send_stream(
        &self,
        client: &mut SendRequest<Bytes>,
        host: &str,
        id: u64,
    ) -> Result<h2::client::ResponseFuture> {
        let (line, fields) = self.lines.split_first().context("no request line")?;
        let line = self.filled(line, id);
        let (method, target) = line.split_once(' ').context("no target")?;
        let mut request = Request::builder().method(method).uri(format!("http://{host}{target}"));
        for field in fields {
            let (name, value) = field.split_once(": ").context("no value")?;
            request = request.header(name, value);
        }
        let (answer, mut sending) = client.send_request(request.body(())?, false)?;
        let is_call = self.speech == Speech::Grpc;
        sending.send_data(self.body(id).into(), !is_call)?;
        if is_call {
            let mut trailers = HeaderMap::new();
            trailers.insert("x-sum", HeaderValue::from(id));
            sending.send_trailers(trailers)?;
        }
        Ok(answer)
    }
}

#[test]
fn kinds_are_numbered_and_their_names_begin_their_paths() -> Result<()> {
    for kind in KINDS {
        let head = String::from_utf8(kind.head("h", 7))?;
        ensure!(head.contains("id=7") && head.contains(&format!(" /{}", kind.name)), "{head}");
        ensure!(head.contains(" HTTP/1.") && head.ends_with("\r\n\r\n") && head.contains("\r\nHost: h\r\n"), "{head}");
    }
    Ok(())
}
