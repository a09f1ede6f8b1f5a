//! Mirrors an ingress gateway's live HTTP traffic to shadow services, from outside the gateway.
//!
//! Data moves one way:
//!
//! ```text
//! capture ──Segment──▶ flow ──FlowEvent──▶ http ──HttpEvent──▶ rule ──Decision──▶ rewrite ──ShadowHead──▶ replay
//! ```
//!
//! `flow`, `http`, `rule`, `rewrite` and `kube` are pure: no sockets, files, threads, async, clock or randomness.
//! `capture`, `replay` and `admin` are the shells around them; `pipeline` joins the pure stages and
//! `app` is the only module that knows every stage.

pub mod drop_reason;

#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod flow;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod http;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod kube;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod rewrite;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod rule;

pub mod admin;
pub mod app;
pub mod capture;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod doctor;
pub mod drain;
pub mod explain;
pub mod pipeline;
pub mod privilege;
pub mod reload;
pub mod replay;
pub mod supervisor;
pub mod tap;
pub mod telemetry;
