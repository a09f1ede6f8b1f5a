//! HTTP/2 in, either version out; and the packets of such connections.

use crate::world::{opened, run};
use mirror_tests::pcap::PcapWriter;

/// One shadow of each `protocol`.
const CONFIG: &str = r#"
[capture]
interfaces = ["unused"]
ports = [8080]
[[shadow]]
name = "same"
url = "http://127.0.0.1:9"
[[shadow]]
name = "old"
url = "http://127.0.0.1:9"
protocol = "http1"
[[shadow]]
name = "new"
url = "https://127.0.0.1:9"
protocol = "http2"
[[route]]
hosts = ["shadowing.example"]
  [[route.rule]]
  mirror = [{ shadow = "same" }, { shadow = "old" }, { shadow = "new" }]
"#;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// The preface and the client's SETTINGS.
pub(crate) fn preface() -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &frame(SETTINGS, 0, 0, &[])].concat()
}

/// The head of a gRPC call on a stream.
pub(crate) fn call(stream: u32, path: &str) -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "shadowing.example"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("cookie", "a=1"),
        ("x-odd", "kept"),
        ("cookie", "b=2"),
    ];
    frame(HEADERS, END_HEADERS, stream, &block(&fields))
}

/// Bytes of a body, the last ones if so.
pub(crate) fn data(stream: u32, bytes: &[u8], is_last: bool) -> Vec<u8> {
    frame(DATA, if is_last { END_STREAM } else { 0 }, stream, bytes)
}

/// A gRPC message.
pub(crate) fn message(compressed: u8, bytes: &[u8]) -> Vec<u8> {
    [&[compressed][..], &(bytes.len() as u32).to_be_bytes(), bytes].concat()
}

fn trailers(stream: u32, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(fields))
}

/// RFC 9113, 4.1.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Literal fields that go into no table (RFC 7541, 6.2.2), each shorter than 127 bytes.
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| [&[text.len() as u8][..], text.as_bytes()].concat();
    fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

/// Heads, bodies and trailers that the three shadows get of what a client sends.
fn sent(bytes: &[u8]) -> Vec<(String, Vec<u8>, String)> {
    let outcome = run(CONFIG, |pcap: &mut PcapWriter<Vec<u8>>| {
        let mut talk = opened(pcap);
        for segment in bytes.chunks(70) {
            talk.request(pcap, segment).unwrap();
        }
    });
    let mut sent = outcome.sent;
    sent.sort_by_key(|sent| sent.shadow);
    sent.into_iter().map(|sent| (sent.head, sent.body, sent.trailers)).collect()
}

const TO_HTTP1: &str = "POST /shop.Cart/Add HTTP/1.1\r\nHost: shadowing.example-shadow\r\nte: trailers\r\n\
    content-type: application/grpc\r\ncookie: a=1; b=2\r\nx-odd: kept\r\nTransfer-Encoding: chunked\r\n\
    x-mirrored-by: mirror-daemon\r\n\r\n";
const TO_HTTP2: &str = ":method: POST\r\n:scheme: http\r\n:authority: shadowing.example-shadow\r\n\
    :path: /shop.Cart/Add\r\nte: trailers\r\ncontent-type: application/grpc\r\ncookie: a=1\r\nx-odd: kept\r\n\
    cookie: b=2\r\nx-mirrored-by: mirror-daemon\r\n";

#[test]
fn call_over_http2_reaches_each_shadow_in_the_version_it_is_spoken_to_in() {
    let body = [message(0, b"abc"), message(1, &[b'x'; 200])].concat();
    let (first, second) = body.split_at(50);
    let bytes = [
        preface(),
        call(1, "/shop.Cart/Add"),
        data(1, first, false),
        data(1, second, false),
        trailers(1, &[("x-sum", "7"), ("te", "trailers")]),
    ];
    let expected = [TO_HTTP2, TO_HTTP1, TO_HTTP2];
    let expected = expected.map(|head| (head.to_owned(), body.clone(), "x-sum: 7\r\n".to_owned()));
    assert_eq!(sent(&bytes.concat()), expected);
}

#[test]
fn chunked_request_of_http1_becomes_a_stream_of_http2_with_trailers() {
    let bytes = b"POST http://shadowing.example/a?b HTTP/1.1\r\nHost: other\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\n\
        X-Odd:  Kept \r\nTransfer-Encoding: chunked\r\n\r\n3;ext=1\r\nabc\r\n0\r\nX-Sum:  7\r\n\r\n";
    let same = "POST http://shadowing.example-shadow/a?b HTTP/1.1\r\nHost: other-shadow\r\nX-Odd:  Kept \r\n\
        Transfer-Encoding: chunked\r\nx-mirrored-by: mirror-daemon\r\n\r\n";
    let new = ":method: POST\r\n:scheme: http\r\n:authority: shadowing.example-shadow\r\n:path: /a?b\r\nx-odd: Kept\r\n\
        x-mirrored-by: mirror-daemon\r\n";
    let expected = [(same, "X-Sum:  7\r\n"), (same, "X-Sum:  7\r\n"), (new, "x-sum: 7\r\n")];
    let expected = expected.map(|(head, trailers)| (head.to_owned(), b"abc".to_vec(), trailers.to_owned()));
    assert_eq!(sent(bytes), expected);
}
