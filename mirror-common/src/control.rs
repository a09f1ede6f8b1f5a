//! The records of the control ring: opens, closes and loss marks.

use crate::{FlowKey, decode};
use core::mem::offset_of;

/// One record of the control ring.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ControlRecord {
    /// The connection. Its capture point is [`crate::ANY_POINT`] when `sockops` watches the gateway's cgroup
    /// and not that of a capture point: then it means this connection at every capture point.
    pub flow: FlowKey,
    /// `bpf_ktime_get_ns`, CLOCK_MONOTONIC, nanoseconds.
    pub at_ns: u64,
    /// Sequence number of the first lost byte; 0 for opens and closes.
    pub seq: u32,
    /// How many bytes were lost; 0 for opens and closes.
    pub bytes: u32,
    /// A [`ControlKind`].
    pub kind: u32,
    /// A [`crate::RecordDirection`]; 0 for opens and closes.
    pub direction: u16,
    /// A [`LossReason`]; 0 for opens and closes.
    pub reason: u16,
}

/// [`ControlRecord::kind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ControlKind {
    /// The gateway opened or accepted the connection.
    Opened = 0,
    /// The connection is closed in the gateway's kernel.
    Closed = 1,
    /// Bytes of the connection were seen and not handed over.
    Lost = 2,
}

/// [`ControlRecord::reason`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum LossReason {
    /// The data ring had no room.
    RingFull = 0,
    /// The flow is among those that the shed level leaves out.
    Shed = 1,
    /// `bpf_skb_load_bytes` failed.
    LoadFailed = 2,
}

impl LossReason {
    /// The word for this reason in metrics and documentation.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::RingFull => "ring_full",
            Self::Shed => "shed",
            Self::LoadFailed => "load_failed",
        }
    }

    /// The reason with this code.
    #[must_use]
    pub const fn from_code(code: u16) -> Option<Self> {
        match code {
            0 => Some(Self::RingFull),
            1 => Some(Self::Shed),
            2 => Some(Self::LoadFailed),
            _ => None,
        }
    }
}

impl ControlKind {
    /// The kind with this code.
    #[must_use]
    pub const fn from_code(code: u32) -> Option<Self> {
        match code {
            0 => Some(Self::Opened),
            1 => Some(Self::Closed),
            2 => Some(Self::Lost),
            _ => None,
        }
    }
}

impl ControlRecord {
    /// Reads a record from the first bytes of `bytes`; `None` when they are too few.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            flow: FlowKey::from_bytes(bytes)?,
            at_ns: decode::u64_at(bytes, offset_of!(Self, at_ns))?,
            seq: decode::u32_at(bytes, offset_of!(Self, seq))?,
            bytes: decode::u32_at(bytes, offset_of!(Self, bytes))?,
            kind: decode::u32_at(bytes, offset_of!(Self, kind))?,
            direction: decode::u16_at(bytes, offset_of!(Self, direction))?,
            reason: decode::u16_at(bytes, offset_of!(Self, reason))?,
        })
    }
}

const _: () = assert!(size_of::<ControlRecord>() == 64);
const _: () = assert!(align_of::<ControlRecord>() == 8);
