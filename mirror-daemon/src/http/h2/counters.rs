//! What went wrong on a connection, by kind.

use super::frame::FrameError;
use super::head::HeadError;
use super::hpack::HpackError;

/// Counts since the last time they were taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct H2Counters {
    frame: [u64; FrameError::COUNT],
    hpack: [u64; HpackError::COUNT],
    head: [u64; HeadError::COUNT],
    /// Frame boundaries were lost, by a gap or a violation.
    pub lost_boundaries: u64,
    /// Frame boundaries were found again.
    pub found_boundaries: u64,
    /// Boundaries that were found again turned out wrong, or the rules were broken before an answer was seen.
    pub wrong_boundaries: u64,
    /// The HPACK table was forgotten, by a gap or a violation.
    pub forgotten_tables: u64,
    /// Frames of unknown types.
    pub unknown_frames: u64,
}

impl Default for H2Counters {
    fn default() -> Self {
        Self {
            frame: [0; FrameError::COUNT],
            hpack: [0; HpackError::COUNT],
            head: [0; HeadError::COUNT],
            lost_boundaries: 0,
            found_boundaries: 0,
            wrong_boundaries: 0,
            forgotten_tables: 0,
            unknown_frames: 0,
        }
    }
}

impl H2Counters {
    /// Every violation with its label and count.
    pub fn violations(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let frame = FrameError::ALL.iter().map(|kind| kind.label()).zip(self.frame);
        let hpack = HpackError::ALL.iter().map(|kind| kind.label()).zip(self.hpack);
        let head = HeadError::ALL.iter().map(|kind| kind.label()).zip(self.head);
        frame.chain(hpack).chain(head)
    }

    /// How often frames broke this rule.
    #[must_use]
    pub fn frame(&self, kind: FrameError) -> u64 {
        self.frame.get(kind as usize).copied().unwrap_or(0)
    }

    /// How often header blocks broke this rule.
    #[must_use]
    pub fn hpack(&self, kind: HpackError) -> u64 {
        self.hpack.get(kind as usize).copied().unwrap_or(0)
    }

    /// How often heads and trailers broke this rule.
    #[must_use]
    pub fn head(&self, kind: HeadError) -> u64 {
        self.head.get(kind as usize).copied().unwrap_or(0)
    }

    pub(super) fn count_frame(&mut self, kind: FrameError) {
        bump(&mut self.frame, kind as usize);
    }

    pub(super) fn count_hpack(&mut self, kind: HpackError) {
        bump(&mut self.hpack, kind as usize);
    }

    pub(super) fn count_head(&mut self, kind: HeadError) {
        bump(&mut self.head, kind as usize);
    }
}

fn bump(counts: &mut [u64], place: usize) {
    if let Some(count) = counts.get_mut(place) {
        *count = count.saturating_add(1);
    }
}
