//! `/ledger`: the books as JSON.

use crate::drop_reason::DropReason;
use crate::telemetry::snapshot::{LabelledCount, ShadowReading, Snapshot};
use serde::Serialize;
use std::collections::BTreeMap;

/// The page, as JSON with a line end.
#[must_use]
pub fn render(now: &Snapshot) -> String {
    let mut page = serde_json::to_string_pretty(&Page::of(now)).unwrap_or_default();
    page.push('\n');
    page
}

#[derive(Serialize)]
struct Page<'a> {
    /// The copies owed are those with a closing entry and those open.
    balanced: bool,
    /// Copies whose fate is not decided yet.
    open: u64,
    /// No copy was lost in the kernel: the ledger explains every request.
    kernel_complete: bool,
    requests: Requests,
    shadows: BTreeMap<&'a str, Shadow>,
    kernel_losses: Counts,
    kernel: Counts,
    flow: Counts,
}

type Counts = BTreeMap<&'static str, u64>;

#[derive(Serialize)]
struct Requests {
    seen: u64,
    unmatched: u64,
    matched: u64,
    dropped: u64,
    dropped_by_reason: Counts,
}

#[derive(Serialize)]
struct Shadow {
    owed: u64,
    open: u64,
    replayed: u64,
    sampled_out: u64,
    shed: u64,
    shed_by_reason: Counts,
    dropped: u64,
    dropped_by_reason: Counts,
    answered: Answered,
    answer_timeouts: u64,
    answers_cut: u64,
    connections_opened: u64,
    resent: u64,
}

#[derive(Serialize)]
struct Answered {
    #[serde(rename = "1xx")]
    informational: u64,
    #[serde(rename = "2xx")]
    successful: u64,
    #[serde(rename = "3xx")]
    redirected: u64,
    #[serde(rename = "4xx")]
    client_error: u64,
    #[serde(rename = "5xx")]
    server_error: u64,
}

impl<'a> Page<'a> {
    fn of(now: &'a Snapshot) -> Self {
        let ledger = &now.ledger;
        Self {
            balanced: ledger.is_balanced(),
            open: ledger.open(),
            kernel_complete: now.kernel_losses.iter().all(|(_, count)| *count == 0),
            requests: Requests {
                seen: ledger.seen(),
                unmatched: ledger.unmatched,
                matched: ledger.matched,
                dropped: ledger.dropped.total(),
                dropped_by_reason: by_label(ledger.dropped.iter()),
            },
            shadows: ledger.shadows.iter().map(|(name, books)| (name.as_str(), Shadow::of(books))).collect(),
            kernel_losses: summed(&now.kernel_losses),
            kernel: summed(&now.kernel),
            flow: summed(&now.flow),
        }
    }
}

impl Shadow {
    fn of(books: &ShadowReading) -> Self {
        let [informational, successful, redirected, client_error, server_error] = books.answered;
        Self {
            owed: books.owed,
            open: books.open(),
            replayed: books.replayed,
            sampled_out: books.sampled_out,
            shed: books.shed.total(),
            shed_by_reason: by_label(books.shed_by_reason()),
            dropped: books.dropped.total(),
            dropped_by_reason: by_label(books.dropped_by_reason()),
            answered: Answered { informational, successful, redirected, client_error, server_error },
            answer_timeouts: books.answer_timeouts,
            answers_cut: books.answers_cut,
            connections_opened: books.connections_opened,
            resent: books.resent,
        }
    }
}

fn by_label(counts: impl Iterator<Item = (DropReason, u64)>) -> Counts {
    counts.map(|(reason, count)| (reason.label(), count)).collect()
}

fn summed(counts: &[LabelledCount]) -> Counts {
    let mut sums = Counts::new();
    for (label, count) in counts {
        let sum = sums.entry(label).or_default();
        *sum = sum.saturating_add(*count);
    }
    sums
}
