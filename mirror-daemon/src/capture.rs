//! The capture shell: reads capture files ([`pcap`]), or loads the kernel programs, attaches them, and reads their rings.
//!
//! Two parts that meet only in `seam`, so that they can be two processes: the attacher owns programs,
//! links, map writes and namespace entry; [`RingReader`] and [`ControlReader`] own mapped rings and need no
//! privilege once they are open. [`AttacherClient`], [`CounterReader`], [`LiveWriter`], [`VerdictWriter`] and
//! [`SocketMarker`] ask the attacher for what takes one.
//!
//! Left out: what the segments mean. Nothing here interprets a byte of payload.

mod attach;
mod clsact;
mod control;
mod counters;
mod error;
mod kernel_log;
mod line;
mod live;
mod load;
mod marker;
mod netlink;
mod netns;
pub mod pcap;
mod place;
mod pod;
mod reader;
mod seam;
mod shed;
mod sock_diag;
mod verdict;

pub use attach::{Attachment, Expected, PointNumbers, PointState, PointStatus};
pub use control::{ControlEvent, ControlReader};
pub use counters::CounterReader;
pub use error::CaptureError;
pub use live::{LiveWriter, now};
pub use load::{Capture, TestKnobs, open, open_with, unbuilt};
pub use marker::SocketMarker;
pub(crate) use pod::NAMESPACES;
pub use reader::{Drained, RingReader, Waker};
pub use seam::{AttacherClient, AttacherLink, Prepared, Trial};
pub(crate) use seam::{Terms, attend};
pub use shed::Shed;
pub use verdict::VerdictWriter;
