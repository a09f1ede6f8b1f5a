//! HTTP/2 (RFC 9113), read passively: the requests of one connection, and as much of its answers as proving,
//! cancelling and sizing them needs.
//!
//! ```text
//! bytes ─▶ side (frame reader | resync) ─▶ connection ─▶ hpack ─▶ head ─▶ HttpEvent
//! ```
//!
//! Left out: flow control windows (an observer cannot enforce them), priorities, pushed answers, the fields
//! and bodies of answers.

pub mod frame;
pub mod hpack;

mod connection;
mod counters;
mod head;
mod kind;
mod resync;
mod side;
mod stream;
#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    clippy::disallowed_types
)]
mod tests;

pub use connection::{H2Flow, H2Options, MAX_BLOCK_BYTES, Synchronisation};
pub use counters::H2Counters;
pub use head::HeadError;
pub use resync::looks_like_frames;
pub use stream::MAX_STREAMS;
