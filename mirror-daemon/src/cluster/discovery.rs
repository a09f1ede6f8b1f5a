//! Finds the gateway's pods on this node, and where to attach to them.

mod pod;
mod points;
mod selection;
mod silence;

pub use points::{Outcome, PodCounts, PodPoint};
pub use selection::Selection;
