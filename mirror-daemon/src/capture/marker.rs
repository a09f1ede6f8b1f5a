//! Marks the daemon's own sockets, which takes a privilege.

use super::error::CaptureError;
use super::line::Line;
use super::seam::Note;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

/// How long a mark is waited for. It takes microseconds; one that takes longer comes all the same, and until then some
/// of the daemon's own segments may be copied.
const PATIENCE: Duration = Duration::from_millis(20);

/// Lets the attacher set [`mirror_common::SHADOW_SOCKET_MARK`] on sockets, by which the kernel programs know what the
/// daemon itself sends.
#[derive(Debug)]
pub struct SocketMarker {
    line: Line,
}

impl SocketMarker {
    pub(super) const fn new(line: OwnedFd) -> Self {
        Self { line: Line::new(line) }
    }

    /// Marks a socket. To be called before it connects.
    ///
    /// # Errors
    /// When the attacher does not answer in time, or may not do it.
    pub fn mark(&self, socket: BorrowedFd<'_>) -> Result<(), CaptureError> {
        self.line.ask_about(socket, |number| Note::Mark { number }, PATIENCE)
    }
}
