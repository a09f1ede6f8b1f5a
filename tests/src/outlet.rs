//! Stands in for the replayer at the end of a pipeline: keeps what the shadows would get.

use mirror_daemon::config::ShadowId;
use mirror_daemon::flow::{FlowKey, SeqNumber};
use mirror_daemon::pipeline::Outlet;
use mirror_daemon::replay::{BodyReader, ShadowBody, ShadowRequest};

/// What a shadow would have got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Which shadow, in the order of the configuration.
    pub shadow: u16,
    /// The head as it would be written, with its empty line.
    pub head: String,
    /// The body, transfer coding removed.
    pub body: Vec<u8>,
    /// The trailer section.
    pub trailers: String,
}

/// An outlet that only remembers.
#[derive(Debug, Default)]
pub struct Memory {
    offered: Vec<(ShadowId, ShadowRequest)>,
    /// Flows that were of no interest any more.
    pub ignored: Vec<FlowKey>,
}

impl Outlet for Memory {
    fn offer(&mut self, shadow: ShadowId, request: ShadowRequest) {
        self.offered.push((shadow, request));
    }
    fn ignore(&mut self, flow: &FlowKey) {
        self.ignored.push(*flow);
    }
    fn pass_over(&mut self, _flow: &FlowKey, _up_to: SeqNumber) {}

    fn copy_answers(&mut self, _flow: &FlowKey, _whole: bool) {}
}

impl Memory {
    /// Copies that were offered.
    #[must_use]
    pub fn offered(&self) -> usize {
        self.offered.len()
    }

    /// Those that are whole; the others were aborted while their body was streamed. To be asked when the
    /// pipeline has ended: an unfinished stream would be waited for.
    #[must_use]
    pub fn into_whole(self) -> Vec<Sent> {
        self.offered.into_iter().filter_map(read_whole).collect()
    }
}

fn read_whole((shadow, request): (ShadowId, ShadowRequest)) -> Option<Sent> {
    let (body, trailers) = match request.body {
        ShadowBody::Buffered { bytes, trailers } => (bytes.to_vec(), trailers.to_vec()),
        ShadowBody::Streaming(reader) => read_stream(reader)?,
    };
    let head = String::from_utf8_lossy(&request.head.wire).into_owned();
    let trailers = String::from_utf8_lossy(&trailers).into_owned();
    Some(Sent { shadow: shadow.0, head, body, trailers })
}

fn read_stream(mut reader: BodyReader) -> Option<(Vec<u8>, Vec<u8>)> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().ok()?;
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
