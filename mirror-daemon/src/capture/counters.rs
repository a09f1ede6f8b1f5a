//! What the kernel programs counted.

use super::error::CaptureError;
use aya::maps::{MapData, PerCpuArray};
use mirror_common::KernelCounters;

/// A handle on the counters.
pub struct CounterReader {
    map: PerCpuArray<MapData, KernelCounters>,
}

impl std::fmt::Debug for CounterReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CounterReader").finish_non_exhaustive()
    }
}

impl CounterReader {
    pub(crate) const fn new(map: PerCpuArray<MapData, KernelCounters>) -> Self {
        Self { map }
    }

    /// The counts of all CPUs together. Each only grows.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn snapshot(&self) -> Result<KernelCounters, CaptureError> {
        let mut sum = KernelCounters::default();
        for of_one_cpu in self.map.get(&0, 0).map_err(CaptureError::map("COUNTERS"))?.iter() {
            sum.add(of_one_cpu);
        }
        Ok(sum)
    }
}
