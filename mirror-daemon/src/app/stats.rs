//! What a capture thread lets others see.

use crate::flow::FlowCounters;
use crate::http::h2::H2Counters;
use crate::pipeline::{Outlet, Pipeline, PipelineCounters};
use crate::telemetry::heartbeat::Heartbeat;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Written by one capture thread after each look at its ring, read by the pages.
#[derive(Debug)]
pub(super) struct ShardStats {
    pub(super) heartbeat: Heartbeat,
    reading: Mutex<ShardReading>,
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
        Self { heartbeat: Heartbeat::new(now), reading: Mutex::default() }
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
