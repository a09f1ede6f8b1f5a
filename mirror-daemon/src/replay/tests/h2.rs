//! Replaying over HTTP/2.

mod balance;
mod basics;
mod failures;
mod hostile;
mod limits;
mod streams;
pub(super) mod support;
mod tls;
