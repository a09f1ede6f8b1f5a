//! What the daemon tells of itself: the ledger, every metric name, logging.

pub mod ledger;

pub use ledger::{Ledger, ShadowLedger};
