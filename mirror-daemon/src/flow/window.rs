//! Which sequence numbers can belong to a stream (RFC 9293, 3.4), and how to notice that it really is
//! somewhere else by now.

use super::SeqNumber;

/// Furthest ahead of the stream's place that bytes are believed: TCP's largest window (RFC 7323, 2.2).
pub(super) const MAX_AHEAD_BYTES: i32 = 1 << 30;
/// Furthest behind that bytes count as retransmitted. No receiver here has a larger window; and a stream
/// that ran on unseen for nearly 4 GiB would otherwise look like retransmissions.
pub(super) const MAX_BEHIND_BYTES: i32 = 64 << 20;
/// How many far segments, each ahead of the one before it, show that the stream has moved.
const SEGMENTS_TO_JUMP: u8 = 4;

/// Where a segment lies, seen from a stream's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Near: it can be part of the stream.
    Near,
    /// Too far to be believed.
    Far,
    /// Far, but so were the ones before it, in a row: the stream is there now.
    Jumped,
}

/// Remembers far segments of one direction.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Window {
    far_run: u8,
    last_far: SeqNumber,
}

impl Window {
    /// Judges a segment that starts at `start`, for a stream that has come to `next`. Only the first piece
    /// of a segment (`is_first_piece`) is evidence.
    pub(super) fn place(&mut self, next: SeqNumber, start: SeqNumber, is_first_piece: bool) -> Place {
        if is_near(next, start) {
            self.far_run = 0;
            return Place::Near;
        }
        if !is_first_piece {
            return Place::Far;
        }
        let step = start.since(self.last_far);
        let goes_on = self.far_run > 0 && (0..=MAX_BEHIND_BYTES).contains(&step);
        match (goes_on, step) {
            // A repetition is no further evidence.
            (true, 0) => {}
            (true, _) => self.far_run = self.far_run.saturating_add(1),
            (false, _) => self.far_run = 1,
        }
        self.last_far = start;
        if self.far_run < SEGMENTS_TO_JUMP {
            return Place::Far;
        }
        self.far_run = 0;
        Place::Jumped
    }
}

/// True when `place` can belong to a stream that has come to `next`.
pub(super) fn is_near(next: SeqNumber, place: SeqNumber) -> bool {
    let distance = place.since(next);
    distance <= MAX_AHEAD_BYTES && distance.checked_neg().is_some_and(|behind| behind <= MAX_BEHIND_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_is_exact_at_both_ends_and_over_the_wrap() {
        for next in [SeqNumber(0), SeqNumber(5), SeqNumber(u32::MAX), SeqNumber(1 << 31)] {
            assert!(is_near(next, next.add(1 << 30)));
            assert!(!is_near(next, next.add((1 << 30) + 1)));
            assert!(is_near(next, next.sub(64 << 20)));
            assert!(!is_near(next, next.sub((64 << 20) + 1)));
            assert!(!is_near(next, next.add(1 << 31)));
        }
    }

    #[test]
    fn only_a_run_of_advancing_far_segments_is_a_jump() {
        let next = SeqNumber(0);
        let far = SeqNumber(1 << 31);
        let mut window = Window::default();
        for step in [0, 10, 20] {
            assert_eq!(window.place(next, far.add(step), true), Place::Far);
        }
        assert_eq!(window.place(next, far.add(20), true), Place::Far, "a repetition does not count");
        assert_eq!(window.place(next, far.add(25), false), Place::Far, "a later piece does not count");
        assert_eq!(window.place(next, far.add(30), true), Place::Jumped);
    }

    #[test]
    fn a_near_segment_ends_the_run() {
        let next = SeqNumber(0);
        let far = SeqNumber(1 << 31);
        let mut window = Window::default();
        for step in [0, 10, 20] {
            window.place(next, far.add(step), true);
        }
        assert_eq!(window.place(next, next, true), Place::Near);
        assert_eq!(window.place(next, far.add(30), true), Place::Far);
    }
}
