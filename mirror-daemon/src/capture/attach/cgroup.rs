//! `cgroup_skb` and `sock_ops` programs on cgroup v2 directories.

use super::super::error::CaptureError;
use super::super::place::open_cgroup;
use aya::Ebpf;
use aya::programs::cgroup_skb::CgroupSkbLink;
use aya::programs::sock_ops::SockOpsLink;
use aya::programs::{CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, ProgramError, SockOps};
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What holds a cgroup capture point in the kernel. The links go with the cgroup or with this, whichever goes
/// first.
pub(super) struct CgroupLinks {
    path: PathBuf,
    inode: u64,
    /// Held for their drop.
    _skb: [CgroupSkbLink; 2],
    lifecycle: Result<SockOpsLink, CaptureError>,
}

impl CgroupLinks {
    pub(super) fn lifecycle_error(&self) -> Option<&CaptureError> {
        self.lifecycle.as_ref().err()
    }

    /// False once the directory was deleted, or replaced by another.
    pub(super) fn is_in_place(&self) -> bool {
        std::fs::metadata(&self.path).is_ok_and(|directory| directory.ino() == self.inode)
    }
}

/// Attaches both directions and the lifecycle hook. Without the latter the point still captures.
pub(super) fn attach(ebpf: &mut Ebpf, number: u32, path: &Path) -> Result<CgroupLinks, CaptureError> {
    let refused = |source| CaptureError::Cgroup { path: path.to_owned(), source };
    let directory = open_cgroup(path).map_err(refused)?;
    let inode = directory.metadata().map_err(refused)?.ino();
    let ingress =
        attach_skb(ebpf, &format!("mirror_cgi_{number}"), &directory, CgroupSkbAttachType::Ingress)?;
    let egress = attach_skb(ebpf, &format!("mirror_cge_{number}"), &directory, CgroupSkbAttachType::Egress)?;
    let lifecycle = attach_lifecycle(ebpf, number, path);
    Ok(CgroupLinks { path: path.to_owned(), inode, _skb: [ingress, egress], lifecycle })
}

/// Attaches the lifecycle hook of capture point `number` to the cgroup at `path`.
pub(super) fn attach_lifecycle(
    ebpf: &mut Ebpf,
    number: u32,
    path: &Path,
) -> Result<SockOpsLink, CaptureError> {
    let directory =
        open_cgroup(path).map_err(|source| CaptureError::Cgroup { path: path.to_owned(), source })?;
    let name = format!("mirror_ops_{number}");
    let program: &mut SockOps = find(ebpf, &name)?;
    let attached = (|| {
        if program.fd().is_err() {
            load_patiently(|| program.load())?;
        }
        // Through a bpf_link every mode allows several programs; `AllowMultiple` is refused with EINVAL.
        let link = program.attach(&directory, CgroupAttachMode::Single)?;
        program.take_link(link)
    })();
    attached.map_err(|error| CaptureError::program(&name, error))
}

fn attach_skb(
    ebpf: &mut Ebpf,
    name: &str,
    directory: &File,
    side: CgroupSkbAttachType,
) -> Result<CgroupSkbLink, CaptureError> {
    let program: &mut CgroupSkb = find(ebpf, name)?;
    let attached = (|| {
        if program.fd().is_err() {
            load_patiently(|| program.load())?;
        }
        let link = program.attach(directory, side, CgroupAttachMode::Single)?;
        program.take_link(link)
    })();
    attached.map_err(|error| CaptureError::program(name, error))
}

/// The program `name` of the object.
pub(super) fn find<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P, CaptureError>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
{
    ebpf.program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or_else(|| CaptureError::Missing { kind: "program", name: name.to_owned() })
}

/// Loads a program, and again while the kernel says EAGAIN: it gives up verifying when a signal comes in between.
pub(super) fn load_patiently(mut load: impl FnMut() -> Result<(), ProgramError>) -> Result<(), ProgramError> {
    const ATTEMPTS: u32 = 10;
    for _ in 1..ATTEMPTS {
        match load() {
            Err(ProgramError::LoadError { io_error, .. }) if io_error.kind() == ErrorKind::WouldBlock => {}
            loaded => return loaded,
        }
    }
    load()
}
