//! What each metric is called, means, and what to do about it, by what it tells of.

mod capture;
mod ledger;
mod pods;
mod process;
mod rules;
mod shadow;

pub use capture::*;
pub use ledger::*;
pub use pods::*;
pub use process::*;
pub use rules::*;
pub use shadow::*;

const SHADOW: (&str, &str) = ("shadow", "name in the configuration");
const REASON: (&str, &str) = ("reason", "a drop reason, empty for other outcomes");
const INTENDED: (&str, &str) =
    ("intended", "`no` for a loss that somebody should look at; `yes` for everything else");

const OBJECT_KIND: (&str, &str) =
    ("kind", "`HTTPRoute`, `Gateway`, `ReferenceGrant`, `RouteOption`, `Upstream`, `Service`, `Namespace`");
