//! Shadows made of the `h2` server and a script for each request.

use crate::replay::tests::support::buffered;
use crate::replay::{ShadowBody, ShadowRequest};
use crate::rewrite::{Framing, HeadForm, MethodTraits, ShadowHead};
use ::h2::server::{self, SendResponse};
use ::h2::{Reason, RecvStream, SendStream};
use ::http::{HeaderMap, Request, Response};
use bytes::Bytes;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub(in crate::replay::tests) fn h2_request(
    method: &str,
    framing: Framing,
    fields: &str,
    body: ShadowBody,
) -> ShadowRequest {
    let wire =
        format!(":method: {method}\r\n:scheme: http\r\n:authority: test-shadow\r\n:path: /path\r\n{fields}");
    let is_safe = matches!(method, "GET" | "HEAD");
    let method = MethodTraits { is_safe, is_head: method == "HEAD" };
    let head = ShadowHead { wire: wire.into(), form: HeadForm::Http2, framing, method };
    ShadowRequest { head, body, original: None }
}

pub(in crate::replay::tests) fn h2_get() -> ShadowRequest {
    h2_request("GET", Framing::None, "", buffered(b"", ""))
}

pub(in crate::replay::tests) fn h2_post(body: &[u8]) -> ShadowRequest {
    let fields = format!("content-length: {}\r\n", body.len());
    h2_request("POST", Framing::Length(body.len() as u64), &fields, buffered(body, ""))
}

/// A request without a length, as a call of gRPC.
pub(in crate::replay::tests) fn call(body: ShadowBody) -> ShadowRequest {
    h2_request("POST", Framing::Chunked, "te: trailers\r\n", body)
}

/// One stream, seen by the shadow.
pub(super) struct Call {
    /// The number of its connection.
    pub(super) connection: usize,
    pub(super) head: Request<()>,
    pub(super) body: RecvStream,
    respond: SendResponse<Bytes>,
}

impl Call {
    /// The next bytes of the body; `None` at its end.
    pub(super) async fn piece(&mut self) -> Result<Option<Bytes>, ::h2::Error> {
        let Some(piece) = self.body.data().await.transpose()? else { return Ok(None) };
        let _ = self.body.flow_control().release_capacity(piece.len());
        Ok(Some(piece))
    }

    /// The whole body and its trailers.
    pub(super) async fn whole(&mut self) -> Result<(Vec<u8>, Option<HeaderMap>), ::h2::Error> {
        let mut all = Vec::new();
        while let Some(piece) = self.piece().await? {
            all.extend_from_slice(&piece);
        }
        Ok((all, self.body.trailers().await?))
    }

    /// Sends a head of `status`, and hands on the stream for the rest.
    pub(super) fn answer(&mut self, status: u16, is_end: bool) -> SendStream<Bytes> {
        let head = Response::builder().status(status).body(()).unwrap();
        self.respond.send_response(head, is_end).unwrap()
    }

    pub(super) fn informational(&mut self, status: u16) {
        let head = Response::builder().status(status).body(()).unwrap();
        self.respond.send_informational(head).unwrap();
    }

    pub(super) fn reset(&mut self, reason: Reason) {
        self.respond.send_reset(reason);
    }

    /// Reads the request to its end and answers with 200 and two bytes.
    pub(super) async fn serve(mut self) {
        if self.whole().await.is_ok() {
            let _ = self.answer(200, false).send_data(Bytes::from_static(b"ok"), true);
        }
    }

    /// Waits until the stream is reset before its answer, and tells why.
    pub(super) async fn reset_reason(&mut self) -> Reason {
        poll_fn(|cx| self.respond.poll_reset(cx)).await.unwrap()
    }
}

/// Waits until a stream whose answer has begun is reset, and tells why.
pub(super) async fn reset_reason(answer: &mut SendStream<Bytes>) -> Reason {
    poll_fn(|cx| answer.poll_reset(cx)).await.unwrap()
}

/// Sends all of `bytes` as the windows allow.
pub(super) async fn send_all(stream: &mut SendStream<Bytes>, mut bytes: Bytes, is_end: bool) {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let Some(Ok(room)) = poll_fn(|cx| stream.poll_capacity(cx)).await else { return };
        let part = bytes.split_to(room.min(bytes.len()));
        if stream.send_data(part, is_end && bytes.is_empty()).is_err() {
            return;
        }
    }
}

/// A shadow that runs `script` for each request.
pub(super) async fn h2_shadow<F, R>(builder: server::Builder, script: F) -> SocketAddr
where
    F: Fn(Call) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for connection in 0.. {
            let Ok((stream, _)) = listener.accept().await else { return };
            stream.set_nodelay(true).unwrap();
            let (builder, script) = (builder.clone(), script.clone());
            tokio::spawn(serve_h2(builder, stream, connection, script));
        }
    });
    address
}

/// The shadow's end of one connection.
pub(super) async fn serve_h2<S, F, R>(builder: server::Builder, stream: S, connection: usize, script: F)
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Fn(Call) -> R,
    R: Future<Output = ()> + Send + 'static,
{
    let Ok(mut server) = builder.handshake(stream).await else { return };
    while let Some(Ok((request, respond))) = server.accept().await {
        let (head, body) = request.into_parts();
        let head = Request::from_parts(head, ());
        tokio::spawn(script(Call { connection, head, body, respond }));
    }
}

/// A shadow that answers everything.
pub(in crate::replay::tests) async fn good_h2_shadow() -> SocketAddr {
    h2_shadow(server::Builder::new(), Call::serve).await
}

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
/// `:status: 200`, in HPACK.
pub(super) const STATUS_200: &[u8] = &[0x88];

/// One frame's bytes.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// The shadow's end of one connection, frame by frame.
pub(super) struct RawPeer {
    pub(super) stream: TcpStream,
    pub(super) number: usize,
}

impl RawPeer {
    /// The next frame: kind, flags, stream, payload.
    pub(super) async fn frame(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).await.ok()?;
        let mut payload =
            vec![0; usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2])];
        self.stream.read_exact(&mut payload).await.ok()?;
        Some((head[3], head[4], u32::from_be_bytes(head[5..].try_into().unwrap()), payload))
    }

    /// The number of the next stream that is opened.
    pub(super) async fn next_stream(&mut self) -> Option<u32> {
        loop {
            if let (HEADERS, _, stream, _) = self.frame().await? {
                return Some(stream);
            }
        }
    }

    pub(super) async fn say(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok()
    }

    /// Answers with 200 and nothing.
    pub(super) async fn answer(&mut self, stream: u32) {
        self.say(&frame(HEADERS, END_STREAM | END_HEADERS, stream, STATUS_200)).await;
    }

    /// Reads until the connection is closed; returns the reset streams.
    pub(super) async fn rest(&mut self) -> Vec<u32> {
        let mut reset = Vec::new();
        while let Some((kind, _, stream, _)) = self.frame().await {
            if kind == RST_STREAM {
                reset.push(stream);
            }
        }
        reset
    }
}

/// A shadow that runs `script` for each connection once its preface has come and `settings` were said.
pub(super) async fn raw_shadow<F, R>(settings: &'static [u8], script: F) -> SocketAddr
where
    F: Fn(RawPeer) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for number in 0.. {
            let Ok((mut stream, _)) = listener.accept().await else { return };
            stream.set_nodelay(true).unwrap();
            let script = script.clone();
            tokio::spawn(async move {
                let mut preface = [0; 24];
                let greeting = frame(SETTINGS, 0, 0, settings);
                if stream.read_exact(&mut preface).await.is_ok() && stream.write_all(&greeting).await.is_ok()
                {
                    script(RawPeer { stream, number }).await;
                }
            });
        }
    });
    address
}
