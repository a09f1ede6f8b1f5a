//! HTTP/2 frames (RFC 9113, 4 and 6): headers, typed payloads, and a reader for bytes that come in pieces.
//!
//! Left out: what frames mean to streams (`connection`), header compression (`hpack`).

mod error;
mod head;
mod payload;
mod reader;

pub use error::FrameError;
pub use head::{FRAME_HEAD_BYTES, FrameHead, FrameKind, StreamId, flag};
pub use payload::{Frame, SettingId, Settings};
pub use reader::{FrameReader, GapOutcome, PREFACE, Piece};

/// The frame size that every endpoint accepts (RFC 9113, 6.5.2, SETTINGS_MAX_FRAME_SIZE), in bytes.
pub const DEFAULT_FRAME_BYTES: u32 = 16_384;
/// Largest frame that is read whatever the settings were: they may not have been seen. Also the most bytes
/// that a reader keeps, for frames other than DATA.
pub const MAX_FRAME_BYTES: u32 = 1024 * 1024;
