//! Turns a request into the pieces that go over the wire: head, then body as its framing wants it.

use super::ShadowBody;
use super::body::BodyPiece;
use super::job::Job;
use super::link::Link;
use crate::drop_reason::DropReason;
use crate::rewrite::Framing;
use bytes::{Bytes, BytesMut};
use std::fmt::Write as _;
use std::task::{Context, Poll};

/// Bytes of a streamed body gathered for one write.
const MAX_GATHER_BYTES: usize = 64 * 1024;
/// Pieces of a streamed body gathered for one write.
const MAX_GATHER_PIECES: usize = 8;

/// What of a request is not yet among the outgoing pieces.
#[derive(Debug)]
pub(super) enum Rest {
    /// Nothing.
    Nothing,
    /// A streamed body of known length: so many bytes still to come. Its last bytes are held back until the
    /// body is known to be whole, so that an aborted one never looks whole.
    Counted { bytes_left: u64, held: Option<Bytes> },
    /// A streamed body in chunks.
    Chunks,
}

/// Queues head and buffered body.
///
/// # Errors
/// The head does not describe the body: written, it would garble the connection.
pub(super) fn start(job: &Job, link: &mut Link) -> Result<Rest, DropReason> {
    link.outgoing.clear();
    let framing = job.request.head.framing;
    push(link, &job.request.head.wire);
    match (&job.request.body, framing) {
        (ShadowBody::Buffered { bytes, .. }, Framing::None | Framing::Length(_)) => {
            check_length(bytes.len() as u64, framing)?;
            push(link, bytes);
            Ok(Rest::Nothing)
        }
        (ShadowBody::Buffered { bytes, trailers }, Framing::Chunked) => {
            push_chunk(link, bytes);
            push_last_chunk(link, trailers);
            Ok(Rest::Nothing)
        }
        (ShadowBody::Streaming(_), Framing::None) => Ok(Rest::Counted { bytes_left: 0, held: None }),
        (ShadowBody::Streaming(_), Framing::Length(bytes_left)) => {
            Ok(Rest::Counted { bytes_left, held: None })
        }
        (ShadowBody::Streaming(_), Framing::Chunked) => Ok(Rest::Chunks),
    }
}

/// Queues what there is of a streamed body. Pending: nothing came, and it is not at its end.
///
/// # Errors
/// It must be aborted.
pub(super) fn poll_more(
    rest: &mut Rest,
    job: &mut Job,
    link: &mut Link,
    cx: &mut Context<'_>,
) -> Poll<Result<(), DropReason>> {
    let ShadowBody::Streaming(reader) = &mut job.request.body else {
        *rest = Rest::Nothing;
        return Poll::Ready(Ok(()));
    };
    let mut gathered_bytes = 0_usize;
    for _ in 0..MAX_GATHER_PIECES {
        match reader.poll_piece(cx) {
            Poll::Pending => break,
            Poll::Ready(Err(abort)) => return Poll::Ready(Err(abort.0)),
            Poll::Ready(Ok(BodyPiece::Bytes(bytes))) => {
                job.is_body_begun = true;
                gathered_bytes = gathered_bytes.saturating_add(bytes.len());
                push_piece(rest, link, bytes)?;
            }
            Poll::Ready(Ok(BodyPiece::End { trailers })) => {
                push_end(rest, link, &trailers)?;
                *rest = Rest::Nothing;
                return Poll::Ready(Ok(()));
            }
        }
        if gathered_bytes >= MAX_GATHER_BYTES {
            break;
        }
    }
    if link.outgoing.is_empty() { Poll::Pending } else { Poll::Ready(Ok(())) }
}

fn push_piece(rest: &mut Rest, link: &mut Link, bytes: Bytes) -> Result<(), DropReason> {
    match rest {
        Rest::Nothing => Err(DropReason::Malformed),
        Rest::Chunks => {
            push_chunk(link, &bytes);
            Ok(())
        }
        Rest::Counted { bytes_left, held } => {
            let left = bytes_left.checked_sub(bytes.len() as u64).ok_or(DropReason::Malformed)?;
            *bytes_left = left;
            if left == 0 {
                *held = Some(bytes);
            } else {
                push(link, &bytes);
            }
            Ok(())
        }
    }
}

fn push_end(rest: &mut Rest, link: &mut Link, trailers: &Bytes) -> Result<(), DropReason> {
    match rest {
        Rest::Nothing => Ok(()),
        Rest::Chunks => {
            push_last_chunk(link, trailers);
            Ok(())
        }
        Rest::Counted { bytes_left: 0, held } => {
            if let Some(bytes) = held.take() {
                push(link, &bytes);
            }
            Ok(())
        }
        Rest::Counted { .. } => Err(DropReason::Truncated),
    }
}

/// # Errors
/// The body is not what the head says.
pub(super) fn check_length(len: u64, framing: Framing) -> Result<(), DropReason> {
    let promised = match framing {
        Framing::None => 0,
        Framing::Length(promised) => promised,
        Framing::Chunked => return Ok(()),
    };
    match len.cmp(&promised) {
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Less => Err(DropReason::Truncated),
        std::cmp::Ordering::Greater => Err(DropReason::Malformed),
    }
}

/// RFC 9112, 7.1. An empty chunk would end the body: there is none.
fn push_chunk(link: &mut Link, bytes: &Bytes) {
    if bytes.is_empty() {
        return;
    }
    let line = chunk_line(&mut link.chunk_lines, bytes.len());
    push(link, &line);
    push(link, bytes);
    push(link, &Bytes::from_static(b"\r\n"));
}

/// RFC 9112, 7.1.2.
fn push_last_chunk(link: &mut Link, trailers: &Bytes) {
    push(link, &Bytes::from_static(b"0\r\n"));
    push(link, trailers);
    push(link, &Bytes::from_static(b"\r\n"));
}

fn chunk_line(lines: &mut BytesMut, len: usize) -> Bytes {
    // Writing to a BytesMut cannot fail: it grows.
    let _ = write!(lines, "{len:x}\r\n");
    lines.split().freeze()
}

fn push(link: &mut Link, piece: &Bytes) {
    if !piece.is_empty() {
        link.outgoing.push_back(piece.clone());
    }
}
