//! I/O. What this node is like: read from /proc and /sys, and asked of the API server.

use crate::capture;
use crate::cluster::client::{Access, ClientError};
use crate::cluster::discovery::{cgroup2_roots, pods_below};
use crate::cluster::probe::{self, Answers};
use crate::config::CaptureConfig;
use crate::kube::{self, PodCgroup};
use crate::telemetry::logging::in_words;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// What `doctor` judges. A thing that cannot be read counts as not there.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The kernel's release.
    pub kernel: Option<KernelRelease>,
    /// The kernel has type information.
    pub has_btf: bool,
    /// Why this binary has no kernel programs; `None` when it has.
    pub unbuilt: Option<String>,
    /// How making all maps and settings went; `None`: not tried.
    pub trial: Option<Result<(), String>>,
    /// Effective capabilities.
    pub capabilities: Vec<Capability>,
    /// Where cgroup v2 is mounted.
    pub cgroup2: Option<PathBuf>,
    /// cgroup v1 is mounted too.
    pub has_cgroup1: bool,
    /// Interfaces of the daemon's own network namespace.
    pub interfaces: Vec<String>,
    /// File names of network plugins' configurations.
    pub cni_configs: Vec<String>,
    /// Pods that have a cgroup here, by UID.
    pub pods: Vec<PodCgroup>,
    /// Network namespaces that container runtimes have bound to files here.
    pub namespaces: usize,
    /// The node's processes are seen from here.
    pub sees_processes: bool,
    /// This node's name in the cluster.
    pub node: Option<String>,
    /// What the API server answered, or why it did not; `None`: no way to one is known.
    pub cluster: Option<Result<Answers, String>>,
}

/// Where this is, as far as the command line and the environment say.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// The node's name; `None`: not known.
    pub node: Option<String>,
    /// The file that leads to the API server, where one was given.
    pub kubeconfig: Option<PathBuf>,
}

/// The first two numbers of `uname -r`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelRelease {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
}

/// A capability that some mode of capturing needs, with its number in `linux/capability.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Capability {
    /// CAP_NET_ADMIN
    NetAdmin = 12,
    /// CAP_SYS_PTRACE
    SysPtrace = 19,
    /// CAP_SYS_ADMIN
    SysAdmin = 21,
    /// CAP_PERFMON
    Perfmon = 38,
    /// CAP_BPF
    Bpf = 39,
}

impl KernelRelease {
    /// Reads the beginning of `uname -r`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.trim().split(|byte: char| !byte.is_ascii_digit()).map(str::parse);
        Some(Self { major: numbers.next()?.ok()?, minor: numbers.next()?.ok()? })
    }
}

impl fmt::Display for KernelRelease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl Capability {
    const ALL: [Self; 5] = [Self::NetAdmin, Self::SysPtrace, Self::SysAdmin, Self::Perfmon, Self::Bpf];

    /// Its name in Linux.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NetAdmin => "CAP_NET_ADMIN",
            Self::SysPtrace => "CAP_SYS_PTRACE",
            Self::SysAdmin => "CAP_SYS_ADMIN",
            Self::Perfmon => "CAP_PERFMON",
            Self::Bpf => "CAP_BPF",
        }
    }

    /// Those in a mask, as `/proc/PID/status` has it. CAP_SYS_ADMIN stands for CAP_BPF and CAP_PERFMON, as in the
    /// kernel (`bpf_capable`, `perfmon_capable`).
    fn in_mask(mask: u64) -> Vec<Self> {
        let has = |capability: Self| mask & (1 << capability as u32) != 0;
        let covered = |capability| matches!(capability, Self::Bpf | Self::Perfmon) && has(Self::SysAdmin);
        Self::ALL.into_iter().filter(|capability| has(*capability) || covered(*capability)).collect()
    }
}

impl Facts {
    /// Looks at this node. Loads the kernel programs' maps for a moment, and attaches nothing. The API server is asked
    /// for 20 seconds at most.
    #[must_use]
    pub fn read(place: Place) -> Self {
        let mounts = read("/proc/self/mounts");
        let cgroup2 = mount_of(&mounts, "cgroup2").map(PathBuf::from);
        Self {
            kernel: KernelRelease::parse(&read("/proc/sys/kernel/osrelease")),
            has_btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
            unbuilt: capture::unbuilt().map(|error| error.to_string()),
            trial: capture::unbuilt().is_none().then(try_loading),
            capabilities: Capability::in_mask(effective_mask(&read("/proc/self/status")).unwrap_or(0)),
            has_cgroup1: mount_of(&mounts, "cgroup").is_some(),
            interfaces: names_in("/sys/class/net"),
            cni_configs: names_in("/etc/cni/net.d"),
            pods: pods_below(&cgroup2_roots(&mounts)),
            cgroup2,
            namespaces: names_in(capture::NAMESPACES).len(),
            // The second process of every Linux, where all are seen.
            sees_processes: read("/proc/2/comm").trim() == "kthreadd",
            cluster: ask(&place),
            node: place.node,
        }
    }
}

fn ask(place: &Place) -> Option<Result<Answers, String>> {
    match Access::find(place.kubeconfig.as_deref()) {
        Err(ClientError::NoWay) => None,
        Err(error) => Some(Err(in_words(&error))),
        Ok(access) => {
            let node = place.node.as_deref().filter(|name| kube::is_subdomain(name));
            Some(probe::ask(&access, node))
        }
    }
}

fn try_loading() -> Result<(), String> {
    let tried = capture::open(&CaptureConfig::default());
    tried.map(drop).map_err(|error| format!("{:#}", anyhow::Error::new(error)))
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The first mount of this type, from the lines of `/proc/self/mounts`.
fn mount_of<'a>(mounts: &'a str, kind: &str) -> Option<&'a str> {
    mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let place = words.next()?;
        (words.next()? == kind).then_some(place)
    })
}

fn effective_mask(status: &str) -> Option<u64> {
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

fn names_in(dir: &str) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read_as_distributions_write_them() {
        for (text, want) in [("6.1.0-32-amd64\n", (6, 1)), ("5.15.0", (5, 15)), ("6.18.44-fc-v657", (6, 18))]
        {
            let release = KernelRelease::parse(text).unwrap();
            assert_eq!((release.major, release.minor), want);
        }
        assert_eq!(KernelRelease::parse("linux"), None);
    }

    #[test]
    fn mounts_and_capabilities_are_found() {
        let mounts = "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\nnone /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(mount_of(mounts, "cgroup2"), Some("/sys/fs/cgroup/unified"));
        assert_eq!(mount_of(mounts, "bpf"), None);
        let mask = effective_mask("Name:\tx\nCapEff:\t0000008000001000\n").unwrap();
        assert_eq!(Capability::in_mask(mask), [Capability::NetAdmin, Capability::Bpf]);
        let admin = Capability::in_mask(1 << 21);
        assert_eq!(admin, [Capability::SysAdmin, Capability::Perfmon, Capability::Bpf]);
    }
}
