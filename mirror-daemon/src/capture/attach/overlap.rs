//! Whether two capture points see the same connections: then every request would be mirrored twice.
//!
//! Found out: one interface or cgroup under two names, a cgroup within another, the two ends of a veth pair, an
//! interface on top of another (bridge, bond, VLAN, macvlan), and an interface beside the cgroup of a process that
//! uses it. Looked at when a point is attached. Left out: a packet's way through several interfaces that only
//! routing ties together.

use super::super::error::CaptureError;
use super::super::netlink::{Link, Rtnetlink, interface_index};
use super::super::netns;
use super::super::place::{open_cgroup, open_namespace};
use super::selection::MAX_CGROUP_DEPTH;
use crate::config::CapturePoint;
use std::collections::HashSet;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Most processes of a cgroup that are asked for their network namespace. Those of one pod share one.
const MAX_PROCESSES: usize = 1024;

/// What makes a capture point the same as another, whatever it is called.
#[derive(Clone, Debug)]
pub(super) enum Identity {
    Interface(Interface),
    Cgroup(Cgroup),
}

#[derive(Clone, Debug)]
pub(super) struct Interface {
    /// Where the namespace is found; `None`: the daemon's own.
    netns: Option<PathBuf>,
    namespace: FileId,
    index: u32,
    link: Link,
    is_host_side: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Cgroup {
    path: PathBuf,
    /// Its directory, then those above it, up to the root.
    line: Vec<FileId>,
}

/// Device and inode: one file, however it is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct FileId(u64, u64);

impl From<Metadata> for FileId {
    fn from(file: Metadata) -> Self {
        Self(file.dev(), file.ino())
    }
}

impl Identity {
    /// # Errors
    /// When the interface, its namespace or the cgroup is not there.
    pub(super) fn of(point: &CapturePoint) -> Result<Self, CaptureError> {
        match point {
            CapturePoint::Interface { name, netns, host_side } => {
                let namespace = namespace_id(netns.as_deref())?;
                let (index, link) = netns::within(netns.as_deref(), || {
                    let index = interface_index(name).map_err(|source| CaptureError::NoInterface {
                        name: name.clone(),
                        netns: netns::in_words(netns.as_deref()),
                        source,
                    })?;
                    Ok((index, Rtnetlink::open()?.link(index)?))
                })?;
                let netns = netns.clone();
                Ok(Self::Interface(Interface { netns, namespace, index, link, is_host_side: *host_side }))
            }
            CapturePoint::Cgroup { path } => Cgroup::at(path).map(Self::Cgroup),
        }
    }

    /// False once the network namespace's path leads to another one: `/proc/PID/ns/net` does when the process id is used
    /// again, with interfaces of the same names and indexes.
    pub(super) fn is_current(&self) -> bool {
        match self {
            Self::Interface(interface) => {
                namespace_id(interface.netns.as_deref()).is_ok_and(|present| present == interface.namespace)
            }
            Self::Cgroup(_) => true,
        }
    }

    /// Why both see the same connections, in words; `None` when they do not, as far as can be told. With
    /// `gateway_cgroups`, interfaces take only the connections of these.
    pub(super) fn overlap(&self, other: &Self, gateway_cgroups: &[PathBuf]) -> Option<&'static str> {
        match (self, other) {
            (Self::Interface(a), Self::Interface(b)) => a.overlap(b),
            (Self::Cgroup(a), Self::Cgroup(b)) => a.is_nested(b).then_some("one cgroup is in the other"),
            (Self::Interface(interface), Self::Cgroup(cgroup))
            | (Self::Cgroup(cgroup), Self::Interface(interface)) => {
                let is_selected = gateway_cgroups.is_empty()
                    || gateway_cgroups
                        .iter()
                        .any(|path| Cgroup::at(path).is_ok_and(|selected| selected.is_nested(cgroup)));
                (is_selected && interface.is_of(cgroup))
                    .then_some("processes of the cgroup are in the interface's network namespace")
            }
        }
    }
}

impl Interface {
    fn overlap(&self, other: &Self) -> Option<&'static str> {
        if self.namespace == other.namespace && self.index == other.index {
            return Some("they are one interface");
        }
        let is_here = self.namespace == other.namespace;
        let has_master = |slave: &Self, master: &Self| is_here && slave.link.master == Some(master.index);
        if has_master(self, other) || has_master(other, self) {
            return Some("one interface is on top of the other");
        }
        if !self.is_above(other) && !other.is_above(self) {
            return None;
        }
        if !self.link.is_veth {
            return Some("one interface is on top of the other");
        }
        // From the same side, one of a pair's ends sees requests come in where the other sees them go out: only
        // one of them is on the wanted leg.
        (self.is_host_side != other.is_host_side).then_some("they are the two ends of one veth pair")
    }

    /// Whether this one's `IFLA_LINK` is the other.
    fn is_above(&self, other: &Self) -> bool {
        self.link.under == Some(other.index)
            && match self.link.under_namespace {
                None => self.namespace == other.namespace,
                Some(_) => self.is_linked_to(other.netns.as_deref()),
            }
    }

    /// Whether the far end of the link is in the network namespace at `path`.
    fn is_linked_to(&self, path: Option<&Path>) -> bool {
        let Some(wanted) = self.link.under_namespace else { return false };
        let known = open_namespace(path.unwrap_or(Path::new(netns::OF_THIS_THREAD))).ok().and_then(|namespace| {
            netns::within(self.netns.as_deref(), || Rtnetlink::open()?.namespace_number(&namespace)).ok()
        });
        known.flatten() == Some(wanted)
    }

    /// Whether a process of the cgroup is in the namespace whose connections pass here.
    fn is_of(&self, cgroup: &Cgroup) -> bool {
        let mut seen = HashSet::new();
        let mut pids = Vec::new();
        collect_processes(&cgroup.path, MAX_CGROUP_DEPTH, &mut pids);
        pids.iter().any(|pid| {
            let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
            // A process that is gone, or may not be looked at, tells nothing.
            let Ok(namespace) = std::fs::metadata(&path).map(FileId::from) else { return false };
            seen.insert(namespace)
                && if self.is_host_side && self.link.is_veth {
                    self.is_linked_to(Some(&path))
                } else {
                    self.namespace == namespace
                }
        })
    }
}

impl Cgroup {
    fn at(path: &Path) -> Result<Self, CaptureError> {
        let refused = |source| CaptureError::Cgroup { path: path.to_owned(), source };
        let mut directory = path.to_owned();
        let found = open_cgroup(path).and_then(|directory| directory.metadata()).map_err(refused)?;
        let mut line: Vec<FileId> = vec![found.into()];
        for _ in 0..MAX_CGROUP_DEPTH {
            directory.push("..");
            let Ok(above) = std::fs::metadata(&directory).map(FileId::from) else { break };
            if line.last().is_some_and(|below| below.0 != above.0) {
                break;
            }
            line.push(above);
        }
        Ok(Self { path: path.to_owned(), line })
    }

    /// Whether one is the other, or within it.
    fn is_nested(&self, other: &Self) -> bool {
        let is_within =
            |inner: &Self, outer: &Self| outer.line.first().is_some_and(|id| inner.line.contains(id));
        is_within(self, other) || is_within(other, self)
    }
}

fn namespace_id(path: Option<&Path>) -> Result<FileId, CaptureError> {
    let path = path.unwrap_or(Path::new(netns::OF_THIS_THREAD));
    match std::fs::metadata(path) {
        Ok(namespace) => Ok(namespace.into()),
        Err(source) => Err(CaptureError::Netns { path: path.to_owned(), source }),
    }
}

/// The processes of a cgroup and of all below it.
fn collect_processes(path: &Path, depth: u32, pids: &mut Vec<u32>) {
    let listed = std::fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    let room = MAX_PROCESSES.saturating_sub(pids.len());
    pids.extend(listed.lines().filter_map(|line| line.parse::<u32>().ok()).take(room));
    if depth == 0 || pids.len() >= MAX_PROCESSES {
        return;
    }
    let Ok(entries) = std::fs::read_dir(path) else { return };
    for entry in entries.filter_map(Result::ok) {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect_processes(&entry.path(), depth.saturating_sub(1), pids);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cgroup(line: &[u64]) -> Identity {
        let line = line.iter().map(|inode| FileId(1, *inode)).collect();
        Identity::Cgroup(Cgroup { path: PathBuf::from("/no/such/cgroup"), line })
    }

    fn interface(namespace: u64, index: u32, link: Link) -> Interface {
        let namespace = FileId(4, namespace);
        Interface { netns: None, namespace, index, link, is_host_side: false }
    }

    fn overlap(a: &Interface, b: &Interface) -> Option<&'static str> {
        let (first, second) = (Identity::Interface(a.clone()), Identity::Interface(b.clone()));
        let found = first.overlap(&second, &[]);
        assert_eq!(found, second.overlap(&first, &[]), "it matters which comes first");
        found
    }

    #[test]
    fn cgroup_overlaps_with_itself_and_those_above_and_below() {
        let (root, pod, container) = (cgroup(&[1]), cgroup(&[2, 1]), cgroup(&[3, 2, 1]));
        for (a, b) in [(&root, &container), (&container, &pod), (&pod, &pod)] {
            assert!(a.overlap(b, &[]).is_some() && b.overlap(a, &[]).is_some());
        }
        assert_eq!(pod.overlap(&cgroup(&[4, 1]), &[]), None);
    }

    #[test]
    fn interface_overlaps_with_itself_whichever_side_is_meant() {
        let ours = interface(1, 2, Link::default());
        assert!(overlap(&ours, &Interface { is_host_side: true, ..ours.clone() }).is_some());
        assert_eq!(overlap(&ours, &interface(1, 3, Link::default())), None);
        assert_eq!(overlap(&ours, &interface(2, 2, Link::default())), None, "another namespace's");
    }

    #[test]
    fn interface_overlaps_with_what_it_is_on_top_of() {
        let lower = interface(1, 2, Link::default());
        let vlan = interface(1, 5, Link { under: Some(2), ..Link::default() });
        let port = interface(1, 6, Link { master: Some(7), ..Link::default() });
        let bridge = interface(1, 7, Link::default());
        assert!(overlap(&lower, &vlan).is_some());
        assert!(overlap(&port, &bridge).is_some());
        assert_eq!(overlap(&port, &lower), None);
    }

    #[test]
    fn ends_of_a_veth_pair_overlap_only_when_they_are_seen_from_both_sides() {
        let veth = |under| Link { is_veth: true, under: Some(under), ..Link::default() };
        let (near, far) = (interface(1, 2, veth(3)), interface(1, 3, veth(2)));
        assert_eq!(overlap(&near, &far), None);
        assert!(overlap(&near, &Interface { is_host_side: true, ..far }).is_some());
    }

    #[test]
    fn cgroup_of_this_process_overlaps_with_this_namespaces_loopback() {
        let lo = CapturePoint::Interface { name: "lo".to_owned(), netns: None, host_side: false };
        let same = CapturePoint::Interface {
            name: "lo".to_owned(),
            netns: Some("/proc/self/ns/net".into()),
            host_side: false,
        };
        let (Ok(Identity::Interface(lo)), Ok(Identity::Interface(same))) =
            (Identity::of(&lo), Identity::of(&same))
        else {
            // Entering one's own namespace takes privileges.
            return;
        };
        assert_eq!(overlap(&lo, &same), Some("they are one interface"));
        assert!(Identity::of(&CapturePoint::Cgroup { path: "/no/such/cgroup".into() }).is_err());
    }
}
