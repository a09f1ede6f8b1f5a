//! The identity of a TCP connection at a capture point.

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

const _: () = assert!(size_of::<FlowKey>() == 40);
const _: () = assert!(align_of::<FlowKey>() == 4);
