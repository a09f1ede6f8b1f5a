//! Payloads of all frames but DATA, which the reader passes on as it comes (RFC 9113, 6).

use super::{FrameError, FrameHead, FrameKind, StreamId, flag};

/// A frame whose payload was whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// HEADERS. Priority fields are read over.
    Headers {
        /// No body follows.
        end_stream: bool,
        /// The block ends here.
        end_headers: bool,
        /// Field block fragment.
        fragment: &'a [u8],
    },
    /// PRIORITY; deprecated, read over.
    Priority,
    /// RST_STREAM.
    RstStream {
        /// Error code (7).
        code: u32,
    },
    /// SETTINGS.
    Settings(Settings<'a>),
    /// PUSH_PROMISE.
    PushPromise {
        /// The stream that will carry the pushed answer.
        promised: StreamId,
        /// The block ends here.
        end_headers: bool,
        /// Field block fragment.
        fragment: &'a [u8],
    },
    /// PING.
    Ping {
        /// An answer to one.
        ack: bool,
    },
    /// GOAWAY.
    GoAway {
        /// No stream above this one was or will be acted upon.
        last_stream: StreamId,
        /// Error code (7).
        code: u32,
    },
    /// WINDOW_UPDATE.
    WindowUpdate {
        /// 1 to 2^31-1.
        increment: u32,
    },
    /// CONTINUATION.
    Continuation {
        /// The block ends here.
        end_headers: bool,
        /// Field block fragment.
        fragment: &'a [u8],
    },
}

/// The known settings (RFC 9113, 6.5.2; RFC 8441, 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettingId {
    /// SETTINGS_HEADER_TABLE_SIZE
    HeaderTableSize,
    /// SETTINGS_ENABLE_PUSH
    EnablePush,
    /// SETTINGS_MAX_CONCURRENT_STREAMS
    MaxConcurrentStreams,
    /// SETTINGS_INITIAL_WINDOW_SIZE
    InitialWindowSize,
    /// SETTINGS_MAX_FRAME_SIZE
    MaxFrameSize,
    /// SETTINGS_MAX_HEADER_LIST_SIZE
    MaxHeaderListSize,
    /// SETTINGS_ENABLE_CONNECT_PROTOCOL
    EnableConnectProtocol,
    /// Any other; to be ignored.
    Unknown(u16),
}

/// The payload of SETTINGS: checked, six octets each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings<'a> {
    ack: bool,
    octets: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Reads the payload of `head`, which passed [`FrameHead::check`]. `None` for DATA and unknown types.
    ///
    /// # Errors
    /// Any violation that the payload shows.
    pub fn parse(head: FrameHead, payload: &'a [u8]) -> Result<Option<Self>, FrameError> {
        Ok(Some(match head.kind {
            FrameKind::Data | FrameKind::Unknown(_) => return Ok(None),
            FrameKind::Headers => Self::headers(head, payload)?,
            FrameKind::Priority => {
                check_dependency(head, payload)?;
                Self::Priority
            }
            FrameKind::RstStream => Self::RstStream { code: split_u32(payload)?.0 },
            FrameKind::Settings => Self::Settings(Settings::check(head, payload)?),
            FrameKind::PushPromise => Self::push_promise(head, payload)?,
            FrameKind::Ping => Self::Ping { ack: head.has(flag::ACK) },
            FrameKind::GoAway => {
                let (last_stream, rest) = split_u32(payload)?;
                Self::GoAway { last_stream: StreamId::new(last_stream), code: split_u32(rest)?.0 }
            }
            FrameKind::WindowUpdate => match StreamId::new(split_u32(payload)?.0).value() {
                0 => return Err(FrameError::WindowUpdateZero),
                increment => Self::WindowUpdate { increment },
            },
            FrameKind::Continuation => {
                Self::Continuation { end_headers: head.has(flag::END_HEADERS), fragment: payload }
            }
        }))
    }

    fn headers(head: FrameHead, payload: &'a [u8]) -> Result<Self, FrameError> {
        let mut fragment = without_padding(head, payload)?;
        if head.has(flag::PRIORITY) {
            check_dependency(head, fragment)?;
            fragment = fragment.get(5..).ok_or(FrameError::PaddingTooLong)?;
        }
        let (end_stream, end_headers) = (head.has(flag::END_STREAM), head.has(flag::END_HEADERS));
        Ok(Self::Headers { end_stream, end_headers, fragment })
    }

    fn push_promise(head: FrameHead, payload: &'a [u8]) -> Result<Self, FrameError> {
        let (promised, fragment) = split_u32(without_padding(head, payload)?)?;
        let promised = StreamId::new(promised);
        if promised.is_zero() || promised.is_client() {
            return Err(FrameError::PushPromise);
        }
        Ok(Self::PushPromise { promised, end_headers: head.has(flag::END_HEADERS), fragment })
    }
}

impl<'a> Settings<'a> {
    /// True for an acknowledgement, which has no entries.
    #[must_use]
    pub const fn is_ack(&self) -> bool {
        self.ack
    }

    /// The entries in order.
    pub fn iter(&self) -> impl Iterator<Item = (SettingId, u32)> + 'a {
        self.octets.as_chunks::<6>().0.iter().map(|&[i0, i1, v0, v1, v2, v3]| {
            (SettingId::from(u16::from_be_bytes([i0, i1])), u32::from_be_bytes([v0, v1, v2, v3]))
        })
    }

    fn check(head: FrameHead, octets: &'a [u8]) -> Result<Self, FrameError> {
        let settings = Self { ack: head.has(flag::ACK), octets };
        for (id, value) in settings.iter() {
            let right = match id {
                SettingId::EnablePush | SettingId::EnableConnectProtocol => value <= 1,
                SettingId::InitialWindowSize => value <= 0x7fff_ffff,
                SettingId::MaxFrameSize => (super::DEFAULT_FRAME_BYTES..=0x00ff_ffff).contains(&value),
                _ => true,
            };
            if !right {
                return Err(FrameError::SettingValue);
            }
        }
        Ok(settings)
    }
}

impl From<u16> for SettingId {
    fn from(id: u16) -> Self {
        match id {
            1 => Self::HeaderTableSize,
            2 => Self::EnablePush,
            3 => Self::MaxConcurrentStreams,
            4 => Self::InitialWindowSize,
            5 => Self::MaxFrameSize,
            6 => Self::MaxHeaderListSize,
            8 => Self::EnableConnectProtocol,
            other => Self::Unknown(other),
        }
    }
}

fn without_padding(head: FrameHead, payload: &[u8]) -> Result<&[u8], FrameError> {
    if !head.has(flag::PADDED) {
        return Ok(payload);
    }
    let (&padding, rest) = payload.split_first().ok_or(FrameError::PayloadLength)?;
    let length = rest.len().checked_sub(usize::from(padding)).ok_or(FrameError::PaddingTooLong)?;
    rest.get(..length).ok_or(FrameError::PaddingTooLong)
}

/// Checks the priority fields at the start of `payload` (RFC 7540, 5.3.1).
fn check_dependency(head: FrameHead, payload: &[u8]) -> Result<(), FrameError> {
    let (dependency, _) = split_u32(payload)?;
    if StreamId::new(dependency) == head.stream { Err(FrameError::SelfDependency) } else { Ok(()) }
}

fn split_u32(octets: &[u8]) -> Result<(u32, &[u8]), FrameError> {
    let (word, rest) = octets.split_first_chunk::<4>().ok_or(FrameError::PayloadLength)?;
    Ok((u32::from_be_bytes(*word), rest))
}
