//! Looks at what has changed, once for all that came within a moment, and tells of rules and findings that differ.

use super::event::Wanted;
use super::report::{Report, Reports};
use super::{Books, Shared};
use crate::cluster::backoff::chance;
use crate::kube::Subject;
use crate::telemetry::logging::Throttle;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::{sleep, sleep_until};

/// Longest time that changes are collected for. Making rules of a large cluster takes its time, and must not take
/// all of a processor.
const MAX_COLLECT: Duration = Duration::from_secs(1);
/// How many times as long as the making of the rules changes are collected for.
const REST_FACTOR: u32 = 4;

/// Never ends by itself.
pub(super) async fn collect(shared: Arc<Shared>, event_tx: mpsc::Sender<Wanted>) {
    let mut reports = Reports::new(shared.pace.report, chance());
    let mut cost = Duration::ZERO;
    loop {
        let wake = reports.next_timeout();
        tokio::select! {
            () = shared.is_dirty.notified() => {
                sleep(cost.saturating_mul(REST_FACTOR).min(MAX_COLLECT).max(shared.pace.collect)).await;
                let begun = Instant::now();
                look(&shared, &mut reports);
                cost = begun.elapsed();
            }
            () = until(wake) => {}
        }
        tell(&shared, &mut reports, &event_tx);
    }
}

async fn until(wake: Option<Instant>) {
    match wake {
        Some(wake) => sleep_until(wake.into()).await,
        None => std::future::pending().await,
    }
}

fn look(shared: &Shared, reports: &mut Reports) {
    let is_complete = shared.statuses().is_complete();
    let mut books = shared.books();
    if !books.is_synced && !is_complete {
        return;
    }
    let is_first = !std::mem::replace(&mut books.is_synced, true);
    let resolved = books.resolve();
    let toml = resolved.to_toml();
    let has_changed = books.told != toml;
    books.told = toml;
    let findings = books.findings();
    drop(books);
    let mut statuses = shared.statuses();
    statuses.is_synced = true;
    statuses.find(&findings);
    drop(statuses);
    if is_first {
        let (mirrors, findings) = (resolved.mirror_count(), findings.len());
        tracing::info!(mirrors, findings, "the cluster's rules are known");
    }
    if has_changed || is_first {
        shared.has_changed.notify_one();
    }
    reports.handle_findings(findings, Instant::now());
}

/// Tells what is due, in the log and by Events.
fn tell(shared: &Shared, reports: &mut Reports, event_tx: &mpsc::Sender<Wanted>) {
    static TOO_MANY: Throttle = Throttle::every(Duration::from_secs(600));
    let now = Instant::now();
    for report in reports.handle_timeout(now) {
        match report {
            Report::Found(finding) => {
                tracing::warn!(reason = finding.reason.label(), "{finding}");
                want(&shared.books(), finding, event_tx);
            }
            Report::Lasts(finding) => want(&shared.books(), finding, event_tx),
            Report::Mended(finding) => {
                tracing::info!(reason = finding.reason.label(), "no longer so: {finding}");
            }
        }
    }
    if reports.untold() > 0
        && let Some(_) = TOO_MANY.admit(now)
    {
        tracing::warn!(more = reports.untold(), "there are more findings in the cluster than are told");
    }
}

/// Hands a finding over to who writes Events. One that finds no place comes again when it has lasted.
fn want(books: &Books, finding: crate::kube::Finding, event_tx: &mpsc::Sender<Wanted>) {
    if let Subject::Object(object) = &finding.object {
        let uid = books.store.uid(object).to_owned();
        let _ = event_tx.try_send(Wanted { finding, uid });
    }
}
