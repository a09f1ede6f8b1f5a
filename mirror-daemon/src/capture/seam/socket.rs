//! The two kinds of socket between parser and attacher: a stream of framed calls, and lines of small packets.

use super::message::{MAX_CALL_BYTES, MAX_NOTE_BYTES, decode, encode};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// Most descriptors that come with one message.
const MAX_DESCRIPTORS: usize = 16;

/// Calls and replies: each a length of four bytes (little-endian) and the message.
#[derive(Debug)]
pub(super) struct CallSocket(UnixStream);

impl CallSocket {
    pub(super) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (near, far) = UnixStream::pair()?;
        Ok((Self(near), far.into()))
    }

    /// The other end reads the end from now on.
    pub(super) fn hang_up(&self) {
        // Fails when the other end has done so already.
        let _ = self.0.shutdown(Shutdown::Both);
    }

    pub(super) fn send(&self, message: &impl Serialize, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = encode(message, MAX_CALL_BYTES)?;
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?.to_le_bytes();
        let sent = send_with(self.0.as_fd(), &length, descriptors, SendFlags::NOSIGNAL)?;
        (&self.0).write_all(length.get(sent..).unwrap_or_default())?;
        (&self.0).write_all(&bytes)
    }

    /// The next message and what came with it; `None` at the end.
    pub(super) fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let mut length = [0; 4];
        let (read, descriptors) =
            receive_with::<MAX_DESCRIPTORS>(self.0.as_fd(), &mut length, RecvFlags::empty())?;
        if read == 0 {
            return Ok(None);
        }
        (&self.0).read_exact(length.get_mut(read..).unwrap_or_default())?;
        let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
        if length > MAX_CALL_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a message beyond all bounds"));
        }
        let mut bytes = vec![0; length];
        (&self.0).read_exact(&mut bytes)?;
        Ok(Some((decode(&bytes)?, descriptors)))
    }
}

impl From<OwnedFd> for CallSocket {
    fn from(socket: OwnedFd) -> Self {
        Self(socket.into())
    }
}

/// The two ends of a line.
pub(in crate::capture) fn line() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Sends a packet without ever waiting.
///
/// # Errors
/// `WouldBlock` when the line is full.
pub(in crate::capture) fn send_packet(
    line: &OwnedFd,
    message: &impl Serialize,
    descriptor: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let bytes = encode(message, MAX_NOTE_BYTES)?;
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    send_with(line.as_fd(), &bytes, descriptor.as_slice(), flags).map(drop)
}

/// Takes a packet, with a descriptor perhaps, without ever waiting; `None` at the end.
///
/// # Errors
/// `WouldBlock` when there is none.
pub(in crate::capture) fn receive_packet<T: DeserializeOwned>(
    line: &OwnedFd,
) -> io::Result<Option<(T, Option<OwnedFd>)>> {
    // One more, so that a packet that is too large is seen to be.
    let mut bytes = [0; MAX_NOTE_BYTES + 1];
    let (read, descriptors) = receive_with::<1>(line.as_fd(), &mut bytes, RecvFlags::DONTWAIT)?;
    match bytes.get(..read) {
        Some([]) => Ok(None),
        Some(packet) if packet.len() <= MAX_NOTE_BYTES => {
            Ok(Some((decode(packet)?, descriptors.into_iter().next())))
        }
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "a packet beyond all bounds")),
    }
}

fn send_with(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors for one message"));
    }
    loop {
        match sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, flags) {
            Err(Errno::INTR) => {}
            sent => return Ok(sent?),
        }
    }
}

fn receive_with<const DESCRIPTORS: usize>(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
    flags: RecvFlags,
) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let room = rustix::cmsg_space!(ScmRights(DESCRIPTORS));
    let mut ancillary = RecvAncillaryBuffer::new(space.get_mut(..room).unwrap_or_default());
    let flags = flags | RecvFlags::CMSG_CLOEXEC;
    let received = loop {
        match recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut ancillary, flags) {
            Err(Errno::INTR) => {}
            received => break received?,
        }
    };
    if received.flags.contains(ReturnFlags::TRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a packet beyond all bounds"));
    }
    let rights = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    Ok((received.bytes, rights.flatten().collect()))
}
