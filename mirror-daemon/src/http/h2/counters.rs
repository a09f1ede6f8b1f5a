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
    /// Something was counted.
    is_dirty: bool,
}

/// Counts that are no violation of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Incident {
    LostBoundaries,
    FoundBoundaries,
    WrongBoundaries,
    ForgottenTable,
    UnknownFrame,
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
            is_dirty: false,
        }
    }
}

impl H2Counters {
    /// Every count with its label.
    pub fn labelled(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let incidents = [
            ("lost_boundaries", self.lost_boundaries),
            ("found_boundaries", self.found_boundaries),
            ("wrong_boundaries", self.wrong_boundaries),
            ("forgotten_tables", self.forgotten_tables),
            ("unknown_frames", self.unknown_frames),
        ];
        self.violations().chain(incidents)
    }

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

    /// Whether anything was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.is_dirty
    }

    /// Adds what another connection counted.
    pub fn add(&mut self, other: &Self) {
        let kinds = [
            (&mut self.frame[..], &other.frame[..]),
            (&mut self.hpack[..], &other.hpack[..]),
            (&mut self.head[..], &other.head[..]),
        ];
        for (sum, count) in kinds.into_iter().flat_map(|(sums, counts)| sums.iter_mut().zip(counts)) {
            *sum = sum.saturating_add(*count);
        }
        let incidents = [
            (&mut self.lost_boundaries, other.lost_boundaries),
            (&mut self.found_boundaries, other.found_boundaries),
            (&mut self.wrong_boundaries, other.wrong_boundaries),
            (&mut self.forgotten_tables, other.forgotten_tables),
            (&mut self.unknown_frames, other.unknown_frames),
        ];
        for (sum, count) in incidents {
            *sum = sum.saturating_add(count);
        }
        self.is_dirty |= other.is_dirty;
    }

    pub(super) fn count(&mut self, incident: Incident) {
        self.is_dirty = true;
        let count = match incident {
            Incident::LostBoundaries => &mut self.lost_boundaries,
            Incident::FoundBoundaries => &mut self.found_boundaries,
            Incident::WrongBoundaries => &mut self.wrong_boundaries,
            Incident::ForgottenTable => &mut self.forgotten_tables,
            Incident::UnknownFrame => &mut self.unknown_frames,
        };
        *count = count.saturating_add(1);
    }

    pub(super) fn count_frame(&mut self, kind: FrameError) {
        self.is_dirty = true;
        bump(&mut self.frame, kind as usize);
    }

    pub(super) fn count_hpack(&mut self, kind: HpackError) {
        self.is_dirty = true;
        bump(&mut self.hpack, kind as usize);
    }

    pub(super) fn count_head(&mut self, kind: HeadError) {
        self.is_dirty = true;
        bump(&mut self.head, kind as usize);
    }
}

fn bump(counts: &mut [u64], place: usize) {
    if let Some(count) = counts.get_mut(place) {
        *count = count.saturating_add(1);
    }
}
