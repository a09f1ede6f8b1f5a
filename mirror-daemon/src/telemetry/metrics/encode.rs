//! Writes a [`Snapshot`] as metrics, family by family: each family's samples stand together (OpenMetrics 1.0).

mod rules;

use super::{Family, Kind, MAX_SHADOW_LABELS, OTHER_SHADOWS};
use crate::cluster::discovery::{ATTACH_BUCKETS_SECONDS, Latency, PodCounts, Reading, WatchState};
use crate::drop_reason::DropReason;
use crate::telemetry::process::ProcessReading;
use crate::telemetry::snapshot::{BreakerState, LabelledCount, ShadowReading, ShadowStatus, Snapshot};
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;
use std::collections::BTreeMap;
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

type Labels<'a> = &'a [(&'a str, &'a str)];

const ANSWER_CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Writes the whole page but its end mark.
pub(super) fn page(
    mut encoder: DescriptorEncoder<'_>,
    now: &Snapshot,
    started: SystemTime,
) -> Result<(), fmt::Error> {
    requests(&mut encoder, now)?;
    let books = bounded(now.ledger.shadows.iter().map(|(name, books)| (name.as_str(), *books)), add_books);
    copies(&mut encoder, &books)?;
    shadow_counters(&mut encoder, &books)?;
    shadow_gauges(&mut encoder, now)?;
    capture(&mut encoder, now)?;
    pods(&mut encoder, &now.pods.clone().unwrap_or_default())?;
    rules::rules(&mut encoder, now.rules.as_ref())?;
    config(&mut encoder, now)?;
    process(&mut encoder, &ProcessReading::now(), started)
}

fn requests(encoder: &mut DescriptorEncoder<'_>, now: &Snapshot) -> Result<(), fmt::Error> {
    let mut family = open(encoder, &super::REQUESTS)?;
    for (outcome, count) in [("unmatched", now.ledger.unmatched), ("matched", now.ledger.matched)] {
        family.counter(&[("outcome", outcome), ("reason", ""), ("intended", "yes")], count)?;
    }
    for (reason, count) in now.ledger.dropped.iter() {
        family.counter(&[("outcome", "dropped"), ("reason", reason.label()), intended(reason)], count)?;
    }
    Ok(())
}

fn copies(
    encoder: &mut DescriptorEncoder<'_>,
    books: &BTreeMap<String, ShadowReading>,
) -> Result<(), fmt::Error> {
    let mut family = open(encoder, &super::COPIES)?;
    for (shadow, books) in books {
        let shadow = ("shadow", shadow.as_str());
        for (outcome, count) in [("replayed", books.replayed), ("sampled_out", books.sampled_out)] {
            family.counter(&[shadow, ("outcome", outcome), ("reason", ""), ("intended", "yes")], count)?;
        }
        let shed = books.shed_by_reason().map(|entry| ("shed", entry));
        let dropped = books.dropped_by_reason().map(|entry| ("dropped", entry));
        for (outcome, (reason, count)) in shed.chain(dropped) {
            let labels = [shadow, ("outcome", outcome), ("reason", reason.label()), intended(reason)];
            family.counter(&labels, count)?;
        }
    }
    Ok(())
}

fn shadow_counters(
    encoder: &mut DescriptorEncoder<'_>,
    books: &BTreeMap<String, ShadowReading>,
) -> Result<(), fmt::Error> {
    type Reading = fn(&ShadowReading) -> u64;
    let counters: [(&Family, Reading); 4] = [
        (&super::COPIES_OWED, |books| books.owed),
        (&super::COPIES_OPEN, ShadowReading::open),
        (&super::COPIES_RESENT, |books| books.resent),
        (&super::SHADOW_CONNECTIONS_OPENED, |books| books.connections_opened),
    ];
    for (definition, reading) in counters {
        let mut family = open(encoder, definition)?;
        for (shadow, books) in books {
            family.number(&[("shadow", shadow)], reading(books))?;
        }
    }
    let mut family = open(encoder, &super::ANSWERS)?;
    for (shadow, books) in books {
        let classes = ANSWER_CLASSES.into_iter().zip(books.answered);
        for (result, count) in classes.chain([("timeout", books.answer_timeouts), ("cut", books.answers_cut)])
        {
            family.counter(&[("shadow", shadow), ("result", result)], count)?;
        }
    }
    Ok(())
}

fn shadow_gauges(encoder: &mut DescriptorEncoder<'_>, now: &Snapshot) -> Result<(), fmt::Error> {
    let shadows =
        bounded(now.shadows.iter().map(|status| (status.name.as_str(), status.clone())), add_status);
    type Reading = fn(&ShadowStatus) -> u64;
    let gauges: [(&Family, Reading); 4] = [
        (&super::SHADOW_CONNECTIONS, |status| status.open_connections),
        (&super::SHADOW_IN_FLIGHT, |status| status.in_flight),
        (&super::SHADOW_QUEUE_ITEMS, |status| status.queued_items),
        (&super::SHADOW_QUEUE_BYTES, |status| status.held_bytes),
    ];
    for (definition, reading) in gauges {
        let mut family = open(encoder, definition)?;
        for (shadow, status) in &shadows {
            family.number(&[("shadow", shadow)], reading(status))?;
        }
    }
    let mut family = open(encoder, &super::SHADOW_BREAKER)?;
    for (shadow, status) in &shadows {
        for state in BreakerState::ALL {
            let labels = [("shadow", shadow.as_str()), ("state", state.label())];
            family.gauge(&labels, u64::from(state == status.breaker))?;
        }
    }
    Ok(())
}

fn capture(encoder: &mut DescriptorEncoder<'_>, now: &Snapshot) -> Result<(), fmt::Error> {
    labelled(encoder, [&super::KERNEL_LOSSES, &super::KERNEL_LOST_BYTES], &now.kernel_losses)?;
    labelled(encoder, [&super::KERNEL_EVENTS, &super::KERNEL_BYTES], &now.kernel)?;
    labelled(encoder, [&super::FLOW_EVENTS, &super::FLOW_BYTES], &now.flow)?;
    sums_of(encoder, &super::HTTP2_EVENTS, "counter", &now.http2)?;
    sums_of(encoder, &super::HTTP2_CONNECTIONS, "state", &now.http2_connections)?;
    open(encoder, &super::FLOWS)?.gauge(&[], now.flows_open)?;
    open(encoder, &super::FLOW_BUFFERED)?.gauge(&[], now.flow_buffered_bytes)?;
    let mut family = open(encoder, &super::CAPTURE_POINTS)?;
    for (state, wanted) in [("attached", true), ("missing", false)] {
        let points = now.points.iter().filter(|point| point.attached == wanted).count();
        family.gauge(&[("state", state)], u64::try_from(points).unwrap_or(u64::MAX))?;
    }
    Ok(())
}

fn pods(encoder: &mut DescriptorEncoder<'_>, found: &Reading) -> Result<(), fmt::Error> {
    let mut family = open(encoder, &super::PODS)?;
    let PodCounts { waiting, wanted, attached, failed, left_out } = found.pods;
    let states = [("waiting", waiting), ("wanted", wanted), ("attached", attached), ("failed", failed)];
    for (state, count) in states.into_iter().chain([("left_out", left_out)]) {
        family.gauge(&[("state", state)], count)?;
    }
    open(encoder, &super::POINTS_SILENT)?.gauge(&[], found.silent)?;
    let Latency { sum_seconds, count, buckets } = &found.attach;
    let buckets = ATTACH_BUCKETS_SECONDS.into_iter().zip(*buckets);
    // Those above every bound.
    let beyond = buckets.clone().fold(*count, |rest, (_, in_bucket)| rest.saturating_sub(in_bucket));
    let buckets: Vec<_> = buckets.chain([(f64::INFINITY, beyond)]).collect();
    open(encoder, &super::POD_ATTACH)?.0.encode_histogram::<NoLabelSet>(
        *sum_seconds,
        *count,
        &buckets,
        None,
    )?;
    let mut family = open(encoder, &super::POD_WATCH)?;
    for state in WatchState::ALL {
        family.gauge(&[("state", state.label())], u64::from(state == found.watch))?;
    }
    open(encoder, &super::POD_WATCH_FAILURES)?.counter(&[], found.watch_failures)
}

/// Writes counts under their words: events to the first family, bytes (words that end in `_bytes`) to the
/// second.
fn labelled(
    encoder: &mut DescriptorEncoder<'_>,
    [events, bytes]: [&Family; 2],
    counts: &[LabelledCount],
) -> Result<(), fmt::Error> {
    let sums = sums(counts);
    let mut family = open(encoder, events)?;
    for (label, count) in sums.iter().filter(|(label, _)| !label.ends_with("_bytes")) {
        family.counter(&[("counter", label)], *count)?;
    }
    let mut family = open(encoder, bytes)?;
    for (label, count) in &sums {
        if let Some(label) = label.strip_suffix("_bytes") {
            family.counter(&[("counter", label)], *count)?;
        }
    }
    Ok(())
}

/// Writes counts under their words, the values of `label`.
fn sums_of(
    encoder: &mut DescriptorEncoder<'_>,
    definition: &Family,
    label: &str,
    counts: &[LabelledCount],
) -> Result<(), fmt::Error> {
    let mut family = open(encoder, definition)?;
    for (word, count) in sums(counts) {
        family.number(&[(label, word)], count)?;
    }
    Ok(())
}

fn sums(counts: &[LabelledCount]) -> BTreeMap<&'static str, u64> {
    let mut sums = BTreeMap::<&str, u64>::new();
    for (label, count) in counts {
        let sum = sums.entry(label).or_default();
        *sum = sum.saturating_add(*count);
    }
    sums
}

fn config(encoder: &mut DescriptorEncoder<'_>, now: &Snapshot) -> Result<(), fmt::Error> {
    let ok = u64::from(now.config.last_reload_ok);
    open(encoder, &super::CONFIG_LAST_RELOAD_OK)?.gauge(&[], ok)?;
    open(encoder, &super::CONFIG_GENERATION)?.gauge(&[], now.config.generation)?;
    open(encoder, &super::CONFIG_RULES_CUT)?.gauge(&[], u64::from(now.config.are_rules_cut))?;
    open(encoder, &super::CONFIG_RELOAD_FAILURES)?.counter(&[], now.config.reload_failures)?;
    open(encoder, &super::DRAINING)?.gauge(&[], u64::from(now.draining))?;
    open(encoder, &super::PARSER_RESTARTS)?.counter(&[], now.parser_restarts)
}

fn process(
    encoder: &mut DescriptorEncoder<'_>,
    process: &ProcessReading,
    started: SystemTime,
) -> Result<(), fmt::Error> {
    let build = [("version", env!("CARGO_PKG_VERSION")), ("arch", std::env::consts::ARCH)];
    open(encoder, &super::BUILD)?.0.encode_info(&build)?;
    let started = started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    open(encoder, &super::PROCESS_START)?.gauge(&[], started)?;
    open(encoder, &super::PROCESS_CPU)?.0.encode_counter::<NoLabelSet, _, u64>(&process.cpu_seconds, None)?;
    for (definition, reading) in [
        (&super::PROCESS_RESIDENT, process.resident_bytes),
        (&super::PROCESS_RESIDENT_ANON, process.resident_anon_bytes),
        (&super::PROCESS_RESIDENT_PEAK, process.resident_peak_bytes),
        (&super::PROCESS_THREADS, process.threads),
        (&super::PROCESS_FDS, process.open_fds),
    ] {
        let mut family = open(encoder, definition)?;
        if let Some(reading) = reading {
            family.gauge(&[], reading)?;
        }
    }
    Ok(())
}

fn intended(reason: DropReason) -> (&'static str, &'static str) {
    ("intended", if reason.is_intended() { "yes" } else { "no" })
}

/// Keeps the first [`MAX_SHADOW_LABELS`] names, and adds all others up under [`OTHER_SHADOWS`].
fn bounded<'a, T: 'a>(
    entries: impl Iterator<Item = (&'a str, T)>,
    add: fn(&mut T, &T),
) -> BTreeMap<String, T> {
    let mut kept = BTreeMap::new();
    for (index, (name, value)) in entries.enumerate() {
        let name = if index < MAX_SHADOW_LABELS { name } else { OTHER_SHADOWS };
        match kept.get_mut(name) {
            Some(sum) => add(sum, &value),
            None => {
                kept.insert(name.to_owned(), value);
            }
        }
    }
    kept
}

fn add_books(sum: &mut ShadowReading, more: &ShadowReading) {
    sum.add(more);
}

fn add_status(sum: &mut ShadowStatus, more: &ShadowStatus) {
    sum.open_connections = sum.open_connections.saturating_add(more.open_connections);
    sum.in_flight = sum.in_flight.saturating_add(more.in_flight);
    sum.queued_items = sum.queued_items.saturating_add(more.queued_items);
    sum.held_bytes = sum.held_bytes.saturating_add(more.held_bytes);
    if more.breaker == BreakerState::Open {
        sum.breaker = BreakerState::Open;
    }
}

struct FamilyEncoder<'a>(MetricEncoder<'a>, Kind);

impl FamilyEncoder<'_> {
    fn number(&mut self, labels: Labels<'_>, value: u64) -> Result<(), fmt::Error> {
        match self.1 {
            Kind::Counter => self.counter(labels, value),
            Kind::Gauge | Kind::Info | Kind::Histogram => self.gauge(labels, value),
        }
    }

    fn counter(&mut self, labels: Labels<'_>, value: u64) -> Result<(), fmt::Error> {
        if labels.is_empty() {
            return self.0.encode_counter::<NoLabelSet, _, u64>(&value, None);
        }
        self.0.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    fn gauge(&mut self, labels: Labels<'_>, value: impl EncodeGaugeValue) -> Result<(), fmt::Error> {
        if labels.is_empty() {
            return self.0.encode_gauge(&value);
        }
        self.0.encode_family(&labels)?.encode_gauge(&value)
    }
}

/// Writes the family's HELP, TYPE and UNIT lines. The encoder puts the suffixes of unit and kind back on.
fn open<'e>(
    encoder: &'e mut DescriptorEncoder<'_>,
    family: &Family,
) -> Result<FamilyEncoder<'e>, fmt::Error> {
    let (suffix, metric_type) = match family.kind {
        Kind::Counter => ("_total", MetricType::Counter),
        Kind::Gauge => ("", MetricType::Gauge),
        Kind::Info => ("_info", MetricType::Info),
        Kind::Histogram => ("", MetricType::Histogram),
    };
    let name = family.name.strip_suffix(suffix).unwrap_or(family.name);
    let (name, unit) = split_unit(name);
    let metric = encoder.encode_descriptor(name, family.help, unit, metric_type)?;
    Ok(FamilyEncoder(metric, family.kind))
}

fn split_unit(name: &'static str) -> (&'static str, Option<&'static Unit>) {
    if let Some(base) = name.strip_suffix("_bytes") {
        return (base, Some(&Unit::Bytes));
    }
    match name.strip_suffix("_seconds") {
        Some(base) => (base, Some(&Unit::Seconds)),
        None => (name, None),
    }
}
