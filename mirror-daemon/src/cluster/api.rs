//! Requests to the API server and how they can fail. Answers are read here rather than by the client library: a
//! line of a watch that can't be read must be told, not passed over, and nobody's objects belong into the log.

mod fault;

pub(super) use fault::{Fault, Status};

use bytes::BytesMut;
use http_body_util::BodyExt;
use hyper::body::Bytes;
use hyper::header::{ACCEPT, CONTENT_TYPE};
use hyper::{Method, Request, StatusCode};
use kube::Client;
use kube::client::Body;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;
use tokio::time::timeout;

/// Time for the body of an answer that is no watch.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// The best type of body for a changed field.
const MERGE_PATCH: &str = "application/merge-patch+json";
const JSON: &str = "application/json";

/// What is at `uri`.
pub(super) async fn get<T: DeserializeOwned>(client: &Client, uri: &str) -> Result<T, Fault> {
    let body = answer(client, request(Method::GET, uri, JSON, vec![])?).await?;
    serde_json::from_slice(&whole(body).await?).map_err(Fault::garbage)
}

/// Sends `value` to `uri`; what comes back is not looked at.
pub(super) async fn post(client: &Client, uri: &str, value: &impl Serialize) -> Result<(), Fault> {
    send(client, Method::POST, uri, JSON, value).await.map(|_| ())
}

/// Sends `value` to `uri` and gives what comes back.
pub(super) async fn post_for<T: DeserializeOwned>(
    client: &Client,
    uri: &str,
    value: &impl Serialize,
) -> Result<T, Fault> {
    let answer = send(client, Method::POST, uri, JSON, value).await?;
    serde_json::from_slice(&answer).map_err(Fault::garbage)
}

/// Changes the fields that are in `value`; what comes back is not looked at.
pub(super) async fn patch(client: &Client, uri: &str, value: &impl Serialize) -> Result<(), Fault> {
    send(client, Method::PATCH, uri, MERGE_PATCH, value).await.map(|_| ())
}

async fn send(
    client: &Client,
    method: Method,
    uri: &str,
    content_type: &'static str,
    value: &impl Serialize,
) -> Result<Bytes, Fault> {
    let text = serde_json::to_vec(value).map_err(Fault::garbage)?;
    let body = answer(client, request(method, uri, content_type, text)?).await?;
    // Read to its end, so that the connection can be used again.
    whole(body).await
}

/// Begins a watch.
pub(super) async fn watch(client: &Client, uri: &str) -> Result<Lines, Fault> {
    let body = answer(client, request(Method::GET, uri, JSON, vec![])?).await?;
    Ok(Lines { body, buffer: BytesMut::new() })
}

/// The lines of a watch.
#[derive(Debug)]
pub(super) struct Lines {
    body: Body,
    /// What has come and was not given out. No longer than one line and one frame.
    buffer: BytesMut,
}

impl Lines {
    /// The next line, with its end; `None`: the server has ended the watch, as it does from time to time. What is
    /// left without a line end then is no line.
    pub(super) async fn next(&mut self, within: Duration) -> Result<Option<BytesMut>, Fault> {
        let mut searched = 0;
        loop {
            let rest = self.buffer.get(searched..).unwrap_or_default();
            if let Some(at) = memchr::memchr(b'\n', rest) {
                let end = searched.saturating_add(at).saturating_add(1);
                return Ok(Some(self.buffer.split_to(end)));
            }
            searched = self.buffer.len();
            match timeout(within, self.body.frame()).await {
                Err(_) => return Err(Fault::Silent(within)),
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => return Err(Fault::of(error)),
                Ok(Some(Ok(frame))) => {
                    if let Some(bytes) = frame.data_ref() {
                        self.buffer.extend_from_slice(bytes);
                    }
                }
            }
        }
    }
}

fn request(method: Method, uri: &str, content_type: &str, body: Vec<u8>) -> Result<Request<Body>, Fault> {
    Request::builder()
        .method(method)
        .uri(uri)
        .header(ACCEPT, JSON)
        .header(CONTENT_TYPE, content_type)
        .body(Body::from(body))
        .map_err(Fault::garbage)
}

/// The body of an answer that is no refusal.
async fn answer(client: &Client, request: Request<Body>) -> Result<Body, Fault> {
    let (head, body) = client.send(request).await.map_err(Fault::of)?.into_parts();
    if head.status.is_success() {
        return Ok(body);
    }
    let text = whole(body).await.unwrap_or_default();
    // What refuses may be a proxy on the way, which does not speak as an API server does.
    let said = serde_json::from_slice::<Status>(&text).ok().filter(|status| !status.message.is_empty());
    let message = match said {
        Some(status) => status.message,
        None => String::from_utf8_lossy(text.get(..200).unwrap_or(&text)).into_owned(),
    };
    Err(Fault::refused(head.status, message))
}

async fn whole(body: Body) -> Result<Bytes, Fault> {
    match timeout(BODY_TIMEOUT, body.collect()).await {
        Err(_) => Err(Fault::Silent(BODY_TIMEOUT)),
        Ok(Err(error)) => Err(Fault::of(error)),
        Ok(Ok(body)) => Ok(body.to_bytes()),
    }
}

impl Status {
    /// The refusal that it stands for in a watch.
    pub(super) fn into_fault(self) -> Fault {
        let code = u16::try_from(self.code).ok().and_then(|code| StatusCode::from_u16(code).ok());
        match code {
            Some(code) => Fault::refused(code, self.message),
            None => Fault::Garbage(format!("an error without a code: {}", self.message)),
        }
    }
}
