//! PURE. How long a busy reader sleeps between two looks at its ring.
//!
//! A look costs wake-ups of two threads, however little it finds; a copy that is sent some milliseconds later
//! is worth the same. So where few records come, the tick grows up to [`MOST_LENGTHENING`] of what was
//! configured, and shrinks again at once when many came. The kernel cuts a tick short when the ring fills.

use std::time::Duration;

/// A look that finds fewer records was too early.
const FEW_RECORDS: usize = 16;
/// A look that finds more shows that traffic has grown.
const MANY_RECORDS: usize = 64;
/// The longest tick, in configured ticks.
const MOST_LENGTHENING: u32 = 4;

#[derive(Clone, Copy, Debug)]
pub(super) struct Tick {
    configured: Duration,
    /// A power of two, at most [`MOST_LENGTHENING`].
    lengthening: u32,
}

impl Tick {
    pub(super) const fn new(configured: Duration) -> Self {
        Self { configured, lengthening: 1 }
    }

    /// Takes in how much the latest look found.
    pub(super) fn handle_look(&mut self, records: usize) {
        self.lengthening = match records {
            ..FEW_RECORDS => self.lengthening.saturating_mul(2).min(MOST_LENGTHENING),
            FEW_RECORDS..MANY_RECORDS => self.lengthening,
            MANY_RECORDS.. => 1,
        };
    }

    pub(super) fn length(self) -> Duration {
        self.configured.saturating_mul(self.lengthening)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIGURED: Duration = Duration::from_millis(4);

    #[test]
    fn tick_grows_while_little_comes_and_is_back_at_once() {
        let mut tick = Tick::new(CONFIGURED);
        assert_eq!(tick.length(), CONFIGURED);
        tick.handle_look(FEW_RECORDS - 1);
        assert_eq!(tick.length(), CONFIGURED * 2);
        tick.handle_look(FEW_RECORDS);
        tick.handle_look(MANY_RECORDS - 1);
        assert_eq!(tick.length(), CONFIGURED * 2);
        tick.handle_look(MANY_RECORDS);
        assert_eq!(tick.length(), CONFIGURED);
    }

    #[test]
    fn tick_has_a_longest_length() {
        let mut tick = Tick::new(CONFIGURED);
        (0..100).for_each(|_| tick.handle_look(0));
        assert_eq!(tick.length(), CONFIGURED * MOST_LENGTHENING);
    }
}
