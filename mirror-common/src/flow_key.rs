//! The identity of a TCP connection at a capture point.

use crate::decode;
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
}

const _: () = assert!(size_of::<FlowKey>() == 40);
const _: () = assert!(align_of::<FlowKey>() == 4);
