//! What a capture thread lets others see.

use crate::flow::FlowCounters;
use crate::http::h2::H2Counters;
use crate::pipeline::{Outlet, Pipeline, PipelineCounters};
use crate::telemetry::heartbeat::Heartbeat;
use mirror_common::MAX_CAPTURE_POINTS;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Written by one capture thread after each look at its ring, read by the pages.
#[derive(Debug)]
pub(super) struct ShardStats {
    pub(super) heartbeat: Heartbeat,
    pub(super) segments: SegmentCounts,
    reading: Mutex<ShardReading>,
}

/// More than there can be capture points, so that numbers in use seldom share a place.
const POINT_PLACES: usize = MAX_CAPTURE_POINTS.next_power_of_two().saturating_mul(2);

/// Segments by capture point, counted by one thread and read by others. Points that are long gone make room.
#[derive(Debug)]
pub(super) struct SegmentCounts([PointCount; POINT_PLACES]);

#[derive(Debug, Default)]
struct PointCount {
    number: AtomicU32,
    segments: AtomicU64,
}

impl Default for SegmentCounts {
    fn default() -> Self {
        Self(std::array::from_fn(|_| PointCount::default()))
    }
}

impl SegmentCounts {
    /// One more. Only for the thread that owns this: it costs no more than plain numbers do.
    pub(super) fn count(&self, number: u32) {
        let Some(place) = self.place(number) else { return };
        let before = if place.number.load(Ordering::Relaxed) == number {
            place.segments.load(Ordering::Relaxed)
        } else {
            place.number.store(number, Ordering::Relaxed);
            0
        };
        place.segments.store(before.saturating_add(1), Ordering::Relaxed);
    }

    /// How many there were of this number.
    pub(super) fn of(&self, number: u32) -> u64 {
        let of_it = |place: &&PointCount| place.number.load(Ordering::Relaxed) == number;
        self.place(number).filter(of_it).map_or(0, |place| place.segments.load(Ordering::Relaxed))
    }

    fn place(&self, number: u32) -> Option<&PointCount> {
        usize::try_from(number).ok().and_then(|number| self.0.get(number % POINT_PLACES))
    }
}

/// A capture thread's numbers at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct ShardReading {
    pub(super) flow: FlowCounters,
    pub(super) pipeline: PipelineCounters,
    pub(super) http2: H2Counters,
    pub(super) flows_open: usize,
    pub(super) held_bytes: usize,
    /// Verdicts that found no room on their way to the attacher.
    pub(super) verdicts_lost: u64,
}

impl ShardStats {
    pub(super) fn new(now: Instant) -> Self {
        Self { heartbeat: Heartbeat::new(now), segments: SegmentCounts::default(), reading: Mutex::default() }
    }

    pub(super) fn publish<O: Outlet>(&self, pipeline: &Pipeline<O>, verdicts_lost: u64) {
        let mut reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        reading.flow.clone_from(pipeline.flow_counters());
        reading.pipeline = pipeline.counters();
        reading.http2.clone_from(pipeline.http2_counters());
        reading.flows_open = pipeline.flows_open();
        reading.held_bytes = pipeline.held_bytes();
        reading.verdicts_lost = verdicts_lost;
    }

    pub(super) fn reading(&self) -> ShardReading {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_counted_for_each_point() {
        let counts = SegmentCounts::default();
        for number in [1, 2, 2, 0] {
            counts.count(number);
        }
        assert_eq!([0, 1, 2, 3].map(|number| counts.of(number)), [1, 1, 2, 0]);
        let later = 2 + u32::try_from(POINT_PLACES).unwrap();
        counts.count(later);
        assert_eq!((counts.of(later), counts.of(2)), (1, 0));
    }
}
