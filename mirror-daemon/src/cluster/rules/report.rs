//! What of the findings is told when: not before they have lasted a moment, once when they have, and from time to
//! time while they last. No I/O; time and chance are arguments.

use crate::kube::{Finding, Subject};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Most findings that are followed; others are counted until there is room.
pub(super) const MAX_KNOWN: usize = 500;
/// Most findings of one object that are followed: one object must not take all the room, nor be told of without end.
const MAX_OF_OBJECT: usize = 10;
/// How long a finding that lasts is not told again. API servers keep an Event for an hour.
const AGAIN: Duration = Duration::from_secs(30 * 60);

/// See the module.
#[derive(Debug)]
pub(super) struct Reports {
    /// When each is to be told next, and whether it was told before.
    known: BTreeMap<Finding, Known>,
    mended: Vec<Finding>,
    untold: usize,
    settle: Duration,
    /// From 0 to 1, another on each node: so that they do not all write at once.
    share: f64,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    due: Instant,
    is_told: bool,
}

/// Something to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Report {
    /// It is so, for the first time.
    Found(Finding),
    /// It is still so.
    Lasts(Finding),
    /// It was told, and is no longer so.
    Mended(Finding),
}

impl Reports {
    /// Findings are told when they have lasted for between `settle` and twice as long, by `share`.
    pub(super) const fn new(settle: Duration, share: f64) -> Self {
        Self { known: BTreeMap::new(), mended: Vec::new(), untold: 0, settle, share }
    }

    /// These are all findings there are now.
    pub(super) fn handle_findings(&mut self, mut findings: Vec<Finding>, now: Instant) {
        findings.sort_unstable();
        findings.dedup();
        let (mended, known) = std::mem::take(&mut self.known)
            .into_iter()
            .partition::<BTreeMap<_, _>, _>(|(finding, _)| findings.binary_search(finding).is_err());
        self.known = known;
        self.mended.extend(mended.into_iter().filter(|(_, known)| known.is_told).map(|(finding, _)| finding));
        self.untold = 0;
        let due = self.after(now, self.settle);
        let mut of_object: BTreeMap<Subject, usize> = BTreeMap::new();
        for finding in self.known.keys() {
            let count = of_object.entry(finding.object.clone()).or_default();
            *count = count.saturating_add(1);
        }
        for finding in findings {
            if self.known.contains_key(&finding) {
                continue;
            }
            let count = of_object.entry(finding.object.clone()).or_default();
            *count = count.saturating_add(1);
            if self.known.len() >= MAX_KNOWN || *count > MAX_OF_OBJECT {
                self.untold = self.untold.saturating_add(1);
                continue;
            }
            self.known.insert(finding, Known { due, is_told: false });
        }
    }

    /// What is due.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Vec<Report> {
        let again = self.after(now, AGAIN);
        let mut reports: Vec<Report> = self.mended.drain(..).map(Report::Mended).collect();
        for (finding, known) in &mut self.known {
            if known.due > now {
                continue;
            }
            known.due = again;
            let finding = finding.clone();
            let was_told = std::mem::replace(&mut known.is_told, true);
            reports.push(if was_told { Report::Lasts(finding) } else { Report::Found(finding) });
        }
        reports
    }

    /// When something is due next.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.known.values().map(|known| known.due).min()
    }

    /// How many findings there is no room for.
    pub(super) const fn untold(&self) -> usize {
        self.untold
    }

    fn after(&self, now: Instant, wait: Duration) -> Instant {
        now.checked_add(wait.saturating_add(wait.mul_f64(self.share))).unwrap_or(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::Reason;

    const SETTLE: Duration = Duration::from_secs(2);

    fn finding(name: &str) -> Finding {
        Finding::new(name, "", Reason::BackendNotFound, "is not there")
    }

    #[test]
    fn finding_is_told_once_it_has_lasted_and_again_while_it_lasts() {
        let start = Instant::now();
        let mut reports = Reports::new(SETTLE, 0.5);
        assert_eq!(reports.next_timeout(), None);
        reports.handle_findings(vec![finding("a"), finding("a")], start);
        assert_eq!(reports.handle_timeout(start), []);
        let due = reports.next_timeout().unwrap();
        assert_eq!(due, start + SETTLE + SETTLE / 2);
        reports.handle_findings(vec![finding("a")], start + SETTLE);
        assert_eq!(reports.next_timeout(), Some(due), "it is the same finding");
        assert_eq!(reports.handle_timeout(due), [Report::Found(finding("a"))]);
        assert_eq!(reports.handle_timeout(due), []);
        let again = reports.next_timeout().unwrap();
        assert_eq!(again, due + AGAIN + AGAIN / 2);
        assert_eq!(reports.handle_timeout(again), [Report::Lasts(finding("a"))]);
    }

    #[test]
    fn what_was_never_told_is_mended_in_silence() {
        let start = Instant::now();
        let mut reports = Reports::new(SETTLE, 0.0);
        reports.handle_findings(vec![finding("a"), finding("b")], start);
        reports.handle_findings(vec![finding("b")], start + SETTLE / 2);
        assert_eq!(reports.handle_timeout(start + SETTLE), [Report::Found(finding("b"))]);
        reports.handle_findings(vec![], start + SETTLE);
        assert_eq!(reports.handle_timeout(start + SETTLE), [Report::Mended(finding("b"))]);
        assert_eq!((reports.handle_timeout(start + AGAIN * 2), reports.next_timeout()), (vec![], None));
    }

    #[test]
    fn one_object_is_told_of_a_few_times_only() {
        let start = Instant::now();
        let mut reports = Reports::new(SETTLE, 0.0);
        let of =
            |path: usize| Finding::new("a", format!("{path:04}"), Reason::BackendNotFound, "is not there");
        let mut all: Vec<Finding> = (0..1_000).map(of).collect();
        all.push(finding("b"));
        reports.handle_findings(all.clone(), start);
        assert_eq!(reports.untold(), 1_000 - MAX_OF_OBJECT);
        assert_eq!(reports.handle_timeout(start + SETTLE).len(), MAX_OF_OBJECT + 1);
        reports.handle_findings(all[1..].to_vec(), start + SETTLE);
        let told = reports.handle_timeout(start + SETTLE * 2);
        assert_eq!(told, [Report::Mended(of(0)), Report::Found(of(10))], "another has its place");
    }

    #[test]
    fn findings_beyond_the_bound_are_counted_and_get_the_place_of_mended_ones() {
        let start = Instant::now();
        let mut reports = Reports::new(SETTLE, 0.0);
        let all: Vec<Finding> = (0..MAX_KNOWN + 3).map(|index| finding(&format!("{index:05}"))).collect();
        reports.handle_findings(all.clone(), start);
        assert_eq!(reports.untold(), 3);
        assert_eq!(reports.handle_timeout(start + SETTLE).len(), MAX_KNOWN);
        reports.handle_findings(all[3..].to_vec(), start + SETTLE);
        assert_eq!(reports.untold(), 0);
        let told = reports.handle_timeout(start + SETTLE * 2);
        assert_eq!(told.iter().filter(|report| matches!(report, Report::Found(_))).count(), 3);
        assert_eq!(told.iter().filter(|report| matches!(report, Report::Mended(_))).count(), 3);
    }
}
