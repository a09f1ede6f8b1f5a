//! The page against a strict reader of its own, and the documentation against the code.

use super::*;
use crate::cluster::discovery::{Latency, PodCounts, Reading, WatchState};
use crate::drop_reason::DropReason;
use crate::telemetry::snapshot::{
    BreakerState, PointStatus, RulesStatus, ShadowStatus, Snapshot, WatchState as RulesWatch, WatchStatus,
};
use crate::telemetry::{Ledger, LedgerReading};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

type LabelSet = BTreeMap<String, String>;

#[derive(Debug, Default)]
struct ParsedFamily {
    kind: String,
    unit: Option<String>,
    samples: BTreeMap<LabelSet, f64>,
}

/// Reads OpenMetrics text, and refuses whatever the standard forbids: a family twice or in two places, metadata
/// after samples, wrong suffixes, a sample twice, a bad name, a bad escape, a missing end mark.
fn parse(page: &str) -> Result<BTreeMap<String, ParsedFamily>, String> {
    let body = page.strip_suffix("# EOF\n").ok_or("no end mark")?;
    let mut families = BTreeMap::<String, ParsedFamily>::new();
    let mut current = String::new();
    for line in body.lines() {
        match line.strip_prefix("# ") {
            Some(metadata) => {
                let mut words = metadata.splitn(3, ' ');
                let (keyword, name, text) =
                    (words.next().unwrap(), words.next().ok_or(line)?, words.next().ok_or(line)?);
                if keyword == "HELP" {
                    check_name(name)?;
                    name.clone_into(&mut current);
                    if families.insert(current.clone(), ParsedFamily::default()).is_some() {
                        return Err(format!("family twice: {name}"));
                    }
                }
                let family = families.get_mut(name).ok_or(format!("no HELP before: {line}"))?;
                if name != current || !family.samples.is_empty() {
                    return Err(format!("metadata out of place: {line}"));
                }
                match keyword {
                    "HELP" if text.is_empty() || text.contains('\\') => return Err(line.to_owned()),
                    "HELP" => {}
                    "TYPE" if family.kind.is_empty() => text.clone_into(&mut family.kind),
                    "UNIT" if name.ends_with(&format!("_{text}")) => family.unit = Some(text.to_owned()),
                    _ => return Err(format!("bad metadata: {line}")),
                }
            }
            None => {
                let (name, mut labels, value) = parse_sample(line)?;
                let family = families.get_mut(&current).ok_or("sample without family")?;
                let suffix = match family.kind.as_str() {
                    "counter" => "_total",
                    "info" => "_info",
                    "gauge" => "",
                    "histogram" => part_of_histogram(&name, &current, &mut labels).ok_or(line)?,
                    other => return Err(format!("type {other:?} of {current}")),
                };
                if name != format!("{current}{suffix}") {
                    return Err(format!("{name} stands among the samples of {current}"));
                }
                if family.kind != "gauge" && value < 0.0 {
                    return Err(format!("negative: {line}"));
                }
                if family.samples.insert(labels, value).is_some() {
                    return Err(format!("sample twice: {line}"));
                }
            }
        }
    }
    Ok(families)
}

/// The suffix of a histogram's sample. Sum and count get labels of their own here, so that each sample has other labels.
fn part_of_histogram(name: &str, base: &str, labels: &mut LabelSet) -> Option<&'static str> {
    let suffix = ["_bucket", "_sum", "_count"].into_iter().find(|suffix| name.ends_with(suffix))?;
    if suffix == "_bucket" {
        labels.get("le").filter(|le| *le == "+Inf" || le.parse::<f64>().is_ok())?;
    } else {
        labels.insert("le".to_owned(), suffix.to_owned());
    }
    (name == format!("{base}{suffix}")).then_some(suffix)
}

fn check_name(name: &str) -> Result<(), String> {
    let is_good = !name.starts_with(|first: char| first.is_ascii_digit())
        && !name.is_empty()
        && name.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_');
    if is_good { Ok(()) } else { Err(format!("bad name {name:?}")) }
}

fn parse_sample(line: &str) -> Result<(String, LabelSet, f64), String> {
    let name_end = line.find(['{', ' ']).ok_or(line)?;
    let (name, mut rest) = line.split_at(name_end);
    check_name(name)?;
    let mut labels = LabelSet::new();
    if let Some(inner) = rest.strip_prefix('{') {
        let mut inner = inner;
        loop {
            let (label, after) = inner.split_once("=\"").ok_or(line)?;
            check_name(label)?;
            let (value, after) = unescape(after).ok_or(format!("bad value: {line}"))?;
            if labels.insert(label.to_owned(), value).is_some() {
                return Err(format!("label twice: {line}"));
            }
            match after.strip_prefix(',') {
                Some(next) => inner = next,
                None => {
                    rest = after.strip_prefix('}').ok_or(line)?;
                    break;
                }
            }
        }
    }
    let value = rest.strip_prefix(' ').ok_or(line)?.parse().map_err(|_| line.to_owned())?;
    Ok((name.to_owned(), labels, value))
}

fn unescape(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((index, letter)) = chars.next() {
        match letter {
            '"' => return Some((value, text[index..].strip_prefix('"')?)),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                same @ ('\\' | '"') => same,
                _ => return None,
            }),
            letter => value.push(letter),
        }
    }
    None
}

fn sample_snapshot() -> Snapshot {
    let ledger = Ledger::default();
    ledger.unmatched.add(10);
    ledger.matched.add(6);
    ledger.dropped.of(DropReason::Smuggling).add(2);
    ledger.dropped.of(DropReason::Upgrade).add(1);
    for name in ["httpbin", "canary"] {
        let books = ledger.shadow(name);
        books.owed.add(6);
        books.replayed.add(2);
        books.sampled_out.add(1);
        books.lost(DropReason::QueueFull);
        books.lost(DropReason::Connect);
        books.answered[1].add(2);
        books.answer_timeouts.increment();
    }
    let status = |name: &str, breaker| ShadowStatus {
        name: name.to_owned(),
        open_connections: 4,
        connecting: 0,
        in_flight: 3,
        queued_items: 2,
        held_bytes: 512,
        breaker,
    };
    Snapshot {
        ledger: LedgerReading::of(&ledger),
        kernel_losses: vec![("ring_full", 3), ("ring_full_bytes", 3_000), ("ring_full", 4)],
        kernel: vec![("records", 9), ("records_bytes", 900)],
        flow: vec![("gap_acknowledged", 1), ("gap_acknowledged_bytes", 1_448)],
        http2: vec![("lost_boundaries", 2), ("lost_boundaries", 1)],
        http2_connections: vec![("synchronised", 3), ("unproven", 0), ("searching", 1)],
        flows_open: 7,
        flow_buffered_bytes: 4_096,
        points: vec![
            PointStatus { name: "interface eth0".to_owned(), attached: true, is_pod: false },
            PointStatus { name: "cgroup /sys/fs/cgroup/x".to_owned(), attached: false, is_pod: false },
        ],
        pods: Some(pods()),
        rules: Some(rules()),
        shadows: vec![status("httpbin", BreakerState::Closed), status("canary", BreakerState::HalfOpen)],
        ..Snapshot::default()
    }
}

fn pods() -> Reading {
    let mut attach = Latency::default();
    [30, 60, 70, 90_000].map(Duration::from_millis).into_iter().for_each(|took| attach.add(took));
    Reading {
        pods: PodCounts { waiting: 1, wanted: 2, attached: 3, failed: 4, left_out: 5 },
        silent: 1,
        watch: WatchState::Synchronised,
        watch_failures: 2,
        is_known: true,
        attach,
    }
}

fn rules() -> RulesStatus {
    let kind = |kind, state| WatchStatus {
        kind,
        state,
        objects: 3,
        refused: 1,
        silence: Some(Duration::from_millis(1_500)),
        lists: 1,
        watches: 4,
        changes: 9,
        failures: vec![("gone", 1), ("busy", 2)],
    };
    RulesStatus {
        is_synced: true,
        kinds: vec![kind("HTTPRoute", RulesWatch::Watching), kind("Upstream", RulesWatch::Absent)],
        object_bytes: 4_096,
        findings: vec![("RefNotPermitted", 2)],
        events: vec![("created", 1)],
    }
}

fn render(snapshot: Snapshot) -> String {
    Metrics::new(Arc::new(move || snapshot.clone()), SystemTime::now()).render().unwrap()
}

fn sum(family: &ParsedFamily, label: &str, value: &str) -> f64 {
    let matching = family.samples.iter().filter(|(labels, _)| labels[label] == value);
    matching.map(|(_, count)| count).sum()
}

#[test]
fn page_is_valid_and_has_every_metric_with_exactly_its_labels() {
    let page = render(sample_snapshot());
    let families = parse(&page).unwrap();
    assert_eq!(families.len(), ALL.len(), "{page}");
    for family in &ALL {
        let (base, kind) = match family.kind {
            Kind::Counter => (family.name.strip_suffix("_total").unwrap(), "counter"),
            Kind::Gauge => (family.name, "gauge"),
            Kind::Info => (family.name.strip_suffix("_info").unwrap(), "info"),
            Kind::Histogram => (family.name, "histogram"),
        };
        let parsed = families.get(base).unwrap_or_else(|| panic!("{} is not on the page", family.name));
        assert_eq!(parsed.kind, kind, "{}", family.name);
        assert_eq!(parsed.unit.is_some(), base.ends_with("_bytes") || base.ends_with("_seconds"), "{base}");
        let own = (family.kind == Kind::Histogram).then_some("le");
        let labels = family.labels.iter().map(|(name, _)| *name);
        let expected: BTreeSet<_> = labels.chain(own).map(str::to_owned).collect();
        assert!(!parsed.samples.is_empty(), "{} has no sample", family.name);
        for labels in parsed.samples.keys() {
            assert_eq!(labels.keys().cloned().collect::<BTreeSet<_>>(), expected, "{}", family.name);
        }
    }
}

#[test]
fn page_of_an_idle_daemon_is_valid_and_complete() {
    let families = parse(&render(Snapshot::default())).unwrap();
    assert_eq!(families.len(), ALL.len());
    let reasons = families["mirror_requests"].samples.len();
    assert_eq!(reasons, DropReason::ALL.len() + 2, "every reason is there from the first moment");
}

#[test]
fn sums_over_labels_are_the_ledger() {
    let families = parse(&render(sample_snapshot())).unwrap();
    let requests = &families["mirror_requests"];
    assert_eq!(requests.samples.values().sum::<f64>(), 19.0);
    assert_eq!(sum(requests, "outcome", "dropped"), 3.0);
    assert_eq!(sum(requests, "intended", "no"), 2.0);
    let copies = sum(&families["mirror_copies"], "shadow", "canary");
    let open = sum(&families["mirror_copies_open"], "shadow", "canary");
    assert_eq!(copies + open, sum(&families["mirror_copies_owed"], "shadow", "canary"));
    assert_eq!(open, 1.0);
    assert_eq!(sum(&families["mirror_copies"], "reason", "queue_full"), 2.0);
    assert_eq!(sum(&families["mirror_shadow_breaker"], "state", "half_open"), 1.0);
    assert_eq!(sum(&families["mirror_capture_points"], "state", "missing"), 1.0);
    let attach = &families["mirror_pod_attach_seconds"];
    let le = ["0.05", "0.1", "30.0", "+Inf", "_count", "_sum"].map(|le| sum(attach, "le", le));
    assert_eq!(le, [1.0, 3.0, 3.0, 4.0, 4.0, 90.16]);
    assert_eq!(sum(&families["mirror_rules_watch"], "state", "absent"), 1.0);
    assert_eq!(sum(&families["mirror_rules_failures"], "cause", "busy"), 4.0);
    assert_eq!(sum(&families["mirror_rules_silence_seconds"], "kind", "Upstream"), 1.5);
    assert_eq!(sum(&families["mirror_pod_watch"], "state", "synchronised"), 1.0);
}

#[test]
fn counts_with_the_same_word_are_summed_and_bytes_stand_apart() {
    let families = parse(&render(sample_snapshot())).unwrap();
    assert_eq!(sum(&families["mirror_kernel_losses"], "counter", "ring_full"), 7.0);
    assert_eq!(sum(&families["mirror_kernel_lost_bytes"], "counter", "ring_full"), 3_000.0);
    assert_eq!(sum(&families["mirror_flow_bytes"], "counter", "gap_acknowledged"), 1_448.0);
}

#[test]
fn shadow_names_are_escaped() {
    let ledger = Ledger::default();
    let name = "a\"b\\c\nd";
    ledger.shadow(name).owed.add(5);
    let snapshot = Snapshot { ledger: LedgerReading::of(&ledger), ..Snapshot::default() };
    let families = parse(&render(snapshot)).unwrap();
    assert_eq!(sum(&families["mirror_copies_owed"], "shadow", name), 5.0);
}

#[test]
fn shadows_beyond_the_bound_are_summed_under_one_name() {
    for (shadows, labels) in
        [(MAX_SHADOW_LABELS, MAX_SHADOW_LABELS), (MAX_SHADOW_LABELS + 9, MAX_SHADOW_LABELS + 1)]
    {
        let ledger = Ledger::default();
        for index in 0..shadows {
            ledger.shadow(&format!("s{index:04}")).owed.add(1);
        }
        let snapshot = Snapshot { ledger: LedgerReading::of(&ledger), ..Snapshot::default() };
        let families = parse(&render(snapshot)).unwrap();
        let owed = &families["mirror_copies_owed"];
        assert_eq!(owed.samples.len(), labels);
        assert_eq!(owed.samples.values().sum::<f64>(), shadows as f64);
        assert_eq!(sum(owed, "shadow", OTHER_SHADOWS), (labels - MAX_SHADOW_LABELS) as f64 * 9.0);
    }
}

#[test]
fn strict_reader_refuses_what_the_standard_forbids() {
    let good = "# HELP a x\n# TYPE a counter\na_total{b=\"c\"} 1\n# EOF\n";
    assert!(parse(good).is_ok());
    for bad in [
        "# HELP a x\n# TYPE a counter\na_total 1\n",
        "# HELP a x\n# TYPE a counter\na 1\n# EOF\n",
        "# HELP a x\n# TYPE a counter\na_total 1\na_total 1\n# EOF\n",
        "# HELP a x\n# TYPE a gauge\n# HELP a x\n# EOF\n",
        "# HELP a x\n# TYPE a gauge\na{b=\"c} 1\n# EOF\n",
        "# HELP a x\n# TYPE a gauge\na{b=\"c\",b=\"d\"} 1\n# EOF\n",
        "# HELP a-b x\n# TYPE a-b gauge\n# EOF\n",
    ] {
        assert!(parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn names_are_prefixed_and_documented() {
    for family in &ALL {
        let is_ours = family.name.starts_with("mirror_");
        assert!(is_ours || family.name.starts_with("process_"), "{}", family.name);
        assert!(!family.help.contains(['\\', '\n', '|']) && !family.action.contains(['\n', '|']));
        assert!(family.help.ends_with('.') && family.action.ends_with(['.', '?']), "{}", family.name);
    }
}

#[test]
fn documentation_is_what_the_code_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/METRICS.md");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs")).unwrap();
        std::fs::write(path, document()).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        written == document(),
        "docs/METRICS.md is stale: run UPDATE_GOLDEN=1 cargo test -p mirror-daemon documentation_is"
    );
}
