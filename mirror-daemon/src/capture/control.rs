//! The control ring: opens, closes and loss marks.

use super::error::CaptureError;
use super::reader::{Waker, sleep_until_readable};
use crate::flow::{Direction, FlowKey, SeqNumber, Timestamp};
use aya::maps::{MapData, RingBuf};
use mirror_common::{ControlKind, ControlRecord, LossReason, RecordDirection};
use std::time::Duration;

/// One record of the control ring. A key whose capture point is [`mirror_common::ANY_POINT`] means that
/// connection at every capture point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlEvent {
    /// The gateway accepted or opened the connection.
    Opened {
        /// The connection.
        flow: FlowKey,
        /// When.
        at: Timestamp,
    },
    /// The connection is closed in the gateway's kernel; segments may still wait in a data ring.
    Closed {
        /// The connection.
        flow: FlowKey,
        /// When.
        at: Timestamp,
    },
    /// Bytes were seen and could not be handed over. Under a flood not every loss has its mark; the counters
    /// have them all.
    Lost {
        /// The connection.
        flow: FlowKey,
        /// When.
        at: Timestamp,
        /// Which way the bytes travelled.
        direction: Direction,
        /// The first lost byte.
        start: SeqNumber,
        /// How many.
        bytes: u32,
        /// Why.
        reason: LossReason,
    },
}

/// Reads the control ring. Sleeps until the kernel wakes it: no tick.
#[derive(Debug)]
pub struct ControlReader {
    ring: Ring,
    waker: Waker,
}

struct Ring(RingBuf<MapData>);

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ring")
    }
}

impl ControlReader {
    pub(crate) fn new(ring: RingBuf<MapData>) -> Result<Self, CaptureError> {
        Ok(Self { ring: Ring(ring), waker: Waker::new()? })
    }

    /// What ends a [`Self::wait`] from another thread.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Hands all waiting records over. Returns how many there were.
    pub fn drain(&mut self, mut on_event: impl FnMut(ControlEvent)) -> usize {
        let mut records = 0_usize;
        while let Some(item) = self.ring.0.next() {
            records = records.saturating_add(1);
            if let Some(event) = ControlRecord::from_bytes(&item).and_then(|record| event(&record)) {
                on_event(event);
            }
        }
        records
    }

    /// Sleeps until a record waits, the waker was used, or `timeout` is over (`None`: never).
    ///
    /// # Errors
    /// When the kernel refuses to wait.
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<(), CaptureError> {
        sleep_until_readable(&self.ring.0, &self.waker, timeout).map(drop)
    }
}

fn event(record: &ControlRecord) -> Option<ControlEvent> {
    let (flow, at) = (record.flow, Timestamp(record.at_ns));
    Some(match ControlKind::from_code(record.kind)? {
        ControlKind::Opened => ControlEvent::Opened { flow, at },
        ControlKind::Closed => ControlEvent::Closed { flow, at },
        ControlKind::Lost => ControlEvent::Lost {
            flow,
            at,
            direction: direction(record.direction),
            start: SeqNumber(record.seq),
            bytes: record.bytes,
            reason: LossReason::from_code(record.reason)?,
        },
    })
}

/// A [`RecordDirection`] as `flow` knows it.
pub(crate) const fn direction(code: u16) -> Direction {
    if code == RecordDirection::Request as u16 { Direction::Request } else { Direction::Answer }
}
