//! Which flows are the gateway's own, where the capture points are interfaces: `sockops` on its cgroups tells of
//! those that open, and inet_diag of those that are older.

use super::super::error::CaptureError;
use super::super::load::map;
use super::super::netns;
use super::super::sock_diag::{Connection, Sockets};
use super::cgroup;
use crate::config::MAX_GATEWAY_CGROUPS;
use aya::Ebpf;
use aya::maps::{HashMap, MapData};
use aya::programs::sock_ops::SockOpsLink;
use mirror_common::{ANY_POINT, FlowKey, KernelSettings, LegCode};
use std::collections::{BTreeMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Deeper than any container runtime nests its cgroups.
pub(super) const MAX_CGROUP_DEPTH: u32 = 16;

/// The gateway's cgroups and the kernel's map of its flows.
pub(super) struct Selection {
    flows: HashMap<MapData, FlowKey, u32>,
    links: BTreeMap<PathBuf, Result<SockOpsLink, CaptureError>>,
    /// Why older flows are not known, if they are not.
    older: Result<(), CaptureError>,
}

impl Selection {
    pub(super) fn new(ebpf: &Ebpf) -> Result<Self, CaptureError> {
        let flows = map(ebpf, "FLOWS")?.try_into().map_err(CaptureError::map("FLOWS"))?;
        Ok(Self { flows, links: BTreeMap::new(), older: Ok(()) })
    }

    /// Whether flows are selected at all.
    pub(super) fn is_in_use(&self) -> bool {
        !self.links.is_empty()
    }

    /// The cgroups whose flows are selected; none: all flows are.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        self.links.keys().cloned().collect()
    }

    /// Watches exactly these cgroups. True when they are others than before.
    pub(super) fn apply(&mut self, ebpf: &mut Ebpf, paths: &[PathBuf]) -> bool {
        let paths = distinct(paths);
        let before = self.links.len();
        self.links.retain(|path, _| paths.contains(path));
        let mut is_changed = self.links.len() != before;
        for path in &paths {
            if !matches!(self.links.get(path), Some(Ok(_))) {
                is_changed = true;
                self.links.insert(path.clone(), cgroup::watch_gateway(ebpf, path));
            }
        }
        is_changed
    }

    /// Tries again what could not be watched. True when something of it is watched now.
    pub(super) fn retry(&mut self, ebpf: &mut Ebpf) -> bool {
        let mut is_changed = false;
        for (path, link) in &mut self.links {
            if link.is_err() {
                *link = cgroup::watch_gateway(ebpf, path);
                is_changed |= link.is_ok();
            }
        }
        is_changed
    }

    /// What keeps flows from being known, if something does.
    pub(super) fn error(&self) -> Option<&CaptureError> {
        self.links.values().find_map(|link| link.as_ref().err()).or(self.older.as_ref().err())
    }

    /// Forgets all flows: they were selected by other cgroups, another leg or other ports.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub(super) fn forget(&mut self) -> Result<(), CaptureError> {
        let known: Vec<FlowKey> = self.flows.keys().filter_map(Result::ok).collect();
        for flow in known {
            // The kernel may have removed it in between.
            match self.flows.remove(&flow) {
                Ok(()) | Err(aya::maps::MapError::KeyNotFound) => {}
                Err(error) => return Err(CaptureError::map("FLOWS")(error)),
            }
        }
        Ok(())
    }

    /// Selects the flows of these namespaces that were open before `sockops` watched.
    pub(super) fn adopt(&mut self, namespaces: &HashSet<Option<PathBuf>>, settings: &KernelSettings) {
        if !self.is_in_use() {
            self.older = Ok(());
            return;
        }
        let watched = self.links.iter().filter(|(_, link)| link.is_ok());
        let cgroup_ids: HashSet<u64> = watched.flat_map(|(path, _)| cgroup_ids(path)).collect();
        let all = namespaces.iter().try_for_each(|namespace| {
            let sockets = netns::within(namespace.as_deref(), Sockets::of_this_namespace)?;
            let own = sockets.connections.iter().filter(|found| cgroup_ids.contains(&found.cgroup_id));
            for flow in own.filter(|found| is_wanted(found, &sockets, settings)).map(flow_key) {
                self.flows.insert(flow, 1, 0).map_err(CaptureError::map("FLOWS"))?;
            }
            Ok(())
        });
        self.older = all;
    }
}

/// Each cgroup once, whatever it is called, and no more than the configuration allows: a parser that was taken over may
/// ask for anything, and the kernel lets a cgroup have 64 programs of everybody.
fn distinct(paths: &[PathBuf]) -> Vec<PathBuf> {
    let mut seen = HashSet::new();
    let mut is_new = |path: &&PathBuf| {
        let id = std::fs::metadata(path).map(|file| (file.dev(), file.ino()));
        // One that is not there is tried again, and said to be missing.
        id.is_err() || id.is_ok_and(|id| seen.insert(id))
    };
    paths.iter().filter(&mut is_new).take(MAX_GATEWAY_CGROUPS).cloned().collect()
}

/// Whether the connection is on the wanted leg: the gateway accepted it when a listener has its local port.
fn is_wanted(found: &Connection, sockets: &Sockets, settings: &KernelSettings) -> bool {
    let is_accepted = sockets.listening.contains(&found.local_port);
    let is_downstream = settings.leg == LegCode::Downstream as u32;
    let port = if is_downstream { found.local_port } else { found.remote_port };
    let count = usize::try_from(settings.port_count).unwrap_or(usize::MAX);
    is_accepted == is_downstream && settings.ports.iter().take(count).any(|wanted| *wanted == port)
}

fn flow_key(found: &Connection) -> FlowKey {
    FlowKey {
        gateway_addr: found.local_addr,
        remote_addr: found.remote_addr,
        gateway_port: found.local_port,
        remote_port: found.remote_port,
        capture_point: ANY_POINT,
    }
}

/// The ids of a cgroup and of all below it, whose sockets `sockops` watches too. An id is the directory's inode.
fn cgroup_ids(path: &Path) -> Vec<u64> {
    let mut ids = Vec::new();
    collect_ids(path, MAX_CGROUP_DEPTH, &mut ids);
    ids
}

fn collect_ids(path: &Path, depth: u32, ids: &mut Vec<u64>) {
    let (Ok(directory), Ok(entries)) = (std::fs::metadata(path), std::fs::read_dir(path)) else { return };
    ids.push(directory.ino());
    if depth == 0 {
        return;
    }
    for entry in entries.filter_map(Result::ok) {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect_ids(&entry.path(), depth.saturating_sub(1), ids);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn connection(local_port: u16, remote_port: u16) -> Connection {
        let addr = Ipv4Addr::LOCALHOST.to_ipv6_mapped().octets();
        Connection { local_addr: addr, remote_addr: addr, local_port, remote_port, cgroup_id: 1 }
    }

    #[test]
    fn older_flow_is_downstream_when_a_listener_has_its_local_port() {
        let sockets = Sockets { connections: Vec::new(), listening: HashSet::from([8080, 9000]) };
        let mut settings = KernelSettings { port_count: 1, ..KernelSettings::default() };
        settings.ports[0] = 8080;
        assert!(is_wanted(&connection(8080, 40_000), &sockets, &settings));
        assert!(!is_wanted(&connection(9000, 40_000), &sockets, &settings), "another port");
        assert!(!is_wanted(&connection(40_000, 8080), &sockets, &settings), "the other leg");
        settings.leg = LegCode::Upstream as u32;
        assert!(is_wanted(&connection(40_000, 8080), &sockets, &settings));
        assert!(
            !is_wanted(&connection(9000, 8080), &sockets, &settings),
            "accepted, from a client's port 8080"
        );
    }
}
