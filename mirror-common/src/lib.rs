//! What crosses the kernel boundary. Plain `#[repr(C)]` data with fixed-width integers in host byte order,
//! explicit padding, and its layout asserted at compile time.
#![no_std]

mod flow_key;

pub use flow_key::FlowKey;
