//! The seam between the running parts and what is told of them: plain numbers, taken at one moment.
//!
//! `app` fills a [`Snapshot`] whenever a page is asked for; the metrics and the pages read nothing else. So
//! nothing is pushed, and a daemon that nobody asks pays nothing.

mod rules;

pub use rules::{RulesStatus, WatchState, WatchStatus};

use super::ledger::{Counter, PerReason};
use super::{Ledger, ShadowLedger};
use crate::cluster::discovery::Reading;
use crate::drop_reason::DropReason;
use std::sync::Arc;

/// Gives the present state; called once per page. Must not block.
pub type Source = Arc<dyn Fn() -> Snapshot + Send + Sync>;

/// A counter under a word of a closed set. A word that ends in `_bytes` counts bytes, any other counts
/// events. A word that appears several times (say, once per CPU or shard) is summed.
pub type LabelledCount = (&'static str, u64);

/// Everything the pages tell, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The books.
    pub ledger: LedgerReading,
    /// Kernel counters that mean lost copies: a full ring, a failed read. While all are zero, the ledger
    /// explains every request.
    pub kernel_losses: Vec<LabelledCount>,
    /// All other kernel counters.
    pub kernel: Vec<LabelledCount>,
    /// Counters of `flow`, summed over all shards: gaps, shed flows, evictions.
    pub flow: Vec<LabelledCount>,
    /// What connections of HTTP/2 counted, summed over all shards: violations by kind, losses of synchronisation.
    pub http2: Vec<LabelledCount>,
    /// Connections of HTTP/2 now, by how far they are synchronised, in all shards.
    pub http2_connections: Vec<LabelledCount>,
    /// Connections that are followed now, in all shards.
    pub flows_open: u64,
    /// Bytes held by `flow` and `http` now, in all shards.
    pub flow_buffered_bytes: u64,
    /// Every capture point that is wanted.
    pub points: Vec<PointStatus>,
    /// Every shadow of the running configuration.
    pub shadows: Vec<ShadowStatus>,
    /// The running configuration.
    pub config: ConfigStatus,
    /// Parsers that died before this one.
    pub parser_restarts: u64,
    /// Rules from the cluster; `None`: none are taken from it.
    pub rules: Option<RulesStatus>,
    /// True from the first SIGTERM or SIGINT on.
    pub draining: bool,
    /// The looking for pods; `None`: none is looked for.
    pub pods: Option<Reading>,
}

/// One capture point that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PointStatus {
    /// What an operator calls it, e.g. `interface eth0 in /run/netns/gw`. Shown on pages, never a label.
    pub name: String,
    /// True when all of its programs are attached.
    pub attached: bool,
    /// True for one of a pod that was found: it is not waited for.
    pub is_pod: bool,
}

/// One shadow now, as `replay` tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShadowStatus {
    /// Its name in the configuration.
    pub name: String,
    /// Connections that stand, busy or idle.
    pub open_connections: u64,
    /// Connections being made.
    pub connecting: u64,
    /// Requests that have a connection and no end yet.
    pub in_flight: u64,
    /// Requests that wait for a connection.
    pub queued_items: u64,
    /// Bytes of heads and buffered bodies, of the requests that wait and of those in flight.
    pub held_bytes: u64,
    /// Its circuit breaker.
    pub breaker: BreakerState,
}

/// How a circuit breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BreakerState {
    /// Requests pass.
    Closed,
    /// Requests are shed.
    Open,
    /// One request is under way to find out; all others are shed.
    HalfOpen,
}

impl BreakerState {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// The word for this state.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// The running configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigStatus {
    /// False when the file as it is now was refused, and an older configuration runs.
    pub last_reload_ok: bool,
    /// 1 for the configuration of the start, one more for each that was taken since.
    pub generation: u64,
    /// Of the cluster's rules only what was not revoked runs, for a change of them was refused.
    pub are_rules_cut: bool,
    /// Configurations refused since the start.
    pub reload_failures: u64,
}

impl Default for ConfigStatus {
    fn default() -> Self {
        Self { last_reload_ok: true, generation: 1, are_rules_cut: false, reload_failures: 0 }
    }
}

/// The numbers of a [`PerReason`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReasonCounts([u64; DropReason::ALL.len()]);

impl ReasonCounts {
    fn of(books: &PerReason) -> Self {
        Self(DropReason::ALL.map(|reason| books.of(reason).value()))
    }

    /// Each reason with its count, in the order of [`DropReason::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.into_iter().zip(self.0)
    }

    fn add(&mut self, more: &Self) {
        for (sum, more) in self.0.iter_mut().zip(more.0) {
            *sum = sum.saturating_add(more);
        }
    }

    /// Sum over all reasons.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }
}

/// The numbers of the [`Ledger`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerReading {
    /// Requests that no rule wanted.
    pub unmatched: u64,
    /// Requests that a rule wanted.
    pub matched: u64,
    /// Requests that no rule looked at.
    pub dropped: ReasonCounts,
    /// Each shadow's books, by name.
    pub shadows: Vec<(String, ShadowReading)>,
}

impl LedgerReading {
    /// Reads the books. The closing entries are read before the opening ones, so that a copy which is booked
    /// meanwhile looks open, and never closed without having been owed.
    #[must_use]
    pub fn of(ledger: &Ledger) -> Self {
        let shadows =
            ledger.shadows().into_iter().map(|(name, books)| (name, ShadowReading::of(&books))).collect();
        Self {
            unmatched: ledger.unmatched.value(),
            matched: ledger.matched.value(),
            dropped: ReasonCounts::of(&ledger.dropped),
            shadows,
        }
    }

    /// Requests seen.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.unmatched.saturating_add(self.matched).saturating_add(self.dropped.total())
    }

    /// Copies whose fate is not yet decided, over all shadows.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.shadows.iter().fold(0, |sum, (_, books)| sum.saturating_add(books.open()))
    }

    /// True when no shadow has more closing entries than copies owed, so that those owed are those closed and those
    /// open. False when a copy was booked twice, which is a fault of the daemon.
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        self.shadows.iter().all(|(_, books)| books.owed == books.closed().saturating_add(books.open()))
    }

    /// The numbers of all shadows together.
    #[must_use]
    pub fn all_shadows(&self) -> ShadowReading {
        let mut sum = ShadowReading::default();
        self.shadows.iter().for_each(|(_, books)| sum.add(books));
        sum
    }
}

/// The numbers of a [`ShadowLedger`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShadowReading {
    /// Copies owed.
    pub owed: u64,
    /// Fully written.
    pub replayed: u64,
    /// Not picked by the percentage.
    pub sampled_out: u64,
    /// Not sent by choice.
    pub shed: ReasonCounts,
    /// Not sent, or not completed.
    pub dropped: ReasonCounts,
    /// Final answers by status class: index 0 is 1xx, 4 is 5xx.
    pub answered: [u64; 5],
    /// Answers that never came in time.
    pub answer_timeouts: u64,
    /// Connections closed before the answer's end.
    pub answers_cut: u64,
    /// Connections opened.
    pub connections_opened: u64,
    /// Requests sent once more on another connection.
    pub resent: u64,
}

impl ShadowReading {
    fn of(books: &ShadowLedger) -> Self {
        let closed = Self {
            owed: 0,
            replayed: books.replayed.value(),
            sampled_out: books.sampled_out.value(),
            shed: ReasonCounts::of(&books.shed),
            dropped: ReasonCounts::of(&books.dropped),
            answered: books.answered.each_ref().map(Counter::value),
            answer_timeouts: books.answer_timeouts.value(),
            answers_cut: books.answers_cut.value(),
            connections_opened: books.connections_opened.value(),
            resent: books.resent.value(),
        };
        Self { owed: books.owed.value(), ..closed }
    }

    /// Adds the numbers of another shadow.
    pub fn add(&mut self, more: &Self) {
        for (sum, more) in [
            (&mut self.owed, more.owed),
            (&mut self.replayed, more.replayed),
            (&mut self.sampled_out, more.sampled_out),
            (&mut self.answer_timeouts, more.answer_timeouts),
            (&mut self.answers_cut, more.answers_cut),
            (&mut self.connections_opened, more.connections_opened),
            (&mut self.resent, more.resent),
        ] {
            *sum = sum.saturating_add(more);
        }
        self.shed.add(&more.shed);
        self.dropped.add(&more.dropped);
        for (sum, more) in self.answered.iter_mut().zip(more.answered) {
            *sum = sum.saturating_add(more);
        }
    }

    /// Copies with a closing entry.
    #[must_use]
    pub fn closed(&self) -> u64 {
        [self.sampled_out, self.shed.total(), self.dropped.total()]
            .into_iter()
            .fold(self.replayed, u64::saturating_add)
    }

    /// Copies without one yet.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.owed.saturating_sub(self.closed())
    }

    /// The losses that belong under `shed`, each with its count: those that can be there, and any that are.
    pub fn shed_by_reason(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        self.shed.iter().filter(|(reason, count)| reason.is_shed() || *count > 0)
    }

    /// The losses that belong under `dropped`, each with its count: those that can be there, and any that are.
    pub fn dropped_by_reason(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        self.dropped.iter().filter(|(reason, count)| !reason.is_shed() || *count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_balances_with_open_copies_and_not_when_one_is_booked_twice() {
        let ledger = Ledger::default();
        let shadow = ledger.shadow("a");
        ledger.matched.add(3);
        shadow.owed.add(3);
        shadow.replayed.increment();
        shadow.lost(DropReason::QueueFull);
        let reading = LedgerReading::of(&ledger);
        assert_eq!((reading.open(), reading.is_balanced(), reading.seen()), (1, true, 3));
        shadow.lost(DropReason::Gap);
        let reading = LedgerReading::of(&ledger);
        assert_eq!((reading.open(), reading.is_balanced()), (0, true));
        shadow.lost(DropReason::Gap);
        let overbooked = LedgerReading::of(&ledger);
        assert_eq!((overbooked.open(), overbooked.is_balanced()), (0, false));
    }

    #[test]
    fn every_reason_is_listed_under_shed_or_dropped() {
        let reading = ShadowReading::default();
        let listed = reading.shed_by_reason().count() + reading.dropped_by_reason().count();
        assert_eq!(listed, DropReason::ALL.len());
    }
}
