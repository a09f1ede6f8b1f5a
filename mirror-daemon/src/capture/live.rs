//! The heartbeat and the shed level.

use super::error::CaptureError;
use crate::flow::Timestamp;
use aya::maps::{Array, MapData};
use mirror_common::{Live, SHED_LEVELS};
use rustix::time::{ClockId, clock_gettime};

/// The kernel programs do nothing once the last beat is [`mirror_common::HEARTBEAT_STALE_NS`] old.
pub struct LiveWriter {
    map: Array<MapData, Live>,
    shed_level: u32,
}

impl std::fmt::Debug for LiveWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveWriter").finish_non_exhaustive()
    }
}

impl LiveWriter {
    pub(crate) const fn new(map: Array<MapData, Live>) -> Self {
        Self { map, shed_level: 0 }
    }

    /// Says that the daemon lives. To be called at 2 Hz.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn beat(&mut self) -> Result<(), CaptureError> {
        let live = Live { heartbeat_ns: now().0, shed_level: self.shed_level, padding: 0 };
        self.map.set(0, live, 0).map_err(CaptureError::map("LIVE"))
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
        self.map.set(0, Live::default(), 0).map_err(CaptureError::map("LIVE"))
    }
}

/// The time on the clock of [`crate::flow::Segment::at`]: CLOCK_MONOTONIC, as `bpf_ktime_get_ns`.
#[must_use]
pub fn now() -> Timestamp {
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Timestamp(seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0)))
}
