//! How many objects one page of a list has: fewer where they are large, for the length of an answer is bounded.

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PageSize(u32);

impl PageSize {
    /// At first.
    pub(super) const fn new(items: u32) -> Self {
        Self(items)
    }

    pub(super) const fn items(self) -> u32 {
        self.0
    }

    /// A page was too long: the next one has half as many. False: it can't have fewer.
    pub(super) const fn halve(&mut self) -> bool {
        let can_shrink = self.0 > 1;
        if can_shrink {
            self.0 = self.0.div_euclid(2);
        }
        can_shrink
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_get_smaller_down_to_one_object() {
        let mut page = PageSize::new(5);
        assert_eq!((page.halve(), page.items()), (true, 2));
        assert_eq!((page.halve(), page.items()), (true, 1));
        assert_eq!((page.halve(), page.items()), (false, 1));
    }
}
