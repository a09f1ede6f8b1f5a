//! Replaying against shadows on loopback that behave, and that do not.
#![allow(clippy::arithmetic_side_effects, reason = "tests may panic")]

mod balance;
mod dispatch;
mod failures;
mod h2;
mod limits;
mod pool;
mod reload;
mod streams;
mod support;
mod tls;
