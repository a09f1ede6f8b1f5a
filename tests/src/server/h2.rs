//! The app's HTTP/2 side, by prior knowledge (RFC 9113, 3.3), with the `h2` crate.
//!
//! A request is noted with a head like that of HTTP/1.1, so that one reader serves for both: the request line
//! (`GET /path HTTP/2`), `:scheme` and `:authority` as the first fields, then the fields in order, those of one
//! name together.

use std::fmt::Write as _;
use std::future::poll_fn;
use std::io::Cursor;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use ::h2::server::{Builder, Connection, SendResponse};
use ::h2::{RecvStream, SendStream};
use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, request};
use tokio::task::JoinSet;

use super::{Behaviour, LoggedRequest, Shared, answer};
use crate::wire::{self, BodyDigest, Framing, Wire};

/// What a connection begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How often a connection that has begun like the preface is looked at for the rest, and how many times.
const LOOK_EVERY: Duration = Duration::from_millis(1);
const LOOKS: usize = 5000;

/// Of a stream and of a connection, in bytes.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// As for HTTP/1.1: the tests' longest heads fit.
const MAX_HEADER_LIST_BYTES: u32 = 4 << 20;

/// Streams that clients may have open at once.
const MAX_STREAMS: u32 = 1000;

/// Streams that clients may reset early: what a mirror has to reset is not held against it.
const MAX_RESETS: usize = 1_000_000;

/// Whether HTTP/2 is spoken on a fresh connection. Takes nothing from it.
pub(super) fn begins(stream: &TcpStream) -> bool {
    let mut start = [0; PREFACE.len()];
    for _ in 0..LOOKS {
        match stream.peek(&mut start) {
            Ok(got) if got > 0 && start[..got] == PREFACE[..got] => {
                if got == PREFACE.len() {
                    return true;
                }
            }
            _ => return false,
        }
        std::thread::sleep(LOOK_EVERY);
    }
    false
}

/// Answers until the connection and its last stream have ended.
pub(super) fn serve(shared: &Arc<Shared>, stream: TcpStream, connection: u64) -> Result<()> {
    stream.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::from_std(stream)?;
        let mut builder = Builder::new();
        builder
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MAX_HEADER_LIST_BYTES)
            .max_concurrent_streams(MAX_STREAMS)
            .max_pending_accept_reset_streams(MAX_RESETS)
            .max_concurrent_reset_streams(MAX_RESETS)
            .max_local_error_reset_streams(None);
        accept(shared, builder.handshake(stream).await?, connection).await
    })
}

async fn accept(
    shared: &Arc<Shared>,
    mut h2: Connection<tokio::net::TcpStream, Bytes>,
    connection: u64,
) -> Result<()> {
    let mut streams = JoinSet::new();
    let mut number = 0;
    let ended = loop {
        let Some(accepted) = h2.accept().await else { break Ok(()) };
        let (request, respond) = match accepted {
            Ok(accepted) => accepted,
            Err(broken) => break Err(broken.into()),
        };
        number += 1;
        let (shared, place) = (Arc::clone(shared), (connection, number));
        streams.spawn(async move {
            let stream_id = respond.stream_id().as_u32();
            let stream = Stream { shared: &shared, place };
            if let Err(broken) = stream.serve(request, respond).await {
                shared.log.broken(connection, &broken.context(format!("stream {stream_id}")));
            }
        });
        while streams.try_join_next().is_some() {}
    };
    while streams.join_next().await.is_some() {}
    ended
}

struct Stream<'a> {
    shared: &'a Shared,
    place: (u64, u64),
}

impl Stream<'_> {
    async fn serve(
        &self,
        request: http::Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
    ) -> Result<()> {
        let behaviour = self.shared.behaviour();
        if behaviour == Behaviour::CloseAfterHead {
            self.shared.close(self.place.0);
            return Ok(());
        }
        let (parts, body) = request.into_parts();
        let head = head_text(&parts)?;
        if behaviour == Behaviour::Normal && parts.uri.path() == "/echo" {
            let answer = respond.send_response(Response::new(()), false)?;
            self.shared.log.note(self.read(head, body, Some(answer)).await?);
            return Ok(());
        }
        let request = self.read(head, body, None).await?;
        let delay = answer::delay(request.target(), behaviour);
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let mut answers = Vec::new();
        let next = self.shared.answer(&request, behaviour, &mut answers);
        let is_to_head = request.method() == "HEAD";
        self.shared.log.note(request);
        if next == answer::Next::Never {
            drop(poll_fn(|context| respond.poll_reset(context)).await);
            return Ok(());
        }
        // Nobody may want it any more.
        drop(send(respond, answers, is_to_head));
        Ok(())
    }

    /// Reads the body and sends back what comes, where that is wanted.
    async fn read(
        &self,
        head: Vec<u8>,
        mut body: RecvStream,
        mut echo: Option<SendStream<Bytes>>,
    ) -> Result<LoggedRequest> {
        let mut digest = BodyDigest::default();
        while let Some(bytes) = body.data().await {
            let bytes = bytes.context("the body was cut off")?;
            digest.add(&bytes);
            body.flow_control().release_capacity(bytes.len())?;
            if let Some(echo) = &mut echo {
                echo.send_data(bytes, false)?;
            }
        }
        let trailers = body.trailers().await.context("the trailers were cut off")?;
        if let Some(mut echo) = echo {
            echo.send_trailers(trailers.clone().unwrap_or_default())?;
        }
        let trailers = trailers.map(|fields| field_lines(&fields)).unwrap_or_default();
        Ok(LoggedRequest::new(self.place, head, &digest, trailers))
    }
}

fn head_text(parts: &request::Parts) -> Result<Vec<u8>> {
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    let mut head = String::new();
    write!(head, "{} {target} HTTP/2\r\n", parts.method)?;
    if let Some(scheme) = parts.uri.scheme_str() {
        write!(head, ":scheme: {scheme}\r\n")?;
    }
    if let Some(authority) = parts.uri.authority() {
        write!(head, ":authority: {authority}\r\n")?;
    }
    let mut head = head.into_bytes();
    head.extend(field_lines(&parts.headers));
    head.extend(b"\r\n");
    Ok(head)
}

fn field_lines(fields: &HeaderMap) -> Vec<u8> {
    let mut lines = Vec::new();
    for (name, value) in fields {
        lines.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    lines
}

/// Sends an answer of HTTP/1.1 as one of HTTP/2: its connection's fields and chunks stay behind.
fn send(mut respond: SendResponse<Bytes>, answer: Vec<u8>, is_to_head: bool) -> Result<()> {
    let mut wire = Wire::new(Cursor::new(answer));
    let head = wire.read_head()?.context("no answer")?;
    let status = head.get(9..12).context("no status")?;
    let mut response = Response::builder().status(status).body(())?;
    for (name, value) in wire::fields(&head) {
        let name = HeaderName::from_bytes(name)?;
        if !["connection", "transfer-encoding"].contains(&name.as_str()) {
            response.headers_mut().append(name, HeaderValue::from_bytes(value)?);
        }
    }
    let framing = match wire::declared_framing(&head)? {
        _ if is_to_head => Framing::None,
        Framing::None => Framing::UntilClose,
        declared => declared,
    };
    let mut body = Vec::new();
    let trailers = wire.read_body(framing, &mut |bytes| body.extend_from_slice(bytes))?;
    let is_bare = body.is_empty() && trailers.is_empty();
    let mut sending = respond.send_response(response, is_bare)?;
    if !is_bare {
        sending.send_data(body.into(), trailers.is_empty())?;
    }
    if !trailers.is_empty() {
        let mut fields = HeaderMap::new();
        for (name, value) in wire::fields(&[b"\n", trailers.as_slice()].concat()) {
            fields.append(HeaderName::from_bytes(name)?, HeaderValue::from_bytes(value)?);
        }
        sending.send_trailers(fields)?;
    }
    Ok(())
}
