//! PURE. Makes mirror rules from Kubernetes objects: the routes that users have already.
//!
//! In: manifests as text, or objects one by one as a watch tells of them, and [`Terms`].
//! Out: the equal TOML, and what was found on the way. The TOML goes through [`crate::config::Config::from_toml`]
//! like any other: there is one way into the configuration.
//!
//! ```text
//! text ─▶ manifest ─▶ Objects ─▶ resolve ─▶ Resolved ─▶ TOML
//!                     views      admission, grants, backends, routes
//! ```
//!
//! A request belongs to the one rule that the gateway would route it by. So rules that mirror nothing are kept,
//! without a mirror, wherever they could take requests away from one that does.
//!
//! Left out: the API server, and which pods a gateway runs in.

mod admission;
mod backend;
mod budget;
mod cut;
mod finding;
mod manifest;
mod matches;
mod mirrors;
mod object;
mod objects;
mod pod_cgroup;
mod resolve;
mod selector;
mod terms;
mod write;

/// Typed views of the objects, as far as they are used. What is not named is other people's business.
mod views;

pub use finding::{Finding, Reason, Subject};
pub use manifest::{MAX_MANIFEST_BYTES, documents};
pub use object::{Kind, ObjectRef};
pub(crate) use object::{is_label, is_subdomain};
pub use objects::Objects;
pub use pod_cgroup::PodCgroup;
pub use resolve::{Resolved, resolve};
pub use selector::{LabelSelector, Operator, Requirement, SelectorFault};
pub use terms::Terms;

#[cfg(test)]
mod tests;
