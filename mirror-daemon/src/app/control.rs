//! The control thread: says twice a second that the daemon lives, sets the shed level, and passes opens and
//! closes on to the capture threads. It sleeps in between, whatever the data rings do.

use crate::capture::{
    CaptureError, ControlEvent, ControlReader, CounterReader, LiveWriter, PointNumbers, Shed,
};
use crate::drain::{Phase, Shutdown};
use crate::flow::{FlowKey, Lifecycle, Timestamp};
use crate::telemetry::logging::Throttle;
use mirror_common::{ANY_POINT, KernelCounters};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

const BEAT: Duration = Duration::from_millis(500);

/// See the module.
#[derive(Debug)]
pub(super) struct Control {
    reader: ControlReader,
    counters: Arc<CounterReader>,
    live: LiveWriter,
    shed: Shed,
    seen: KernelCounters,
    next_beat: Instant,
    /// The capture points that may know a connection of the gateway's cgroup.
    points: PointNumbers,
    /// To each capture thread, in the order of their shards.
    lifecycle_txs: Vec<SyncSender<(FlowKey, Lifecycle, Timestamp)>>,
}

impl Control {
    pub(super) fn new(
        reader: ControlReader,
        counters: Arc<CounterReader>,
        live: LiveWriter,
        points: PointNumbers,
        lifecycle_txs: Vec<SyncSender<(FlowKey, Lifecycle, Timestamp)>>,
    ) -> Self {
        let (shed, seen) = (Shed::default(), KernelCounters::default());
        Self { reader, counters, live, shed, seen, next_beat: Instant::now(), points, lifecycle_txs }
    }

    /// Runs until the daemon drains; the kernel programs do nothing from then on.
    ///
    /// # Errors
    /// When a map can't be written or read, or the kernel refuses to wait.
    pub(super) fn run(mut self, shutdown: &Shutdown) -> Result<(), CaptureError> {
        while shutdown.phase() == Phase::Running {
            let now = Instant::now();
            if now >= self.next_beat {
                self.beat()?;
                self.next_beat = now.checked_add(BEAT).unwrap_or(now);
            }
            self.reader.wait(Some(self.next_beat.saturating_duration_since(now)))?;
            self.pass_on();
        }
        self.live.stop()
    }

    fn beat(&mut self) -> Result<(), CaptureError> {
        static SHEDDING: Throttle = Throttle::every(Duration::from_secs(30));
        let counters = self.counters.snapshot()?;
        let level = self.shed.handle_beat(&counters.since(&self.seen));
        self.seen = counters;
        if level > 0
            && let Some(suppressed) = SHEDDING.admit(Instant::now())
        {
            tracing::warn!(level, suppressed, "rings are full: some flows are not captured for now");
        }
        self.live.shed(level);
        match self.live.beat() {
            // Its heartbeat is stale, and so nothing is captured, until it goes on.
            Err(error) if error.is_late() => {
                tracing::warn!("the attacher is stopped: nothing is mirrored until it goes on");
                Ok(())
            }
            beaten => beaten,
        }
    }

    fn pass_on(&mut self) {
        let (points, txs) = (&self.points, &self.lifecycle_txs);
        self.reader.drain(|event| match event {
            ControlEvent::Opened { flow, at } => pass_on(points, txs, flow, (Lifecycle::Opened, at)),
            ControlEvent::Closed { flow, at } => pass_on(points, txs, flow, (Lifecycle::Closed, at)),
            ControlEvent::Lost { flow, direction, start, bytes, reason, .. } => {
                tracing::debug!(?flow, ?direction, ?start, bytes, ?reason, "bytes were lost in the kernel");
            }
        });
    }
}

/// Every interface may know a connection of the gateway's cgroup, and at each another shard has it, as the kernel chose
/// it for the connection's segments. A full channel loses a hint: the flow then opens with its first segment, and ends by FIN
/// or by its time-outs.
fn pass_on(
    points: &PointNumbers,
    txs: &[SyncSender<(FlowKey, Lifecycle, Timestamp)>],
    flow: FlowKey,
    (lifecycle, at): (Lifecycle, Timestamp),
) {
    let shards = u32::try_from(txs.len()).unwrap_or(u32::MAX);
    let send = |flow: FlowKey| {
        let shard = usize::try_from(flow.hash().shard(shards)).ok();
        if let Some(tx) = shard.and_then(|shard| txs.get(shard)) {
            let _ = tx.try_send((flow, lifecycle, at));
        }
    };
    match flow.capture_point {
        ANY_POINT => points.interfaces().for_each(|point| send(flow.at_point(point))),
        // Of a point that is being tried, or is gone already, nothing is captured.
        point if points.contains(point) => send(flow),
        _ => {}
    }
}
