//! The numbers of capture points, and the entry points of those that are interfaces: who has which.

use super::PointStatus;
use crate::config::CapturePoint;
use mirror_common::{ANY_POINT, MAX_CAPTURE_POINTS, MAX_INTERFACE_POINTS, PointSettings};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Beside a number: the point is an interface.
const IS_INTERFACE: u64 = 1 << 32;

/// The numbers of the wanted capture points. Clones share one set, which whoever asks the attacher keeps up to date.
#[derive(Clone, Debug)]
pub struct PointNumbers(Arc<[AtomicU64; MAX_CAPTURE_POINTS]>);

impl Default for PointNumbers {
    fn default() -> Self {
        Self(Arc::new([const { AtomicU64::new(0) }; MAX_CAPTURE_POINTS]))
    }
}

impl PointNumbers {
    /// `interface`: it is one.
    pub(super) fn insert(&self, number: u32, interface: bool) {
        let mark = if interface { IS_INTERFACE } else { 0 };
        if let Some(place) = self.place(number) {
            place.store(u64::from(number) | mark, Ordering::Relaxed);
        }
    }

    pub(super) fn remove(&self, number: u32) {
        if let Some(place) = self.place(number).filter(|_| self.contains(number)) {
            place.store(0, Ordering::Relaxed);
        }
    }

    /// Makes them these points. One that stays is there all the while.
    pub(in crate::capture) fn replace<'a>(&self, points: impl Iterator<Item = &'a PointStatus> + Clone) {
        let is_among = |number| points.clone().any(|point| point.number == number);
        self.iter().filter(|number| !is_among(*number)).for_each(|number| self.remove(number));
        for point in points {
            self.insert(
                point.number,
                matches!(point.point, CapturePoint::Interface { .. } | CapturePoint::Pod { .. }),
            );
        }
    }

    /// Whether a point of this number is in use.
    #[must_use]
    pub fn contains(&self, number: u32) -> bool {
        number != ANY_POINT && self.place(number).is_some_and(|place| number_in(place) == number)
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.0.iter().map(number_in).filter(|number| *number != ANY_POINT)
    }

    /// Those of interfaces, in no order: the points that connections of the gateway's cgroup may pass, which
    /// [`ANY_POINT`] in a control record stands for.
    pub fn interfaces(&self) -> impl Iterator<Item = u32> {
        let interfaces = self.0.iter().filter(|place| place.load(Ordering::Relaxed) & IS_INTERFACE != 0);
        interfaces.map(number_in).filter(|number| *number != ANY_POINT)
    }

    fn place(&self, number: u32) -> Option<&AtomicU64> {
        self.0.get(usize::try_from(PointSettings::place_of(number)).ok()?)
    }
}

fn number_in(place: &AtomicU64) -> u32 {
    let [.., d, c, b, a] = place.load(Ordering::Relaxed).to_be_bytes();
    u32::from_be_bytes([d, c, b, a])
}

/// Hands numbers out: each only once, counting up (a point every second would come round in 136 years), and none
/// whose place in the kernel's table is taken. So places are used in turn, too: a place that was left is the last to
/// be used again.
#[derive(Debug, Default)]
pub(super) struct NextNumber {
    last: u32,
}

impl NextNumber {
    /// `None`: every place is taken.
    pub(super) fn take(&mut self, is_taken: impl Fn(u32) -> bool) -> Option<u32> {
        let most = u32::try_from(MAX_CAPTURE_POINTS).unwrap_or(u32::MAX);
        // One more, for one of them may be `ANY_POINT`.
        let next = (0..=most).map(|ahead| self.last.wrapping_add(1).wrapping_add(ahead));
        let free = next.filter(|number| *number != ANY_POINT).find(|number| !is_taken(*number))?;
        self.last = free;
        Some(free)
    }
}

/// The entry points of interfaces: 1 to [`MAX_INTERFACE_POINTS`].
#[derive(Debug, Default)]
pub(super) struct Entries {
    /// Bit `entry - 1`: somebody has it.
    taken: u64,
    last: u32,
}

const _: () = assert!(MAX_INTERFACE_POINTS <= 64);

impl Entries {
    /// The entry that was left longest ago, nearly; `None`: all are taken.
    pub(super) fn take(&mut self) -> Option<u32> {
        let count = u32::try_from(MAX_INTERFACE_POINTS).ok()?;
        let next = (0..count).filter_map(|ahead| self.last.wrapping_add(ahead).checked_rem(count));
        let free = next.map(|index| index.saturating_add(1)).find(|entry| self.taken & bit(*entry) == 0)?;
        self.taken |= bit(free);
        self.last = free;
        Some(free)
    }

    pub(super) fn give_back(&mut self, entry: u32) {
        self.taken &= !bit(entry);
    }
}

const fn bit(entry: u32) -> u64 {
    1_u64.wrapping_shl(entry.wrapping_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const MOST: u32 = 256;
    const _: () = assert!(MOST as usize == MAX_CAPTURE_POINTS);

    #[test]
    fn numbers_are_told_to_all_clones() {
        let numbers = PointNumbers::default();
        let elsewhere = numbers.clone();
        for (number, interface) in [(1, true), (3, false), (MOST, false), (MOST + 2, true)] {
            numbers.insert(number, interface);
        }
        let told: BTreeSet<u32> = elsewhere.iter().collect();
        assert_eq!(told, BTreeSet::from([1, 3, MOST, MOST + 2]));
        assert_eq!(elsewhere.interfaces().collect::<BTreeSet<_>>(), BTreeSet::from([1, MOST + 2]));
        assert!(elsewhere.contains(3) && elsewhere.contains(MOST) && elsewhere.contains(MOST + 2));
        assert!(!elsewhere.contains(2) && !elsewhere.contains(ANY_POINT) && !elsewhere.contains(MOST + 3));
        numbers.remove(3 + MOST);
        assert!(elsewhere.contains(3), "another number of its place went");
        numbers.remove(3);
        assert!(!elsewhere.contains(3));
    }

    #[test]
    fn numbers_count_up_and_go_round_the_places() {
        let mut next = NextNumber::default();
        let mut held = BTreeSet::new();
        let mut ever = BTreeSet::new();
        for _ in 0..MOST {
            let taken = held.clone();
            let is_taken = |number| {
                taken.iter().any(|held| PointSettings::place_of(*held) == PointSettings::place_of(number))
            };
            let number = next.take(is_taken).expect("a free place");
            assert!(ever.insert(number));
            held.insert(number);
        }
        let is_taken = |_| true;
        assert_eq!(next.take(is_taken), None);
        assert!(held.remove(&7));
        for round in 1..100 {
            // Only the place of 7 is free.
            let number = next.take(|number| PointSettings::place_of(number) != 7).expect("a free place");
            assert_eq!(number, 7 + round * MOST);
        }
    }

    #[test]
    fn numbers_pass_over_the_one_that_means_any_point() {
        let mut next = NextNumber { last: u32::MAX };
        assert_eq!(next.take(|_| false), Some(1));
        let mut next = NextNumber { last: u32::MAX };
        assert_eq!(next.take(|number| PointSettings::place_of(number) != 0), Some(MOST));
    }

    #[test]
    fn entries_are_used_in_turn() {
        let mut entries = Entries::default();
        let most = u32::try_from(MAX_INTERFACE_POINTS).unwrap();
        assert_eq!((entries.take(), entries.take()), (Some(1), Some(2)));
        entries.give_back(1);
        for entry in 3..=most {
            assert_eq!(entries.take(), Some(entry));
        }
        assert_eq!((entries.take(), entries.take()), (Some(1), None));
        entries.give_back(most);
        assert_eq!(entries.take(), Some(most));
    }
}
