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
use tokio::net::TcpListener;

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

    /// Waits until the stream is reset, and tells why.
    pub(super) async fn reset_reason(&mut self) -> Reason {
        poll_fn(|cx| self.respond.poll_reset(cx)).await.unwrap()
    }
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
            tokio::spawn(async move {
                let Ok(mut server) = builder.handshake(stream).await else { return };
                while let Some(Ok((request, respond))) = server.accept().await {
                    let (head, body) = request.into_parts();
                    let head = Request::from_parts(head, ());
                    tokio::spawn(script(Call { connection, head, body, respond }));
                }
            });
        }
    });
    address
}

/// A shadow that answers everything.
pub(in crate::replay::tests) async fn good_h2_shadow() -> SocketAddr {
    h2_shadow(server::Builder::new(), Call::serve).await
}
