//! What the kernel programs counted.

use super::error::CaptureError;
use super::line::Line;
use super::seam::{Answer, Note};
use aya::maps::{MapData, PerCpuArray};
use mirror_common::KernelCounters;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long the counters are waited for. Whoever asks may have better things to do.
const PATIENCE: Duration = Duration::from_secs(1);

/// A handle on the counters.
#[derive(Debug)]
pub struct CounterReader {
    line: Line,
    /// For as long as the attacher is stopped.
    latest: Mutex<KernelCounters>,
}

impl CounterReader {
    pub(super) fn new(line: Line) -> Self {
        Self { line, latest: Mutex::default() }
    }

    /// The counts of all CPUs together. Each only grows. The latest known, while the attacher is stopped.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn snapshot(&self) -> Result<KernelCounters, CaptureError> {
        let counters = match self.line.ask(PATIENCE, |number| Note::Counters { number }) {
            Err(error) if error.is_late() => return Ok(*self.latest()),
            Ok(Answer::Counters { counts, .. }) => counts.try_into().ok(),
            Ok(Answer::Done { .. }) => None,
            Err(error) => return Err(error),
        };
        let misunderstood = || CaptureError::Io {
            what: "understand the attacher",
            source: io::ErrorKind::InvalidData.into(),
        };
        let counters = KernelCounters { counts: counters.ok_or_else(misunderstood)? };
        *self.latest() = counters;
        Ok(counters)
    }

    fn latest(&self) -> MutexGuard<'_, KernelCounters> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The maps, in the attacher's hands.
pub(super) struct CounterMaps {
    pub(super) counters: PerCpuArray<MapData, KernelCounters>,
    pub(super) reasons: PerCpuArray<MapData, u64>,
}

impl CounterMaps {
    pub(super) fn snapshot(&self) -> Result<KernelCounters, CaptureError> {
        let mut sum = KernelCounters::default();
        for of_one_cpu in self.counters.get(&0, 0).map_err(CaptureError::map("COUNTERS"))?.iter() {
            sum.add(of_one_cpu);
        }
        for (index, count) in (0..).zip(sum.counts.iter_mut()) {
            let of_cpus = self.reasons.get(&index, 0).map_err(CaptureError::map("REASONS"))?;
            *count = of_cpus.iter().fold(*count, |sum, of_one_cpu| sum.wrapping_add(*of_one_cpu));
        }
        Ok(sum)
    }
}
