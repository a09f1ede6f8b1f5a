//! What crosses the kernel boundary. Plain `#[repr(C)]` data with fixed-width integers in host byte order,
//! explicit padding, and its layout asserted at compile time.
//!
//! Kernel to user space: [`RecordHeader`] (data rings), [`ControlRecord`] (control ring), [`KernelCounter`]
//! (per CPU). User space to kernel: [`KernelSettings`], [`Live`], [`PointSettings`], [`ReaderState`],
//! [`FlowVerdict`], [`ExcludedKey`].
#![no_std]

mod control;
mod counter;
mod decode;
mod flow_key;
mod limits;
mod record;
mod settings;
#[cfg(feature = "user")]
mod user;

pub use control::{ControlKind, ControlRecord, LossReason};
pub use counter::{KernelCounter, KernelCounters};
pub use flow_key::{FlowHash, FlowKey};
pub use limits::*;
pub use record::{RecordDirection, RecordFlags, RecordHeader};
pub use settings::{
    ExcludedKey, FlowVerdict, KernelSettings, LegCode, Live, PointFlags, PointSettings, ReaderState,
    VerdictCode,
};
