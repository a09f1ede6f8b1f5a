//! The attacher's end of the lines: writes maps for the parser, and reads the counters. One thread for all lines, which
//! sleeps until a note comes. It never waits for the parser: an answer that finds no room is not given.

use super::super::counters::CounterMaps;
use super::super::error::CaptureError;
use super::super::live::LiveMap;
use super::super::verdict::VerdictMap;
use super::message::words_of;
use super::message::{Answer, MAX_VERDICTS, Note};
use super::socket::{receive_packet, send_packet};
use super::violation::Violation;
use aya::maps::{Array, MapData};
use mirror_common::{ReaderState, SHADOW_SOCKET_MARK};
use rustix::event::{PollFd, PollFlags, poll};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The maps that notes are about.
pub(in crate::capture) struct DeskMaps {
    pub(in crate::capture) states: Array<MapData, ReaderState>,
    pub(in crate::capture) verdicts: VerdictMap,
    pub(in crate::capture) live: LiveMap,
    pub(in crate::capture) counters: CounterMaps,
    /// Becomes true with the first beat.
    pub(in crate::capture) has_captured: Arc<AtomicBool>,
}

/// What a line is for, and so what may be said on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The data ring of this number.
    Ring(u32),
    Live,
    Counters,
    Marks,
}

/// See the module.
pub(super) struct Desk {
    maps: DeskMaps,
    lines: Vec<(Purpose, OwnedFd)>,
}

impl Desk {
    pub(super) const fn new(maps: DeskMaps, lines: Vec<(Purpose, OwnedFd)>) -> Self {
        Self { maps, lines }
    }

    /// Serves until all lines have ended.
    ///
    /// # Errors
    /// When the parser said what it may not.
    pub(super) fn serve(mut self) -> Result<(), Violation> {
        while !self.lines.is_empty() {
            let ready = wait(&self.lines)?;
            let mut ended = Vec::new();
            for (index, (purpose, line)) in self.lines.iter().enumerate() {
                if ready.get(index) == Some(&true) && !serve_line(&mut self.maps, *purpose, line)? {
                    ended.push(index);
                }
            }
            for index in ended.into_iter().rev() {
                self.lines.remove(index);
            }
        }
        Ok(())
    }
}

/// Which lines have something to be read, or have ended.
fn wait(lines: &[(Purpose, OwnedFd)]) -> Result<Vec<bool>, Violation> {
    let mut fds: Vec<_> = lines.iter().map(|(_, line)| PollFd::new(line, PollFlags::IN)).collect();
    match poll(&mut fds, None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(errno) => return Err(Violation::Io(errno.into())),
    }
    Ok(fds.iter().map(|fd| !fd.revents().is_empty()).collect())
}

/// Takes all that waits on a line. False once it has ended.
fn serve_line(maps: &mut DeskMaps, purpose: Purpose, line: &OwnedFd) -> Result<bool, Violation> {
    loop {
        match receive_packet::<Note>(line) {
            Ok(Some((note, descriptor))) => {
                if let Some(answer) = obey(maps, purpose, note, descriptor)? {
                    // Whoever does not read its answers does without.
                    let _ = send_packet(line, &answer, None);
                }
            }
            Ok(None) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(false),
            Err(error) => return Err(Violation::Io(error)),
        }
    }
}

fn obey(
    maps: &mut DeskMaps,
    purpose: Purpose,
    note: Note,
    descriptor: Option<OwnedFd>,
) -> Result<Option<Answer>, Violation> {
    Ok(Some(match (purpose, note) {
        (Purpose::Ring(ring), Note::Asleep { number }) => {
            let asleep = ReaderState { sleeping: 1, ..ReaderState::default() };
            done(number, maps.states.set(ring, asleep, 0).map_err(CaptureError::map("READERS")))
        }
        (Purpose::Ring(_), Note::Verdicts(verdicts)) if verdicts.len() <= MAX_VERDICTS => {
            for verdict in &verdicts {
                // One that can't be written costs copies, never correctness.
                if let Err(error) = maps.verdicts.write(verdict) {
                    tracing::debug!(%error, "a verdict could not be written");
                }
            }
            return Ok(None);
        }
        (Purpose::Ring(_), Note::Settle { number }) => done(number, Ok(())),
        (Purpose::Live, Note::Beat { number, shed_level }) => {
            maps.has_captured.store(true, Ordering::Relaxed);
            done(number, maps.live.beat(shed_level))
        }
        (Purpose::Live, Note::Stop { number }) => done(number, maps.live.stop()),
        (Purpose::Counters, Note::Counters { number }) => match maps.counters.snapshot() {
            Ok(counters) => Answer::Counters { number, counts: counters.counts.to_vec() },
            Err(error) => done(number, Err(error)),
        },
        (Purpose::Marks, Note::Mark { number }) => {
            let socket = descriptor.ok_or(Violation::OutOfTurn)?;
            let marked = socket2::SockRef::from(&socket).set_mark(SHADOW_SOCKET_MARK);
            done(number, marked.map_err(|source| CaptureError::Io { what: "mark a socket", source }))
        }
        _ => return Err(Violation::OutOfTurn),
    }))
}

fn done(number: u32, outcome: Result<(), CaptureError>) -> Answer {
    Answer::Done { number, fault: outcome.err().map(|error| words_of(&error)) }
}
