//! How a request to the API server can fail.

use crate::cluster::client::TooLarge;
use crate::telemetry::logging::in_words;
use hyper::StatusCode;
use serde::Deserialize;
use std::time::Duration;

/// Longest message of the API server that is kept, in characters.
const MAX_MESSAGE_CHARS: usize = 400;

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::cluster) enum Fault {
    /// 401: the credentials are not, or no longer, known.
    #[error("the credentials are refused: {0}")]
    Unauthorized(String),
    /// 403: roles do not allow it.
    #[error("{0}")]
    Forbidden(String),
    /// 404: no such object, or no such kind.
    #[error("not found: {0}")]
    NotFound(String),
    /// 409: such an object is there already, or has changed.
    #[error("{0}")]
    Conflict(String),
    /// 410: the version asked for is too old.
    #[error("gone: {0}")]
    Gone(String),
    /// 429, 5xx: not now.
    #[error("answered {code}: {message}")]
    Busy {
        /// The status code.
        code: u16,
        /// What was said.
        message: String,
    },
    /// Any other status.
    #[error("answered {code}: {message}")]
    Refused {
        /// The status code.
        code: u16,
        /// What was said.
        message: String,
    },
    /// No connection, or one that was cut.
    #[error("{0}")]
    Unreachable(String),
    /// Nothing came for this long.
    #[error("nothing was heard of it for {} s", .0.as_secs())]
    Silent(Duration),
    /// An answer that can't be read.
    #[error("the answer can't be read: {0}")]
    Garbage(String),
    /// An answer that is longer than is read.
    #[error("{0}")]
    TooLarge(String),
}

impl Fault {
    /// Every word for a fault.
    pub(in crate::cluster) const LABELS: [&'static str; 10] = [
        "unauthorized",
        "forbidden",
        "not_found",
        "conflict",
        "gone",
        "busy",
        "refused",
        "unreachable",
        "garbage",
        "too_large",
    ];

    /// The word for it, in metrics.
    pub(in crate::cluster) const fn label(&self) -> &'static str {
        match self {
            Self::Unauthorized(_) => "unauthorized",
            Self::Forbidden(_) => "forbidden",
            Self::NotFound(_) => "not_found",
            Self::Conflict(_) => "conflict",
            Self::Gone(_) => "gone",
            Self::Busy { .. } => "busy",
            Self::Refused { .. } => "refused",
            Self::Unreachable(_) | Self::Silent(_) => "unreachable",
            Self::Garbage(_) => "garbage",
            Self::TooLarge(_) => "too_large",
        }
    }

    /// What the client says.
    pub(super) fn of(error: kube::Error) -> Self {
        let words = bounded(in_words(&error));
        if TooLarge::caused(&error) { Self::TooLarge(words) } else { Self::Unreachable(words) }
    }

    pub(super) fn garbage(error: impl std::fmt::Display) -> Self {
        Self::Garbage(bounded(error.to_string()))
    }

    /// What the API server says.
    pub(super) fn refused(status: StatusCode, message: String) -> Self {
        let (code, message) = (status.as_u16(), bounded(message));
        match status {
            StatusCode::UNAUTHORIZED => Self::Unauthorized(message),
            StatusCode::FORBIDDEN => Self::Forbidden(message),
            StatusCode::NOT_FOUND => Self::NotFound(message),
            StatusCode::CONFLICT => Self::Conflict(message),
            StatusCode::GONE => Self::Gone(message),
            StatusCode::TOO_MANY_REQUESTS => Self::Busy { code, message },
            status if status.is_server_error() => Self::Busy { code, message },
            _ => Self::Refused { code, message },
        }
    }
}

/// What an API server answers instead of an object, as far as it is used.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::cluster) struct Status {
    pub(in crate::cluster) code: i64,
    pub(in crate::cluster) message: String,
}

fn bounded(message: String) -> String {
    match message.char_indices().nth(MAX_MESSAGE_CHARS) {
        Some((at, _)) => format!("{}...", message.get(..at).unwrap_or_default()),
        None => message,
    }
}
