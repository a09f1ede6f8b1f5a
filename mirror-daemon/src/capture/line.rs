//! The parser's end of a line to the attacher.

use super::error::CaptureError;
use super::seam::{Answer, Note, receive_packet, send_packet};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Notes go out, answers come in. Shared by those who write on one line.
#[derive(Debug)]
pub(super) struct Line {
    socket: OwnedFd,
    /// The number of the latest note that wants an answer. Held while one is waited for.
    latest: Mutex<u32>,
}

impl Line {
    pub(super) const fn new(socket: OwnedFd) -> Self {
        Self { socket, latest: Mutex::new(0) }
    }

    /// Sends a note that has no answer. Never waits.
    pub(super) fn tell(&self, note: &Note) -> io::Result<()> {
        send_packet(&self.socket, note, None)
    }

    /// Sends a note whose answer is taken by [`Self::is_answered`]. Never waits. Returns its number.
    pub(super) fn ask_for(&self, note: impl FnOnce(u32) -> Note) -> io::Result<u32> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        *latest = latest.wrapping_add(1);
        send_packet(&self.socket, &note(*latest), None)?;
        Ok(*latest)
    }

    /// Sends a note about a descriptor, and waits for its answer for at most `patience`.
    ///
    /// # Errors
    /// When none comes, or it tells of a failure.
    pub(super) fn ask_about(
        &self,
        descriptor: BorrowedFd<'_>,
        note: impl FnOnce(u32) -> Note,
        patience: Duration,
    ) -> Result<(), CaptureError> {
        self.converse(note, Some(descriptor), patience).map(drop)
    }

    /// Whether the answer to this note is among those that wait, which are taken. Never waits.
    pub(super) fn is_answered(&self, number: u32) -> bool {
        let mut is_answered = false;
        while let Ok(Some((answer, _))) = receive_packet::<Answer>(&self.socket) {
            is_answered |= answer.number() == number;
        }
        is_answered
    }

    /// Sends a note and waits for its answer, for at most `patience`.
    ///
    /// # Errors
    /// When none comes, or it tells of a failure.
    pub(super) fn ask(
        &self,
        patience: Duration,
        note: impl FnOnce(u32) -> Note,
    ) -> Result<Answer, CaptureError> {
        self.converse(note, None, patience)
    }

    fn converse(
        &self,
        note: impl FnOnce(u32) -> Note,
        descriptor: Option<BorrowedFd<'_>>,
        patience: Duration,
    ) -> Result<Answer, CaptureError> {
        let refused = |source| CaptureError::Io { what: "talk to the attacher", source };
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        *latest = latest.wrapping_add(1);
        send_packet(&self.socket, &note(*latest), descriptor).map_err(refused)?;
        let until = Instant::now().checked_add(patience).unwrap_or_else(Instant::now);
        loop {
            match receive_packet::<Answer>(&self.socket) {
                Ok(Some((Answer::Done { number, fault: Some(words) }, _))) if number == *latest => {
                    return Err(CaptureError::Attacher { words });
                }
                Ok(Some((answer, _))) if answer.number() == *latest => return Ok(answer),
                // To a note whose answer was given up.
                Ok(Some(_)) => {}
                Ok(None) => return Err(refused(io::ErrorKind::UnexpectedEof.into())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait(until).map_err(refused)?;
                }
                Err(error) => return Err(refused(error)),
            }
        }
    }

    fn wait(&self, until: Instant) -> io::Result<()> {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        match poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => Err(io::ErrorKind::TimedOut.into()),
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
