//! An HTTP/1 connection task: one connection, one exchange after the other, for as long as it is wanted.
//!
//! What becomes of a request, booked once, when its exchange has ended:
//!
//! | ending | entry | breaker |
//! |---|---|---|
//! | written and answered | `replayed`, `answered` by class | success |
//! | written, no end of the answer in time | `replayed`, `answer_timeouts` | failure; none once the answer has begun, for it may be endless (events) |
//! | written, closed (or garbled) in the middle of the answer | `replayed`, `answers_cut` | failure |
//! | closed before it was written, or before any byte of the answer | sent once more if RFC 9112, 9.3.1 allows, else `shadow_closed` | failure |
//! | the shadow took no more bytes in time | `write_timeout` | failure |
//! | its streamed body was aborted | that reason | none |
//!
//! "Written" means that the socket accepted the last byte. An answer that comes before that is counted as
//! answered whatever becomes of the rest.

use super::breaker::Verdict;
use super::exchange::{Ending, Outcome, exchange};
use super::link::Link;
use super::seat::Seat;
use super::shadow::Shadow;
use crate::drop_reason::DropReason;
use std::future::poll_fn;
use std::task::{Context, Poll};
use tokio::time::Instant;

/// Connects, then serves until the connection is closed, idle for too long, or not wanted any more.
pub(super) async fn run(mut seat: Seat) {
    let mut link = match open(seat.shadow()).await {
        Ok(link) => link,
        Err((reason, why)) => return seat.handle_connect_failed(reason, &why),
    };
    seat.handle_connected();
    loop {
        if seat.job().is_none() && wait(&mut seat, &mut link).await == Waited::InVain {
            return;
        }
        let time_limit = seat.shadow().config.timeout;
        let Some(job) = seat.job() else { return };
        let outcome = exchange(job, &mut link, time_limit).await;
        let is_pooled = link.exchanges > 0;
        link.exchanges = link.exchanges.saturating_add(1);
        match settle(&mut seat, outcome, is_pooled) {
            Next::Keep(verdict) if may_stay(&seat, &mut link) => seat.finish_and_take(verdict, link.now),
            Next::Keep(verdict) | Next::Close(verdict) => return seat.finish(verdict),
            Next::Resend => match open(seat.shadow()).await {
                Ok(fresh) => {
                    link = fresh;
                    seat.shadow().ledger.resent.increment();
                }
                Err((reason, _)) => {
                    seat.shadow().ledger.lost(reason);
                    return seat.finish(Verdict::Failure("connections can't be made anew"));
                }
            },
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waited {
    /// A request was taken.
    Request,
    /// The connection has to go.
    InVain,
}

enum Next {
    Keep(Verdict),
    Close(Verdict),
    Resend,
}

async fn open(shadow: &Shadow) -> Result<Link, (DropReason, String)> {
    match shadow.connector.connect().await {
        Ok(link) => {
            shadow.ledger.connections_opened.increment();
            Ok(link)
        }
        Err(failure) => {
            shadow.log_not_connected(&failure);
            Err((failure.reason, failure.why))
        }
    }
}

/// Waits among the idle connections.
async fn wait(seat: &mut Seat, link: &mut Link) -> Waited {
    let now = Instant::now();
    let deadline = now.checked_add(seat.shadow().config.idle_timeout);
    poll_fn(|cx| poll_wait(seat, link, deadline, cx)).await
}

fn poll_wait(
    seat: &mut Seat,
    link: &mut Link,
    deadline: Option<Instant>,
    cx: &mut Context<'_>,
) -> Poll<Waited> {
    // Its end, or bytes that nobody asked for (a 408, say): either way it is of no more use.
    if link.poll_read(cx, |_| ()).is_ready() || !may_stay(seat, link) {
        return Poll::Ready(Waited::InVain);
    }
    if seat.poll_take(cx).is_ready() {
        return Poll::Ready(Waited::Request);
    }
    match deadline {
        Some(deadline) => link.poll_deadline(cx, deadline).map(|()| Waited::InVain),
        None => Poll::Pending,
    }
}

/// Whether the shadow's name still has the connection's address.
fn may_stay(seat: &Seat, link: &mut Link) -> bool {
    seat.shadow().may_stay(link.peer, &mut link.generation, link.now)
}

/// Why an answer that has begun did not end.
const CUT_OR_GARBLED: &str = "its answers are cut off, or no HTTP/1";

/// Books the request; see the module's table.
fn settle(seat: &mut Seat, outcome: Outcome, is_pooled: bool) -> Next {
    let shadow = std::sync::Arc::clone(seat.shadow());
    let ledger = &shadow.ledger;
    let Some(job) = seat.job() else { return Next::Close(Verdict::Undecided) };
    if let Some(answer) = outcome.answer {
        let class = usize::from(answer.status / 100).saturating_sub(1);
        if let Some(counter) = ledger.answered.get(class) {
            counter.increment();
        }
    }
    match outcome.ending {
        Ending::Answered { is_reusable } => {
            ledger.replayed.increment();
            if is_reusable { Next::Keep(Verdict::Success) } else { Next::Close(Verdict::Success) }
        }
        Ending::AnswerTimeout => {
            ledger.replayed.increment();
            ledger.answer_timeouts.increment();
            Next::Close(if outcome.is_answer_begun {
                Verdict::Undecided
            } else {
                Verdict::Failure("requests were not answered in time")
            })
        }
        Ending::Closed if job.is_sent && outcome.is_answer_begun => {
            ledger.replayed.increment();
            ledger.answers_cut.increment();
            Next::Close(Verdict::Failure(CUT_OR_GARBLED))
        }
        Ending::Closed if is_pooled && !outcome.is_answer_begun && job.may_be_resent() => {
            job.rewind();
            Next::Resend
        }
        Ending::Closed => {
            ledger.lost(DropReason::ShadowClosed);
            let why = if outcome.is_answer_begun {
                CUT_OR_GARBLED
            } else {
                "it closes connections without an answer"
            };
            Next::Close(Verdict::Failure(why))
        }
        Ending::WriteTimeout => {
            ledger.lost(DropReason::WriteTimeout);
            Next::Close(Verdict::Failure("requests were not taken in time"))
        }
        Ending::Aborted(reason) => {
            ledger.lost(reason);
            if job.accepted_bytes == 0 && !outcome.is_answer_begun {
                Next::Keep(Verdict::Undecided)
            } else {
                Next::Close(Verdict::Undecided)
            }
        }
    }
}
