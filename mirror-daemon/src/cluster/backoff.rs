//! Pauses between tries: each up to twice as long as the one before, and never the same on two nodes, so that a
//! cluster's daemons do not all come back at once.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// The first pause, at most.
const FIRST: Duration = Duration::from_millis(250);

/// See the module.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Backoff {
    /// How long to wait now, `most` at most.
    pub(super) fn pause(&mut self, most: Duration) -> Duration {
        let pause = self.next.min(most);
        self.next = pause.saturating_mul(2);
        jittered(pause)
    }

    /// The next pause is the first again.
    pub(super) const fn reset(&mut self) {
        self.next = FIRST;
    }
}

/// By chance between half of `whole` and all of it.
pub(super) fn jittered(whole: Duration) -> Duration {
    whole.mul_f64(chance().mul_add(0.5, 0.5))
}

/// By chance, from 0 to below 1.
pub(super) fn chance() -> f64 {
    // The keys of every new `RandomState` differ.
    let bits = RandomState::new().hash_one(0_u8);
    let high = u32::try_from(bits >> 32).unwrap_or_default();
    f64::from(high) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_bound_and_begin_anew_after_success() {
        let mut backoff = Backoff::default();
        let most = Duration::from_secs(5);
        let mut bound = FIRST;
        for _ in 0..40 {
            let pause = backoff.pause(most);
            assert!(pause >= bound / 2 && pause <= bound, "{pause:?} {bound:?}");
            bound = (bound * 2).min(most);
        }
        backoff.reset();
        assert!(backoff.pause(most) <= FIRST);
    }

    #[test]
    fn chance_is_spread_and_below_one() {
        let mut found: Vec<f64> = (0..200).map(|_| chance()).collect();
        found.sort_by(f64::total_cmp);
        assert!(found[0] < 0.3 && found[199] > 0.7 && found[199] < 1.0, "{found:?}");
    }
}
