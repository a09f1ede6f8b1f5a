//! PURE. What a connection may bring beside the bodies of answers, so that floods of PING, SETTINGS,
//! WINDOW_UPDATE, RST_STREAM or 1xx answers cost a bounded amount.

use super::connect::MAX_HEADER_LIST_BYTES;
use std::time::Duration;
use tokio::time::Instant;

/// For a connection as such: SETTINGS, the first PINGs, GOAWAY.
const BASE_BYTES: u64 = 256 * 1024;
/// For each stream: its answer's head and trailers.
const STREAM_BYTES: u64 = 2 * MAX_HEADER_LIST_BYTES as u64;
/// For each DATA frame of an answer: its header, padding, and what else goes with it.
const FRAME_BYTES: u64 = 64;
/// For each byte that we write: WINDOW_UPDATEs and PINGs are answers to frames of ours, of 9 bytes at least.
const PER_BYTE_WRITTEN: u64 = 8;
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

    /// Whether the peer has sent more than there is any reason for.
    pub(super) fn is_exceeded(&self, read_bytes: u64, written_bytes: u64, now: Instant) -> bool {
        if read_bytes <= self.granted_bytes {
            return false;
        }
        let age: Duration = now.saturating_duration_since(self.opened);
        let for_time = age.as_secs().saturating_mul(BYTES_PER_SECOND);
        let for_writing = written_bytes.saturating_mul(PER_BYTE_WRITTEN);
        read_bytes > self.granted_bytes.saturating_add(for_time).saturating_add(for_writing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_granted_and_the_rest_only_by_time_and_by_what_was_written() {
        let now = Instant::now();
        let mut allowance = Allowance::new(now);
        assert!(!allowance.is_exceeded(BASE_BYTES, 0, now));
        assert!(allowance.is_exceeded(BASE_BYTES + 1, 0, now));
        assert!(!allowance.is_exceeded(BASE_BYTES + 8, 1, now));
        assert!(!allowance.is_exceeded(BASE_BYTES + 2048, 0, now + Duration::from_secs(2)));
        allowance.grant_frame(1000);
        allowance.grant_stream();
        assert!(!allowance.is_exceeded(BASE_BYTES + STREAM_BYTES + 1064, 0, now));
        assert!(allowance.is_exceeded(BASE_BYTES + STREAM_BYTES + 1065, 0, now));
    }
}
