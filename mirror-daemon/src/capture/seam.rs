//! The seam between what attaches and what parses.
//!
//! ```text
//!  attacher: links, map writes, namespaces        parser: rings, pipeline, replay, pages
//!   server ◀──── calls: open, try out, commit, check, close (a stream) ────▶ client
//!   desk   ◀──── a line for each ring: "asleep", verdicts (packets) ───────▶ RingReader, VerdictWriter
//!          ◀──── three more: heartbeat, counters, sockets to be marked ────▶ LiveWriter, CounterReader, SocketMarker
//! ```
//!
//! The other end is a thread of the same process (`tap`'s tests, library users) or the parent process (`run`): both by
//! the same sockets, so that there is one way only. Calls may take seconds, for they load programs; what is said on
//! lines takes microseconds and has a thread of its own, so that no beat waits behind a verifier.

mod client;
mod desk;
mod message;
mod server;
mod socket;
#[cfg(test)]
mod tests;
mod violation;

pub use client::{AttacherClient, AttacherLink, Prepared, Trial};
pub(super) use desk::DeskMaps;
pub(super) use message::{Answer, MAX_VERDICTS, Note, Verdict, Want};
pub(crate) use server::{Terms, attend};
pub(super) use socket::{receive_packet, send_packet};
