//! The nine octets before each payload (RFC 9113, 4.1).

use super::FrameError;
use crate::flow::Direction;

/// Octets of a frame header.
pub const FRAME_HEAD_BYTES: usize = 9;

/// A stream identifier: 31 bits, 0 for the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct StreamId(u32);

impl StreamId {
    /// The connection itself.
    pub const ZERO: Self = Self(0);

    /// The identifier in `bits`, of which the reserved highest is ignored (RFC 9113, 4.1).
    #[must_use]
    pub const fn new(bits: u32) -> Self {
        Self(bits & 0x7fff_ffff)
    }

    /// The number.
    #[must_use]
    pub const fn value(self) -> u32 {
        self.0
    }

    /// True for the connection itself.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// True for streams that clients open.
    #[must_use]
    pub const fn is_client(self) -> bool {
        self.0 & 1 == 1
    }
}

/// Frame types (RFC 9113, 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameKind {
    /// DATA (6.1)
    Data,
    /// HEADERS (6.2)
    Headers,
    /// PRIORITY (6.3)
    Priority,
    /// RST_STREAM (6.4)
    RstStream,
    /// SETTINGS (6.5)
    Settings,
    /// PUSH_PROMISE (6.6)
    PushPromise,
    /// PING (6.7)
    Ping,
    /// GOAWAY (6.8)
    GoAway,
    /// WINDOW_UPDATE (6.9)
    WindowUpdate,
    /// CONTINUATION (6.10)
    Continuation,
    /// Any other type; to be ignored (5.5).
    Unknown(u8),
}

impl From<u8> for FrameKind {
    fn from(octet: u8) -> Self {
        match octet {
            0 => Self::Data,
            1 => Self::Headers,
            2 => Self::Priority,
            3 => Self::RstStream,
            4 => Self::Settings,
            5 => Self::PushPromise,
            6 => Self::Ping,
            7 => Self::GoAway,
            8 => Self::WindowUpdate,
            9 => Self::Continuation,
            other => Self::Unknown(other),
        }
    }
}

/// Frame flags (RFC 9113, 6).
pub mod flag {
    /// DATA, HEADERS: the last frame of the stream in this direction.
    pub const END_STREAM: u8 = 0x01;
    /// SETTINGS, PING: an acknowledgement.
    pub const ACK: u8 = 0x01;
    /// HEADERS, PUSH_PROMISE, CONTINUATION: the last fragment of the block.
    pub const END_HEADERS: u8 = 0x04;
    /// DATA, HEADERS, PUSH_PROMISE: the payload is padded.
    pub const PADDED: u8 = 0x08;
    /// HEADERS: the payload starts with priority fields.
    pub const PRIORITY: u8 = 0x20;
}

/// A frame header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    /// Octets of payload, 24 bits.
    pub length: u32,
    /// Type.
    pub kind: FrameKind,
    /// Flags; those not defined for the type are to be ignored.
    pub flags: u8,
    /// Stream.
    pub stream: StreamId,
}

impl FrameHead {
    /// Reads a header. Any nine octets are one.
    #[must_use]
    pub fn parse(octets: &[u8; FRAME_HEAD_BYTES]) -> Self {
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = *octets;
        Self {
            length: u32::from_be_bytes([0, l0, l1, l2]),
            kind: FrameKind::from(kind),
            flags,
            stream: StreamId::new(u32::from_be_bytes([s0, s1, s2, s3])),
        }
    }

    /// True when `flag` is set.
    #[must_use]
    pub const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Checks what the header alone can break.
    ///
    /// # Errors
    /// Stream zero or not, lengths of fixed payloads, and frames that `direction` never carries.
    pub fn check(&self, direction: Direction) -> Result<(), FrameError> {
        self.check_stream(direction)?;
        let right_length = match self.kind {
            FrameKind::Priority => self.length == 5,
            FrameKind::RstStream | FrameKind::WindowUpdate => self.length == 4,
            FrameKind::Ping => self.length == 8,
            FrameKind::GoAway => self.length >= 8,
            FrameKind::Settings if self.has(flag::ACK) && self.length != 0 => {
                return Err(FrameError::SettingsAckPayload);
            }
            FrameKind::Settings => self.length.is_multiple_of(6),
            FrameKind::Data | FrameKind::Headers | FrameKind::PushPromise => {
                self.length >= self.least_payload()
            }
            FrameKind::Continuation | FrameKind::Unknown(_) => true,
        };
        if right_length { Ok(()) } else { Err(FrameError::PayloadLength) }
    }

    fn check_stream(&self, direction: Direction) -> Result<(), FrameError> {
        let client = direction == Direction::Request;
        match self.kind {
            FrameKind::PushPromise if client => Err(FrameError::PushPromise),
            FrameKind::Data | FrameKind::Headers | FrameKind::Continuation
                if client && !self.stream.is_zero() && !self.stream.is_client() =>
            {
                Err(FrameError::StreamParity)
            }
            FrameKind::Settings | FrameKind::Ping | FrameKind::GoAway if !self.stream.is_zero() => {
                Err(FrameError::NotStreamZero)
            }
            FrameKind::Settings | FrameKind::Ping | FrameKind::GoAway => Ok(()),
            FrameKind::WindowUpdate | FrameKind::Unknown(_) => Ok(()),
            _ if self.stream.is_zero() => Err(FrameError::StreamZero),
            _ => Ok(()),
        }
    }

    /// Octets that the flags make necessary.
    fn least_payload(&self) -> u32 {
        let padding = u32::from(self.has(flag::PADDED));
        let fields = match self.kind {
            FrameKind::Headers if self.has(flag::PRIORITY) => 5,
            FrameKind::PushPromise => 4,
            _ => 0,
        };
        padding.saturating_add(fields)
    }
}
