//! Whether the shadow gets what was on the wire, through real gateways on the real kernel, and nothing else.
//!
//! Every test ends by [`rig::Watch::end`]: the books balance, the daemon ends well, no program is left.

mod capture_points;
mod client_leg;
mod corpus;
mod expected;
mod hostile;
mod joining;
mod proxied;
mod refusals;
mod reloading;
pub(crate) mod rig;
mod rules;
mod selection;
mod sharding;
pub(crate) mod tls;
mod upgrades;
mod upstream_leg;

pub(crate) use expected::suffixed;
