//! `cgroup_skb` and `sock_ops` programs on cgroup v2 directories. One of each kind serves all cgroups: it finds the
//! number of its capture point in the storage of the cgroup that it is attached to.

use super::super::error::CaptureError;
use super::super::place::open_cgroup;
use super::table::{PointTable, is_missing};
use aya::Ebpf;
use aya::programs::cgroup_skb::CgroupSkbLink;
use aya::programs::sock_ops::SockOpsLink;
use aya::programs::{CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, ProgramError, SockOps};
use mirror_common::PointSettings;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const INGRESS: &str = "mirror_cgi";
const EGRESS: &str = "mirror_cge";
/// On cgroups that are capture points.
const POINT_WATCH: &str = "mirror_ops";
/// On the gateway's cgroups where the capture points are interfaces.
const GATEWAY_WATCH: &str = "mirror_ops_any";

/// What holds a cgroup capture point in the kernel. The links go with the cgroup or with this, whichever goes
/// first.
pub(super) struct CgroupLinks {
    path: PathBuf,
    /// Of the directory, and so the id of the cgroup.
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

    /// From now on what is attached to the cgroup tells what it sees, as the point of this number.
    ///
    /// # Errors
    /// When a map cannot be written, or the cgroup is gone.
    pub(super) fn resume(&self, table: &mut PointTable, number: u32) -> Result<(), CaptureError> {
        table.set(PointSettings { number, ..PointSettings::default() })?;
        table.set_cgroup(self.inode, number).map_err(|error| {
            if is_missing(&error) {
                return CaptureError::Cgroup { path: self.path.clone(), source: ErrorKind::NotFound.into() };
            }
            CaptureError::map("CGROUPS")(error)
        })
    }

    /// Takes the programs off. What the cgroup's storage says is taken back first: it outlives them.
    pub(super) fn detach(self, table: &mut PointTable, number: u32) {
        table.clear_cgroup(self.inode, number);
    }
}

/// Attaches both directions and the lifecycle hook. Without the latter the point still captures. Nothing is told
/// before [`CgroupLinks::resume`].
pub(super) fn attach(ebpf: &mut Ebpf, path: &Path) -> Result<CgroupLinks, CaptureError> {
    let (directory, inode) = open(path)?;
    let ingress = attach_skb(ebpf, INGRESS, &directory, CgroupSkbAttachType::Ingress)?;
    let egress = attach_skb(ebpf, EGRESS, &directory, CgroupSkbAttachType::Egress)?;
    let lifecycle = attach_sock_ops(ebpf, POINT_WATCH, &directory);
    Ok(CgroupLinks { path: path.to_owned(), inode, _skb: [ingress, egress], lifecycle })
}

/// Watches a cgroup of the gateway, for the capture points that are interfaces.
pub(super) fn watch_gateway(ebpf: &mut Ebpf, path: &Path) -> Result<SockOpsLink, CaptureError> {
    attach_sock_ops(ebpf, GATEWAY_WATCH, &open(path)?.0)
}

fn open(path: &Path) -> Result<(File, u64), CaptureError> {
    let refused = |source| CaptureError::Cgroup { path: path.to_owned(), source };
    let directory = open_cgroup(path).map_err(refused)?;
    let inode = directory.metadata().map_err(refused)?.ino();
    Ok((directory, inode))
}

/// Loads what [`attach`] attaches. Each point tells by itself that the lifecycle hook is refused.
///
/// # Errors
/// When the kernel refuses a program without which nothing is captured.
pub(super) fn load(ebpf: &mut Ebpf) -> Result<(), CaptureError> {
    skb(ebpf, INGRESS)?;
    skb(ebpf, EGRESS)?;
    let _ = sock_ops(ebpf, POINT_WATCH);
    Ok(())
}

/// The program `name`, loaded.
fn skb<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut CgroupSkb, CaptureError> {
    let program: &mut CgroupSkb = find(ebpf, name)?;
    load_once(program.fd().is_ok(), || program.load()).map_err(|error| CaptureError::program(name, error))?;
    Ok(program)
}

/// The program `name`, loaded.
fn sock_ops<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut SockOps, CaptureError> {
    let program: &mut SockOps = find(ebpf, name)?;
    load_once(program.fd().is_ok(), || program.load()).map_err(|error| CaptureError::program(name, error))?;
    Ok(program)
}

fn attach_sock_ops(ebpf: &mut Ebpf, name: &str, directory: &File) -> Result<SockOpsLink, CaptureError> {
    let program = sock_ops(ebpf, name)?;
    let attached = (|| {
        // Through a bpf_link every mode allows several programs; `AllowMultiple` is refused with EINVAL.
        let link = program.attach(directory, CgroupAttachMode::Single)?;
        program.take_link(link)
    })();
    attached.map_err(|error| CaptureError::program(name, error))
}

fn attach_skb(
    ebpf: &mut Ebpf,
    name: &str,
    directory: &File,
    side: CgroupSkbAttachType,
) -> Result<CgroupSkbLink, CaptureError> {
    let program = skb(ebpf, name)?;
    let attached = (|| {
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

/// Loads a program that is not `is_loaded`, and again while the kernel says EAGAIN: it gives up verifying when a signal
/// comes in between. False: it was loaded already.
pub(super) fn load_once(
    is_loaded: bool,
    mut load: impl FnMut() -> Result<(), ProgramError>,
) -> Result<bool, ProgramError> {
    const ATTEMPTS: u32 = 10;
    if is_loaded {
        return Ok(false);
    }
    for _ in 1..ATTEMPTS {
        match load() {
            Err(ProgramError::LoadError { io_error, .. }) if io_error.kind() == ErrorKind::WouldBlock => {}
            loaded => return loaded.map(|()| true),
        }
    }
    load().map(|()| true)
}
