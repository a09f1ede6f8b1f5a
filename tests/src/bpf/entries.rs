//! Entries of the daemon's maps that are in use.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::bpftool;
use crate::netns::Netns;

/// The maps that grow with capture points and flows.
const GROWING: [&str; 6] = ["POINTS", "CGROUPS", "INTERFACES", "VERDICTS", "FLOWS", "EXCLUDED"];

/// Their kinds (`enum bpf_map_type`): hash, array, LRU hash, cgroup storage. Maps of programs are not opened: see
/// [`super::ids`].
const KINDS: [&str; 4] = ["1", "2", "9", "19"];

/// Entries in use of the maps that these processes hold, by the name of the map. An entry of an array is in use when a
/// byte of it is not zero.
///
/// # Errors
/// When a process is gone, or bpftool refuses to tell.
pub fn used_entries(pids: &[u32]) -> Result<BTreeMap<String, usize>> {
    let mut maps = BTreeSet::new();
    for pid in pids {
        maps.extend(maps_of(*pid)?);
    }
    let mut found = BTreeMap::new();
    for id in &maps {
        // By id: a listing of all would open those of others.
        let shown = bpftool(&Netns::own(), &["map", "show", "id", id])?;
        let name = shown["name"].as_str().unwrap_or_default().to_owned();
        if !GROWING.contains(&name.as_str()) {
            continue;
        }
        let dumped = bpftool(&Netns::own(), &["map", "dump", "id", id])?;
        let is_array = shown["type"] == "array";
        let is_used = |entry: &&Value| !is_array || !is_zero(&entry["value"]);
        *found.entry(name).or_default() += dumped.as_array().into_iter().flatten().filter(is_used).count();
    }
    Ok(found)
}

fn maps_of(pid: u32) -> Result<BTreeSet<String>> {
    let mut maps = BTreeSet::new();
    let listed = std::fs::read_dir(format!("/proc/{pid}/fdinfo"));
    for entry in listed.with_context(|| format!("no process {pid}"))? {
        let text = std::fs::read_to_string(entry?.path()).unwrap_or_default();
        let word = |key: &str| text.lines().find_map(|line| Some(line.strip_prefix(key)?.trim().to_owned()));
        if let (Some(id), Some(kind)) = (word("map_id:"), word("map_type:"))
            && KINDS.contains(&kind.as_str())
        {
            maps.insert(id);
        }
    }
    Ok(maps)
}

/// Bytes are written as `"0x00"`.
fn is_zero(bytes: &Value) -> bool {
    bytes.as_array().into_iter().flatten().all(|byte| byte == "0x00")
}
