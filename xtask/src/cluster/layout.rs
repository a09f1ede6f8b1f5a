//! Names, addresses and places of a cluster. Everything that it makes outside its state directory carries its name.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::run;

/// The variable that names the cluster.
pub(crate) const NAME: &str = "MIRROR_CLUSTER";

/// How every name begins that a cluster gives to something outside its state directory.
const PREFIX: &str = "mirror-cluster-";

/// The name of a cluster when none is given.
pub(crate) const DEFAULT_NAME: &str = "default";

/// More would be of no use on one machine; also how far `down` looks for leftovers.
pub(crate) const MAX_NODES: u32 = 9;

/// Where state directories are: outside the source tree, on a disk, and not below `/var/lib` and `/run`, which
/// nodes have of their own.
const STATE_PARENT: &str = "/var/tmp";

/// Addresses: nodes `10.77.0.N`, pods of node N `10.77.(64 + N).0/24`, Services `10.77.128.0/17`. They are seen in
/// the cluster's own network namespaces only.
pub(crate) const PODS: &str = "10.77.64.0/18";
pub(crate) const SERVICES: &str = "10.77.128.0/17";
pub(crate) const DNS: &str = "10.77.128.10";

/// Of the API server.
pub(crate) const API_PORT: u16 = 6443;

/// A cluster's names and places.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    prefix: String,
}

impl Layout {
    /// That of the cluster with this name: lower case letters and digits.
    ///
    /// # Errors
    /// When the name would not do in names of namespaces and cgroups.
    pub(crate) fn new(name: &str) -> Result<Self> {
        let fits = (1..=12).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        if !fits {
            bail!("a cluster's name is 1 to 12 lower case letters and digits, and not {name:?}");
        }
        Ok(Self { prefix: format!("{PREFIX}{name}") })
    }

    /// That of the cluster that the environment names ([`NAME`]), or the usual one.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(crate) fn of_environment() -> Result<Self> {
        Self::new(&std::env::var(NAME).unwrap_or_else(|_| DEFAULT_NAME.to_owned()))
    }

    /// Its name alone.
    pub(crate) fn name(&self) -> &str {
        self.prefix.strip_prefix(PREFIX).unwrap_or_default()
    }

    /// How all its names begin.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Everything that it keeps in files.
    pub(crate) fn state(&self) -> PathBuf {
        Path::new(STATE_PARENT).join(&self.prefix)
    }

    /// Every process's output.
    pub(crate) fn log(&self, process: &str) -> PathBuf {
        self.state().join("log").join(process)
    }

    /// The records of its processes.
    pub(crate) fn processes(&self) -> PathBuf {
        self.state().join("processes")
    }

    /// What tests and users read to find their way.
    pub(crate) fn record(&self) -> PathBuf {
        self.state().join("cluster.json")
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.state().join("kubeconfig")
    }

    /// The network namespace that joins the nodes.
    pub(crate) fn switch(&self) -> String {
        format!("{}-net", self.prefix)
    }

    /// A node's network namespace.
    pub(crate) fn netns(&self, node: u32) -> String {
        format!("{}-node-{node}", self.prefix)
    }

    /// A node's own files.
    pub(crate) fn node_dir(&self, node: u32) -> PathBuf {
        self.state().join(node_name(node))
    }

    /// The name of its cgroup, in every hierarchy: of everything that runs in the cluster.
    pub(crate) fn cgroup(&self) -> &str {
        &self.prefix
    }

    /// All network namespaces that it can have.
    pub(crate) fn every_netns(&self) -> Vec<String> {
        (1..=MAX_NODES).map(|node| self.netns(node)).chain([self.switch()]).collect()
    }
}

/// A node's name in Kubernetes, and its host name.
pub(crate) fn node_name(node: u32) -> String {
    format!("node-{node}")
}

/// A node's address.
pub(crate) fn node_address(node: u32) -> String {
    format!("10.77.0.{node}")
}

/// The addresses of a node's pods.
pub(crate) fn node_pods(node: u32) -> String {
    format!("10.77.{}.0/24", node.saturating_add(64))
}

/// Where the API server is.
pub(crate) fn api_server() -> String {
    format!("https://{}:{API_PORT}", node_address(1))
}

/// Where the cgroup hierarchies are mounted, of version 1 and 2; version 2 last.
pub(crate) fn cgroup_hierarchies() -> Vec<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let of_kind = |kind: &str| {
        let lines = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let fitting = lines.filter(|words| words.get(2) == Some(&kind));
        fitting.filter_map(|words| words.get(1).map(PathBuf::from)).collect::<Vec<_>>()
    };
    [of_kind("cgroup"), of_kind("cgroup2")].concat()
}

/// The CNI's plugins, as Debian's package lays them out.
pub(crate) const CNI_PLUGINS: &str = "/usr/lib/cni";

/// A path of a program that set-up has installed.
pub(crate) fn program(name: &str) -> PathBuf {
    run::find(name).unwrap_or_else(|| PathBuf::from(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_be_taken_for_others_are_refused() {
        assert!(Layout::new("default").is_ok());
        for name in ["", "with-dash", "../x", "UPPER", "muchtoolonganame"] {
            assert!(Layout::new(name).is_err(), "{name}");
        }
    }

    #[test]
    fn addresses_of_pods_lie_in_their_range() {
        assert_eq!(node_pods(1), "10.77.65.0/24");
        assert_eq!(node_pods(MAX_NODES), "10.77.73.0/24");
    }
}
