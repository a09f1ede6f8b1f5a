//! PURE. The token bucket behind `max_rps`.

use tokio::time::Instant;

/// Fills at the configured rate; holds a tenth of a second's worth, but at least one request.
#[derive(Debug)]
pub(super) struct TokenBucket {
    per_second: f64,
    capacity: f64,
    tokens: f64,
    filled_at: Instant,
}

impl TokenBucket {
    /// A full bucket.
    pub(super) fn new(per_second: f64, now: Instant) -> Self {
        let capacity = (per_second / 10.0).max(1.0);
        Self { per_second, capacity, tokens: capacity, filled_at: now }
    }

    /// Takes one token, or says that there is none.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.filled_at);
        self.filled_at = self.filled_at.max(now);
        self.tokens = passed.as_secs_f64().mul_add(self.per_second, self.tokens).min(self.capacity);
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn long_run_share_is_the_rate_and_the_burst_a_tenth_of_it() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(100.0, start);
        assert_eq!((0..50).filter(|_| bucket.take(start)).count(), 10);
        let taken = (1..=10_000_u64).filter(|ms| bucket.take(start + Duration::from_millis(*ms))).count();
        assert!((999..=1001).contains(&taken), "{taken} in 10 s at 100 a second");
    }

    #[test]
    fn slow_rate_still_lets_one_pass() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(0.5, start);
        assert!(bucket.take(start));
        assert!(!bucket.take(start + Duration::from_millis(1_900)));
        assert!(bucket.take(start + Duration::from_millis(2_100)));
    }
}
