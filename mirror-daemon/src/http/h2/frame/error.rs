//! Violations of RFC 9113 at the level of frames.

use crate::http::h2::kind::closed_kinds;

closed_kinds! {
    /// Which rule of RFC 9113 a frame broke.
    FrameError;
    /// The connection preface is not that of HTTP/2 (3.4).
    BadPreface = "bad_preface", "connection preface is not that of HTTP/2";
    /// The first frame is not SETTINGS (3.4).
    FirstFrameNotSettings = "first_frame_not_settings", "first frame is not SETTINGS";
    /// Longer than SETTINGS_MAX_FRAME_SIZE, or than what is read in any case (4.2).
    FrameTooLarge = "frame_too_large", "frame longer than SETTINGS_MAX_FRAME_SIZE";
    /// A frame that belongs to a stream came on stream 0 (6.1 to 6.4, 6.6, 6.10).
    StreamZero = "stream_zero", "frame of a stream on stream 0";
    /// SETTINGS, PING or GOAWAY came on a stream (6.5, 6.7, 6.8).
    NotStreamZero = "not_stream_zero", "frame of the connection on a stream";
    /// A payload of a fixed length has another (6.3 to 6.5, 6.7, 6.9), or one is too short for its fields.
    PayloadLength = "payload_length", "payload length does not fit the frame type";
    /// Padding as long as the payload or longer (6.1, 6.2).
    PaddingTooLong = "padding_too_long", "padding longer than the payload";
    /// A setting has a value outside of its range (6.5.2).
    SettingValue = "setting_value", "value of a setting out of range";
    /// SETTINGS with ACK and a payload (6.5).
    SettingsAckPayload = "settings_ack_payload", "acknowledgement of settings with a payload";
    /// WINDOW_UPDATE by 0 (6.9).
    WindowUpdateZero = "window_update_zero", "window update by 0";
    /// A stream that depends on itself (RFC 7540, 5.3.1).
    SelfDependency = "self_dependency", "stream depends on itself";
    /// Another frame came within a header block (6.2, 6.10).
    ContinuationExpected = "continuation_expected", "frame within a header block of another";
    /// CONTINUATION without a header block before it (6.10).
    ContinuationUnexpected = "continuation_unexpected", "continuation without a header block";
    /// A header block of more CONTINUATION frames, or of more bytes, than the bounds.
    HeaderBlockTooLarge = "header_block_too_large", "header block larger than the bound";
    /// PUSH_PROMISE from a client, or one that promises a stream of a client's parity (8.4).
    PushPromise = "push_promise", "push promise from a client or for a client's stream";
    /// HEADERS or DATA of a client on a stream of a server's parity (5.1.1).
    StreamParity = "stream_parity", "stream identifier of the wrong parity";
    /// A new stream below an earlier one (5.1.1).
    StreamIdNotIncreasing = "stream_id_not_increasing", "identifier of a new stream below an earlier one";
    /// A frame on a stream that was never opened (5.1).
    IdleStream = "idle_stream", "frame on an idle stream";
    /// DATA or HEADERS behind END_STREAM (5.1).
    StreamClosed = "stream_closed", "frame behind the end of the stream";
}

impl FrameError {
    /// True when only the stream is in error, and the connection goes on (RFC 9113, 5.4.2).
    #[must_use]
    pub const fn is_stream_error(self) -> bool {
        matches!(self, Self::WindowUpdateZero | Self::SelfDependency | Self::StreamClosed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_differ_and_places_match() {
        let labels: std::collections::BTreeSet<_> = FrameError::ALL.iter().map(|kind| kind.label()).collect();
        assert_eq!(labels.len(), FrameError::COUNT);
        for (place, kind) in FrameError::ALL.iter().enumerate() {
            assert_eq!(usize::from(*kind as u8), place);
        }
    }
}
