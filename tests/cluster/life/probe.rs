//! Measures how soon a change takes effect: numbered requests to both gateways, and the first that is decided anew.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use mirror_tests::client::Connection;
use mirror_tests::daemon::Metrics;
use mirror_tests::kube::pod::Pod;
use mirror_tests::kube::say;

use super::Life;
use crate::daemon;

/// Between two requests.
const EVERY: Duration = Duration::from_millis(10);

/// Requests that follow when the daemon says that it has taken a change.
const AFTERWARDS: usize = 50;

/// What a change may take.
const LIMIT: Duration = Duration::from_secs(2);

/// What of the requests is mirrored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Share {
    None,
    Some,
    All,
}

/// A change and what comes of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change<'a> {
    /// A word for it; no other change of a test has it.
    pub(super) name: &'a str,
    /// Whom the requests are for.
    pub(super) host: &'a str,
    pub(super) before: Share,
    pub(super) after: Share,
}

/// What became of the requests to one gateway.
struct Lane<'a> {
    node: &'a str,
    /// When the time of the change begins.
    since: Instant,
    /// When each was sent.
    sent: &'a [Instant],
    /// Whether the shadow has it.
    mirrored: Vec<bool>,
}

/// Makes a change under requests, and looks at which of them each node decides anew. `make` gives the moments from which
/// the time counts, in the order of nodes.
pub(super) fn takes_effect(
    life: &Life<'_>,
    daemons: &[Pod],
    change: Change<'_>,
    make: impl FnOnce() -> Result<Vec<Instant>>,
) -> Result<()> {
    let generations: Vec<f64> = daemons.iter().map(|pod| generation(life, pod)).collect::<Result<_>>()?;
    let is_taken = AtomicBool::new(false);
    let begun = Instant::now();
    let (since, sent) = std::thread::scope(|scope| -> Result<_> {
        let lanes: Vec<_> = life
            .gateways
            .iter()
            .map(|gateway| scope.spawn(|| send(life, gateway, change, &is_taken)))
            .collect();
        let since = make().and_then(|since| {
            let mut both = daemons.iter().zip(&generations);
            both.try_for_each(|(pod, before)| taken(life, pod, *before))?;
            Ok(since)
        });
        is_taken.store(true, Ordering::Relaxed);
        let sent = lanes.into_iter().map(|lane| lane.join().ok().context("a lane has panicked")?);
        let sent: Vec<Vec<Instant>> = sent.collect::<Result<_>>()?;
        Ok((since?, sent))
    })
    .with_context(|| change.name.to_owned())?;
    for ((gateway, daemon), sent) in life.gateways.iter().zip(daemons).zip(&sent) {
        all_are_answered(life, gateway, daemon, change, sent.len())?;
    }
    let at_shadow = targets_at_shadow(life, daemons)?;
    for ((gateway, sent), since) in life.gateways.iter().zip(&sent).zip(since) {
        let mirrored = mirrored(&at_shadow, gateway, change, sent.len());
        Lane { node: &gateway.node, since, sent, mirrored }.judge(change, begun)?;
    }
    Ok(())
}

/// Sends requests to every gateway, and looks whether all are mirrored, or none.
pub(super) fn all_fare(life: &Life<'_>, daemons: &[Pod], change: Change<'_>) -> Result<()> {
    for (gateway, daemon) in life.gateways.iter().zip(daemons) {
        let sent = send(life, gateway, change, &AtomicBool::new(true))?;
        all_are_answered(life, gateway, daemon, change, sent.len())?;
        let mirrored = mirrored(&targets_at_shadow(life, daemons)?, gateway, change, sent.len());
        let all = change.after == Share::All;
        ensure!(mirrored.iter().all(|one| *one == all), "{change:?} at {}: {mirrored:?}", gateway.node);
    }
    Ok(())
}

fn generation(life: &Life<'_>, daemon: &Pod) -> Result<f64> {
    Ok(daemon::metrics(life.cluster, daemon)?.sum("mirror_config_generation", &[]))
}

fn taken(life: &Life<'_>, daemon: &Pod, before: f64) -> Result<()> {
    life.cluster.eventually(&format!("{} has taken a change", daemon.node), || {
        Ok((generation(life, daemon)? > before).then_some(()))
    })
}

/// Sends requests until the change is taken, and some more; gives when each was sent.
fn send(life: &Life<'_>, gateway: &Pod, change: Change<'_>, is_taken: &AtomicBool) -> Result<Vec<Instant>> {
    let netns = life.cluster.node(gateway.node_number()?);
    let mut connection = Connection::open(&netns, gateway.at(8080))?;
    let (mut sent, mut last) = (Vec::new(), usize::MAX);
    while sent.len() < last {
        if last == usize::MAX && is_taken.load(Ordering::Relaxed) {
            last = sent.len() + AFTERWARDS;
        }
        let (prefix, host) = (change.prefix(gateway), change.host);
        let request = format!("GET {prefix}{} HTTP/1.1\r\nHost: {host}\r\n\r\n", sent.len());
        sent.push(Instant::now());
        let status = connection.exchange(request.as_bytes())?.status;
        ensure!(status == 200, "the gateway answers {status}");
        std::thread::sleep(EVERY);
    }
    Ok(sent)
}

/// Waits until the gateway has written down all `count` requests of a change, the daemon has seen all that its gateway
/// was asked, and the shadows have answered all copies.
fn all_are_answered(
    life: &Life<'_>,
    gateway: &Pod,
    daemon: &Pod,
    change: Change<'_>,
    count: usize,
) -> Result<()> {
    let prefix = change.prefix(gateway);
    let metrics = life.cluster.eventually(&format!("all copies of {} are answered", gateway.node), || {
        let asked = life.requests_at(gateway)?;
        let written = asked.iter().filter(|request| request.target.starts_with(&prefix)).count();
        ensure!(written == count, "{count} sent, {written} written down");
        let asked = asked.len();
        let metrics = daemon::metrics(life.cluster, daemon)?;
        let seen = metrics.sum("mirror_requests_total", &[]);
        let open = metrics.sum("mirror_copies_open", &[]);
        let replayed = metrics.sum("mirror_copies_total", &[("outcome", "replayed")]);
        let answers = metrics.sum("mirror_answers_total", &[]);
        ensure!(
            seen == asked as f64 && open == 0.0 && answers == replayed,
            "{asked} asked, {seen} seen, {open} open, {replayed} replayed, {answers} answered"
        );
        Ok(Some(metrics))
    })?;
    let lost = losses(&metrics);
    if lost > 0.0 {
        let is_told = |line: &&str| line.contains("intended=\"no\"") && !line.ends_with(" 0");
        let reasons: Vec<&str> = metrics.text().lines().filter(is_told).collect();
        bail!("{lost} are lost on {}: {reasons:#?}\n{}", daemon.node, daemon::log(life.cluster, daemon)?);
    }
    Ok(())
}

/// Requests and copies that a ledger has, but not as mirrored.
pub(super) fn losses(metrics: &Metrics) -> f64 {
    let copies = |outcome| metrics.sum("mirror_copies_total", &[("outcome", outcome)]);
    metrics.sum("mirror_requests_total", &[("outcome", "dropped")]) + copies("dropped") + copies("shed")
}

/// What the shadow was asked, once it has written all of it down.
fn targets_at_shadow(life: &Life<'_>, daemons: &[Pod]) -> Result<BTreeSet<String>> {
    Ok(life.all_requests_at_shadow(daemons)?.into_iter().map(|request| request.target).collect())
}

/// Of each request whether the shadow has it.
fn mirrored(at_shadow: &BTreeSet<String>, gateway: &Pod, change: Change<'_>, count: usize) -> Vec<bool> {
    let prefix = change.prefix(gateway);
    (0..count).map(|id| at_shadow.contains(&format!("{prefix}{id}"))).collect()
}

impl Change<'_> {
    /// What the targets of its requests to a gateway begin with; a number follows.
    fn prefix(self, gateway: &Pod) -> String {
        format!("/{}/{}/", self.name, gateway.node)
    }
}

impl Lane<'_> {
    fn judge(&self, change: Change<'_>, begun: Instant) -> Result<()> {
        let Self { node, since, sent, mirrored } = self;
        let fares_as = |share: Share, one: bool| share == Share::Some || one == (share == Share::All);
        let mut earlier = sent.iter().zip(mirrored).take_while(|(at, _)| **at < begun);
        let as_before = earlier.all(|(_, one)| fares_as(change.before, *one));
        ensure!(as_before, "before {change:?} on {node}: {mirrored:?}");
        // From here on all are decided anew, as far as it can be seen.
        let first = match change.after {
            Share::Some => mirrored.iter().position(|one| !fares_as(change.before, *one)),
            after => Some(mirrored.iter().rposition(|one| !fares_as(after, *one)).map_or(0, |last| last + 1)),
        };
        let first = first.and_then(|first| sent.get(first));
        let first = first.with_context(|| format!("{change:?} on {node} had no effect: {mirrored:?}"))?;
        let took = first.saturating_duration_since(*since);
        let pause = sent.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default();
        let share = mirrored.iter().filter(|one| **one).count();
        say(&format!(
            "{} on {node}: decided anew after {} ms (requests every {} ms at most; {share} of {} mirrored)",
            change.name,
            took.as_millis(),
            pause.as_millis(),
            sent.len()
        ));
        ensure!(took < LIMIT + pause, "{change:?} took {took:?} on {node}");
        Ok(())
    }
}
