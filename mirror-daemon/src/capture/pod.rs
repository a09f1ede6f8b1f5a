//! Finds the network namespace of a pod, for whoever attaches there.
//!
//! Container runtimes bind the namespaces of pods to files in [`NAMESPACES`]; which is whose tell its addresses. Where
//! the daemon sees the processes of the node (`hostPID`), any process in the pod's cgroup tells it too. The first way
//! needs CAP_SYS_ADMIN, the second one CAP_SYS_PTRACE as well.

use super::error::CaptureError;
use super::netlink::{Rtnetlink, interface_index};
use super::netns;
use super::place::{open_cgroup, open_namespace};
use crate::config::CapturePoint;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where container runtimes and `ip netns` bind namespaces.
pub(crate) const NAMESPACES: &str = "/run/netns";
/// Namespaces that are looked into for one pod, at most.
const MAX_NAMESPACES: usize = 1024;
/// Processes of a pod that are asked, at most.
const MAX_PROCESSES: usize = 64;
/// A pod's cgroup, its containers', and what these make.
const MAX_DEPTH: usize = 4;

/// Where `point` is: an interface in a namespace, for one in a pod.
///
/// # Errors
/// When the pod's namespace can't be found, or none may be entered.
pub(super) fn placed(point: &CapturePoint) -> Result<CapturePoint, CaptureError> {
    let CapturePoint::Pod { name, interface, addresses, cgroup } = point else { return Ok(point.clone()) };
    let by_address = by_address(Path::new(NAMESPACES), interface, addresses);
    if let Ok(Some(netns)) = by_address {
        return Ok(inside(interface, netns));
    }
    if let Some(netns) = cgroup.as_deref().and_then(by_process) {
        return Ok(inside(interface, netns));
    }
    by_address?;
    Err(CaptureError::PodNamespace { pod: name.clone() })
}

fn inside(interface: &str, netns: PathBuf) -> CapturePoint {
    CapturePoint::Interface { name: interface.to_owned(), netns: Some(netns), host_side: false }
}

/// The namespace in `directory` whose interface of this name has one of these addresses.
fn by_address(
    directory: &Path,
    interface: &str,
    addresses: &[IpAddr],
) -> Result<Option<PathBuf>, CaptureError> {
    if addresses.is_empty() {
        return Ok(None);
    }
    let mut refused = None;
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().take(MAX_NAMESPACES);
    for path in entries.map(|entry| entry.path()).filter(|path| is_foreign(path)) {
        let own = netns::within(Some(&path), || {
            let Ok(index) = interface_index(interface) else { return Ok(Vec::new()) };
            Rtnetlink::open()?.addresses(index)
        });
        match own {
            Ok(own) if own.iter().any(|address| addresses.contains(address)) => return Ok(Some(path)),
            // Most often it is just going away.
            Ok(_) | Err(CaptureError::Netns { .. } | CaptureError::Netlink { .. }) => {}
            Err(error) => refused = Some(error),
        }
    }
    refused.map_or(Ok(None), Err)
}

/// The namespace of a process in the cgroup.
fn by_process(cgroup: &Path) -> Option<PathBuf> {
    // The path is the parser's: nothing but a cgroup is looked into.
    open_cgroup(cgroup).ok()?;
    let mut pids = Vec::new();
    collect_processes(cgroup, MAX_DEPTH, &mut pids);
    pids.iter().map(|pid| PathBuf::from(format!("/proc/{pid}/ns/net"))).find(|path| is_foreign(path))
}

/// Whether it is a namespace that is there, and not the daemon's own: that would be another pod's, or the node's.
fn is_foreign(path: &Path) -> bool {
    let id = |file: fs::Metadata| (file.dev(), file.ino());
    let own = fs::metadata("/proc/thread-self/ns/net").map(id);
    match (open_namespace(path).and_then(|file| file.metadata()).map(id), own) {
        (Ok(there), Ok(own)) => there != own,
        // Opening it again says why it can't be opened.
        (Err(error), _) => error.kind() == std::io::ErrorKind::PermissionDenied,
        (Ok(_), Err(_)) => false,
    }
}

fn collect_processes(path: &Path, depth: usize, pids: &mut Vec<u32>) {
    let listed = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    // 0 stands for a process of a PID namespace that is not seen from here.
    let visible = listed.lines().filter_map(|line| line.parse::<u32>().ok()).filter(|pid| *pid != 0);
    pids.extend(visible.take(MAX_PROCESSES.saturating_sub(pids.len())));
    if depth == 0 || pids.len() >= MAX_PROCESSES {
        return;
    }
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        collect_processes(&entry.path(), depth.saturating_sub(1), pids);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_points_are_where_they_say() {
        let cgroup = CapturePoint::Cgroup { path: "/sys/fs/cgroup/x".into() };
        assert_eq!(placed(&cgroup).unwrap(), cgroup);
    }

    #[test]
    fn pod_without_a_namespace_is_an_error_that_names_it() {
        let pod = CapturePoint::Pod {
            name: "a/b".to_owned(),
            interface: "eth0".to_owned(),
            addresses: vec![],
            cgroup: Some("/no/such/cgroup".into()),
        };
        let error = placed(&pod).unwrap_err().to_string();
        assert!(error.contains("pod a/b"), "{error}");
    }

    #[test]
    fn own_namespace_is_never_taken_for_a_pods() {
        assert!(!is_foreign(Path::new("/proc/self/ns/net")));
        assert!(!is_foreign(Path::new("/no/such/namespace")));
    }
}
