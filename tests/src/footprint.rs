//! What a daemon holds of this machine: kernel objects, map entries, descriptors, namespaces. A test compares it before
//! and after: whatever came and went in between must not have left anything.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::bpf;

/// What the processes of a daemon hold, by kind; no names or numbers that differ between two equal moments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Links, programs and maps in the kernel.
    pub objects: [usize; 3],
    /// Entries that are in use, by the name of the map.
    pub entries: BTreeMap<String, usize>,
    /// Descriptors of each process, by what they are.
    pub descriptors: Vec<BTreeMap<String, usize>>,
    /// Network namespaces that the threads of each process are in, or hold open.
    pub namespaces: Vec<usize>,
}

impl Footprint {
    /// Of these processes: attacher and parser.
    ///
    /// # Errors
    /// When one of them is gone, or the kernel refuses to tell.
    pub fn of(pids: &[u32]) -> Result<Self> {
        let (mut found, mut held) = (Self::default(), bpf::HeldObjects::default());
        for pid in pids {
            let own = bpf::held_by(*pid)?;
            held.links.extend(own.links);
            held.programs.extend(own.programs);
            held.maps.extend(own.maps);
            let (descriptors, namespaces) = descriptors(*pid)?;
            found.descriptors.push(descriptors);
            found.namespaces.push(namespaces);
        }
        found.objects = [held.links.len(), held.programs.len(), held.maps.len()];
        found.entries = bpf::used_entries(pids)?;
        Ok(found)
    }
}

/// How many descriptors of each kind, and how many network namespaces.
fn descriptors(pid: u32) -> Result<(BTreeMap<String, usize>, usize)> {
    let process = Path::new("/proc").join(pid.to_string());
    let (mut kinds, mut namespaces) = (BTreeMap::new(), BTreeSet::new());
    for entry in std::fs::read_dir(process.join("fd")).with_context(|| format!("no process {pid}"))? {
        // A descriptor may be closed between listing and reading.
        let Ok(target) = std::fs::read_link(entry?.path()) else { continue };
        let target = target.to_string_lossy().into_owned();
        if target.starts_with("net:[") {
            namespaces.insert(target.clone());
        }
        *kinds.entry(kind(&target).to_owned()).or_default() += 1;
    }
    for task in std::fs::read_dir(process.join("task"))? {
        if let Ok(target) = std::fs::read_link(task?.path().join("ns/net")) {
            namespaces.insert(target.to_string_lossy().into_owned());
        }
    }
    Ok((kinds, namespaces.len()))
}

/// `socket:[123]` is a `socket`.
fn kind(target: &str) -> &str {
    match target.split_once(":[") {
        Some((kind, number)) if number.bytes().next().is_some_and(|byte| byte.is_ascii_digit()) => kind,
        _ => target,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_file_is_in_the_footprint_and_a_closed_one_is_not() {
        let own = || descriptors(std::process::id()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("held");
        let held = std::fs::File::create(&path).unwrap();
        let name = path.to_string_lossy().into_owned();
        assert_eq!(own().0.get(&name), Some(&1));
        assert_eq!(own().1, 1);
        drop(held);
        assert_eq!(own().0.get(&name), None);
    }

    #[test]
    fn kinds_have_no_numbers() {
        assert_eq!(kind("socket:[17]"), "socket");
        assert_eq!(kind("anon_inode:[eventpoll]"), "anon_inode:[eventpoll]");
        assert_eq!(kind("/sys/fs/cgroup"), "/sys/fs/cgroup");
    }
}
