//! How each watch stands, for pages and metrics.

use super::store::Amount;
use crate::cluster::api::Fault;
use crate::kube::{Finding, Kind, Reason};
use crate::telemetry::snapshot::{RulesStatus, WatchState, WatchStatus};
use std::collections::BTreeMap;
use std::time::Instant;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Statuses {
    pub(super) is_synced: bool,
    kinds: BTreeMap<Kind, Status>,
    object_bytes: usize,
    findings: BTreeMap<Reason, u64>,
    events: BTreeMap<&'static str, u64>,
}

#[derive(Debug, Default)]
struct Status {
    state: WatchState,
    /// It was listed to its end, or was found not to be there.
    is_known: bool,
    amount: Amount,
    heard: Option<Instant>,
    lists: u64,
    watches: u64,
    changes: u64,
    failures: BTreeMap<&'static str, u64>,
}

/// Something that is counted for a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counted {
    /// A list was read to its end.
    List,
    /// A watch was begun.
    Watch,
    /// A watch told a change.
    Change,
    /// A watch said that it lives.
    Nothing,
}

impl Statuses {
    /// The kind is in `state` from now on.
    pub(super) fn enter(&mut self, kind: Kind, state: WatchState) {
        self.kinds.entry(kind).or_default().state = state;
    }

    /// A list begins. That does not mend what failed before.
    pub(super) fn list(&mut self, kind: Kind) {
        let state = &mut self.kinds.entry(kind).or_default().state;
        if matches!(state, WatchState::Starting | WatchState::Watching) {
            *state = WatchState::Listing;
        }
    }

    /// All of the kind's objects are known now. True: for the first time.
    pub(super) fn know(&mut self, kind: Kind) -> bool {
        !std::mem::replace(&mut self.kinds.entry(kind).or_default().is_known, true)
    }

    /// Whether rules can be made: all kinds are known, but for those that not everybody needs and that the daemon
    /// may not read. Who does not use K8sGateway, or has no listener that selects namespaces by their labels, need
    /// not allow it.
    pub(super) fn is_complete(&self) -> bool {
        Kind::ALL.iter().all(|kind| {
            let Some(status) = self.kinds.get(kind) else { return false };
            let is_optional = matches!(kind, Kind::RouteOption | Kind::Upstream | Kind::Namespace);
            status.is_known || (is_optional && status.state == WatchState::Forbidden)
        })
    }

    /// The API server said something about the kind.
    pub(super) fn hear(&mut self, kind: Kind, what: Counted, now: Instant) {
        let status = self.kinds.entry(kind).or_default();
        status.heard = Some(now);
        let count = match what {
            Counted::List => &mut status.lists,
            Counted::Watch => &mut status.watches,
            Counted::Change => &mut status.changes,
            Counted::Nothing => return,
        };
        *count = count.saturating_add(1);
    }

    /// A request failed.
    pub(super) fn fail(&mut self, kind: Kind, fault: &Fault) {
        let count = self.kinds.entry(kind).or_default().failures.entry(fault.label()).or_default();
        *count = count.saturating_add(1);
    }

    /// So much of the kind is held, and so many bytes of all.
    pub(super) fn hold(&mut self, kind: Kind, amount: Amount, bytes: usize) {
        self.kinds.entry(kind).or_default().amount = amount;
        self.object_bytes = bytes;
    }

    /// These are all findings now.
    pub(super) fn find(&mut self, findings: &[Finding]) {
        self.findings.clear();
        for finding in findings {
            let count = self.findings.entry(finding.reason).or_default();
            *count = count.saturating_add(1);
        }
    }

    /// What became of an Event.
    pub(super) fn event(&mut self, outcome: &'static str) {
        let count = self.events.entry(outcome).or_default();
        *count = count.saturating_add(1);
    }

    pub(super) fn reading(&self) -> RulesStatus {
        let now = Instant::now();
        let wide = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let initial = Status::default();
        let kind = |kind: Kind| {
            let status = self.kinds.get(&kind).unwrap_or(&initial);
            let count = |label| (label, status.failures.get(label).copied().unwrap_or_default());
            WatchStatus {
                kind: kind.name(),
                state: status.state,
                objects: wide(status.amount.held),
                refused: status.amount.refused,
                silence: status.heard.map(|heard| now.saturating_duration_since(heard)),
                lists: status.lists,
                watches: status.watches,
                changes: status.changes,
                failures: Fault::LABELS.map(count).into(),
            }
        };
        let finding =
            |reason: Reason| (reason.label(), self.findings.get(&reason).copied().unwrap_or_default());
        let event = |outcome: &'static str| (outcome, self.events.get(outcome).copied().unwrap_or_default());
        RulesStatus {
            is_synced: self.is_synced,
            kinds: Kind::ALL.map(kind).into(),
            object_bytes: wide(self.object_bytes),
            findings: Reason::ALL.map(finding).into(),
            events: super::event::OUTCOMES.map(event).into(),
        }
    }
}
