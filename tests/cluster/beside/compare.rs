//! What differs between the two copies of a request, and the table that explains it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use anyhow::{Context as _, Result};
use mirror_tests::server::LoggedRequest;
use mirror_tests::wire::latin1;

use super::kinds::KINDS;
use super::{DAEMONS_HOST, ENVOYS_HOST};

/// The table, as users read it.
const TABLE: &str = include_str!("../../../docs/BESIDE_ENVOY_GATEWAY.md");

/// What HTTP/2 has in place of Host.
const AUTHORITY: &str = ":authority";

/// In the table.
const ALL: &str = "all";
const BUT: &str = " but ";
const MIRRORED_BY: &str = "mirrored by ";

/// What stands for the two hosts in values.
const HOST: &str = "HOST";
const HOSTS: [&str; 2] = [ENVOYS_HOST, DAEMONS_HOST];

/// Differences by what they are, with the kinds of requests that have them.
pub(super) type Differences = BTreeMap<String, BTreeSet<String>>;

/// Values by the name of their field.
type Values = BTreeMap<String, Vec<String>>;

/// By number: what one shadow got of one kind.
pub(super) type Copies = BTreeMap<u64, Vec<LoggedRequest>>;

/// What one copy has, and the other.
type Note<'a> = &'a mut dyn FnMut(&str, (&dyn Debug, &dyn Debug));

/// Notes what differs between Envoy's copies of one kind and the daemon's, and prints the first example of each
/// difference. Requests are `0..count`.
pub(super) fn compare(found: &mut Differences, kind: &str, count: u64, envoy: &Copies, daemon: &Copies) {
    let mut note = |difference: &str, (one, other): (&dyn Debug, &dyn Debug)| {
        let kinds = found.entry(difference.to_owned()).or_default();
        if kinds.is_empty() {
            println!("  {difference} ({kind}): {one:?}, {other:?}");
        }
        kinds.insert(kind.to_owned());
    };
    for id in 0..count {
        let of = |copies: &Copies| copies.get(&id).cloned().unwrap_or_default();
        match (of(envoy).as_slice(), of(daemon).as_slice()) {
            ([envoy], [daemon]) => compare_two(&mut note, envoy, daemon),
            ([], [daemon]) => note("mirrored by the daemon alone", (&"", &daemon.target())),
            ([envoy], []) => note("mirrored by Envoy alone", (&envoy.target(), &"")),
            ([], []) => note("mirrored by neither", (&"", &"")),
            (envoy, daemon) => note("mirrored not once", (&envoy.len(), &daemon.len())),
        }
    }
}

fn compare_two(note: Note<'_>, envoy: &LoggedRequest, daemon: &LoggedRequest) {
    if envoy.version() != daemon.version() {
        note(&format!("version: {}, {}", envoy.version(), daemon.version()), (&"", &""));
    }
    if envoy.method() != daemon.method() {
        note("method", (&envoy.method(), &daemon.method()));
    }
    if envoy.target() != daemon.target() {
        note("target", (&envoy.target(), &daemon.target()));
    }
    if (envoy.body_bytes, &envoy.body_hash) != (daemon.body_bytes, &daemon.body_hash) {
        note("body", (&envoy.body_bytes, &daemon.body_bytes));
    }
    let (one, other) = (latin1(&envoy.trailers), latin1(&daemon.trailers));
    match (one.is_empty(), other.is_empty()) {
        (true, false) => note("trailers: the daemon's alone", (&one, &other)),
        (false, true) => note("trailers: Envoy's alone", (&one, &other)),
        _ if !one.eq_ignore_ascii_case(&other) => note("trailers", (&one, &other)),
        _ => {}
    }
    compare_fields(note, &envoy.fields(), &daemon.fields());
}

fn compare_fields(note: Note<'_>, envoy: &[(String, String)], daemon: &[(String, String)]) {
    let (of_envoy, of_daemon) = (by_name(envoy), by_name(daemon));
    for (name, values) in &of_envoy {
        match of_daemon.get(name) {
            None => note(&format!("`{name}`: Envoy's alone"), (values, &"")),
            Some(others) if others != values => {
                note(&format!("`{name}`: another value"), (values, others));
            }
            Some(_) => {}
        }
    }
    for (name, values) in of_daemon.iter().filter(|(name, _)| !of_envoy.contains_key(*name)) {
        note(&format!("`{name}`: the daemon's alone"), (&"", values));
    }
    // Of the fields that both have: in which order they come, and how their names are written.
    let shared = |fields: &[(String, String)], other: &Values| -> Vec<String> {
        let names = fields.iter().map(|(name, _)| name.clone());
        names.filter(|name| other.contains_key(&plain(name))).collect()
    };
    let (one, other) = (shared(envoy, &of_daemon), shared(daemon, &of_envoy));
    let plain_names = |names: &[String]| names.iter().map(|name| plain(name)).collect::<Vec<_>>();
    if plain_names(&one) != plain_names(&other) {
        note("order of fields", (&one, &other));
    }
    let written = |names: &[String]| -> BTreeSet<String> {
        names.iter().filter(|name| plain(name) != "host").cloned().collect()
    };
    let (one, other) = (written(&one), written(&other));
    if one != other {
        note("case of names", (&one, &other));
    }
}

/// All values of each field, in order.
fn by_name(fields: &[(String, String)]) -> Values {
    let mut values = Values::new();
    for (name, value) in fields {
        let value = HOSTS.iter().fold(value.clone(), |value, host| value.replace(host, HOST));
        values.entry(plain(name)).or_default().push(value);
    }
    values
}

/// In lower case, and one name for what HTTP/2 calls otherwise.
fn plain(name: &str) -> String {
    if name == AUTHORITY { "host".to_owned() } else { name.to_ascii_lowercase() }
}

/// The rows of a chapter's table: difference, and the kinds that have it. `all` are all that both mirror.
pub(super) fn table(chapter: &str) -> Result<Differences> {
    let (_, behind) = TABLE.split_once(&format!("\n## {chapter}\n")).context("there is no such chapter")?;
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
