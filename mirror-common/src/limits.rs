//! Bounds that both sides of the kernel boundary must agree on.

/// Most TCP ports in [`crate::KernelSettings::ports`].
pub const MAX_PORTS: usize = 16;

/// Most data rings, and so most reading threads.
pub const MAX_SHARDS: usize = 4;

/// Most capture points at one time: a full node has 110 pods (kubelet's default) to 250, and not all are gateways. A
/// power of two, for a point's place in the kernel's table is its number modulo this. Numbers start at 1, for
/// [`ANY_POINT`] is taken, and count up: none is used twice, so that what was seen at a point that is gone is never
/// taken for another's.
pub const MAX_CAPTURE_POINTS: usize = 256;

/// Most capture points that are interfaces at one time. Each has entry points of its own in the object.
pub const MAX_INTERFACE_POINTS: usize = 64;

/// The capture point of flows that `sockops` knows by the gateway's cgroup alone, whatever interface they use.
pub const ANY_POINT: u32 = 0;

/// Most destinations that are left out on the upstream leg.
pub const MAX_EXCLUDED: usize = 64;

/// Most payload bytes of one record; a larger segment becomes several records.
pub const MAX_PIECE_BYTES: u32 = 16_384;

/// Most pieces of one segment: 256 KiB, more than the `gso_max_size` that BIG TCP is used with. Bytes beyond are
/// counted as [`crate::KernelCounter::BeyondPiecesBytes`]. The verifier walks every piece.
pub const MAX_PIECES: u32 = 16;

/// Size of the control ring in bytes.
pub const CONTROL_RING_BYTES: u32 = 256 * 1024;

/// Loss marks are written only while at most this many bytes wait in the control ring, so that opens and
/// closes always find room.
pub const LOSS_MARK_WAITING_BYTES: u64 = (CONTROL_RING_BYTES / 2) as u64;

/// A heartbeat older than this makes the kernel programs do nothing, in nanoseconds.
pub const HEARTBEAT_STALE_NS: u64 = 2_000_000_000;

/// Two forced wake-ups of one ring are at least this far apart, in nanoseconds.
pub const FORCED_WAKE_UP_GAP_NS: u64 = 500_000;

/// Number of steps of [`crate::Live::shed_level`]: at this level every flow is shed.
pub const SHED_LEVELS: u32 = 256;

/// `SO_MARK` of the daemon's own sockets to shadows: what carries it is never captured.
///
/// None of its bits is one by which a network plugin routes or marks on a node: the upper half (Calico; Cilium's
/// identities), 0x0f00 (Cilium), 0x4000 and 0x8000 (kube-proxy), 0x80 (the VPC plugin of AWS).
pub const SHADOW_SOCKET_MARK: u32 = 0x306d;
