//! What user space tells the kernel programs.

use crate::{MAX_CAPTURE_POINTS, MAX_PORTS};

/// What to capture and how; one for all capture points. Written as a whole, rarely.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct KernelSettings {
    /// TCP ports, host byte order: the gateway's on the downstream leg, the other end's on the upstream leg.
    pub ports: [u16; MAX_PORTS],
    /// How many of `ports` count.
    pub port_count: u32,
    /// A [`LegCode`].
    pub leg: u32,
    /// Bytes of each answer segment that are copied, at most [`crate::MAX_PIECE_BYTES`].
    pub answer_snap_bytes: u32,
    /// Data rings in use, 1 to [`crate::MAX_SHARDS`].
    pub shards: u32,
    /// Bytes waiting in a data ring from which on its reader is woken at once.
    pub wake_up_bytes: u32,
    /// Entries in the map of excluded destinations; 0 saves looking.
    pub excluded_count: u32,
    /// A test's knob: on average one in so many data records is dropped on purpose; 0: none.
    pub drop_one_in: u32,
    /// Zero.
    pub padding: u32,
}

/// [`KernelSettings::leg`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum LegCode {
    /// Connections that the gateway accepts.
    Downstream = 0,
    /// Connections that the gateway opens.
    Upstream = 1,
}

/// What changes while the daemon runs; written at least twice in [`crate::HEARTBEAT_STALE_NS`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Live {
    /// CLOCK_MONOTONIC in nanoseconds when the daemon last wrote this; 0: never.
    pub heartbeat_ns: u64,
    /// Flows whose hash falls under this level are not captured; 0: all are, [`crate::SHED_LEVELS`]: none is.
    pub shed_level: u32,
    /// Zero.
    pub padding: u32,
}

/// One capture point, and how its packets look.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct PointSettings {
    /// Its number; [`crate::ANY_POINT`]: this place is free.
    pub number: u32,
    /// Bytes in front of the IP header (or of the first VLAN tag): 14 for Ethernet and loopback, 0 for
    /// interfaces without a link layer and for `cgroup_skb`.
    pub link_header_bytes: u32,
    /// Bits of [`PointFlags`].
    pub flags: u32,
}

/// [`MAX_CAPTURE_POINTS`]. A power of two, so that counting on from the highest number keeps the order of places.
const PLACES: u32 = 256;
const _: () = assert!(PLACES as usize == MAX_CAPTURE_POINTS && PLACES.is_power_of_two());

impl PointSettings {
    /// Where the point of this number is in the kernel's table.
    #[inline(always)]
    #[must_use]
    pub const fn place_of(number: u32) -> u32 {
        number % PLACES
    }
}

/// Bits of [`PointSettings::flags`].
#[derive(Clone, Copy, Debug)]
pub struct PointFlags;

impl PointFlags {
    /// The hook's ingress is the gateway's egress and the other way round (the host's side of a veth pair).
    pub const SWAPPED: u32 = 1;
    /// Both ends of the connections are here (loopback): only one hook is attached and the direction goes by
    /// port alone.
    pub const BOTH_ENDS: u32 = 2;
    /// `sockops` selects the flows.
    pub const SELECTION: u32 = 4;
    /// Nothing is told yet: a change of the configuration is being tried.
    pub const PAUSED: u32 = 8;
}

/// How the reader of one data ring is to be woken.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ReaderState {
    /// When the ring's reader was last woken by force; written by the kernel.
    pub forced_wake_up_ns: u64,
    /// Not 0: the reader sleeps until it is woken. Set by the reader, cleared by the kernel on the wake-up.
    pub sleeping: u32,
    /// Zero.
    pub padding: u32,
}

/// What is still wanted of one flow; written by user space, cleared by the flow's next SYN.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct FlowVerdict {
    /// A [`VerdictCode`].
    pub code: u32,
    /// With [`VerdictCode::PassOver`]: sequence number of the first byte of the request direction that is
    /// wanted again.
    pub until_seq: u32,
}

/// [`FlowVerdict::code`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum VerdictCode {
    /// Copy it.
    Capture = 0,
    /// Copy nothing of it ever again.
    Ignore = 1,
    /// Copy no payload of request segments that end at or before [`FlowVerdict::until_seq`]; their headers
    /// still come, so that user space knows the bytes were left out and not lost.
    PassOver = 2,
    /// Copy answers whole too, and not only [`KernelSettings::answer_snap_bytes`] of each segment.
    CopyAnswers = 3,
}

/// A destination that is left out on the upstream leg.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct ExcludedKey {
    /// Its address, network byte order, IPv4 mapped.
    pub addr: [u8; 16],
    /// Its port, host byte order.
    pub port: u16,
    /// Zero.
    pub padding: u16,
}

const _: () = assert!(size_of::<KernelSettings>() == 64 && align_of::<KernelSettings>() == 4);
const _: () = assert!(size_of::<Live>() == 16 && align_of::<Live>() == 8);
const _: () = assert!(size_of::<PointSettings>() == 12 && align_of::<PointSettings>() == 4);
const _: () = assert!(size_of::<ReaderState>() == 16 && align_of::<ReaderState>() == 8);
const _: () = assert!(size_of::<FlowVerdict>() == 8 && align_of::<FlowVerdict>() == 4);
const _: () = assert!(size_of::<ExcludedKey>() == 20 && align_of::<ExcludedKey>() == 2);
