//! What the kernel programs counted.

use super::error::CaptureError;
use super::line::Line;
use super::seam::{Answer, Note};
use aya::maps::{MapData, PerCpuArray};
use mirror_common::KernelCounters;
use std::io;
use std::sync::Arc;

/// A handle on the counters.
#[derive(Debug)]
pub struct CounterReader {
    line: Arc<Line>,
}

impl CounterReader {
    pub(super) const fn new(line: Arc<Line>) -> Self {
        Self { line }
    }

    /// The counts of all CPUs together. Each only grows.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn snapshot(&self) -> Result<KernelCounters, CaptureError> {
        let answer = self.line.ask(|number| Note::Counters { number })?;
        let counts = match answer {
            Answer::Counters { counts, .. } => counts.try_into().ok(),
            Answer::Done { .. } => None,
        };
        let misunderstood = || CaptureError::Io {
            what: "understand the attacher",
            source: io::ErrorKind::InvalidData.into(),
        };
        counts.map(|counts| KernelCounters { counts }).ok_or_else(misunderstood)
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
