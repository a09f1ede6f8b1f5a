//! PURE. What a connection may bring beside the bodies of answers, so that floods of PING, SETTINGS,
//! WINDOW_UPDATE, RST_STREAM or 1xx answers cost a bounded amount.

use super::connect::MAX_HEADER_LIST_BYTES;
use tokio::time::Instant;

/// For a connection as such: SETTINGS, the first PINGs, GOAWAY.
const BASE_BYTES: u64 = 256 * 1024;
/// For each stream: its answer's head and trailers.
const STREAM_BYTES: u64 = 2 * MAX_HEADER_LIST_BYTES as u64;
/// For each DATA frame: of an answer, its header and padding; of a request, WINDOW_UPDATEs and a PING.
const FRAME_BYTES: u64 = 64;
/// Of a request's body, for so many bytes one: WINDOW_UPDATEs and PINGs answer to its frames.
const BODY_BYTES_PER_BYTE: u64 = 8;
/// For each second: keep-alive PINGs.
const BYTES_PER_SECOND: u64 = 1024;

/// How much one connection has been granted so far.
#[derive(Debug)]
pub(super) struct Allowance {
    opened: Instant,
    granted_bytes: u64,
}

impl Allowance {
    pub(super) const fn new(now: Instant) -> Self {
        Self { opened: now, granted_bytes: BASE_BYTES }
    }

    /// One more stream was opened.
    pub(super) const fn grant_stream(&mut self) {
        self.granted_bytes = self.granted_bytes.saturating_add(STREAM_BYTES);
    }

    /// An answer brought a DATA frame with so many bytes.
    pub(super) const fn grant_frame(&mut self, bytes: usize) {
        self.granted_bytes = self.granted_bytes.saturating_add(bytes as u64).saturating_add(FRAME_BYTES);
    }

    /// A DATA frame with so many bytes was sent.
    pub(super) const fn grant_sent(&mut self, bytes: usize) {
        let for_body = (bytes as u64).wrapping_div(BODY_BYTES_PER_BYTE);
        self.granted_bytes = self.granted_bytes.saturating_add(for_body).saturating_add(FRAME_BYTES);
    }

    /// Whether the peer has sent more than there is any reason for.
    pub(super) fn is_exceeded(&self, read_bytes: u64, now: Instant) -> bool {
        if read_bytes <= self.granted_bytes {
            return false;
        }
        let age = now.saturating_duration_since(self.opened);
        let for_time = age.as_secs().saturating_mul(BYTES_PER_SECOND);
        read_bytes > self.granted_bytes.saturating_add(for_time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn answers_and_bodies_are_granted_and_all_else_only_by_time() {
        let now = Instant::now();
        let mut allowance = Allowance::new(now);
        assert!(!allowance.is_exceeded(BASE_BYTES, now));
        assert!(allowance.is_exceeded(BASE_BYTES + 1, now));
        assert!(!allowance.is_exceeded(BASE_BYTES + 2048, now + Duration::from_secs(2)));
        allowance.grant_frame(1000);
        allowance.grant_stream();
        allowance.grant_sent(800);
        let granted = BASE_BYTES + STREAM_BYTES + 1000 + 100 + 2 * FRAME_BYTES;
        assert!(!allowance.is_exceeded(granted, now));
        assert!(allowance.is_exceeded(granted + 1, now));
    }
}
