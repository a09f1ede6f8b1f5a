//! Tells the operator that the kernel programs lost copies, which no ledger entry of a request can say.

use mirror_common::{KernelCounter, KernelCounters};
use std::time::{Duration, Instant};

/// The least time between two warnings.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// The counters that stand for something lost, each with its count.
pub(super) fn of(counters: &KernelCounters) -> impl Iterator<Item = (&'static str, u64)> + '_ {
    let losses = KernelCounter::ALL.iter().filter(|counter| counter.is_loss());
    losses.map(|counter| (counter.label(), counters.of(*counter)))
}

/// Remembers what was told.
#[derive(Debug, Default)]
pub(super) struct LossLog {
    told: KernelCounters,
    told_at: Option<Instant>,
}

impl LossLog {
    /// Warns when losses grew since the last warning, at most once a minute.
    pub(super) fn handle_reading(&mut self, counters: &KernelCounters, now: Instant) {
        if let Some(lost) = self.news(counters, now) {
            tracing::warn!(
                lost,
                "the kernel programs lost copies: requests may be missing that the ledger has not; raise capture.ring_bytes where a ring was full"
            );
        }
    }

    /// What grew and by how much, as `name=amount ...`.
    fn news(&mut self, counters: &KernelCounters, now: Instant) -> Option<String> {
        if self.told_at.is_some_and(|at| now.saturating_duration_since(at) < TELL_EVERY) {
            return None;
        }
        let grown: Vec<String> = of(counters)
            .zip(of(&self.told))
            .map(|((label, count), (_, told))| (label, count.saturating_sub(told)))
            .filter(|(_, more)| *more > 0)
            .map(|(label, more)| format!("{label}={more}"))
            .collect();
        if grown.is_empty() {
            return None;
        }
        (self.told, self.told_at) = (*counters, Some(now));
        Some(grown.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(amount: u64) -> (KernelCounters, &'static str) {
        let index = KernelCounter::ALL.iter().position(|counter| counter.is_loss()).unwrap();
        let mut counters = KernelCounters::default();
        counters.counts[KernelCounter::ALL[index] as usize] = amount;
        (counters, KernelCounter::ALL[index].label())
    }

    #[test]
    fn losses_are_told_when_they_grow_and_once_a_minute() {
        let (start, mut log) = (Instant::now(), LossLog::default());
        let at = |seconds| start + Duration::from_secs(seconds);
        let label = lost(0).1;
        assert_eq!(log.news(&lost(0).0, at(0)), None);
        assert_eq!(log.news(&lost(3).0, at(2)), Some(format!("{label}=3")));
        assert_eq!(log.news(&lost(5).0, at(4)), None);
        assert_eq!(log.news(&lost(9).0, at(62)), Some(format!("{label}=6")), "what was kept back is told");
        assert_eq!(log.news(&lost(9).0, at(200)), None);
    }
}
