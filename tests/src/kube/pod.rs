//! A pod as the API server knows it, and as this machine does: nodes have no process ids and cgroups of their own.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::cgroup;

/// How deep below the mount a pod's cgroup can lie.
const CGROUP_LEVELS: u32 = 8;

/// A pod as the API server knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its UID: also the name of its cgroup.
    pub uid: String,
    /// The node that it runs on.
    pub node: String,
    /// Its address.
    pub address: IpAddr,
    /// How often its containers were started again.
    pub restarts: u64,
    /// Its specification.
    pub spec: Value,
}

impl Pod {
    /// `None` for one that does not run, or is going.
    pub(super) fn of(object: &Value) -> Option<Self> {
        let (metadata, status) = (&object["metadata"], &object["status"]);
        (status["phase"] == "Running" && metadata["deletionTimestamp"].is_null()).then_some(())?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let containers = status["containerStatuses"].as_array()?;
        Some(Self {
            name: text(&metadata["name"])?,
            namespace: text(&metadata["namespace"])?,
            uid: text(&metadata["uid"])?,
            node: text(&object["spec"]["nodeName"])?,
            address: status["podIP"].as_str()?.parse().ok()?,
            restarts: containers.iter().filter_map(|container| container["restartCount"].as_u64()).sum(),
            spec: object["spec"].clone(),
        })
    }

    /// An address of it.
    #[must_use]
    pub fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.address, port)
    }

    /// The number of its node.
    ///
    /// # Errors
    /// When the node's name has none.
    pub fn node_number(&self) -> Result<u32> {
        let number = self.node.strip_prefix("node-").context("a node of another name")?;
        Ok(number.parse()?)
    }

    /// Its cgroup of version 2, as this machine sees it.
    ///
    /// # Errors
    /// When there is none.
    pub fn cgroup(&self) -> Result<PathBuf> {
        let name = format!("pod{}", self.uid);
        let found = directory_below(&cgroup::mount_point()?, &name, CGROUP_LEVELS);
        found.with_context(|| format!("no cgroup {name} although it runs"))
    }

    /// Its processes, those of its sandbox included, by this machine's process ids.
    ///
    /// # Errors
    /// When it has no cgroup.
    pub fn pids(&self) -> Result<Vec<u32>> {
        let mut pids = Vec::new();
        for entry in std::fs::read_dir(self.cgroup()?)?.flatten() {
            let listed = std::fs::read_to_string(entry.path().join("cgroup.procs")).unwrap_or_default();
            pids.extend(listed.lines().filter_map(|line| line.parse::<u32>().ok()));
        }
        Ok(pids)
    }
}

/// The directory of that name, so many levels deep.
fn directory_below(dir: &Path, name: &str, levels: u32) -> Option<PathBuf> {
    let below = levels.checked_sub(1)?;
    std::fs::read_dir(dir).into_iter().flatten().flatten().find_map(|entry| {
        entry.file_type().ok().filter(std::fs::FileType::is_dir)?;
        if entry.file_name() == name {
            Some(entry.path())
        } else {
            directory_below(&entry.path(), name, below)
        }
    })
}
