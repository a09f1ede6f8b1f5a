//! aya's leave to move the shared types through maps as bytes.
#![expect(unsafe_code, reason = "aya's marker trait is unsafe; each type here is plain data")]

use crate::{
    ExcludedKey, FlowKey, FlowVerdict, KernelCounters, KernelSettings, Live, PointSettings, ReaderState,
};
use aya::Pod;

// SAFETY: `#[repr(C)]`, integers only, no implicit padding (sizes are asserted beside the types).
unsafe impl Pod for FlowKey {}
// SAFETY: as above.
unsafe impl Pod for FlowVerdict {}
// SAFETY: as above.
unsafe impl Pod for KernelCounters {}
// SAFETY: as above.
unsafe impl Pod for KernelSettings {}
// SAFETY: as above.
unsafe impl Pod for Live {}
// SAFETY: as above.
unsafe impl Pod for PointSettings {}
// SAFETY: as above.
unsafe impl Pod for ReaderState {}
// SAFETY: as above.
unsafe impl Pod for ExcludedKey {}
