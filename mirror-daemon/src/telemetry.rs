//! What the daemon tells of itself: the ledger, every metric name, logging.

pub mod heartbeat;
pub mod ledger;
pub mod logging;
pub mod metrics;
pub mod process;
pub mod snapshot;

pub use ledger::{Ledger, ShadowLedger};
pub use snapshot::{LedgerReading, ShadowReading, Snapshot};
