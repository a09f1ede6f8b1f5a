//! Marks the daemon's own sockets, which takes a privilege.

use super::line::Line;
use std::os::fd::OwnedFd;

/// Lets the attacher set [`mirror_common::SHADOW_SOCKET_MARK`] on sockets, by which the kernel programs know what the
/// daemon itself sends.
#[derive(Debug)]
pub struct SocketMarker {
    _line: Line,
}

impl SocketMarker {
    pub(super) const fn new(line: OwnedFd) -> Self {
        Self { _line: Line::new(line) }
    }
}
