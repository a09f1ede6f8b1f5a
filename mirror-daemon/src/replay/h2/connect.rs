//! Opens HTTP/2 connections, and says what we announce on them.

use super::wire::{Meter, Wire};
use crate::drop_reason::DropReason;
use crate::replay::connect::{ConnectFailure, Connected};
use crate::replay::shadow::Shadow;
use crate::replay::tls::Alpn;
use ::h2::client::{Builder, Connection, SendRequest};
use bytes::Bytes;
use std::future::{Future as _, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// SETTINGS_MAX_HEADER_LIST_SIZE: bytes of one answer's fields.
pub(super) const MAX_HEADER_LIST_BYTES: u32 = 64 * 1024;
/// SETTINGS_INITIAL_WINDOW_SIZE: bytes of one answer's body that may be under way.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// Bytes of all answers' bodies on one connection that may be under way.
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// Bytes of one request's body that wait within a connection for the socket.
const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// What the DATA frames that came in one turn may take in memory, 256 bytes each at least: enough for a turn's
/// worth of frames with one byte.
const DATA_FRAME_BUDGET_BYTES: usize = 4 * 1024 * 1024;
/// Streams that we reset and whose late frames we still know how to ignore.
const MAX_RESET_STREAMS: usize = 128;
/// How long we do.
const RESET_STREAM_TIME: Duration = Duration::from_secs(10);
/// Faults of the peer in single streams, over the life of a connection, before it is closed.
const MAX_STREAM_FAULTS: usize = 256;

/// A connection that is ready for its first request.
pub(super) struct Opened {
    pub(super) connection: Connection<Wire, Bytes>,
    pub(super) requests: SendRequest<Bytes>,
    pub(super) meter: Arc<Meter>,
    pub(super) peer: SocketAddr,
    pub(super) generation: u64,
}

/// Connects, and waits for the peer's SETTINGS: only then it is known to speak HTTP/2, and how many streams it
/// takes.
///
/// # Errors
/// Where it failed, or where it was when the time was up.
pub(super) async fn open(shadow: &Shadow) -> Result<Opened, ConnectFailure> {
    let deadline = shadow.connector.deadline();
    let opened = match shadow.connector.connect_until(deadline, Alpn::Http2).await {
        Ok(connected) => begin(connected, deadline).await,
        Err(failure) => Err(failure),
    };
    match &opened {
        Ok(_) => shadow.ledger.connections_opened.increment(),
        Err(failure) => shadow.log_not_connected(failure),
    }
    opened
}

async fn begin(connected: Connected, deadline: Instant) -> Result<Opened, ConnectFailure> {
    let refused = |why: &dyn std::fmt::Display| ConnectFailure::new(DropReason::Connect, why);
    // A server of HTTP/1 answers the preface by an error, or closes.
    let other = |why: &dyn std::fmt::Display| {
        refused(&format_args!("it does not speak HTTP/2 (see protocol): {why}"))
    };
    let meter = Arc::new(Meter::default());
    let wire = Wire::new(connected.transport, Arc::clone(&meter));
    let (requests, mut connection) = timeout_at(deadline, builder().handshake(wire))
        .await
        .map_err(|_| refused(&"the preface was not taken in time"))?
        .map_err(|error| refused(&error))?;
    let settings = poll_fn(|cx| {
        meter.start_turn();
        match Pin::new(&mut connection).poll(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(Err(other(&"closed before its settings came"))),
            Poll::Ready(Err(error)) => Poll::Ready(Err(other(&error))),
            Poll::Pending if connection.max_concurrent_send_streams() > 0 => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        }
    });
    timeout_at(deadline, settings)
        .await
        .map_err(|_| refused(&"no settings that allow a stream, in time"))??;
    Ok(Opened { connection, requests, meter, peer: connected.peer, generation: connected.generation })
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(MAX_HEADER_LIST_BYTES)
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .data_frame_budget(DATA_FRAME_BUDGET_BYTES)
        .max_concurrent_reset_streams(MAX_RESET_STREAMS)
        .reset_stream_duration(RESET_STREAM_TIME)
        .max_local_error_reset_streams(Some(MAX_STREAM_FAULTS))
        // None until the peer has said how many.
        .initial_max_send_streams(0);
    builder
}
