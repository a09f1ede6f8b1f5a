//! The capture shell: reads capture files ([`pcap`]), or loads the kernel programs, attaches them, and reads their rings.
//!
//! Two parts that meet only in [`open`], so that they can become two processes: the [`Attacher`] owns programs,
//! links, map writes and namespace entry; [`RingReader`] and [`ControlReader`] own mapped rings and need no
//! privilege once they are open. [`CounterReader`], [`LiveWriter`] and [`VerdictWriter`] are small handles on
//! one map each.
//!
//! Left out: what the segments mean. Nothing here interprets a byte of payload.

mod attach;
mod clsact;
mod control;
mod counters;
mod error;
mod kernel_log;
mod live;
mod load;
mod netlink;
mod netns;
pub mod pcap;
mod pod;
mod reader;
mod shed;
mod sock_diag;
mod verdict;

pub use attach::{Attacher, Attachment, PointNumbers, PointState, PointStatus, Trial};
pub use control::{ControlEvent, ControlReader};
pub use counters::CounterReader;
pub use error::CaptureError;
pub use live::{LiveWriter, now};
pub use load::{Capture, TestKnobs, open, open_with, unbuilt};
pub use reader::{Drained, RingReader, Waker};
pub use shed::Shed;
pub use verdict::VerdictWriter;
