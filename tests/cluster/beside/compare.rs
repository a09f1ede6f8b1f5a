//! What differs between the two copies of a request, and the table that explains it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use mirror_tests::server::LoggedRequest;

use super::kinds::KINDS;
use super::{DAEMONS_HOST, ENVOYS_HOST};

/// The table, as users read it.
const TABLE: &str = include_str!("../../../docs/BESIDE_ENVOY_GATEWAY.md");

/// In the table.
const ALL: &str = "all";
const BUT: &str = " but ";
const MIRRORED_BY: &str = "mirrored by ";

/// What stands for the two hosts in values.
const HOST: &str = "HOST";
const HOSTS: [&str; 2] = [ENVOYS_HOST, DAEMONS_HOST];

/// Differences by what they are, with the kinds of requests that have them.
pub(super) type Differences = BTreeMap<String, BTreeSet<String>>;

/// By number: what one shadow got of one kind.
pub(super) type Copies = BTreeMap<u64, Vec<LoggedRequest>>;

/// Notes what differs between Envoy's copies of one kind and the daemon's. Requests are `0..count`.
pub(super) fn compare(found: &mut Differences, kind: &str, count: u64, envoy: &Copies, daemon: &Copies) {
    let mut note = |difference: &str| {
        found.entry(difference.to_owned()).or_default().insert(kind.to_owned());
    };
    for id in 0..count {
        let of = |copies: &Copies| copies.get(&id).cloned().unwrap_or_default();
        match (of(envoy).as_slice(), of(daemon).as_slice()) {
            ([envoy], [daemon]) => compare_two(&mut note, envoy, daemon),
            ([], [_]) => note("mirrored by the daemon alone"),
            ([_], []) => note("mirrored by Envoy alone"),
            ([], []) => note("mirrored by neither"),
            (envoy, daemon) => note(&format!("mirrored {} times and {}", envoy.len(), daemon.len())),
        }
    }
}

fn compare_two(note: &mut impl FnMut(&str), envoy: &LoggedRequest, daemon: &LoggedRequest) {
    if envoy.version() != daemon.version() {
        note(&format!("version: {}, {}", envoy.version(), daemon.version()));
    }
    if envoy.method() != daemon.method() {
        note("method");
    }
    if envoy.target() != daemon.target() {
        note("target");
    }
    if (envoy.body_bytes, &envoy.body_hash) != (daemon.body_bytes, &daemon.body_hash) {
        note("body");
    }
    match (envoy.trailers.is_empty(), daemon.trailers.is_empty()) {
        (true, false) => note("trailers: the daemon's alone"),
        (false, true) => note("trailers: Envoy's alone"),
        _ if !envoy.trailers.eq_ignore_ascii_case(&daemon.trailers) => note("trailers"),
        _ => {}
    }
    compare_fields(note, &envoy.fields(), &daemon.fields());
}

fn compare_fields(note: &mut impl FnMut(&str), envoy: &[(String, String)], daemon: &[(String, String)]) {
    let by_name = |fields: &[(String, String)]| {
        let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in fields {
            let value = HOSTS.iter().fold(value.clone(), |value, host| value.replace(host, HOST));
            values.entry(name.to_ascii_lowercase()).or_default().push(value);
        }
        values
    };
    let (of_envoy, of_daemon) = (by_name(envoy), by_name(daemon));
    for (name, values) in &of_envoy {
        match of_daemon.get(name) {
            None => note(&format!("`{name}`: Envoy's alone")),
            Some(others) if others != values => note(&format!("`{name}`: another value")),
            Some(_) => {}
        }
    }
    for name in of_daemon.keys().filter(|name| !of_envoy.contains_key(*name)) {
        note(&format!("`{name}`: the daemon's alone"));
    }
    // Of the fields that both have: in which order they come, and how their names are written.
    let shared = |fields: &[(String, String)], other: &BTreeMap<String, Vec<String>>| -> Vec<String> {
        fields
            .iter()
            .map(|(name, _)| name.clone())
            .filter(|name| other.contains_key(&name.to_ascii_lowercase()))
            .collect()
    };
    let (one, other) = (shared(envoy, &of_daemon), shared(daemon, &of_envoy));
    let lower = |names: &[String]| names.iter().map(|name| name.to_ascii_lowercase()).collect::<Vec<_>>();
    if lower(&one) != lower(&other) {
        note("order of fields");
    }
    let sorted = |names: &[String]| names.iter().cloned().collect::<BTreeSet<_>>();
    if sorted(&one) != sorted(&other) {
        note("case of names");
    }
}

/// The rows of the table: difference, and the kinds that have it. `all` are all that both mirror.
pub(super) fn table() -> Result<Differences> {
    let (_, behind) = TABLE.split_once("\n## Differences\n").context("there is no chapter `Differences`")?;
    let chapter = behind.split("\n## ").next().unwrap_or_default();
    let rows = chapter.lines().filter(|line| line.starts_with("| ")).skip(1);
    let rows: Vec<(&str, &str)> = rows
        .map(|line| {
            let mut cells = line.trim_matches('|').split(" | ").map(str::trim);
            cells.next().zip(cells.next()).with_context(|| line.to_owned())
        })
        .collect::<Result<_>>()?;
    let of_one = rows.iter().filter(|(difference, _)| difference.starts_with(MIRRORED_BY));
    let of_one: Vec<&str> = of_one.flat_map(|(_, kinds)| kinds.split(", ")).collect();
    let kinds_of = |text: &str| -> BTreeSet<String> {
        let but: Vec<&str> = match text.strip_prefix(ALL) {
            Some(rest) => rest.trim_start_matches(BUT).split(", ").chain(of_one.iter().copied()).collect(),
            None => return text.split(", ").map(str::to_owned).collect(),
        };
        KINDS.iter().map(|kind| kind.name).filter(|name| !but.contains(name)).map(str::to_owned).collect()
    };
    Ok(rows.iter().map(|(difference, kinds)| ((*difference).to_owned(), kinds_of(kinds))).collect())
}

/// What is in one and not in the other, one line each.
pub(super) fn not_in(some: &Differences, others: &Differences) -> Vec<String> {
    let all = |differences: &Differences| -> BTreeSet<String> {
        let line = |(difference, kinds): (&String, &BTreeSet<String>)| {
            kinds.iter().map(|kind| format!("{difference} ({kind})")).collect::<Vec<_>>()
        };
        differences.iter().flat_map(line).collect()
    };
    all(some).difference(&all(others)).cloned().collect()
}
