//! Books a request whose stream has ended; see the table in `h2`.

use super::stream::{Closed, Ending, Stream};
use crate::drop_reason::DropReason;
use crate::replay::breaker::Verdict;
use std::sync::Arc;

/// What its connection has seen before.
#[derive(Debug, Default)]
pub(super) struct Past {
    /// An answer came whole.
    pub(super) has_answered: bool,
    /// Its loss was told to the breaker: one lost connection is one failure, however many streams it had.
    is_loss_told: bool,
}

/// Books the request, and gives up its place in flight.
pub(super) fn settle(mut stream: Stream, ending: Ending, past: &mut Past) {
    let shadow = Arc::clone(stream.ticket.shadow());
    let ledger = &shadow.ledger;
    let (status, is_whole) = (stream.status(), stream.is_answer_whole());
    let class = status.filter(|_| is_whole).map(|status| usize::from(status / 100).saturating_sub(1));
    if let Some(counter) = class.and_then(|class| ledger.answered.get(class)) {
        counter.increment();
    }
    let verdict = match ending {
        Ending::Answered => {
            ledger.replayed.increment();
            Verdict::Success
        }
        Ending::OriginalCancelled => {
            ledger.replayed.increment();
            Verdict::Undecided
        }
        Ending::AnswerTimeout => {
            ledger.replayed.increment();
            ledger.answer_timeouts.increment();
            if status.is_some() {
                Verdict::Undecided
            } else {
                Verdict::Failure("requests were not answered in time")
            }
        }
        Ending::WriteTimeout => {
            ledger.lost(DropReason::WriteTimeout);
            Verdict::Failure("requests were not taken in time")
        }
        Ending::Aborted(reason) => {
            ledger.lost(reason);
            Verdict::Undecided
        }
        Ending::Closed(closed) if may_be_resent(&mut stream, closed, past) => {
            return stream.ticket.put_back();
        }
        Ending::Closed(closed) => book_closed(&mut stream, closed, past),
    };
    stream.ticket.finish(verdict);
}

fn may_be_resent(stream: &mut Stream, closed: Closed, past: &Past) -> bool {
    let is_unanswered = stream.status().is_none();
    let Some(job) = stream.ticket.job() else { return false };
    if closed == Closed::Unprocessed {
        job.accepted_bytes = 0;
    }
    let is_excused = closed == Closed::Unprocessed || (closed == Closed::Connection && past.has_answered);
    is_unanswered && is_excused && job.may_be_resent()
}

fn book_closed(stream: &mut Stream, closed: Closed, past: &mut Past) -> Verdict {
    let (is_whole, is_begun) =
        (stream.is_answer_whole(), stream.status().is_some() || closed == Closed::Garbled);
    let ledger = Arc::clone(&stream.ticket.shadow().ledger);
    let (is_sent, is_resent) = stream.ticket.job().map_or((false, false), |job| (job.is_sent, job.is_resent));
    if is_sent && is_begun {
        ledger.replayed.increment();
        ledger.answers_cut.increment();
    } else {
        ledger.lost(DropReason::ShadowClosed);
    }
    match closed {
        _ if is_whole => Verdict::Success,
        // A shadow that restarts gracefully leaves out calls whose bodies had begun.
        Closed::Unprocessed if !is_resent => Verdict::Undecided,
        Closed::Connection if std::mem::replace(&mut past.is_loss_told, true) => Verdict::Undecided,
        Closed::Unprocessed => Verdict::Failure("it refuses requests"),
        Closed::Connection => Verdict::Failure("it closes connections before the answer's end"),
        Closed::Garbled => Verdict::Failure("it answers what is no HTTP/2"),
        Closed::Reset => Verdict::Failure("it resets requests"),
    }
}
