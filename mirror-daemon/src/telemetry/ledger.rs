//! The books: every request seen ends in exactly one entry.
//!
//! Level 1, once per request: unmatched, matched, or dropped with a reason. Level 2, once per matched
//! request and mirror of its rule: replayed, sampled out, shed or dropped with a reason. At any quiet moment
//! `matched x mirrors = replayed + sampled out + shed + dropped`; between, the rest is open
//! ([`ShadowLedger::open`]).

use crate::drop_reason::DropReason;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A counter that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Adds `amount`.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// The count so far.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A level that rises and falls.
#[derive(Debug, Default)]
pub struct Level(AtomicU64);

impl Level {
    /// Raises it by `amount`, and says what it is then.
    pub fn raise(&self, amount: u64) -> u64 {
        self.0.fetch_add(amount, Ordering::Relaxed).saturating_add(amount)
    }

    /// Lowers it by `amount`, which was raised before.
    pub fn lower(&self, amount: u64) {
        self.0.fetch_sub(amount, Ordering::Relaxed);
    }

    /// What it is.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One counter per [`DropReason`].
#[derive(Debug, Default)]
pub struct PerReason([Counter; DropReason::ALL.len()]);

impl PerReason {
    /// The counter of `reason`.
    #[must_use]
    pub fn of(&self, reason: DropReason) -> &Counter {
        #[expect(clippy::indexing_slicing, reason = "one slot per reason, asserted by drop_reason's test")]
        &self.0[usize::from(reason as u8)]
    }

    /// Sum over all reasons.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().map(Counter::value).sum()
    }
}

/// Level 1, and the way to each shadow's level 2. One for the whole life of the daemon, over all reloads.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Requests that no rule wanted.
    pub unmatched: Counter,
    /// Requests that a rule wanted.
    pub matched: Counter,
    /// Requests that were not looked at by any rule, by reason.
    pub dropped: PerReason,
    shadows: Mutex<BTreeMap<String, Arc<ShadowLedger>>>,
}

/// Level 2 of one shadow.
#[derive(Debug, Default)]
pub struct ShadowLedger {
    /// Copies owed to this shadow: matched requests, once per mirror that names it.
    pub owed: Counter,
    /// Fully written to the shadow.
    pub replayed: Counter,
    /// Not picked by the percentage.
    pub sampled_out: Counter,
    /// Not sent by choice, by reason.
    pub shed: PerReason,
    /// Not sent, or not completed, by reason.
    pub dropped: PerReason,
    /// Final answers by status class: index 0 is 1xx, 4 is 5xx.
    pub answered: [Counter; 5],
    /// Answers that never came in time, after a full write.
    pub answer_timeouts: Counter,
    /// Connections that closed before the answer's end, after a full write.
    pub answers_cut: Counter,
    /// Connections opened.
    pub connections_opened: Counter,
    /// Requests sent once more on another connection, as RFC 9112, 9.3.1 allows.
    pub resent: Counter,
    /// Bytes of streamed bodies that wait for this shadow now, all of them together.
    pub streaming_bytes: Arc<Level>,
}

impl Ledger {
    /// The books of the shadow called `name`, opened on first use and kept over reloads.
    #[must_use]
    pub fn shadow(&self, name: &str) -> Arc<ShadowLedger> {
        let mut shadows = self.shadows.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(shadows.entry(name.to_owned()).or_default())
    }

    /// Every shadow's books, by name.
    #[must_use]
    pub fn shadows(&self) -> Vec<(String, Arc<ShadowLedger>)> {
        let shadows = self.shadows.lock().unwrap_or_else(PoisonError::into_inner);
        shadows.iter().map(|(name, books)| (name.clone(), Arc::clone(books))).collect()
    }

    /// Requests seen so far.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.unmatched.value().saturating_add(self.matched.value()).saturating_add(self.dropped.total())
    }
}

impl ShadowLedger {
    /// Books the loss of one copy under shed or dropped, whichever `reason` belongs to.
    pub fn lost(&self, reason: DropReason) {
        let books = if reason.is_shed() { &self.shed } else { &self.dropped };
        books.of(reason).increment();
    }

    /// Copies whose fate is not yet decided.
    #[must_use]
    pub fn open(&self) -> u64 {
        let closed =
            [self.replayed.value(), self.sampled_out.value(), self.shed.total(), self.dropped.total()];
        self.owed.value().saturating_sub(closed.iter().sum())
    }
}
