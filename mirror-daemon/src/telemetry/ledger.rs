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

/// Most shadows whose books are kept apart; more only while so many are in use.
pub const MAX_BOOKS: usize = 256;

/// Under this name those books are added up that were closed to make room. No configured name begins with `_`.
pub const RETIRED_SHADOWS: &str = "_retired";

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
    /// The books of the shadow called `name`, opened on first use and kept over reloads: until there are [`MAX_BOOKS`],
    /// when those that nobody uses any more are added up under [`RETIRED_SHADOWS`].
    #[must_use]
    pub fn shadow(&self, name: &str) -> Arc<ShadowLedger> {
        let mut shadows = self.shadows.lock().unwrap_or_else(PoisonError::into_inner);
        if shadows.len() >= MAX_BOOKS && !shadows.contains_key(name) {
            retire(&mut shadows);
        }
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

/// Adds the books up that no generation of the configuration holds and where nothing is open.
fn retire(shadows: &mut BTreeMap<String, Arc<ShadowLedger>>) {
    let former = shadows.remove(RETIRED_SHADOWS);
    // Where there is nothing to add up there is no such name, which would take a label from a shadow.
    let mut has_retired = former.is_some();
    let retired = former.unwrap_or_default();
    shadows.retain(|_, books| {
        let is_over = Arc::strong_count(books) == 1 && books.open() == 0;
        if is_over {
            has_retired = true;
            retired.add(books);
        }
        !is_over
    });
    if has_retired {
        shadows.insert(RETIRED_SHADOWS.to_owned(), retired);
    }
}

impl ShadowLedger {
    /// Adds the counts of books that are closed.
    fn add(&self, other: &Self) {
        let counters = [
            (&self.owed, &other.owed),
            (&self.replayed, &other.replayed),
            (&self.sampled_out, &other.sampled_out),
            (&self.answer_timeouts, &other.answer_timeouts),
            (&self.answers_cut, &other.answers_cut),
            (&self.connections_opened, &other.connections_opened),
            (&self.resent, &other.resent),
        ];
        let reasons =
            self.shed.0.iter().zip(&other.shed.0).chain(self.dropped.0.iter().zip(&other.dropped.0));
        let all = counters.into_iter().chain(reasons).chain(self.answered.iter().zip(&other.answered));
        all.for_each(|(sum, more)| sum.add(more.value()));
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn books_of_shadows_that_nobody_uses_are_added_up_once_there_are_many() {
        let ledger = Ledger::default();
        let used = ledger.shadow("used");
        used.owed.increment();
        let open = ledger.shadow("open");
        open.owed.increment();
        drop(open);
        for number in 0..MAX_BOOKS * 3 {
            let books = ledger.shadow(&format!("preview-{number}"));
            books.owed.add(2);
            books.replayed.increment();
            books.lost(DropReason::QueueFull);
            books.answered[1].increment();
        }
        let shadows: BTreeMap<_, _> = ledger.shadows().into_iter().collect();
        assert!(shadows.len() <= MAX_BOOKS, "{}", shadows.len());
        assert!(Arc::ptr_eq(&shadows["used"], &used) && shadows["open"].open() == 1);
        let sum = |count: fn(&ShadowLedger) -> u64| shadows.values().map(|books| count(books)).sum::<u64>();
        let previews = MAX_BOOKS as u64 * 3;
        assert_eq!(sum(|books| books.owed.value()), 2 + 2 * previews);
        assert_eq!(sum(|books| books.shed.of(DropReason::QueueFull).value()), previews);
        assert_eq!(sum(|books| books.answered[1].value()), previews);
        assert_eq!(sum(ShadowLedger::open), 2);
    }
}
