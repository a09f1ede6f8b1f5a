//! One request on its stream: the body goes as the windows let it, the answer is read and thrown away.
//!
//! ```text
//!  sending   Open ──last byte queued──▶ Queued ──the socket took it──▶ Written
//!  answer    Head ──▶ Body ──▶ Whole                             both at the end: answered
//! ```

use super::flood::Allowance;
use super::outgoing::{NotSent, end_request, poll_data, poll_more};
use super::ticket::Ticket;
use crate::drop_reason::DropReason;
use crate::replay::{OriginalEnd, ShadowBody};
use crate::rewrite::Framing;
use ::h2::client::ResponseFuture;
use ::h2::{Reason, RecvStream, SendStream};
use bytes::Bytes;
use std::convert::Infallible;
use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Instant;

/// How a stream came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Request written, answer read.
    Answered,
    /// Request written, but the answer did not end in time.
    AnswerTimeout,
    /// The shadow took no more bytes of the request in time.
    WriteTimeout,
    /// Request written, and the original cancelled.
    OriginalCancelled,
    /// The request could not be completed on our side.
    Aborted(DropReason),
    /// The shadow ended it.
    Closed(Closed),
}

/// In which way the shadow ended a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closed {
    /// It says that it has not processed the request (RFC 9113, 8.7).
    Unprocessed,
    /// The connection is lost.
    Connection,
    /// It sent what is no HTTP/2, or too much.
    Garbled,
    /// It reset the stream.
    Reset,
}

impl From<&::h2::Error> for Closed {
    fn from(error: &::h2::Error) -> Self {
        let is_refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
        // Of a peer's GOAWAY `h2` tells only the streams above the last one that it names.
        if error.is_remote() && (error.is_go_away() || is_refused) {
            return Self::Unprocessed;
        }
        if error.is_library() {
            return Self::Garbled;
        }
        if error.is_io() { Self::Connection } else { Self::Reset }
    }
}

/// What of the answer has come.
#[derive(Debug)]
enum Answer {
    Head(ResponseFuture),
    /// Its trailers, too.
    Body(RecvStream),
    Whole,
}

/// What of the request has gone.
#[derive(Debug)]
enum Sending {
    /// `pending` waits for window; `bytes_left` of a streamed body are still to come, `None` where its length
    /// was not said.
    Open {
        pending: Bytes,
        bytes_left: Option<u64>,
    },
    /// The last byte is with `h2`.
    Queued,
    Written,
}

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) ticket: Ticket,
    send: SendStream<Bytes>,
    sending: Sending,
    answer: Answer,
    status: Option<u16>,
    /// When it is too late. `None` while it is us who wait for more of a streamed body.
    deadline: Option<Instant>,
    time_limit: Duration,
    /// Its answer may go on for as long as something comes, and for as long as that of its original does.
    is_call: bool,
    /// Bytes that the connection had brought when the request was written.
    pub(super) read_bytes_then: u64,
}

/// What a turn of the connection gives to each stream.
pub(super) struct Turn<'a> {
    pub(super) now: Instant,
    pub(super) allowance: &'a mut Allowance,
}

impl Stream {
    /// The head is with `h2`, and so is the end of the request if `is_ended`.
    pub(super) fn new(
        mut ticket: Ticket,
        (answer, send): (ResponseFuture, SendStream<Bytes>),
        is_ended: bool,
        now: Instant,
    ) -> Self {
        let time_limit = ticket.shadow().config.timeout;
        let is_call = ticket.job().is_some_and(|job| {
            job.request.original.is_some() || matches!(job.request.body, ShadowBody::Streaming(_))
        });
        let sending = match ticket.job().map(|job| (&job.request.body, job.request.head.framing)) {
            _ if is_ended => Sending::Queued,
            Some((ShadowBody::Buffered { bytes, .. }, _)) => {
                Sending::Open { pending: bytes.clone(), bytes_left: None }
            }
            Some((ShadowBody::Streaming(_), Framing::Length(bytes))) => {
                Sending::Open { pending: Bytes::new(), bytes_left: Some(bytes) }
            }
            Some((ShadowBody::Streaming(_), Framing::None)) => {
                Sending::Open { pending: Bytes::new(), bytes_left: Some(0) }
            }
            _ => Sending::Open { pending: Bytes::new(), bytes_left: None },
        };
        Self {
            ticket,
            send,
            sending,
            answer: Answer::Head(answer),
            status: None,
            deadline: now.checked_add(time_limit),
            time_limit,
            is_call,
            read_bytes_then: 0,
        }
    }

    /// The status, once its head has come.
    pub(super) const fn status(&self) -> Option<u16> {
        self.status
    }

    pub(super) const fn is_answer_whole(&self) -> bool {
        matches!(self.answer, Answer::Whole)
    }

    /// The last byte waits for the socket.
    pub(super) const fn is_queued(&self) -> bool {
        matches!(self.sending, Sending::Queued)
    }

    pub(super) const fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The socket has taken the last byte. True when the stream must be looked at by that.
    pub(super) fn handle_written(&mut self, now: Instant, read_bytes: u64) -> bool {
        if !self.is_queued() {
            return false;
        }
        self.sending = Sending::Written;
        self.read_bytes_then = read_bytes;
        self.limit_answer(now);
        let is_whole = self.is_answer_whole();
        self.ticket.job().is_some_and(|job| {
            job.is_sent = true;
            is_whole || job.request.original.is_some()
        })
    }

    /// The time is up.
    pub(super) const fn handle_deadline(&self) -> Ending {
        match self.sending {
            Sending::Written => Ending::AnswerTimeout,
            Sending::Open { .. } | Sending::Queued => Ending::WriteTimeout,
        }
    }

    /// Tells the shadow that nothing more comes and nothing more is wanted.
    pub(super) fn reset(&mut self) {
        self.send.send_reset(Reason::CANCEL);
    }

    /// Does what can be done now.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, turn: &mut Turn<'_>) -> Poll<Ending> {
        let sent = self.poll_send(cx, turn);
        if let Poll::Ready(Err(NotSent::Aborted(reason))) = sent {
            return Poll::Ready(Ending::Aborted(reason));
        }
        // Asked first, for it knows better why the shadow ended the stream.
        if let Poll::Ready(Err(closed)) = self.poll_answer(cx, turn) {
            return Poll::Ready(Ending::Closed(closed));
        }
        match (&self.sending, &self.answer) {
            _ if sent.is_ready() => Poll::Ready(Ending::Closed(Closed::Reset)),
            (Sending::Written, Answer::Whole) => Poll::Ready(Ending::Answered),
            (Sending::Written, _) => self.poll_original(cx, turn.now),
            // The answer's side tells no more of a reset.
            (Sending::Open { .. } | Sending::Queued, Answer::Whole) => {
                self.send.poll_reset(cx).map(|_| Ending::Closed(Closed::Reset))
            }
            (Sending::Open { .. } | Sending::Queued, _) => Poll::Pending,
        }
    }

    /// Hands `h2` what there is and what there is window for. Ready only when nothing more can be sent.
    fn poll_send(&mut self, cx: &mut Context<'_>, turn: &mut Turn<'_>) -> Poll<Result<Infallible, NotSent>> {
        let limit = turn.now.checked_add(self.time_limit);
        loop {
            let Sending::Open { pending, bytes_left } = &mut self.sending else { return Poll::Pending };
            let Some(job) = self.ticket.job() else { return Poll::Pending };
            if let ShadowBody::Streaming(reader) = &mut job.request.body {
                // An aborted body need not be written up to there first.
                if let Poll::Ready(abort) = reader.poll_abort(cx) {
                    return Poll::Ready(Err(NotSent::Aborted(abort.0)));
                }
            }
            if pending.is_empty() {
                match poll_more(job, pending, bytes_left, cx)? {
                    Poll::Ready(None) => {}
                    Poll::Ready(Some(trailers)) => {
                        end_request(&mut self.send, &trailers)?;
                        self.sending = Sending::Queued;
                        self.deadline = limit;
                    }
                    Poll::Pending => {
                        self.deadline = None;
                        return Poll::Pending;
                    }
                }
                continue;
            }
            let is_last =
                matches!(&job.request.body, ShadowBody::Buffered { trailers, .. } if trailers.is_empty());
            let Poll::Ready(sent) = poll_data(&mut self.send, pending, cx, is_last) else {
                self.deadline = self.deadline.or(limit);
                return Poll::Pending;
            };
            turn.allowance.grant_sent(sent?);
            self.deadline = None;
            if is_last && pending.is_empty() {
                self.sending = Sending::Queued;
                self.deadline = limit;
            }
        }
    }

    /// Reads what there is of the answer. Ready only when the shadow has ended the stream before its end.
    fn poll_answer(&mut self, cx: &mut Context<'_>, turn: &mut Turn<'_>) -> Poll<Result<Infallible, Closed>> {
        loop {
            match &mut self.answer {
                Answer::Head(head) => {
                    let answer = ready!(Pin::new(head).poll(cx)).map_err(|error| Closed::from(&error))?;
                    self.status = Some(answer.status().as_u16());
                    let body = answer.into_body();
                    self.answer = if body.is_end_stream() { Answer::Whole } else { Answer::Body(body) };
                    self.handle_answer_progress(turn.now);
                }
                Answer::Body(body) => match ready!(body.poll_data(cx)) {
                    Some(bytes) => {
                        let bytes = bytes.map_err(|error| Closed::from(&error))?.len();
                        turn.allowance.grant_frame(bytes);
                        // Fails only for more than was taken.
                        let _ = body.flow_control().release_capacity(bytes);
                        self.handle_answer_progress(turn.now);
                    }
                    None => {
                        ready!(body.poll_trailers(cx)).map_err(|error| Closed::from(&error))?;
                        self.answer = Answer::Whole;
                    }
                },
                Answer::Whole => return Poll::Pending,
            }
        }
    }

    fn poll_original(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<Ending> {
        let Some(job) = self.ticket.job() else { return Poll::Pending };
        let Some(original) = &mut job.request.original else { return Poll::Pending };
        match ready!(original.poll_end(cx)) {
            OriginalEnd::Cancelled => Poll::Ready(Ending::OriginalCancelled),
            OriginalEnd::Gone => {
                // It may have been answered: its shadow has the time for an answer, and no more however much comes.
                job.request.original = None;
                self.is_call = false;
                self.limit_answer(now);
                Poll::Pending
            }
            OriginalEnd::Over => {
                job.request.original = None;
                self.limit_answer(now);
                Poll::Pending
            }
        }
    }

    fn handle_answer_progress(&mut self, now: Instant) {
        if matches!(self.sending, Sending::Written) && self.is_call {
            self.limit_answer(now);
        }
    }

    /// The shadow has so much time for what comes next of its answer: none is measured once its head has come and
    /// while the original goes on.
    fn limit_answer(&mut self, now: Instant) {
        let is_original_open = self.ticket.job().is_some_and(|job| job.request.original.is_some());
        let is_endless = is_original_open && self.status.is_some();
        self.deadline = if is_endless { None } else { now.checked_add(self.time_limit) };
    }
}
