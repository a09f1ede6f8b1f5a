//! TCP sequence numbers (RFC 9293, 3.4): 32 bits that wrap.

use std::fmt;

/// A place in a TCP stream. All wrapping arithmetic of the project lives here, and none of it can panic:
/// captured numbers are hostile.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SeqNumber(pub u32);

impl SeqNumber {
    /// The place `bytes` bytes further on.
    #[must_use]
    pub const fn add(self, bytes: u32) -> Self {
        Self(self.0.wrapping_add(bytes))
    }

    /// The place `bytes` bytes back.
    #[must_use]
    pub const fn sub(self, bytes: u32) -> Self {
        Self(self.0.wrapping_sub(bytes))
    }

    /// Bytes from `earlier` to here, negative when `earlier` lies ahead. Right for distances below 2^31.
    #[must_use]
    pub const fn since(self, earlier: Self) -> i32 {
        self.0.wrapping_sub(earlier.0).cast_signed()
    }

    /// Bytes from `earlier` to here, or 0 when `earlier` is not behind.
    #[must_use]
    pub fn bytes_since(self, earlier: Self) -> u32 {
        u32::try_from(self.since(earlier)).unwrap_or(0)
    }

    /// True when this place lies before `other`.
    #[must_use]
    pub const fn is_before(self, other: Self) -> bool {
        self.since(other) < 0
    }

    /// True when this place lies behind `other`.
    #[must_use]
    pub const fn is_after(self, other: Self) -> bool {
        self.since(other) > 0
    }
}

impl fmt::Debug for SeqNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_survives_the_wrap() {
        let before = SeqNumber(u32::MAX);
        let after = before.add(2);
        assert_eq!(after, SeqNumber(1));
        assert!(before.is_before(after));
        assert!(after.is_after(before));
        assert_eq!(after.bytes_since(before), 2);
        assert_eq!(before.bytes_since(after), 0);
        assert_eq!(after.sub(2), before);
    }
}
