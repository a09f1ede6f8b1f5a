//! What the kernel programs counted.

use super::error::CaptureError;
use aya::maps::{MapData, PerCpuArray};
use mirror_common::KernelCounters;

/// A handle on the counters.
pub struct CounterReader {
    counters: PerCpuArray<MapData, KernelCounters>,
    reasons: PerCpuArray<MapData, u64>,
}

impl std::fmt::Debug for CounterReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CounterReader").finish_non_exhaustive()
    }
}

impl CounterReader {
    pub(crate) const fn new(
        counters: PerCpuArray<MapData, KernelCounters>,
        reasons: PerCpuArray<MapData, u64>,
    ) -> Self {
        Self { counters, reasons }
    }

    /// The counts of all CPUs together. Each only grows.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn snapshot(&self) -> Result<KernelCounters, CaptureError> {
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
