//! PURE. Decides which requests are mirrored, where to, and which of them a percentage picks.
//!
//! In: a request head, who sent it, and its number in its flow. Out: a [`Decision`].

use crate::config::ShadowId;
use crate::flow::FlowKey;
use crate::http::RequestNumber;
use std::net::IpAddr;

/// Who sent a request, and where in its flow it is: what sampling keys can be made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sender {
    /// The client's address: PROXY protocol's, else the trusted part of `X-Forwarded-For`, else the peer's.
    pub client_ip: IpAddr,
    /// The connection.
    pub flow: FlowKey,
    /// The request's number in it.
    pub number: RequestNumber,
}

/// What the rules say of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision<'r> {
    /// No rule matches.
    Unmatched,
    /// A rule matches; each of its mirrors is listed with what its sampler said.
    Matched {
        /// The rule's name for logs, metrics-free: `route[0].rule[1]` or the cluster object's name.
        rule: &'r str,
        /// One verdict per mirror, in order.
        mirrors: MirrorVerdicts,
    },
}

/// Most mirrors in one rule.
pub const MAX_MIRRORS: usize = 8;

/// The verdicts of a rule's mirrors, kept without an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MirrorVerdicts {
    verdicts: [Option<MirrorVerdict>; MAX_MIRRORS],
}

/// One mirror's share in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MirrorVerdict {
    /// Which shadow.
    pub shadow: ShadowId,
    /// True: send a copy. False: sampled out.
    pub picked: bool,
}

impl MirrorVerdicts {
    /// Collects the first [`MAX_MIRRORS`] verdicts; configuration allows no more.
    #[must_use]
    pub fn collect(from: impl Iterator<Item = MirrorVerdict>) -> Self {
        let mut verdicts = [None; MAX_MIRRORS];
        for (slot, verdict) in verdicts.iter_mut().zip(from) {
            *slot = Some(verdict);
        }
        Self { verdicts }
    }

    /// The verdicts, in order.
    pub fn iter(&self) -> impl Iterator<Item = MirrorVerdict> + '_ {
        self.verdicts.iter().flatten().copied()
    }
}

/// All routes of a configuration, in order of precedence. Filled in by `rule::matching`.
#[derive(Debug, Default)]
pub struct Rules {}
