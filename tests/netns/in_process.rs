//! A pipeline behind the real kernel programs, in the test's own process, so that records can be dropped on purpose.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mirror_common::KernelCounter;
use mirror_daemon::capture::{self, Capture, TestKnobs};
use mirror_daemon::config::{CaptureConfig, CapturePoint, Config};
use mirror_daemon::flow::HashSeed;
use mirror_daemon::pipeline::{Pipeline, View};
use mirror_daemon::telemetry::Ledger;
use mirror_tests::netns::Lab;
use mirror_tests::outlet::{Memory, Sent};

/// Records read at once.
const LOOK: usize = 4096;

/// A pipeline behind the real kernel programs, in this process, so that records can be dropped on purpose.
pub(crate) struct InProcess {
    capture: Capture,
    pipeline: Pipeline<Memory>,
    pub(crate) ledger: Arc<Ledger>,
}

impl InProcess {
    /// At the ingress of the gateway's eth0. The only shadow of `toml` is called "new".
    pub(crate) fn attach(lab: &Lab, toml: &str, knobs: TestKnobs) -> Self {
        let config = Arc::new(Config::from_toml(toml, "test.toml").unwrap());
        let point = CapturePoint::Interface {
            name: "eth0".to_owned(),
            netns: lab.gateway.path().map(Into::into),
            host_side: false,
        };
        // Room enough: here only those records are to be lost that the knob drops.
        let mut capture_config =
            CaptureConfig { points: vec![point], ring_bytes: 64 << 20, ..config.capture.clone() };
        if let Ok(mode) = std::env::var(mirror_tests::daemon::TC_MODE) {
            capture_config.tc_mode = if mode == "clsact" {
                mirror_daemon::config::TcMode::Clsact
            } else {
                mirror_daemon::config::TcMode::Tcx
            };
        }
        let mut capture = capture::open_with(&capture_config, knobs).unwrap();
        capture.live.beat().unwrap();
        let ledger = Arc::new(Ledger::default());
        let view = Arc::new(View::new(1, config, &ledger));
        let pipeline = Pipeline::new(view, Arc::clone(&ledger), HashSeed([3, 4]), Memory::default());
        Self { capture, pipeline, ledger }
    }

    /// Reads the rings until `is_done`.
    pub(crate) fn run_until(&mut self, is_done: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !is_done(self) {
            assert!(Instant::now() < deadline, "60 s are over; seen: {}", self.ledger.seen());
            self.look();
            self.capture.readers[0].wait(Some(Duration::from_millis(5))).unwrap();
        }
        while self.look() == LOOK {}
    }

    fn look(&mut self) -> usize {
        self.capture.live.beat().unwrap();
        self.capture.control.drain(drop);
        let pipeline = &mut self.pipeline;
        let drained = self.capture.readers[0].drain(LOOK, |segment| pipeline.handle_segment(&segment));
        pipeline.handle_timeout(capture::now());
        drained.records
    }

    /// Ends every flow; the whole requests that would have been sent. The books must balance.
    pub(crate) fn finish(mut self) -> (Vec<Sent>, Books) {
        self.pipeline.handle_end();
        let kernel = self.capture.counters.snapshot().unwrap();
        assert_eq!(kernel.unbalanced_bytes(), 0, "{kernel:?}");
        assert_eq!(kernel.of(KernelCounter::RingFullRecords), 0);
        let flows = self.pipeline.flow_counters().labelled();
        let held = self.pipeline.held_bytes();
        let memory = std::mem::take(self.pipeline.outlet_mut());
        let offered = memory.offered() as u64;
        let whole = memory.into_whole();
        let shadow = self.ledger.shadow("new");
        assert_eq!(held, 0, "{:?} {flows:?}", self.pipeline.counters());
        assert_eq!(shadow.owed.value(), self.ledger.matched.value());
        assert_eq!(shadow.owed.value(), offered + shadow.dropped.total() + shadow.shed.total());
        let gaps = flows
            .iter()
            .filter(|(label, _)| label.starts_with("gaps_") && !label.ends_with("_bytes"))
            .map(|(_, count)| count)
            .sum();
        let books = Books {
            dropped_records: kernel.of(KernelCounter::TestDroppedRecords),
            gaps,
            seen: self.ledger.seen(),
            lost: self.ledger.dropped.total() + shadow.dropped.total() + offered - whole.len() as u64,
        };
        eprintln!("{books:?}, mirrored {}, flows {flows:?}", whole.len());
        (whole, books)
    }
}

#[derive(Debug)]
pub(crate) struct Books {
    pub(crate) dropped_records: u64,
    pub(crate) gaps: u64,
    pub(crate) seen: u64,
    /// Of the requests seen, those that were not mirrored.
    pub(crate) lost: u64,
}
