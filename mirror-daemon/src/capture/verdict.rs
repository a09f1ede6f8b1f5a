//! What user space tells the kernel about single flows.

use super::error::CaptureError;
use super::line::Line;
use super::seam::{MAX_VERDICTS, Note, Verdict, Want};
use crate::flow::{FlowKey, SeqNumber};
use aya::maps::{HashMap, MapData, MapError};
use mirror_common::{FlowVerdict, VerdictCode};
use std::sync::Arc;
use std::time::Duration;

/// How long [`VerdictWriter::settle`] waits.
const PATIENCE: Duration = Duration::from_secs(5);

/// Collects verdicts, one for each thread, and hands them over in batches. None is waited for: one that comes too late,
/// or that finds no room on its way, costs a copy, never correctness; the map forgets the flows that were silent
/// longest.
#[derive(Debug)]
pub struct VerdictWriter {
    line: Arc<Line>,
    waiting: Vec<Verdict>,
    lost: u64,
}

impl VerdictWriter {
    pub(super) const fn new(line: Arc<Line>) -> Self {
        Self { line, waiting: Vec::new(), lost: 0 }
    }

    /// Nothing of this flow is copied any more, until a SYN uses its addresses again.
    pub fn ignore(&mut self, flow: &FlowKey) {
        self.push(flow, Want::Ignore);
    }

    /// No payload of request segments that end at or before `until` is copied; their headers still come.
    pub fn pass_over(&mut self, flow: &FlowKey, until: SeqNumber) {
        self.push(flow, Want::PassOver(until.0));
    }

    /// The answers of this flow are copied whole, and not only the beginning of each segment.
    pub fn copy_answers(&mut self, flow: &FlowKey) {
        self.push(flow, Want::CopyAnswers);
    }

    /// This flow is copied as any other again.
    pub fn capture(&mut self, flow: &FlowKey) {
        self.push(flow, Want::Capture);
    }

    /// Hands over what was collected: one system call, and none when there is nothing. To be called after each look at
    /// the ring.
    pub fn flush(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let count = u64::try_from(self.waiting.len()).unwrap_or(u64::MAX);
        let note = Note::Verdicts(std::mem::take(&mut self.waiting));
        if self.line.tell(&note).is_err() {
            self.lost = self.lost.saturating_add(count);
        }
        if let Note::Verdicts(mut sent) = note {
            // Its room is used again.
            sent.clear();
            self.waiting = sent;
        }
    }

    /// Hands over what was collected and waits until the kernel has it.
    ///
    /// # Errors
    /// When the attacher does not answer.
    pub fn settle(&mut self) -> Result<(), CaptureError> {
        self.flush();
        self.line.ask(PATIENCE, |number| Note::Settle { number }).map(drop)
    }

    /// How many verdicts found no room on their way.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.lost
    }

    fn push(&mut self, flow: &FlowKey, want: Want) {
        self.waiting.push(Verdict::new(flow, want));
        if self.waiting.len() >= MAX_VERDICTS {
            self.flush();
        }
    }
}

/// The map, in the attacher's hands.
pub(super) struct VerdictMap(pub(super) HashMap<MapData, FlowKey, FlowVerdict>);

impl VerdictMap {
    pub(super) fn write(&mut self, verdict: &Verdict) -> Result<(), CaptureError> {
        let (code, until_seq) = match verdict.want {
            Want::Capture => return self.remove(&verdict.flow()),
            Want::Ignore => (VerdictCode::Ignore, 0),
            Want::PassOver(until) => (VerdictCode::PassOver, until),
            Want::CopyAnswers => (VerdictCode::CopyAnswers, 0),
        };
        let wanted = FlowVerdict { code: code as u32, until_seq };
        self.0.insert(verdict.flow(), wanted, 0).map_err(CaptureError::map("VERDICTS"))
    }

    /// Without a verdict the flow is captured.
    fn remove(&mut self, flow: &FlowKey) -> Result<(), CaptureError> {
        match self.0.remove(flow) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(MapError::SyscallError(error)) if error.io_error.kind() == std::io::ErrorKind::NotFound => {
                Ok(())
            }
            Err(error) => Err(CaptureError::map("VERDICTS")(error)),
        }
    }
}
