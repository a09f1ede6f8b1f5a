//! The checked configuration: what every other module works with. Nobody validates again.
//!
//! [`Config::from_toml`] walks the TOML once (`read`) and builds this from it (`check`, one file for each
//! section), reporting every fault at once with its key path and line. Keys that nothing asked for are
//! unknown keys, so that the reader of a section is at the same time the list of what it may hold.

mod check;
mod fault;
mod read;
mod types;
mod units;

pub(crate) use check::{MAX_SHADOWS, is_host_literal, is_token};
pub use fault::{ConfigFaults, Fault};
pub use types::*;
