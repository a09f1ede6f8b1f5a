//! Replaying over HTTP/2.

mod basics;
pub(super) mod support;
