//! Capture file in, shadow requests out: the whole pure middle, without a kernel or privileges.

// Every function here is a test or helps one: a panic is a failed test.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

mod binary;
mod cases;
mod http2;
mod http2_model;
mod http2_properties;
mod model;
mod network;
mod properties;
mod seeds;
mod world;
