//! A pipeline behind a capture file, with an outlet that only remembers.

use mirror_daemon::capture::pcap::PcapSource;
use mirror_daemon::config::{Config, ShadowId};
use mirror_daemon::flow::{FlowKey, HashSeed, SeqNumber};
use mirror_daemon::pipeline::{Outlet, Pipeline, View};
use mirror_daemon::replay::{BodyReader, ShadowBody, ShadowRequest};
use mirror_daemon::telemetry::Ledger;
use mirror_tests::pcap::{Conversation, PcapWriter};
use std::sync::Arc;

/// What a shadow would have got: head, body, trailers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) shadow: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: String,
}

/// Everything a run made.
pub(crate) struct Outcome {
    pub(crate) sent: Vec<Sent>,
    /// Streamed bodies that were aborted.
    pub(crate) aborted: usize,
    pub(crate) ignored_flows: usize,
    /// Bytes that the pipeline still held after the end.
    pub(crate) held_bytes: usize,
    pub(crate) ledger: Arc<Ledger>,
}

#[derive(Default)]
struct Memory {
    offered: Vec<(ShadowId, ShadowRequest)>,
    ignored: Vec<FlowKey>,
}

impl Outlet for Memory {
    fn offer(&mut self, shadow: ShadowId, request: ShadowRequest) {
        self.offered.push((shadow, request));
    }
    fn ignore(&mut self, flow: &FlowKey) {
        self.ignored.push(*flow);
    }
    fn pass_over(&mut self, _flow: &FlowKey, _up_to: SeqNumber) {}
}

/// Runs the pipeline of `config` over what `write` puts into a capture file.
pub(crate) fn run(config: &str, write: impl FnOnce(&mut PcapWriter<Vec<u8>>)) -> Outcome {
    let mut pcap = PcapWriter::new(Vec::new()).expect("a Vec takes all");
    write(&mut pcap);
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), pcap.into_inner()).expect("the temporary file is writable");

    let config = Arc::new(Config::from_toml(config, "test.toml").expect("the test's configuration is right"));
    let ledger = Arc::new(Ledger::default());
    let view = Arc::new(View::new(0, Arc::clone(&config), &ledger));
    let mut pipeline = Pipeline::new(view, Arc::clone(&ledger), HashSeed([1, 2]), Memory::default());
    let mut source = PcapSource::open(file.path(), config.capture.leg, &config.capture.ports)
        .expect("our own file is right");
    source
        .for_each(|segment| {
            pipeline.handle_timeout(segment.at);
            pipeline.handle_segment(segment);
        })
        .expect("our own file is right to its end");
    pipeline.handle_end();
    let held_bytes = pipeline.held_bytes();
    let memory = std::mem::take(pipeline.outlet_mut());
    let offered = memory.offered.len();
    let sent: Vec<Sent> = memory.offered.into_iter().filter_map(read_whole).collect();
    let aborted = offered - sent.len();
    Outcome { aborted, ignored_flows: memory.ignored.len(), held_bytes, sent, ledger }
}

/// A connection between two fixed addresses, opened.
pub(crate) fn opened(pcap: &mut PcapWriter<Vec<u8>>) -> Conversation {
    let mut talk = joined();
    talk.open(pcap).expect("a Vec takes all");
    talk
}

/// The same connection, without its opening.
pub(crate) fn joined() -> Conversation {
    Conversation::new(
        "10.77.0.1:40000".parse().expect("an address"),
        "10.77.0.2:8080".parse().expect("an address"),
    )
}

fn read_whole((shadow, request): (ShadowId, ShadowRequest)) -> Option<Sent> {
    let (body, trailers) = match request.body {
        ShadowBody::Buffered { bytes, trailers } => (bytes.to_vec(), trailers.to_vec()),
        ShadowBody::Streaming(reader) => read_stream(reader)?,
    };
    let head = String::from_utf8(request.head.wire.to_vec()).expect("test heads are text");
    let trailers = String::from_utf8(trailers).expect("test trailers are text");
    Some(Sent { shadow: shadow.0, head, body, trailers })
}

fn read_stream(mut reader: BodyReader) -> Option<(Vec<u8>, Vec<u8>)> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut body = Vec::new();
    runtime.block_on(async {
        loop {
            match reader.next().await.ok()? {
                Ok(bytes) => body.extend_from_slice(&bytes),
                Err(trailers) => return Some((std::mem::take(&mut body), trailers.to_vec())),
            }
        }
    })
}
