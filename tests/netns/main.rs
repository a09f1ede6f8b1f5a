//! Tests on the real kernel, in network namespaces of their own. They need root: without it they say so and
//! do nothing, but with `CI=true` they fail.

// Every function here is a test or helps one: a panic is a failed test.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

mod capture;
mod changes;
mod complete;
mod discovery;
mod faithful;
mod harmless;
mod http2;
mod in_process;
mod lab;
mod loss;
mod oracle;
mod packets;
mod place;
mod split;
mod stage;
mod traffic;
