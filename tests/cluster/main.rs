//! Tests in a real Kubernetes of two nodes: `cargo xtask test --cluster`. Without a cluster they say so and do
//! nothing, but with `CI=true` they fail.

// Every function here is a test or helps one: a panic is a failed test.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

mod beside;
mod churn;
mod cluster;
mod daemon;
mod deploy;
mod dns;
mod gateway;
mod guide;
mod life;
