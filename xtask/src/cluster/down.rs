//! Takes a cluster down, whatever is left of it.
//!
//! Everything that runs in a cluster runs in its cgroup, what it starts as well; everything else carries its name.
//! So nothing depends on records, which an interrupted start may not have written.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::layout::{Layout, cgroup_hierarchies};
use super::network;
use crate::wait;

/// How long the kernel may take to let go of processes and cgroups.
const GONE_LIMIT: Duration = Duration::from_secs(60);

/// Ends its processes and removes all that it made.
///
/// # Errors
/// When something is left; it is listed.
pub(crate) fn down(layout: &Layout) -> Result<()> {
    // What is not gone by then is listed below.
    drop(wait::until_true("its processes end", GONE_LIMIT, || kill_all(layout) == 0));
    network::remove(layout);
    drop(wait::until_true("its cgroups go", GONE_LIMIT, || {
        cgroups(layout).iter().for_each(|dir| remove_tree(dir));
        cgroups(layout).is_empty()
    }));
    drop(std::fs::remove_dir_all(layout.state()));
    let left = leftovers(layout);
    if !left.is_empty() {
        bail!("not everything could be taken down; left are:\n  {}", left.join("\n  "));
    }
    Ok(())
}

/// Whether there is anything of the cluster.
pub(crate) fn is_there(layout: &Layout) -> bool {
    !leftovers(layout).is_empty()
}

/// Everything of the cluster that is there.
fn leftovers(layout: &Layout) -> Vec<String> {
    let mut left: Vec<String> = pids(layout).iter().map(|pid| format!("process {pid}")).collect();
    left.extend(network::present(layout).iter().map(|name| format!("network namespace {name}")));
    left.extend(cgroups(layout).iter().map(|dir| format!("cgroup {}", dir.display())));
    left.extend(mounts(layout).into_iter().map(|point| format!("mount {point}")));
    let state = layout.state();
    left.extend(state.exists().then(|| format!("directory {}", state.display())));
    left
}

/// Its cgroup in every hierarchy that has it.
fn cgroups(layout: &Layout) -> Vec<PathBuf> {
    let all = cgroup_hierarchies().into_iter().map(|hierarchy| hierarchy.join(layout.cgroup()));
    all.filter(|dir| dir.is_dir()).collect()
}

/// Mounts below its state, in this program's own mount namespace: there should never be one.
fn mounts(layout: &Layout) -> Vec<String> {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let below = |point: &str| Path::new(point).starts_with(layout.state());
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    points.filter(|point| below(point)).map(str::to_owned).collect()
}

/// Kills everything in the cluster's cgroups, and says how many processes there were.
fn kill_all(layout: &Layout) -> usize {
    for dir in cgroups(layout) {
        // At once, forks included; kernels below 5.14 and hierarchies of version 1 do not have it.
        drop(std::fs::write(dir.join("cgroup.kill"), "1"));
    }
    let pids = pids(layout);
    for pid in pids.iter().filter_map(|pid| Pid::from_raw(*pid)) {
        // An error means that it is gone.
        let _ = kill_process(pid, Signal::KILL);
    }
    pids.len()
}

/// What runs in the cluster's cgroups.
fn pids(layout: &Layout) -> Vec<i32> {
    let mut pids = Vec::new();
    for dir in cgroups(layout).iter().flat_map(|dir| tree(dir)) {
        let listed = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        pids.extend(listed.lines().filter_map(|line| line.parse::<i32>().ok()));
    }
    pids.sort_unstable();
    pids.dedup();
    pids
}

/// A cgroup and all below it, the deepest last.
fn tree(dir: &Path) -> Vec<PathBuf> {
    let mut dirs = vec![dir.to_owned()];
    let mut at = 0;
    while let Some(dir) = dirs.get(at) {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let below: Vec<PathBuf> = below.map(|entry| entry.path()).collect();
        dirs.extend(below);
        at = at.saturating_add(1);
    }
    dirs
}

fn remove_tree(dir: &Path) {
    for dir in tree(dir).iter().rev() {
        // The kernel refuses while ended processes are still leaving.
        drop(std::fs::remove_dir(dir));
    }
}
