//! One capture thread: looks at its ring, runs the pipeline, hands over what it made.

use super::start::RECORDS_PER_LOOK;
use super::stats::ShardStats;
use crate::capture::{self, CaptureError, Drained, RingReader, VerdictWriter};
use crate::config::ShadowId;
use crate::drain::{Phase, Shutdown};
use crate::flow::{FlowKey, Lifecycle, SeqNumber, Timestamp};
use crate::pipeline::{Outlet, Pipeline, View};
use crate::replay::{ReplayHandle, ShadowRequest};
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

/// One generation of what a reload changes: rules, and the way to the shadows that they speak of. They are
/// taken up together, for a [`ShadowId`] means nothing to the handle of another generation.
#[derive(Debug)]
pub(super) struct Generation {
    pub(super) view: Arc<View>,
    pub(super) replay: ReplayHandle,
}

/// What a capture thread is made of.
pub(super) struct Shard {
    pub(super) reader: RingReader,
    pub(super) pipeline: Pipeline<LiveOutlet>,
    /// From whoever reloads the configuration.
    pub(super) current: Arc<ArcSwap<Generation>>,
    /// From the control thread: opens and closes of this shard's flows.
    pub(super) lifecycle_rx: Receiver<(FlowKey, Lifecycle, Timestamp)>,
    pub(super) shutdown: Shutdown,
    pub(super) stats: Arc<ShardStats>,
}

/// Takes what a live pipeline made.
#[derive(Debug)]
pub(super) struct LiveOutlet {
    pub(super) replay: ReplayHandle,
    pub(super) verdicts: VerdictWriter,
}

impl Outlet for LiveOutlet {
    fn offer(&mut self, shadow: ShadowId, request: ShadowRequest) {
        self.replay.offer(shadow, request);
    }

    fn ignore(&mut self, flow: &FlowKey) {
        self.verdicts.ignore(flow);
    }

    fn copy_answers(&mut self, flow: &FlowKey, whole: bool) {
        match whole {
            true => self.verdicts.copy_answers(flow),
            false => self.verdicts.capture(flow),
        }
    }

    fn pass_over(&mut self, flow: &FlowKey, up_to: SeqNumber) {
        self.verdicts.pass_over(flow, up_to);
    }
}

impl Shard {
    /// Runs until the daemon drains; then takes what is left in the ring and ends every flow.
    ///
    /// # Errors
    /// When the kernel refuses to wait for the ring.
    pub(super) fn run(mut self) -> Result<(), CaptureError> {
        let outcome = self.capture();
        while self.look().more {}
        // Also after a failure: every request under way gets its entry.
        self.pipeline.handle_end();
        self.hand_over();
        self.stats.heartbeat.park();
        outcome
    }

    fn capture(&mut self) -> Result<(), CaptureError> {
        let mut view = Arc::clone(&self.current.load().view);
        while self.shutdown.phase() == Phase::Running {
            self.stats.heartbeat.park();
            self.reader.wait(self.wait_for())?;
            self.stats.heartbeat.beat(Instant::now());
            let current = self.current.load();
            // Each change makes a view of its own, also one that is only of capture points.
            if !Arc::ptr_eq(&current.view, &view) {
                view = Arc::clone(&current.view);
                self.pipeline.outlet_mut().replay.flush();
                self.pipeline.outlet_mut().replay = current.replay.clone();
                self.pipeline.set_view(Arc::clone(&current.view));
            }
            drop(current);
            self.look();
        }
        Ok(())
    }

    /// One look at the ring.
    fn look(&mut self) -> Drained {
        while let Ok((key, lifecycle, at)) = self.lifecycle_rx.try_recv() {
            self.pipeline.handle_lifecycle(&key, lifecycle, at);
        }
        let (pipeline, segments) = (&mut self.pipeline, &self.stats.segments);
        let drained = self.reader.drain(RECORDS_PER_LOOK, |segment| {
            segments.count(segment.key.capture_point);
            pipeline.handle_segment(&segment);
        });
        let now = capture::now();
        if self.pipeline.next_timeout().is_some_and(|due| due <= now) {
            self.pipeline.handle_timeout(now);
        }
        self.hand_over();
        drained
    }

    fn hand_over(&mut self) {
        let outlet = self.pipeline.outlet_mut();
        outlet.replay.flush();
        outlet.verdicts.flush();
        let verdicts_lost = outlet.verdicts.lost();
        self.stats.publish(&self.pipeline, verdicts_lost);
    }

    fn wait_for(&self) -> Option<Duration> {
        self.pipeline.next_timeout().map(|due| due.since(capture::now()))
    }
}
