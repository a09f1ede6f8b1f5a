//! How rules are taken from the cluster.

use super::LabelledCount;
use std::time::Duration;

/// What is known of the cluster's objects that rules are made from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RulesStatus {
    /// True once every kind has been listed, or is not known to the API server: rules are made from then on.
    pub is_synced: bool,
    /// One for each kind.
    pub kinds: Vec<WatchStatus>,
    /// Bytes that the objects take.
    pub object_bytes: u64,
    /// Findings now, by their reason.
    pub findings: Vec<LabelledCount>,
    /// Events that were wanted, by what became of them.
    pub events: Vec<LabelledCount>,
}

/// One kind of object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchStatus {
    /// Its name in manifests, e.g. `HTTPRoute`.
    pub kind: &'static str,
    /// How its watch stands.
    pub state: WatchState,
    /// Objects that are held.
    pub objects: u64,
    /// Objects that are there and of no use: wrong, or beyond a bound.
    pub refused: u64,
    /// How long ago the API server said anything about it; `None`: never yet.
    pub silence: Option<Duration>,
    /// Lists that were read to their end.
    pub lists: u64,
    /// Watches that were begun.
    pub watches: u64,
    /// Changes that were told by watches.
    pub changes: u64,
    /// Requests that failed, by a word for how.
    pub failures: Vec<LabelledCount>,
}

/// How the watch of one kind stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WatchState {
    /// Nothing is known yet.
    #[default]
    Starting,
    /// All of its objects are being listed.
    Listing,
    /// Changes are told as they come.
    Watching,
    /// The API server does not know the kind; it is looked for again now and then.
    Absent,
    /// The daemon's account may not read it. What was known stays.
    Forbidden,
    /// The last request failed; another will be made. What was known stays.
    Failing,
}

impl WatchState {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::Starting, Self::Listing, Self::Watching, Self::Absent, Self::Forbidden, Self::Failing];

    /// The word for this state.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Listing => "listing",
            Self::Watching => "watching",
            Self::Absent => "absent",
            Self::Forbidden => "forbidden",
            Self::Failing => "failing",
        }
    }
}
