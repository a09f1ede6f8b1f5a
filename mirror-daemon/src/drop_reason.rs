//! Why a request or a flow was not mirrored: one closed enum for code, metric labels and documentation.

/// One reason for one loss. Each loss is counted once, where it happens.
///
/// The label (see [`DropReason::label`]) is the word used in metrics, in the ledger and in the README.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum DropReason {
    /// Bytes inside the request were never seen (lost before the daemon, or by it); see the kernel counters.
    Gap,
    /// The connection ended (FIN, or vanished) before the request did.
    Truncated,
    /// The connection was reset before the request ended.
    Reset,
    /// A protocol upgrade or CONNECT succeeded: the bytes after it are no HTTP. Intended.
    Upgrade,
    /// A candidate found after a mid-connection join whose boundary was never proven by its answer.
    UnprovenBoundary,
    /// Content-Length and Transfer-Encoding together, differing Content-Lengths, an obs-fold in a framing
    /// header, a broken chunk line or another ambiguity that is used for request smuggling (RFC 9112, 6.3, 7.1
    /// and 11.2).
    Smuggling,
    /// The head or the trailer section broke the grammar (RFC 9112).
    Malformed,
    /// The head is larger than `MAX_HEAD_BYTES` or has more fields than `MAX_FIELDS`.
    HeadTooLarge,
    /// HTTP/2: the head refers to parts of the HPACK table that were never seen (joined late, or bytes lost).
    Undecodable,
    /// HTTP/2: the stream was cancelled (RST_STREAM, or GOAWAY) before the request ended. Intended.
    Cancelled,
    /// A per-flow or total memory bound was reached and this flow was chosen to go.
    FlowEvicted,
    /// The request carries the loop mark: it is itself a mirror. Intended.
    Loop,
    /// The bytes of the connection are no HTTP (TLS, or another protocol). Intended.
    NotHttp,
    /// The flow carries a protocol version that this build does not mirror.
    UnsupportedProtocol,
    /// The bound on the bytes of all growing and held requests of a shard was reached.
    BufferFull,
    /// The shadow's queue was full (items or bytes).
    QueueFull,
    /// The shadow's `max_rps` was reached. Intended.
    RateLimited,
    /// The shadow's circuit breaker was open.
    BreakerOpen,
    /// The shadow's name could not be resolved.
    Resolve,
    /// The shadow could not be connected to in time, or refused.
    Connect,
    /// The TLS handshake with the shadow failed.
    Tls,
    /// The shadow closed the connection before the request was written, or before any byte of its answer, and
    /// one more try was not allowed.
    ShadowClosed,
    /// The request could not be written to the shadow in time.
    WriteTimeout,
    /// A streamed body outran its bounded channel because the shadow read too slowly.
    StreamOverrun,
    /// The daemon stopped before the request was written, after its drain deadline.
    Shutdown,
    /// A shadow or rule of an older configuration vanished while the request waited.
    ConfigChanged,
}

impl DropReason {
    /// Every reason, in the order of declaration; metrics and documentation iterate over it.
    pub const ALL: [Self; 26] = [
        Self::Gap,
        Self::Truncated,
        Self::Reset,
        Self::Upgrade,
        Self::UnprovenBoundary,
        Self::Smuggling,
        Self::Malformed,
        Self::HeadTooLarge,
        Self::Undecodable,
        Self::Cancelled,
        Self::FlowEvicted,
        Self::Loop,
        Self::NotHttp,
        Self::UnsupportedProtocol,
        Self::BufferFull,
        Self::QueueFull,
        Self::RateLimited,
        Self::BreakerOpen,
        Self::Resolve,
        Self::Connect,
        Self::Tls,
        Self::ShadowClosed,
        Self::WriteTimeout,
        Self::StreamOverrun,
        Self::Shutdown,
        Self::ConfigChanged,
    ];

    /// The word for this reason in metrics, ledger and documentation.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Gap => "gap",
            Self::Truncated => "truncated",
            Self::Reset => "reset",
            Self::Upgrade => "upgrade",
            Self::UnprovenBoundary => "unproven_boundary",
            Self::Smuggling => "smuggling",
            Self::Malformed => "malformed",
            Self::HeadTooLarge => "head_too_large",
            Self::Undecodable => "undecodable",
            Self::Cancelled => "cancelled",
            Self::FlowEvicted => "flow_evicted",
            Self::Loop => "loop",
            Self::NotHttp => "not_http",
            Self::UnsupportedProtocol => "unsupported_protocol",
            Self::BufferFull => "buffer_full",
            Self::QueueFull => "queue_full",
            Self::RateLimited => "rate_limited",
            Self::BreakerOpen => "breaker_open",
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::ShadowClosed => "shadow_closed",
            Self::WriteTimeout => "write_timeout",
            Self::StreamOverrun => "stream_overrun",
            Self::Shutdown => "shutdown",
            Self::ConfigChanged => "config_changed",
        }
    }

    /// Shed (the daemon chose not to send, to protect itself, the shadow or production) rather than dropped.
    #[must_use]
    pub const fn is_shed(self) -> bool {
        matches!(self, Self::BufferFull | Self::QueueFull | Self::RateLimited | Self::BreakerOpen)
    }

    /// Whether this loss is by intent, so that nobody need be called for it.
    #[must_use]
    pub const fn is_intended(self) -> bool {
        matches!(self, Self::Upgrade | Self::Cancelled | Self::Loop | Self::NotHttp | Self::RateLimited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_listed_once_with_a_label_of_its_own() {
        let labels: std::collections::BTreeSet<_> = DropReason::ALL.iter().map(|r| r.label()).collect();
        assert_eq!(labels.len(), DropReason::ALL.len());
        for (index, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(usize::from(*reason as u8), index);
        }
    }
}
