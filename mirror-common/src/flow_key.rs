//! The identity of a TCP connection at a capture point.

use crate::{SHED_LEVELS, decode};
use core::mem::offset_of;

/// A connection, seen from the gateway: `gateway_*` is the gateway's end on both legs.
///
/// Addresses are IPv6; IPv4 is mapped (`::ffff:a.b.c.d`, RFC 4291, 2.5.5.2). Ports are in host byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct FlowKey {
    /// The gateway's address, network byte order.
    pub gateway_addr: [u8; 16],
    /// The other end's address, network byte order.
    pub remote_addr: [u8; 16],
    /// The gateway's port.
    pub gateway_port: u16,
    /// The other end's port.
    pub remote_port: u16,
    /// Which capture point saw it: the same addresses in two network namespaces are two connections.
    pub capture_point: u32,
}

impl FlowKey {
    /// Reads a key from the first bytes of `bytes`; `None` when they are too few.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            gateway_addr: decode::array(bytes, offset_of!(Self, gateway_addr))?,
            remote_addr: decode::array(bytes, offset_of!(Self, remote_addr))?,
            gateway_port: decode::u16_at(bytes, offset_of!(Self, gateway_port))?,
            remote_port: decode::u16_at(bytes, offset_of!(Self, remote_port))?,
            capture_point: decode::u32_at(bytes, offset_of!(Self, capture_point))?,
        })
    }

    /// The same connection as another capture point would name it.
    #[must_use]
    pub const fn at_point(mut self, capture_point: u32) -> Self {
        self.capture_point = capture_point;
        self
    }

    /// What [`FlowHash::shard`] and [`FlowHash::shed_step`] go by. The same for both directions, for the key is
    /// oriented by gateway and remote; and the same in the kernel and in user space of one machine.
    #[inline(always)]
    #[must_use]
    pub fn hash(&self) -> FlowHash {
        let mut hash = FlowHash(0);
        for addr in [&self.gateway_addr, &self.remote_addr] {
            for word in addr.as_chunks().0 {
                hash.add(u32::from_ne_bytes(*word));
            }
        }
        hash.add(u32::from(self.gateway_port) | u32::from(self.remote_port) << 16);
        hash.add(self.capture_point);
        hash
    }
}

/// A well-mixed number for a [`FlowKey`]. Not keyed: no table may rely on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowHash(u64);

impl FlowHash {
    const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

    #[inline(always)]
    const fn add(&mut self, word: u32) {
        self.0 = (self.0 ^ word as u64).wrapping_mul(Self::MULTIPLIER);
        self.0 ^= self.0 >> 29;
    }

    /// Which of `shards` data rings the flow's records go to; 0 when there is none.
    #[inline(always)]
    #[must_use]
    pub fn shard(self, shards: u32) -> u32 {
        let low = (self.0 & 0xffff_ffff) as u32;
        low.checked_rem(shards).unwrap_or(0)
    }

    /// Flows whose step is below [`crate::Live::shed_level`] are not captured.
    #[inline(always)]
    #[must_use]
    pub const fn shed_step(self) -> u32 {
        (self.0 >> 32) as u32 % SHED_LEVELS
    }
}

const _: () = assert!(size_of::<FlowKey>() == 40);
const _: () = assert!(align_of::<FlowKey>() == 4);

#[cfg(test)]
mod tests {
    use super::*;

    fn key(gateway_port: u16, remote_port: u16, capture_point: u32) -> FlowKey {
        FlowKey { gateway_port, remote_port, capture_point, ..FlowKey::default() }
    }

    #[test]
    fn every_part_of_the_key_changes_the_hash() {
        let hash = key(80, 40_000, 1).hash();
        for other in [key(81, 40_000, 1), key(80, 40_001, 1), key(80, 40_000, 2), key(40_000, 80, 1)] {
            assert_ne!(other.hash(), hash, "{other:?}");
        }
        for place in 0..16 {
            let mut other = key(80, 40_000, 1);
            other.gateway_addr[place] = 1;
            assert_ne!(other.hash(), hash);
            let swapped =
                FlowKey { gateway_addr: other.remote_addr, remote_addr: other.gateway_addr, ..other };
            assert_ne!(swapped.hash(), other.hash());
        }
    }

    #[test]
    fn ports_in_a_row_spread_over_shards_and_steps() {
        for shards in 1..=4 {
            let mut flows = [0_u32; 4];
            for port in 32_768..32_768 + 4096 {
                flows[key(8080, port, 1).hash().shard(shards) as usize] += 1;
            }
            let fair = 4096 / shards;
            let used = &flows[..shards as usize];
            assert!(used.iter().all(|flows| flows.abs_diff(fair) < fair / 8), "{flows:?}");
        }
        let shed = (0..4096).filter(|port| key(8080, *port, 1).hash().shed_step() < SHED_LEVELS / 4).count();
        assert!(shed.abs_diff(1024) < 128, "{shed}");
    }

    #[test]
    fn without_shards_or_with_one_there_is_no_choice() {
        let hash = key(1, 2, 3).hash();
        assert_eq!((hash.shard(0), hash.shard(1)), (0, 0));
    }
}
