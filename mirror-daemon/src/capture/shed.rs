//! How many flows are left out while the rings are too small for the traffic.

use mirror_common::{KernelCounter, KernelCounters, SHED_LEVELS};

/// Of a thousand records, this many must be lost between two beats for the beat to count as pressed.
const PRESSED_PER_MILLE: u64 = 5;
/// A single burst is no reason to shed: this many pressed beats in a row are.
const PRESSED_BEATS: u32 = 2;
/// The least raise of the level.
const LEAST_RAISE: u32 = 16;
/// What the level falls by at each beat without loss: from all to none in about a minute, at 2 Hz.
const FALL: u32 = 2;

/// Finds the shed level, beat by beat: fast up, slow down. No clock, no map: the caller brings the counters
/// and carries the level to [`super::LiveWriter::shed`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shed {
    level: u32,
    pressed_beats: u32,
}

impl Shed {
    /// The level, 0 to [`SHED_LEVELS`].
    #[must_use]
    pub const fn level(&self) -> u32 {
        self.level
    }

    /// Takes what the counters grew by since the last beat, and returns the level from now on.
    pub fn handle_beat(&mut self, grown: &KernelCounters) -> u32 {
        let lost = grown.of(KernelCounter::RingFullRecords);
        let tried = lost.saturating_add(grown.of(KernelCounter::Records));
        if lost == 0 {
            self.pressed_beats = 0;
            self.level = self.level.saturating_sub(FALL);
        } else if lost.saturating_mul(1000) >= tried.saturating_mul(PRESSED_PER_MILLE) {
            self.pressed_beats = self.pressed_beats.saturating_add(1);
            if self.pressed_beats >= PRESSED_BEATS {
                self.level = self.level.saturating_add(raise(self.level, lost, tried)).min(SHED_LEVELS);
            }
        }
        self.level
    }
}

/// As large a part of what is still captured as was lost of it.
fn raise(level: u32, lost: u64, tried: u64) -> u32 {
    let captured = u64::from(SHED_LEVELS.saturating_sub(level));
    let part = captured.saturating_mul(lost).checked_div(tried).unwrap_or(0);
    u32::try_from(part).unwrap_or(SHED_LEVELS).max(LEAST_RAISE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beat(records: u64, lost: u64) -> KernelCounters {
        let mut grown = KernelCounters::default();
        grown.counts[KernelCounter::Records as usize] = records;
        grown.counts[KernelCounter::RingFullRecords as usize] = lost;
        grown
    }

    #[test]
    fn one_burst_sheds_nothing() {
        let mut shed = Shed::default();
        assert_eq!(shed.handle_beat(&beat(100, 900)), 0);
        assert_eq!(shed.handle_beat(&beat(100, 0)), 0);
        assert_eq!(shed.handle_beat(&beat(100, 900)), 0);
    }

    #[test]
    fn sustained_loss_sheds_as_large_a_part_as_was_lost() {
        let mut shed = Shed::default();
        shed.handle_beat(&beat(500, 500));
        assert_eq!(shed.handle_beat(&beat(500, 500)), SHED_LEVELS / 2);
        assert_eq!(shed.handle_beat(&beat(500, 500)), SHED_LEVELS * 3 / 4);
    }

    #[test]
    fn level_never_passes_its_bound() {
        let mut shed = Shed::default();
        for _ in 0..100 {
            assert!(shed.handle_beat(&beat(0, u64::MAX)) <= SHED_LEVELS);
        }
        assert_eq!(shed.level(), SHED_LEVELS);
    }

    #[test]
    fn recovery_is_slower_than_the_raise_and_ends_at_none() {
        let mut shed = Shed::default();
        shed.handle_beat(&beat(500, 500));
        let raised = shed.handle_beat(&beat(500, 500));
        assert_eq!(shed.handle_beat(&beat(1000, 0)), raised - FALL);
        for _ in 0..SHED_LEVELS {
            shed.handle_beat(&beat(1000, 0));
        }
        assert_eq!(shed.level(), 0);
    }

    #[test]
    fn rare_loss_neither_raises_nor_lowers() {
        let mut shed = Shed::default();
        shed.handle_beat(&beat(500, 500));
        let raised = shed.handle_beat(&beat(500, 500));
        assert_eq!(shed.handle_beat(&beat(1_000_000, 1)), raised);
    }
}
