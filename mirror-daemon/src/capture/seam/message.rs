//! What parser and attacher say to each other. Both are the same binary, so there are no versions.
//!
//! The attacher takes the parser for hostile: every message has a bound, and one that is none, or that comes out of
//! turn, ends the session.

use crate::config::{CaptureConfig, CapturePoint, Leg, TcMode};
use crate::telemetry::logging::in_words;
use mirror_common::FlowKey;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::super::attach::{Expected, PointStatus};

/// The largest [`Call`] or [`Reply`]: thousands of capture points.
pub(super) const MAX_CALL_BYTES: usize = 1024 * 1024;
/// The largest [`Note`] or [`Answer`].
pub(in crate::capture) const MAX_NOTE_BYTES: usize = 8 * 1024;
/// Most verdicts of one [`Note::Verdicts`]; each takes at most 52 bytes.
pub(in crate::capture) const MAX_VERDICTS: usize = 128;
/// An error's words are cut to so many bytes: a verifier's log can be megabytes long. Some for each of many points.
const MAX_WORDS_BYTES: usize = 2048;
/// The kernel's memory for all data rings together; the configuration's own bound.
const MAX_RING_BYTES: u32 = 1024 * 1024 * 1024;

/// What the parser asks of the attacher; each has one [`Reply`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Call {
    /// The first of all.
    Hello,
    /// Makes the maps, and attaches nothing. Once in a session.
    Open {
        /// Sizes, and the rest for a later `TryOut`.
        wanted: Wanted,
        /// [`crate::capture::TestKnobs::drop_one_in`].
        drop_one_in: u32,
        /// How nice the parser is, 0 to 19: the attacher need not be less so.
        nice: u8,
    },
    /// As `Attacher::try_out`. A trial under way is abandoned.
    TryOut(Wanted),
    /// As `Attacher::commit`.
    Commit {
        /// As in [`Reply::Tried`].
        trial: u32,
    },
    /// As `Attacher::abandon`.
    Abandon {
        /// As in [`Reply::Tried`].
        trial: u32,
    },
    /// As `Attacher::check`.
    Check,
    /// As `Attacher::get_ready`.
    GetReady(Expected),
    /// Detaches everything. The last of all.
    Close,
}

/// What the attacher says to a [`Call`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    /// To `Hello`. With it comes the descriptor that orders are read from, where the attacher gives orders.
    Welcome {
        /// How many parsers there were before.
        restarts: u64,
    },
    /// To `Open`. With it come, in this order: the data rings, the control ring, a line for each data ring, the
    /// lines of heartbeat, counters and marks.
    Opened {
        /// How many data rings there are.
        rings: u32,
    },
    /// To `TryOut`.
    Tried {
        /// Names the trial.
        trial: u32,
        /// As `Trial::failures`.
        failures: Vec<(CapturePoint, String)>,
    },
    /// To `Commit`, `Abandon`, `Check`, `GetReady` and `Close`.
    Done {
        /// All of them, where one is not as it was last told.
        points: Option<Vec<PointStatus>>,
        /// What went wrong.
        fault: Option<String>,
    },
    /// It could not be done, and nothing has changed.
    Failed(String),
}

/// What of a [`CaptureConfig`] concerns the attacher.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Wanted {
    points: Vec<CapturePoint>,
    leg: Leg,
    ports: Vec<u16>,
    tc_mode: TcMode,
    gateway_cgroups: Vec<PathBuf>,
    ring_bytes: u32,
    shards: u32,
    answer_snap_bytes: u32,
    exclude: Vec<SocketAddr>,
    max_flows: u64,
}

impl From<&CaptureConfig> for Wanted {
    fn from(config: &CaptureConfig) -> Self {
        Self {
            points: config.points.clone(),
            leg: config.leg,
            ports: config.ports.clone(),
            tc_mode: config.tc_mode,
            gateway_cgroups: config.gateway_cgroups.clone(),
            ring_bytes: config.ring_bytes,
            shards: config.shards,
            answer_snap_bytes: config.answer_snap_bytes,
            exclude: config.exclude.clone(),
            max_flows: u64::try_from(config.limits.max_flows).unwrap_or(u64::MAX),
        }
    }
}

impl From<Wanted> for CaptureConfig {
    fn from(wanted: Wanted) -> Self {
        let mut config = Self {
            points: wanted.points,
            leg: wanted.leg,
            ports: wanted.ports,
            tc_mode: wanted.tc_mode,
            gateway_cgroups: wanted.gateway_cgroups,
            ring_bytes: wanted.ring_bytes.min(MAX_RING_BYTES),
            shards: wanted.shards,
            answer_snap_bytes: wanted.answer_snap_bytes,
            exclude: wanted.exclude,
            ..Self::default()
        };
        config.limits.max_flows = usize::try_from(wanted.max_flows).unwrap_or(usize::MAX);
        config
    }
}

/// What the parser says on a line: small, and many a second.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::capture) enum Note {
    /// On a ring's line: its reader is about to sleep. Answered once the kernel knows.
    Asleep {
        /// Comes back in the answer.
        number: u32,
    },
    /// On a ring's line, unanswered: at most [`MAX_VERDICTS`].
    Verdicts(Vec<Verdict>),
    /// On a ring's line: answered once all verdicts before it are written.
    Settle {
        /// Comes back in the answer.
        number: u32,
    },
    /// On the heartbeat's line: the daemon lives.
    Beat {
        /// Comes back in the answer.
        number: u32,
        /// At most [`mirror_common::SHED_LEVELS`].
        shed_level: u32,
    },
    /// On the heartbeat's line: the kernel programs are to do nothing.
    Stop {
        /// Comes back in the answer.
        number: u32,
    },
    /// On the counters' line: what was counted?
    Counters {
        /// Comes back in the answer.
        number: u32,
    },
    /// On the marks' line, together with a socket: that one is the daemon's own.
    Mark {
        /// Comes back in the answer.
        number: u32,
    },
}

/// What the attacher says to a [`Note`].
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::capture) enum Answer {
    /// It is done, or why not, in words.
    Done {
        /// The note's.
        number: u32,
        /// What went wrong.
        fault: Option<String>,
    },
    /// To [`Note::Counters`].
    Counters {
        /// The note's.
        number: u32,
        /// By `mirror_common::KernelCounter`.
        counts: Vec<u64>,
    },
}

impl Answer {
    pub(in crate::capture) const fn number(&self) -> u32 {
        match self {
            Self::Done { number, .. } | Self::Counters { number, .. } => *number,
        }
    }
}

/// What is still wanted of one flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::capture) struct Verdict {
    gateway_addr: [u8; 16],
    remote_addr: [u8; 16],
    gateway_port: u16,
    remote_port: u16,
    capture_point: u32,
    /// What is wanted.
    pub(in crate::capture) want: Want,
}

/// See `mirror_common::VerdictCode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::capture) enum Want {
    /// As any other: no verdict.
    Capture,
    /// Nothing.
    Ignore,
    /// What comes from this sequence number on.
    PassOver(u32),
    /// Answers whole.
    CopyAnswers,
}

impl Verdict {
    pub(in crate::capture) const fn new(flow: &FlowKey, want: Want) -> Self {
        Self {
            gateway_addr: flow.gateway_addr,
            remote_addr: flow.remote_addr,
            gateway_port: flow.gateway_port,
            remote_port: flow.remote_port,
            capture_point: flow.capture_point,
            want,
        }
    }

    pub(in crate::capture) const fn flow(&self) -> FlowKey {
        FlowKey {
            gateway_addr: self.gateway_addr,
            remote_addr: self.remote_addr,
            gateway_port: self.gateway_port,
            remote_port: self.remote_port,
            capture_point: self.capture_point,
        }
    }
}

/// An error and its causes, cut to a bounded length.
pub(super) fn words_of(error: &(dyn std::error::Error + 'static)) -> String {
    cut(in_words(error))
}

/// Words that are too long, without their middle: the end of a verifier's log says what it refused.
pub(super) fn cut(words: String) -> String {
    if words.len() <= MAX_WORDS_BYTES {
        return words;
    }
    let (start, end) = (MAX_WORDS_BYTES / 4, words.len().saturating_sub(MAX_WORDS_BYTES / 2));
    let start = words.get(..words.floor_char_boundary(start)).unwrap_or_default();
    let end = words.get(words.ceil_char_boundary(end)..).unwrap_or_default();
    format!("{start} [...] {end}")
}

/// # Errors
/// When it would be larger than `limit` bytes.
pub(super) fn encode(message: &impl Serialize, limit: usize) -> io::Result<Vec<u8>> {
    let bytes = postcard::to_stdvec(message).map_err(io::Error::other)?;
    if bytes.len() > limit {
        let what = format!("a message of {} bytes, and {limit} are allowed", bytes.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    Ok(bytes)
}

/// # Errors
/// When it is no such message, or more than one.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    match postcard::take_from_bytes(bytes) {
        Ok((message, [])) => Ok(message),
        Ok(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "bytes behind a message")),
        Err(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "no message")),
    }
}
