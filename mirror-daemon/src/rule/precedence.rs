//! The order among matches of one host (Gateway API, `HTTPRouteRule.matches`), the more specific first:
//!
//! 1. an exact path, then the longest prefix, then a regular expression;
//! 2. one with methods before one without;
//! 3. more header matches;
//! 4. more query matches;
//! 5. the configuration file before the cluster, then the older object, then namespace and name;
//! 6. order of appearance (the sort is stable).
//!
//! Hosts come before all of these; [`HostIndex`](super::host::HostIndex) sees to that.

use super::{ClusterOrigin, Match, PathMatch};
use std::cmp::{Ordering, Reverse};

/// A match on its way into the order.
pub(super) struct Ranked {
    pub(super) matched: Match,
    pub(super) origin: Option<ClusterOrigin>,
    pub(super) rule: usize,
}

/// Less: `left` wins.
pub(super) fn compare(left: &Ranked, right: &Ranked) -> Ordering {
    specificity(&left.matched).cmp(&specificity(&right.matched)).then_with(|| left.origin.cmp(&right.origin))
}

/// Smaller is more specific: path kind, longer prefix, has methods, header matches, query matches.
type Specificity = (u8, Reverse<usize>, Reverse<bool>, Reverse<usize>, Reverse<usize>);

fn specificity(matched: &Match) -> Specificity {
    let (kind, path_bytes) = match &matched.path {
        PathMatch::Exact(_) => (0, 0),
        PathMatch::Prefix(prefix) => (1, prefix.len()),
        PathMatch::Regex(_) => (2, 0),
    };
    (
        kind,
        Reverse(path_bytes),
        Reverse(!matched.methods.is_empty()),
        Reverse(matched.headers.len()),
        Reverse(matched.query.len()),
    )
}
