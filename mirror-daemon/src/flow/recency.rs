//! Slots in the order in which they were last moved to the end: a doubly linked list in one array, so that
//! every operation takes the same short time however many flows there are.

/// No slot.
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Link {
    before: u32,
    behind: u32,
    linked: bool,
}

const UNLINKED: Link = Link { before: NONE, behind: NONE, linked: false };

/// An ordered set of slot numbers. Its memory grows to 12 bytes times the highest slot number.
#[derive(Debug)]
pub(super) struct Recency {
    links: Vec<Link>,
    first: u32,
    last: u32,
}

impl Default for Recency {
    fn default() -> Self {
        Self { links: Vec::new(), first: NONE, last: NONE }
    }
}

impl Recency {
    /// The slot that was moved to the end longest ago.
    pub(super) fn first(&self) -> Option<u32> {
        (self.first != NONE).then_some(self.first)
    }

    pub(super) fn contains(&self, slot: u32) -> bool {
        self.link(slot).linked
    }

    /// Moves `slot` to the end, adding it if it is not there.
    pub(super) fn move_to_end(&mut self, slot: u32) {
        if slot == NONE || (self.last == slot && self.contains(slot)) {
            return;
        }
        self.remove(slot);
        let needed = usize::try_from(slot).unwrap_or(usize::MAX).saturating_add(1);
        if self.links.len() < needed {
            self.links.resize(needed, UNLINKED);
        }
        let before = self.last;
        self.set(slot, Link { before, behind: NONE, linked: true });
        if before == NONE {
            self.first = slot;
        } else {
            self.set(before, Link { behind: slot, ..self.link(before) });
        }
        self.last = slot;
    }

    /// Takes `slot` out, if it is there.
    pub(super) fn remove(&mut self, slot: u32) {
        let Link { before, behind, linked } = self.link(slot);
        if !linked {
            return;
        }
        if before == NONE {
            self.first = behind;
        } else {
            self.set(before, Link { behind, ..self.link(before) });
        }
        if behind == NONE {
            self.last = before;
        } else {
            self.set(behind, Link { before, ..self.link(behind) });
        }
        self.set(slot, UNLINKED);
    }

    fn link(&self, slot: u32) -> Link {
        usize::try_from(slot).ok().and_then(|slot| self.links.get(slot)).copied().unwrap_or(UNLINKED)
    }

    fn set(&mut self, slot: u32, link: Link) {
        if let Some(place) = usize::try_from(slot).ok().and_then(|slot| self.links.get_mut(slot)) {
            *place = link;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn order_is_that_of_a_plain_list(moves in prop::collection::vec((any::<bool>(), 0..8_u32), 0..60)) {
            let (mut recency, mut plain) = (Recency::default(), Vec::new());
            for (adds, slot) in moves {
                plain.retain(|other| *other != slot);
                if adds {
                    recency.move_to_end(slot);
                    plain.push(slot);
                } else {
                    recency.remove(slot);
                }
                for slot in 0..8 {
                    prop_assert_eq!(recency.contains(slot), plain.contains(&slot));
                }
                let mut found = Vec::new();
                let mut next = recency.first();
                while let Some(slot) = next {
                    found.push(slot);
                    next = Some(recency.link(slot).behind).filter(|slot| *slot != NONE);
                }
                prop_assert_eq!(&found, &plain);
            }
        }
    }
}
