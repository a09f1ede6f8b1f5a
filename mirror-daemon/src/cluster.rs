//! I/O. What the daemon has to do with the cluster's API server.
//!
//! Everything here runs on a thread of its own ([`ClusterThread`]), so that a long list that is read there keeps neither
//! a replay nor a page waiting; but for [`probe`], which is no part of a running daemon. Everything that the API server says is bounded ([`client`]) before it is looked at.
//!
//! ```text
//! API server ──lists, watches──▶ rules ──▶ configuration ──▶ reload
//!            ◀──────Events──────
//! ```

pub mod client;
pub mod discovery;
pub mod probe;
pub mod rules;

mod api;
mod backoff;
mod event;
mod page;
mod thread;

pub use thread::ClusterThread;
