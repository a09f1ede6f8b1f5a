//! Gateways: what ties rules to capture points.
//!
//! A capture point is at the pods of some gateways; a rule may hold for some gateways only. Both name them
//! `namespace/name`; where requests are decided both are sets of small numbers.

/// Most gateways that the routes of one configuration may name.
pub const MAX_GATEWAYS: usize = 64;

/// Some of the gateways that the routes of one configuration name; see [`super::Rules::gateway_set`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GatewaySet(u64);

impl GatewaySet {
    /// None: what a capture point has that belongs to no gateway. Rules that are tied to a gateway do not hold.
    pub const NONE: Self = Self(0);
    /// Every one: where there is no capture point (a capture file, `explain`) all rules hold.
    pub const ALL: Self = Self(u64::MAX);

    /// Those of `wanted` that are among `names`, whose order gives the numbers.
    pub(super) fn of<'a>(names: &[String], wanted: impl Iterator<Item = &'a String>) -> Self {
        let number = |wanted: &String| names.iter().position(|name| name == wanted);
        let bit = |number| u32::try_from(number).ok().and_then(|number| 1_u64.checked_shl(number));
        Self(wanted.filter_map(number).filter_map(bit).fold(0, |set, bit| set | bit))
    }

    /// Whether one gateway is in both.
    pub(super) const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}
