//! Looks for kernel programs: what is attached in a namespace or a cgroup, and what a process holds.
//!
//! A test that asserts "nothing is left" should note [`held_by`] the daemon while it lives and ask
//! [`still_loaded`] afterwards: this says the same whoever else uses BPF on the machine.

mod entries;
mod ids;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use aya::maps::{Map, MapData, PerCpuArray};
use aya::programs::{SchedClassifier, TcAttachType, loaded_programs};
use mirror_common::KernelCounters;
use serde_json::Value;

use crate::netns::Netns;
use crate::process::Launch;
use crate::wait;

pub use entries::used_entries;

/// Programs and links that a process has open, by their ids in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldObjects {
    /// Program ids.
    pub programs: BTreeSet<u64>,
    /// Link ids.
    pub links: BTreeSet<u64>,
    /// Map ids.
    pub maps: BTreeSet<u64>,
    /// Those of `maps` that hold programs, which are not to be opened: see [`ids`].
    maps_of_programs: BTreeSet<u64>,
}

/// `BPF_MAP_TYPE_PROG_ARRAY` of `enum bpf_map_type`.
const PROG_ARRAY: u64 = 3;

/// What process `pid` has open.
///
/// # Errors
/// When the process is gone.
pub fn held_by(pid: u32) -> Result<HeldObjects> {
    let dir = format!("/proc/{pid}/fdinfo");
    let mut held = HeldObjects::default();
    for entry in std::fs::read_dir(&dir).with_context(|| format!("no process {pid}"))? {
        // A descriptor may be closed between listing and reading.
        let text = std::fs::read_to_string(entry?.path()).unwrap_or_default();
        let number = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok());
        if let Some(link) = number("link_id:") {
            held.links.insert(link);
        } else if let Some(map) = number("map_id:") {
            held.maps.insert(map);
            if number("map_type:") == Some(PROG_ARRAY) {
                held.maps_of_programs.insert(map);
            }
        } else if let Some(program) = number("prog_id:") {
            held.programs.insert(program);
        }
    }
    Ok(held)
}

/// Memory that the kernel charges for the maps of process `pid`, in bytes; each map once.
///
/// # Errors
/// When the process is gone.
pub fn map_bytes(pid: u32) -> Result<u64> {
    let mut of_maps = BTreeMap::new();
    for entry in
        std::fs::read_dir(format!("/proc/{pid}/fdinfo")).with_context(|| format!("no process {pid}"))?
    {
        let text = std::fs::read_to_string(entry?.path()).unwrap_or_default();
        let number =
            |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse::<u64>().ok());
        if let (Some(map), Some(bytes)) = (number("map_id:"), number("memlock:")) {
            of_maps.insert(map, bytes);
        }
    }
    Ok(of_maps.into_values().sum())
}

/// How often a kernel program ran, and for how long, while statistics were on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProgramRuns {
    /// Its name, as the kernel cuts it.
    pub name: String,
    /// How often it ran.
    pub runs: u64,
    /// All runs together.
    pub time: Duration,
}

/// What the kernel counted of these programs since they were loaded, in the order of their ids.
///
/// # Errors
/// When the kernel refuses to tell.
pub fn runs_of(programs: &BTreeSet<u64>) -> Result<Vec<ProgramRuns>> {
    let mut found = Vec::new();
    for program in loaded_programs() {
        // Programs of others come and go.
        let Ok(program) = program else { continue };
        if programs.contains(&u64::from(program.id())) {
            let name = program.name_as_str().unwrap_or("?").to_owned();
            found.push(ProgramRuns { name, runs: program.run_count(), time: program.run_time() });
        }
    }
    Ok(found)
}

/// What the kernel programs have counted, read past the daemon: so also when it is stopped or dead. Of a dead one only
/// what filters that it has left count, by reason.
///
/// # Errors
/// When none of these maps is the programs' map of reasons.
pub fn kernel_counters(held: &HeldObjects) -> Result<KernelCounters> {
    let reasons: PerCpuArray<MapData, u64> = per_cpu_array(held, "REASONS")?.try_into()?;
    let mut sum = KernelCounters::default();
    if let Ok(counters) = per_cpu_array(held, "COUNTERS") {
        let counters: PerCpuArray<MapData, KernelCounters> = counters.try_into()?;
        for of_one_cpu in counters.get(&0, 0)?.iter() {
            sum.add(of_one_cpu);
        }
    }
    // Counts that are kept apart from the others, one entry for each.
    for (index, count) in (0..).zip(sum.counts.iter_mut()) {
        *count += reasons.get(&index, 0)?.iter().sum::<u64>();
    }
    Ok(sum)
}

/// What of `held` the kernel still has. The kernel frees with a delay: ask until it is empty.
#[must_use]
pub fn still_loaded(held: &HeldObjects) -> HeldObjects {
    // What goes between being listed and being asked about is an error in these listings: it is not there any more.
    let programs = loaded_programs().flatten().map(|program| program.id());
    HeldObjects {
        programs: kept(&held.programs, programs),
        links: held.links.iter().copied().filter(|id| is_link_loaded(*id)).collect(),
        maps: held.maps.iter().copied().filter(|id| ids::is_map_loaded(*id)).collect(),
        ..HeldObjects::default()
    }
}

/// Asks for this link alone: whoever holds one for a moment, of another test's daemon say, keeps it attached for as
/// long although its owner has closed it.
fn is_link_loaded(id: u64) -> bool {
    const GONE: &str = "No such file or directory";
    let shown = Launch::new("bpftool").args(["link", "show", "id"]).arg(id.to_string()).run();
    match shown {
        Ok(_) => true,
        Err(failure) => !format!("{failure:#}").contains(GONE),
    }
}

fn kept(held: &BTreeSet<u64>, loaded: impl Iterator<Item = u32>) -> BTreeSet<u64> {
    loaded.map(u64::from).filter(|id| held.contains(id)).collect()
}

impl HeldObjects {
    /// Adds what another process holds.
    pub fn extend(&mut self, other: Self) {
        self.programs.extend(other.programs);
        self.links.extend(other.links);
        self.maps.extend(other.maps);
        self.maps_of_programs.extend(other.maps_of_programs);
    }

    /// The map of this name; the first, where there are several.
    #[must_use]
    pub fn map_named(&self, name: &str) -> Option<MapData> {
        let open = |id: &u64| MapData::from_id(u32::try_from(*id).ok()?).ok();
        let is_named = |map: &MapData| map.info().is_ok_and(|info| info.name_as_str() == Some(name));
        self.maps.difference(&self.maps_of_programs).filter_map(open).find(is_named)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.programs.is_empty() && self.links.is_empty() && self.maps.is_empty()
    }
}

fn per_cpu_array(held: &HeldObjects, name: &str) -> Result<Map> {
    held.map_named(name).map(Map::PerCpuArray).with_context(|| format!("no map {name}"))
}

/// Every program attached to an interface of `netns`, by TCX link, clsact filter or XDP: one line each.
///
/// # Errors
/// When bpftool or the kernel refuses to tell.
pub fn attached_in(netns: &Netns) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for interface in netns.interfaces()? {
        for (side, label) in [(TcAttachType::Ingress, "ingress"), (TcAttachType::Egress, "egress")] {
            // Kernels below 6.6 have no TCX to ask about.
            let Ok((_, programs)) = netns.run(|| SchedClassifier::query_tcx(&interface, side))? else {
                continue;
            };
            for program in programs {
                let name = program.name_as_str().unwrap_or("?");
                found.push(format!("tcx {label} on {interface}: {name} (id {})", program.id()));
            }
        }
    }
    for (kind, attached) in
        bpftool(netns, &["net", "show"])?.as_array().into_iter().flatten().flat_map(by_kind)
    {
        found.push(format!("{kind}: {attached}"));
    }
    Ok(found)
}

/// Every program attached to a cgroup or one below it: one line each.
///
/// # Errors
/// When bpftool refuses to tell.
pub fn attached_to_cgroup(cgroup: &Path) -> Result<Vec<String>> {
    let path = cgroup.to_str().context("the path is no text")?;
    let tree = bpftool(&Netns::own(), &["cgroup", "tree", path])?;
    let mut found = Vec::new();
    for group in tree.as_array().into_iter().flatten() {
        for program in group["programs"].as_array().into_iter().flatten() {
            found.push(format!("{} on {}: {}", program["attach_type"], group["cgroup"], program["name"]));
        }
    }
    Ok(found)
}

fn by_kind(net: &Value) -> Vec<(String, &Value)> {
    // Flow dissectors belong to nobody here, and TCX was asked for before (newer bpftools list it under "tc").
    ["xdp", "tc"]
        .iter()
        .flat_map(|kind| net[*kind].as_array().into_iter().flatten().map(|found| ((*kind).to_owned(), found)))
        .filter(|(_, found)| !found["kind"].as_str().is_some_and(|kind| kind.starts_with("tcx")))
        .collect()
}

/// A listing fails when an object that it has just found is gone before it is asked about: other tests come and go.
/// So it is tried again for a while.
fn bpftool(netns: &Netns, words: &[&str]) -> Result<Value> {
    const LIMIT: Duration = Duration::from_secs(60);
    let mut last_failure = None;
    let ask = || {
        let listed = Launch::new("bpftool").arg("-j").args(words.iter().copied()).in_netns(netns).run();
        Ok(listed.map_err(|failure| last_failure = Some(failure)).ok())
    };
    let listed = wait::until("bpftool lists what there is", LIMIT, ask);
    let text = listed.with_context(|| format!("bpftool {}: {last_failure:?}", words.join(" ")))?;
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(&text).with_context(|| format!("bpftool said {text:?}"))
}
