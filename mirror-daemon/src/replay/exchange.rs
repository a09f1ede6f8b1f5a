//! One exchange: a request written to a connection while its answer is read and thrown away.

use super::ShadowBody;
use super::job::Job;
use super::link::Link;
use super::outgoing::{self, Rest};
use crate::drop_reason::DropReason;
use crate::http::{AnswerDecoder, AnswerSummary};
use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

/// How an exchange came to its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outcome {
    pub(super) ending: Ending,
    /// The answer, if it was whole; it may have come before the request was.
    pub(super) answer: Option<AnswerSummary>,
    /// At least one byte of an answer came.
    pub(super) is_answer_begun: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Request written, answer read. `is_reusable`: the connection can carry another exchange.
    Answered { is_reusable: bool },
    /// Request written, but the answer did not end in time.
    AnswerTimeout,
    /// The shadow took no more bytes of the request in time.
    WriteTimeout,
    /// The connection closed or failed, or the answer was no HTTP.
    Closed,
    /// The request could not be completed on our side.
    Aborted(DropReason),
}

/// Writes `job` and reads its answer; both at once, so that a shadow which answers early and then reads no
/// more cannot block us. `time_limit` holds from the last byte written to the end of the answer, and for
/// each write that makes no progress.
pub(super) async fn exchange(job: &mut Job, link: &mut Link, time_limit: Duration) -> Outcome {
    let rest = match outgoing::start(job, link) {
        Ok(rest) => rest,
        Err(reason) => {
            let ending = Ending::Aborted(reason);
            return Outcome { ending, answer: None, is_answer_begun: false };
        }
    };
    let mut exchange = Exchange {
        rest,
        decoder: AnswerDecoder::new(job.request.head.method.is_head),
        answer: None,
        is_answer_begun: false,
        is_garbled: false,
        deadline: None,
        time_limit,
    };
    let ending = poll_fn(|cx| exchange.poll(job, link, cx)).await;
    Outcome { ending, answer: exchange.answer, is_answer_begun: exchange.is_answer_begun }
}

#[derive(Debug)]
struct Exchange {
    rest: Rest,
    decoder: AnswerDecoder,
    answer: Option<AnswerSummary>,
    is_answer_begun: bool,
    /// Bytes came that belong to no answer.
    is_garbled: bool,
    /// When it is too late. `None` while it is us who wait for more of a streamed body.
    deadline: Option<Instant>,
    time_limit: Duration,
}

impl Exchange {
    fn poll(&mut self, job: &mut Job, link: &mut Link, cx: &mut Context<'_>) -> Poll<Ending> {
        if !job.is_sent {
            match self.poll_send(job, link, cx) {
                Poll::Ready(Some(Ending::Closed)) => {
                    // The shadow may have said why before it closed.
                    let _ = self.poll_answer(job, link, cx);
                    return Poll::Ready(Ending::Closed);
                }
                Poll::Ready(Some(ending)) => return Poll::Ready(ending),
                Poll::Ready(None) => {
                    job.is_sent = true;
                    self.set_deadline(link);
                }
                Poll::Pending => {}
            }
        }
        if let Poll::Ready(ending) = self.poll_answer(job, link, cx) {
            return Poll::Ready(ending);
        }
        match self.deadline {
            Some(deadline) if link.poll_deadline(cx, deadline).is_ready() => {
                Poll::Ready(if job.is_sent { Ending::AnswerTimeout } else { Ending::WriteTimeout })
            }
            _ => Poll::Pending,
        }
    }

    /// Ready with `None` when the last byte was accepted.
    fn poll_send(&mut self, job: &mut Job, link: &mut Link, cx: &mut Context<'_>) -> Poll<Option<Ending>> {
        loop {
            if let Some(reason) = self.poll_abort(job, cx) {
                return Poll::Ready(Some(Ending::Aborted(reason)));
            }
            if link.outgoing.is_empty() {
                if matches!(self.rest, Rest::Nothing) {
                    return self.poll_flush(link, cx);
                }
                match outgoing::poll_more(&mut self.rest, job, link, cx) {
                    Poll::Ready(Ok(())) => continue,
                    Poll::Ready(Err(reason)) => return Poll::Ready(Some(Ending::Aborted(reason))),
                    Poll::Pending => {
                        self.deadline = None;
                        // What TLS still holds must not wait for the next piece.
                        return match self.poll_flush(link, cx) {
                            Poll::Ready(None) => Poll::Pending,
                            other => other,
                        };
                    }
                }
            }
            match link.poll_write(cx) {
                Poll::Ready(Ok(written @ 1..)) => {
                    job.accepted_bytes = job.accepted_bytes.saturating_add(written as u64);
                    self.deadline = None;
                }
                Poll::Ready(_) => return Poll::Ready(Some(Ending::Closed)),
                Poll::Pending => {
                    self.wait_for_write(link);
                    return Poll::Pending;
                }
            }
        }
    }

    fn poll_flush(&mut self, link: &mut Link, cx: &mut Context<'_>) -> Poll<Option<Ending>> {
        match link.poll_flush(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(None),
            Poll::Ready(Err(_)) => Poll::Ready(Some(Ending::Closed)),
            Poll::Pending => {
                self.wait_for_write(link);
                Poll::Pending
            }
        }
    }

    /// A streamed body that was aborted need not be written up to there first.
    fn poll_abort(&self, job: &mut Job, cx: &mut Context<'_>) -> Option<DropReason> {
        match (&self.rest, &mut job.request.body) {
            (Rest::Counted { .. } | Rest::Chunks, ShadowBody::Streaming(reader)) => {
                match reader.poll_abort(cx) {
                    Poll::Ready(abort) => Some(abort.0),
                    Poll::Pending => None,
                }
            }
            _ => None,
        }
    }

    /// Reads what is there. Ready when the exchange is at its end by it.
    fn poll_answer(&mut self, job: &Job, link: &mut Link, cx: &mut Context<'_>) -> Poll<Ending> {
        loop {
            if let (true, Some(answer)) = (job.is_sent, self.answer) {
                let is_reusable = answer.reusable && !self.is_garbled;
                return Poll::Ready(Ending::Answered { is_reusable });
            }
            match link.poll_read(cx, |bytes| self.handle_bytes(bytes)) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(Some(()))) => {}
                Poll::Ready(Ok(None)) if job.is_sent && self.answer.is_some() => {}
                Poll::Ready(Ok(None) | Err(_)) => return Poll::Ready(Ending::Closed),
            }
        }
    }

    /// `None`: nothing more can come.
    fn handle_bytes(&mut self, bytes: &[u8]) -> Option<()> {
        if bytes.is_empty() {
            if self.answer.is_none() && self.is_answer_begun {
                self.answer = self.decoder.handle_eof().ok();
            }
            return None;
        }
        self.is_answer_begun = true;
        if self.answer.is_some() {
            self.is_garbled = true;
            return Some(());
        }
        let progress = self.decoder.handle_bytes(bytes).ok()?;
        self.answer = progress.done;
        self.is_garbled = progress.done.is_some() && progress.consumed < bytes.len();
        Some(())
    }

    fn set_deadline(&mut self, link: &mut Link) {
        link.now = Instant::now();
        self.deadline = link.now.checked_add(self.time_limit);
    }

    fn wait_for_write(&mut self, link: &mut Link) {
        if self.deadline.is_none() {
            self.set_deadline(link);
        }
    }
}
