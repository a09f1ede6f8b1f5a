//! Hands a request's body to `h2`, as the windows allow.

use super::head;
use crate::drop_reason::DropReason;
use crate::replay::ShadowBody;
use crate::replay::body::BodyPiece;
use crate::replay::job::Job;
use ::h2::SendStream;
use bytes::Bytes;
use std::task::{Context, Poll, ready};

/// Why a request can't be sent to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotSent {
    /// On our side.
    Aborted(DropReason),
    /// The shadow has ended the stream.
    Closed,
}

/// Gets the next piece of the body into `pending`, or its trailers when it is at its end. `bytes_left` of it are
/// still to come, `None` where its length was not said.
///
/// # Errors
/// It was aborted, or is not as long as its head says.
pub(super) fn poll_more(
    job: &mut Job,
    pending: &mut Bytes,
    bytes_left: &mut Option<u64>,
    cx: &mut Context<'_>,
) -> Result<Poll<Option<Bytes>>, NotSent> {
    let reader = match &mut job.request.body {
        ShadowBody::Buffered { trailers, .. } => return Ok(Poll::Ready(Some(trailers.clone()))),
        ShadowBody::Streaming(reader) => reader,
    };
    let piece = match reader.poll_piece(cx) {
        Poll::Ready(piece) => piece.map_err(|abort| NotSent::Aborted(abort.0))?,
        Poll::Pending => return Ok(Poll::Pending),
    };
    let left = bytes_left.unwrap_or(0);
    match piece {
        BodyPiece::Bytes(bytes) => {
            job.is_body_begun = true;
            if bytes_left.is_some() {
                let left = left.checked_sub(bytes.len() as u64);
                *bytes_left = Some(left.ok_or(NotSent::Aborted(DropReason::Malformed))?);
            }
            *pending = bytes;
            Ok(Poll::Ready(None))
        }
        BodyPiece::End { trailers } if left == 0 => Ok(Poll::Ready(Some(trailers))),
        BodyPiece::End { .. } => Err(NotSent::Aborted(DropReason::Truncated)),
    }
}

/// Hands over as much of `pending` as there is window for, and says how many bytes that were. `is_last`: the
/// request ends with them.
///
/// # Errors
/// The shadow has ended the stream.
pub(super) fn poll_data(
    send: &mut SendStream<Bytes>,
    pending: &mut Bytes,
    cx: &mut Context<'_>,
    is_last: bool,
) -> Poll<Result<usize, NotSent>> {
    send.reserve_capacity(pending.len());
    while send.capacity() == 0 {
        match ready!(send.poll_capacity(cx)) {
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return Poll::Ready(Err(NotSent::Closed)),
        }
    }
    let part = pending.split_to(pending.len().min(send.capacity()));
    let bytes = part.len();
    let sent = send.send_data(part, is_last && pending.is_empty());
    Poll::Ready(sent.map(|()| bytes).map_err(|_| NotSent::Closed))
}

/// Trailers, or an empty DATA frame, with END_STREAM.
///
/// # Errors
/// The trailers can't be said, or the shadow has ended the stream.
pub(super) fn end_request(send: &mut SendStream<Bytes>, trailers: &Bytes) -> Result<(), NotSent> {
    if trailers.is_empty() {
        return send.send_data(Bytes::new(), true).map_err(|_| NotSent::Closed);
    }
    let trailers = head::trailers(trailers).ok_or(NotSent::Aborted(DropReason::Malformed))?;
    // What it refuses is either a field that no trailer may have, or a stream that is closed.
    send.send_trailers(trailers).map_err(|_| NotSent::Closed)
}
