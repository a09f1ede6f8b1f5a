//! `run --pcap`: a capture file through the same pipeline, to real shadows or to none.

use super::Failure;
use super::source::Source;
use crate::capture::pcap::PcapSource;
use crate::config::{Config, Leg, ShadowId};
use crate::flow::{FlowKey, HashSeed, SeqNumber};
use crate::pipeline::{Outlet, Pipeline, View};
use crate::replay::{ReplayHandle, Replayer, ShadowRequest};
use crate::telemetry::Ledger;
use crate::telemetry::snapshot::{LedgerReading, Snapshot};
use anyhow::Context;
use std::path::Path;
use std::sync::Arc;
use tokio::time::Instant;

/// A file's flows are nobody's attack on this process, and the same file should do the same twice.
const FILE_SEED: HashSeed = HashSeed([0x6d69_7272_6f72, 0x6461_656d_6f6e]);

/// Reads the file to its end and waits for what the shadows still have to get.
pub(super) fn run(source: &Source, pcap: &Path, ports: &[u16]) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("the async runtime can't be started")
        .map_err(Failure::Running)?;
    let config = Arc::new(match (&source.file, &source.manifests) {
        (None, None) => Config::without_rules(Leg::Downstream, ports),
        _ => source.load().map_err(Failure::Usage)?,
    });
    if config.kubernetes.gateway_api {
        tracing::warn!(
            "a capture file is read without the cluster's rules; give their manifests with --manifests"
        );
    }
    let ledger = Arc::new(Ledger::default());
    let view = Arc::new(View::new(1, Arc::clone(&config), &ledger));
    let replayer = Replayer::start(runtime.handle(), view.shadows()).map_err(Failure::usage)?;
    let ports = if ports.is_empty() { config.capture.ports.as_slice() } else { ports };
    let mut capture_file = PcapSource::open(pcap, config.capture.leg, ports).map_err(Failure::usage)?;
    let mut pipeline = Pipeline::new(view, Arc::clone(&ledger), FILE_SEED, FileOutlet(replayer.handle()));
    let read = capture_file.for_each(|segment| {
        pipeline.handle_timeout(segment.at);
        pipeline.handle_segment(segment);
        pipeline.outlet_mut().0.flush();
    });
    pipeline.handle_end();
    pipeline.outlet_mut().0.flush();
    let deadline = Instant::now().checked_add(config.drain_timeout).unwrap_or_else(Instant::now);
    runtime.block_on(replayer.drain(deadline));
    let snapshot = Snapshot {
        ledger: LedgerReading::of(&ledger),
        flow: pipeline.flow_counters().labelled().to_vec(),
        ..Snapshot::default()
    };
    super::print(&crate::admin::ledger_page(&snapshot))?;
    read.map_err(Failure::running)
}

struct FileOutlet(ReplayHandle);

impl Outlet for FileOutlet {
    fn offer(&mut self, shadow: ShadowId, request: ShadowRequest) {
        self.0.offer(shadow, request);
    }
    fn ignore(&mut self, _flow: &FlowKey) {}
    fn pass_over(&mut self, _flow: &FlowKey, _up_to: SeqNumber) {}

    fn copy_answers(&mut self, _flow: &FlowKey, _whole: bool) {}
}
