//! A real client and server (`h2`) talk over an in-memory pipe that keeps what passes; the decoder must list
//! the requests that the server was given.

use super::super::hpack::tests::Random;
use super::harness::*;
use crate::flow::Direction;
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

/// What passed, in order of time.
type Tape = Arc<Mutex<Vec<(Direction, Vec<u8>)>>>;

/// A stream that keeps what is written to it.
struct Taped {
    stream: DuplexStream,
    direction: Direction,
    tape: Tape,
}

impl AsyncRead for Taped {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Taped {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        if let Poll::Ready(Ok(bytes)) = written {
            self.tape.lock().expect("one writer at a time").push((self.direction, buf[..bytes].to_vec()));
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// What the server was given: target, number header, body, trailer.
type Given = (String, Vec<u8>, Vec<u8>, Option<Vec<u8>>);

async fn serve(stream: Taped, given: Arc<Mutex<Vec<Given>>>) {
    let mut connection = h2::server::handshake(stream).await.expect("a handshake");
    while let Some(accepted) = connection.accept().await {
        let (request, mut respond) = accepted.expect("a request");
        let given = given.clone();
        tokio::spawn(async move {
            let (parts, mut stream) = request.into_parts();
            let mut body = Vec::new();
            while let Some(bytes) = stream.data().await {
                let bytes = bytes.expect("body bytes");
                let _ = stream.flow_control().release_capacity(bytes.len());
                body.extend_from_slice(&bytes);
            }
            let trailers = stream.trailers().await.expect("trailers or none");
            let sum = trailers.and_then(|trailers| trailers.get("x-sum").map(|sum| sum.as_bytes().to_vec()));
            let number = parts.headers["x-number"].as_bytes().to_vec();
            given.lock().expect("no panic").push((parts.uri.path().to_owned(), number, body, sum));
            respond.send_response(Response::new(()), true).expect("an answer");
        });
    }
}

async fn ask(mut client: h2::client::SendRequest<Bytes>, number: u64) {
    let mut random = Random::new(number);
    let mut request = Request::builder()
        .method("POST")
        .uri(format!("http://peer.example/things/{number}"))
        .header("x-number", number.to_string());
    for name in 0..random.below(5) {
        request = request.header(format!("x-field-{name}"), format!("value-{}", random.below(20)));
    }
    client = client.ready().await.expect("a ready client");
    let has_body = random.percent(60);
    let (response, mut stream) =
        client.send_request(request.body(()).expect("a request"), !has_body).expect("sent");
    if has_body {
        let body: Vec<u8> = (0..random.below(40_000)).map(|_| random.next() as u8).collect();
        let with_trailers = random.percent(30);
        stream.send_data(body.into(), !with_trailers).expect("a body");
        if with_trailers {
            let mut trailers = HeaderMap::new();
            trailers.insert("x-sum", number.into());
            stream.send_trailers(trailers).expect("trailers");
        }
    }
    response.await.expect("an answer");
}

fn talk(requests: u64) -> (Vec<(Direction, Vec<u8>)>, Vec<Given>) {
    let tape = Tape::default();
    let given = Arc::new(Mutex::new(Vec::new()));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let (near, far) = tokio::io::duplex(16 * 1024);
        let near = Taped { stream: near, direction: Direction::Request, tape: tape.clone() };
        let far = Taped { stream: far, direction: Direction::Answer, tape: tape.clone() };
        let server = tokio::spawn(serve(far, given.clone()));
        let (client, connection) = h2::client::handshake(near).await.expect("a handshake");
        let driver = tokio::spawn(connection);
        let asked: Vec<_> = (0..requests).map(|number| tokio::spawn(ask(client.clone(), number))).collect();
        for one in asked {
            one.await.expect("answered");
        }
        drop(client);
        driver.await.expect("no panic").expect("a right end");
        server.await.expect("no panic");
    });
    let tape = std::mem::take(&mut *tape.lock().expect("no panic"));
    let given = std::mem::take(&mut *given.lock().expect("no panic"));
    (tape, given)
}

fn mirrored(probe: &Probe) -> Vec<Given> {
    let given = |seen: &&Seen| -> Given {
        let number = seen.fields.iter().find(|(name, _)| name == "x-number").expect("in each request");
        let sum = seen.trailers.first().map(|(_, value)| value.clone());
        (seen.target.clone(), number.1.clone(), seen.body.clone(), sum)
    };
    let mut all: Vec<Given> = probe.mirrored().iter().map(given).collect();
    all.sort();
    all
}

#[test]
fn requests_between_real_peers_are_those_that_the_server_was_given() {
    let (tape, mut given) = talk(80);
    given.sort();
    assert_eq!(given.len(), 80);
    let mut probe = Probe::at_start();
    for (direction, bytes) in &tape {
        probe.chunk(*direction, bytes, true);
    }
    probe.close();
    assert_eq!(mirrored(&probe), given);
    let counters = probe.flow.take_counters().unwrap_or_default();
    assert_eq!(counters.violations().filter(|(_, count)| *count > 0).collect::<Vec<_>>(), []);
}

#[test]
fn real_peers_joined_late_give_a_part_of_the_requests_and_none_wrong() {
    let (tape, given) = talk(80);
    for skip in (1..tape.len()).step_by(7) {
        let mut probe = Probe::joined();
        for (direction, bytes) in &tape[skip..] {
            probe.chunk(*direction, bytes, true);
        }
        probe.close();
        for request in mirrored(&probe) {
            assert!(given.contains(&request), "{} is wrong", request.0);
        }
    }
}
