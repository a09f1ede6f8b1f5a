//! Books a request whose stream has ended; see the table in `h2`.

use super::stream::{Closed, Ending, Stream};
use crate::drop_reason::DropReason;
use crate::replay::breaker::Verdict;
use std::sync::Arc;

/// `is_pooled`: its connection had carried an exchange before.
pub(super) fn settle(mut stream: Stream, ending: Ending, is_pooled: bool) {
    let shadow = Arc::clone(stream.ticket.shadow());
    let ledger = &shadow.ledger;
    let (status, is_whole, is_streamed) = (stream.status(), stream.is_answer_whole(), stream.is_streamed());
    let class = status.filter(|_| is_whole).map(|status| usize::from(status / 100).saturating_sub(1));
    if let Some(counter) = class.and_then(|class| ledger.answered.get(class)) {
        counter.increment();
    }
    let Some(job) = stream.ticket.job() else { return };
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
            if is_streamed && status.is_some() { Verdict::Undecided } else { Verdict::Failure }
        }
        Ending::WriteTimeout => {
            ledger.lost(DropReason::WriteTimeout);
            Verdict::Failure
        }
        Ending::Aborted(reason) => {
            ledger.lost(reason);
            Verdict::Undecided
        }
        Ending::Closed(closed) if status.is_none() => {
            if closed == Closed::Unprocessed {
                job.accepted_bytes = 0;
            }
            let is_excused = closed == Closed::Unprocessed || (closed == Closed::Connection && is_pooled);
            if is_excused && job.may_be_resent() {
                return stream.ticket.put_back();
            }
            if closed == Closed::Garbled && job.is_sent {
                ledger.replayed.increment();
                ledger.answers_cut.increment();
            } else {
                ledger.lost(DropReason::ShadowClosed);
            }
            Verdict::Failure
        }
        Ending::Closed(_) if job.is_sent => {
            ledger.replayed.increment();
            ledger.answers_cut.increment();
            Verdict::Failure
        }
        Ending::Closed(_) => {
            ledger.lost(DropReason::ShadowClosed);
            if is_whole { Verdict::Success } else { Verdict::Failure }
        }
    };
    stream.ticket.finish(verdict);
}
