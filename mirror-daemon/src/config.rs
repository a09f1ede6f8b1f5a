//! The checked configuration: what every other module works with. Nobody validates again.
//!
//! `raw` mirrors the TOML as written; `check` turns it into this, reporting every fault at once.

mod types;

pub use types::*;
