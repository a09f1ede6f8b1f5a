//! Requests as clients really write them, each with a number of its own in its query.

use mirror_tests::client::{Answer, Connection};
use mirror_tests::netns::Netns;
use mirror_tests::server::answer::pattern;
use mirror_tests::wire::{self, body_hash};
use std::net::SocketAddr;

/// One request: its parts, and its bytes on the wire.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) id: u64,
    pub(super) head: Vec<u8>,
    pub(super) body_bytes: u64,
    pub(super) body_hash: String,
    pub(super) trailers: Vec<u8>,
    pub(super) wire: Vec<u8>,
}

/// How a chunked body is cut and written.
pub(super) struct Chunking<'a> {
    pub(super) sizes: &'a [usize],
    /// Behind each size.
    pub(super) extension: &'a str,
    /// Each ended by CRLF.
    pub(super) trailers: &'a str,
}

impl Sent {
    /// `head` without its empty line; `{id}` in it becomes the number, `{length}` the length of `body`.
    pub(super) fn new(id: u64, head: &str, body: &[u8]) -> Self {
        let head = head.replace("{id}", &id.to_string()).replace("{length}", &body.len().to_string());
        let head = wire::from_latin1(&(head + "\r\n")).unwrap();
        let wire = [&head, body].concat();
        Self {
            id,
            head,
            body_bytes: body.len() as u64,
            body_hash: body_hash(body),
            trailers: Vec::new(),
            wire,
        }
    }

    /// As [`Self::new`], with its body in chunks; sizes repeat until it ends.
    pub(super) fn chunked(id: u64, head: &str, body: &[u8], how: &Chunking<'_>) -> Self {
        let mut sent = Self::new(id, head, body);
        sent.wire.truncate(sent.head.len());
        let mut rest = body;
        let mut sizes = how.sizes.iter().cycle();
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
            // Sizes in upper case and with a zero in front are as good as others (RFC 9112, 7.1).
            sent.wire.extend_from_slice(format!("0{:X}{}\r\n", chunk.len(), how.extension).as_bytes());
            sent.wire.extend_from_slice(chunk);
            sent.wire.extend_from_slice(b"\r\n");
            rest = after;
        }
        sent.wire.extend_from_slice(format!("0{}\r\n{}\r\n", how.extension, how.trailers).as_bytes());
        sent.trailers = how.trailers.into();
        sent
    }

    /// A GET with nothing special.
    pub(super) fn get(id: u64) -> Self {
        Self::new(id, "GET /plain?id={id} HTTP/1.1\r\nHost: shadowing.example\r\n", b"")
    }

    /// A POST with a length.
    pub(super) fn post(id: u64, body_bytes: usize) -> Self {
        let head = "POST /upload?id={id} HTTP/1.1\r\nHost: shadowing.example\r\nContent-Length: {length}\r\n";
        Self::new(id, head, &pattern(body_bytes))
    }

    pub(super) fn is_head(&self) -> bool {
        self.wire.starts_with(b"HEAD ")
    }

    /// Sends it and reads its answer.
    #[track_caller]
    pub(super) fn exchange(&self, connection: &mut Connection) -> Answer {
        let described = wire::latin1(&self.head);
        let answer = connection.exchange(&self.wire);
        answer.unwrap_or_else(|fault| panic!("no answer to {described}: {fault:#}"))
    }
}

/// Numbers for requests.
#[derive(Default)]
pub(super) struct Ids(u64);

impl Ids {
    pub(super) fn next(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
}

/// Heads of every shape that clients write, methods with and without bodies.
pub(super) fn shapes(ids: &mut Ids) -> Vec<Sent> {
    let mut all = Vec::new();
    for (head, body) in SHAPES {
        all.push(Sent::new(ids.next(), head, body.as_bytes()));
    }
    // A Host alone is the first header.
    for headers in [1, 2, 10, 50, 100] {
        let more: String = (1..headers).map(|n| format!("X-Field-{n}: value of {n}\r\n")).collect();
        let head = format!("GET /headers?id={{id}} HTTP/1.1\r\nHost: shadowing.example\r\n{more}");
        all.push(Sent::new(ids.next(), &head, b""));
    }
    for bytes in [6_000, 30_000] {
        let value = "v".repeat(bytes);
        let head =
            format!("GET /long?id={{id}} HTTP/1.1\r\nHost: shadowing.example\r\nCookie: long={value}\r\n");
        all.push(Sent::new(ids.next(), &head, b""));
    }
    all
}

/// As [`shapes`], without what HAProxy refuses: heads that do not fit its buffers, an absolute target without path.
pub(super) fn shapes_for_haproxy(ids: &mut Ids) -> Vec<Sent> {
    let mut shapes = shapes(ids);
    shapes
        .retain(|sent| sent.head.len() < 10_000 && !sent.head.starts_with(b"GET http://shadowing.example?"));
    shapes
}

/// Chunked bodies: cuts, extensions, trailers.
pub(super) fn chunked(ids: &mut Ids) -> Vec<Sent> {
    let head = "POST /chunked?id={id} HTTP/1.1\r\nHost: shadowing.example\r\nTransfer-Encoding: chunked\r\n\
        Trailer: X-Sum\r\n";
    let odd = "PUT /chunked?id={id} HTTP/1.1\r\nHost: shadowing.example\r\ntransfer-encoding:Chunked \r\n";
    let plain = Chunking { sizes: &[1, 5, 8192], extension: "", trailers: "" };
    let extended = Chunking { sizes: &[3], extension: ";name=value;quoted=\"a b\"", trailers: "" };
    let trailers = "X-Sum: 12\r\nx-odd:\tspacing \r\n";
    let trailed = Chunking { sizes: &[1000], extension: ";e", trailers };
    vec![
        Sent::chunked(ids.next(), head, b"", &plain),
        Sent::chunked(ids.next(), head, b"1", &plain),
        Sent::chunked(ids.next(), head, &pattern(20_000), &plain),
        Sent::chunked(ids.next(), odd, &pattern(20), &extended),
        Sent::chunked(ids.next(), head, &pattern(2500), &trailed),
        Sent::chunked(ids.next(), head, b"", &trailed),
    ]
}

/// Bodies with a length, of every size that is treated differently; the last two are streamed.
pub(super) fn sizes(ids: &mut Ids) -> Vec<Sent> {
    [0, 1, 1024, 65_536, (1 << 20) + 1, 8 << 20].map(|bytes| Sent::post(ids.next(), bytes)).into()
}

/// One exchange after the other on one connection.
#[track_caller]
pub(super) fn keep_alive(netns: &Netns, to: SocketAddr, requests: &[Sent]) {
    let mut connection = Connection::open(netns, to).unwrap();
    for request in requests {
        let status = request.exchange(&mut connection).status;
        assert_eq!(status, 200, "{}", wire::latin1(&request.head));
    }
}

/// All in one write, and then all answers.
#[track_caller]
pub(super) fn pipelined(netns: &Netns, to: SocketAddr, requests: &[Sent]) {
    let mut connection = Connection::open(netns, to).unwrap();
    connection.expect_heads(requests.iter().map(Sent::is_head));
    let all: Vec<u8> = requests.iter().flat_map(|request| request.wire.clone()).collect();
    connection.send(&all).unwrap();
    for request in requests {
        let described = wire::latin1(&request.head);
        assert_eq!(connection.read_answer().unwrap().status, 200, "{described}");
    }
}

/// Head without its empty line, and body.
const SHAPES: [(&str, &str); 26] = [
    ("GET /?id={id} HTTP/1.1\r\nHost: shadowing.example\r\n", ""),
    ("GET /port?id={id} HTTP/1.1\r\nHost: shadowing.example:8080\r\n", ""),
    ("GET /v6?id={id} HTTP/1.1\r\nHost: [fd77::2]:8080\r\n", ""),
    ("GET /v6?id={id} HTTP/1.1\r\nhost: [fd77::2]\r\n", ""),
    ("GET /case?id={id} HTTP/1.1\r\nHOST:Shadowing.EXAMPLE\r\n", ""),
    ("GET /spaces?id={id} HTTP/1.1\r\nHost:   shadowing.example  \r\n", ""),
    ("GET /late-host?id={id} HTTP/1.1\r\nAccept: */*\r\nX-A: 1\r\nHost: shadowing.example\r\nX-B: 2\r\n", ""),
    ("GET http://shadowing.example/absolute?id={id} HTTP/1.1\r\nHost: shadowing.example\r\n", ""),
    ("GET http://shadowing.example:8080/absolute?id={id} HTTP/1.1\r\nHost: shadowing.example:8080\r\n", ""),
    ("GET http://shadowing.example?id={id} HTTP/1.1\r\nHost: shadowing.example\r\n", ""),
    (
        "GET /odd?id={id} HTTP/1.1\r\nHost: shadowing.example\r\nX-None:no space\r\nx-TaBs:\t tabbed \t\r\nX-Empty:\r\n\
         X-Blank:   \r\nx-dup: 1\r\nX-Dup: 2\r\nx-dup: 1\r\nACCEPT: */*\r\nx_underscore: 1\r\nX-Latin: caf\u{e9} \u{fc}\r\n\
         X-Colons: a:b: c\r\n",
        "",
    ),
    (
        "GET /a%20b/./c/..;p=1//d/?id={id}&q=%E2%9C%93&empty=&flag&path=/x?y HTTP/1.1\r\nHost: shadowing.example\r\n",
        "",
    ),
    (
        "GET /cookies?id={id} HTTP/1.1\r\nHost: shadowing.example\r\nCookie: a=1; b=\"2\"\r\ncookie:c=3\r\n",
        "",
    ),
    (
        "GET /trace?id={id} HTTP/1.1\r\nHost: shadowing.example\r\nX-Request-ID: 7d1c\r\n\
         traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\ntracestate: a=b\r\n",
        "",
    ),
    (
        "GET /hops?id={id} HTTP/1.1\r\nHost: shadowing.example\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\n\
         Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: trailers\r\nX-Stays: 1\r\n",
        "",
    ),
    ("GET /te?id={id} HTTP/1.1\r\nHost: shadowing.example\r\nTE: gzip;q=0.5, trailers\r\nX-Stays: 1\r\n", ""),
    ("GET /te?id={id} HTTP/1.1\r\nHost: shadowing.example\r\nTE: gzip\r\nX-Stays: 1\r\n", ""),
    ("HEAD /bytes/100?id={id} HTTP/1.1\r\nHost: shadowing.example\r\n", ""),
    ("HEAD /bytes/100?id={id} HTTP/1.1\r\nHost: shadowing.example\r\nContent-Length: {length}\r\n", "body"),
    ("OPTIONS /options?id={id} HTTP/1.1\r\nHost: shadowing.example\r\nOrigin: http://a\r\n", ""),
    ("OPTIONS /options?id={id} HTTP/1.1\r\nHost: shadowing.example\r\nContent-Length: {length}\r\n", "{}"),
    ("PUT /put?id={id} HTTP/1.1\r\nHost: shadowing.example\r\ncontent-length:{length}\r\n", "put"),
    (
        "PATCH /patch?id={id} HTTP/1.1\r\nHost: shadowing.example\r\nContent-Length:  {length} \r\n",
        "GET / HTTP/1.1\r\n\r\n",
    ),
    (
        "DELETE /delete?id={id} HTTP/1.1\r\nHost: shadowing.example\r\nContent-Length: {length}\r\n",
        "\r\n\r\n",
    ),
    (
        "GET /body?id={id} HTTP/1.1\r\nHost: shadowing.example\r\nContent-Length: {length}\r\n",
        "get with a body",
    ),
    ("M-SEARCH /own?id={id} HTTP/1.1\r\nHost: shadowing.example\r\n", ""),
];
