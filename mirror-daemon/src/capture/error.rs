//! Why capturing could not start, or a capture point not be attached.

use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// One failure of the capture shell.
#[derive(Debug, Error)]
pub enum CaptureError {
    /// The daemon was built without its kernel programs.
    #[error(
        "this binary was built without its kernel programs: run `cargo xtask build-ebpf`, then build it again"
    )]
    NotBuilt,
    /// The daemon was built while the kernel programs were of other sources than the rest.
    #[error(
        "this binary was built without its kernel programs, for those that were there are of other sources: run `cargo xtask build-ebpf`, then build it again"
    )]
    Stale,
    /// The kernel has no ring buffers (5.8), or no storage of cgroups that programs share (5.9).
    #[error("the kernel is {release}, which lacks what capturing needs: run it on 5.15 or later")]
    KernelTooOld {
        /// What `uname -r` says.
        release: String,
    },
    /// The process may not load or attach BPF programs.
    #[error("not permitted to {what}: run as root, or with {capabilities}")]
    NotPermitted {
        /// What was tried.
        what: &'static str,
        /// Which capabilities it takes.
        capabilities: &'static str,
        /// What the kernel said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The kernel programs could not be read from the binary, or their maps not be made.
    #[error("cannot load the kernel programs")]
    Load(#[source] Box<aya::EbpfError>),
    /// The object in the binary is another version's.
    #[error("the kernel programs have no {kind} called {name}: run `cargo xtask build-ebpf` and build again")]
    Missing {
        /// Map or program.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The kernel refused a program.
    #[error("the kernel refused to load or attach {program}")]
    Program {
        /// Its name.
        program: String,
        /// What the kernel said; for the verifier, its log.
        #[source]
        source: Box<aya::programs::ProgramError>,
    },
    /// A map could not be read or written.
    #[error("cannot use the map {name}")]
    Map {
        /// Its name.
        name: &'static str,
        /// What the kernel said.
        #[source]
        source: Box<aya::maps::MapError>,
    },
    /// There is no interface of that name.
    #[error("no interface {name} in {netns}")]
    NoInterface {
        /// The name.
        name: String,
        /// The namespace, in words.
        netns: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The interface's packets start with a link layer that is not read.
    #[error("interface {name} has link layer type {kind} (ARPHRD), which is not supported")]
    LinkLayer {
        /// The interface.
        name: String,
        /// `ARPHRD_*`.
        kind: u16,
    },
    /// A network namespace could not be entered.
    #[error("cannot enter the network namespace {}", path.display())]
    Netns {
        /// Its path.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// No network namespace could be told to be a pod's.
    #[error(
        "the network namespace of pod {pod} is not found: mount the node's /run/netns, or share its processes \
         (hostPID)"
    )]
    PodNamespace {
        /// `namespace/name`.
        pod: String,
    },
    /// A cgroup directory could not be opened.
    #[error("cannot open the cgroup {}", path.display())]
    Cgroup {
        /// Its path.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Talking to the kernel by rtnetlink failed.
    #[error("rtnetlink: cannot {what}")]
    Netlink {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Another capture point sees the same connections.
    #[error(
        "it sees the same connections as {other}: {why}, and every request would be mirrored twice; leave one out"
    )]
    SeenTwice {
        /// The other one, in words.
        other: String,
        /// How they belong together, in words.
        why: &'static str,
    },
    /// More capture points than there is room for.
    #[error("more than {limit} capture points")]
    TooManyPoints {
        /// `mirror_common::MAX_CAPTURE_POINTS`.
        limit: usize,
    },
    /// More capture points that are interfaces than there are entry points for them.
    #[error("more than {limit} capture points are interfaces: capture at cgroups instead")]
    TooManyInterfaces {
        /// `mirror_common::MAX_INTERFACE_POINTS`.
        limit: usize,
    },
    /// The attacher could not do what it was asked.
    #[error("{words}")]
    Attacher {
        /// Its error with its causes, in words.
        words: String,
    },
    /// A system call of the reading part failed.
    #[error("cannot {what}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// What loading and attaching take, in words.
pub(crate) const BPF_CAPABILITIES: &str = "CAP_BPF and CAP_NET_ADMIN (before kernel 6.6 also CAP_PERFMON)";
/// What entering a namespace takes, in words.
pub(crate) const NETNS_CAPABILITIES: &str = "CAP_SYS_ADMIN (and CAP_SYS_PTRACE for /proc/PID/ns/net)";

impl CaptureError {
    pub(crate) fn map(name: &'static str) -> impl FnOnce(aya::maps::MapError) -> Self {
        move |source| Self::Map { name, source: Box::new(source) }
    }

    /// The attacher did not answer in time: it is stopped, and goes on perhaps.
    #[must_use]
    pub fn is_late(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::TimedOut)
    }

    pub(crate) fn program(program: &str, source: aya::programs::ProgramError) -> Self {
        if is_not_permitted(&source) {
            return Self::NotPermitted {
                what: "load or attach BPF programs",
                capabilities: BPF_CAPABILITIES,
                source: Box::new(source),
            };
        }
        Self::Program { program: program.to_owned(), source: Box::new(source) }
    }

    pub(crate) fn load(source: aya::EbpfError) -> Self {
        if is_not_permitted(&source) {
            return Self::NotPermitted {
                what: "create BPF maps",
                capabilities: BPF_CAPABILITIES,
                source: Box::new(source),
            };
        }
        Self::Load(Box::new(source))
    }
}

/// Whether an `EPERM` or `EACCES` without a verifier log lies at the bottom of `error`.
fn is_not_permitted(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(io_error) = error.downcast_ref::<io::Error>() {
            return io_error.raw_os_error() == Some(rustix::io::Errno::PERM.raw_os_error());
        }
        cause = error.source();
    }
    false
}
