//! The heartbeat and the shed level.

use super::error::CaptureError;
use super::line::Line;
use super::seam::Note;
use crate::flow::Timestamp;
use aya::maps::{Array, MapData};
use mirror_common::{Live, SHED_LEVELS};
use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// How long a beat is waited for: so long that whoever does not answer is stopped, and not slow.
const PATIENCE: Duration = Duration::from_secs(5);

/// The kernel programs do nothing once the last beat is [`mirror_common::HEARTBEAT_STALE_NS`] old.
#[derive(Debug)]
pub struct LiveWriter {
    line: Line,
    shed_level: u32,
}

impl LiveWriter {
    pub(super) const fn new(line: Line) -> Self {
        Self { line, shed_level: 0 }
    }

    /// Says that the daemon lives. To be called at 2 Hz.
    ///
    /// # Errors
    /// When the map cannot be written; [`CaptureError::is_late`] when the attacher is stopped.
    pub fn beat(&mut self) -> Result<(), CaptureError> {
        let shed_level = self.shed_level;
        self.line.ask(PATIENCE, |number| Note::Beat { number, shed_level }).map(drop)
    }

    /// How many of [`mirror_common::SHED_LEVELS`] parts of all flows are left out from the next beat on.
    pub fn shed(&mut self, level: u32) {
        self.shed_level = level.min(SHED_LEVELS);
    }

    /// Makes the kernel programs do nothing at once.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn stop(&mut self) -> Result<(), CaptureError> {
        self.line.ask(PATIENCE, |number| Note::Stop { number }).map(drop)
    }
}

/// The map, in the attacher's hands.
pub(super) struct LiveMap(pub(super) Array<MapData, Live>);

impl LiveMap {
    /// By the attacher's own clock: no parser can feign life for longer than a beat.
    pub(super) fn beat(&mut self, shed_level: u32) -> Result<(), CaptureError> {
        let shed_level = shed_level.min(SHED_LEVELS);
        self.write(Live { heartbeat_ns: now().0, shed_level, padding: 0 })
    }

    pub(super) fn stop(&mut self) -> Result<(), CaptureError> {
        self.write(Live::default())
    }

    fn write(&mut self, live: Live) -> Result<(), CaptureError> {
        self.0.set(0, live, 0).map_err(CaptureError::map("LIVE"))
    }
}

/// The time on the clock of [`crate::flow::Segment::at`]: CLOCK_MONOTONIC, as `bpf_ktime_get_ns`.
#[must_use]
pub fn now() -> Timestamp {
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Timestamp(seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0)))
}
