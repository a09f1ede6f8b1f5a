//! What user space tells the kernel about single flows.

use super::error::CaptureError;
use crate::flow::{FlowKey, SeqNumber};
use aya::maps::{HashMap, MapData, MapError};
use mirror_common::{FlowVerdict, VerdictCode};

/// A handle on the verdict map: one per thread, each call one system call. A verdict that comes too late costs
/// a copy, never correctness; the map forgets the flows that were silent longest.
#[derive(Debug)]
pub struct VerdictWriter {
    map: HashMap<MapData, FlowKey, FlowVerdict>,
}

impl VerdictWriter {
    pub(crate) const fn new(map: HashMap<MapData, FlowKey, FlowVerdict>) -> Self {
        Self { map }
    }

    /// Nothing of this flow is copied any more, until a SYN uses its addresses again.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn ignore(&mut self, flow: &FlowKey) -> Result<(), CaptureError> {
        self.write(flow, FlowVerdict { code: VerdictCode::Ignore as u32, until_seq: 0 })
    }

    /// No payload of request segments that end at or before `until` is copied; their headers still come.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn pass_over(&mut self, flow: &FlowKey, until: SeqNumber) -> Result<(), CaptureError> {
        self.write(flow, FlowVerdict { code: VerdictCode::PassOver as u32, until_seq: until.0 })
    }

    /// The answers of this flow are copied whole, and not only the beginning of each segment.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn copy_answers(&mut self, flow: &FlowKey) -> Result<(), CaptureError> {
        self.write(flow, FlowVerdict { code: VerdictCode::CopyAnswers as u32, until_seq: 0 })
    }

    /// This flow is copied as any other again.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn capture(&mut self, flow: &FlowKey) -> Result<(), CaptureError> {
        match self.map.remove(flow) {
            // Without a verdict the flow is captured.
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(MapError::SyscallError(error)) if error.io_error.kind() == std::io::ErrorKind::NotFound => {
                Ok(())
            }
            Err(error) => Err(CaptureError::map("VERDICTS")(error)),
        }
    }

    fn write(&mut self, flow: &FlowKey, verdict: FlowVerdict) -> Result<(), CaptureError> {
        self.map.insert(flow, verdict, 0).map_err(CaptureError::map("VERDICTS"))
    }
}
