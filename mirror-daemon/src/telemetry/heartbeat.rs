//! Signs of life of the pipeline threads, for `/healthz`.
//!
//! A thread that has nothing to do must not wake up to say so. So it parks its heart before it waits, and a
//! parked heart is never stale.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long a working thread may give no sign before `/healthz` calls it stalled.
pub const STALE_AFTER: Duration = Duration::from_secs(10);

const PARKED: u64 = 0;

/// One thread's sign of life.
#[derive(Debug)]
pub struct Heartbeat {
    born: Instant,
    /// Milliseconds from `born` to the last beat, plus one; [`PARKED`] while the thread waits.
    last_ms: AtomicU64,
}

impl Heartbeat {
    /// A parked heart.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { born: now, last_ms: AtomicU64::new(PARKED) }
    }

    /// The thread works, and lives.
    pub fn beat(&self, now: Instant) {
        self.last_ms.store(self.millis(now), Ordering::Relaxed);
    }

    /// The thread is about to wait for work, for as long as it takes.
    pub fn park(&self) {
        self.last_ms.store(PARKED, Ordering::Relaxed);
    }

    /// How long a working thread has been silent; `None` when it is fresh or parked.
    #[must_use]
    pub fn stale(&self, now: Instant) -> Option<Duration> {
        match self.last_ms.load(Ordering::Relaxed) {
            PARKED => None,
            last => {
                let silent = Duration::from_millis(self.millis(now).saturating_sub(last));
                (silent > STALE_AFTER).then_some(silent)
            }
        }
    }

    fn millis(&self, now: Instant) -> u64 {
        let millis = now.saturating_duration_since(self.born).as_millis();
        u64::try_from(millis).unwrap_or(u64::MAX).saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn working_thread_goes_stale_and_parked_thread_does_not() {
        let start = Instant::now();
        let heart = Heartbeat::new(start);
        let late = start + STALE_AFTER + Duration::from_secs(5);
        assert_eq!(heart.stale(late), None);
        heart.beat(start);
        assert_eq!(heart.stale(start + STALE_AFTER), None);
        assert_eq!(heart.stale(late), Some(STALE_AFTER + Duration::from_secs(5)));
        heart.park();
        assert_eq!(heart.stale(late), None);
        heart.beat(late);
        assert_eq!(heart.stale(late), None);
    }
}
