//! tc programs on an interface, in whichever network namespace: TCX links, or filters on a clsact qdisc. What is
//! attached are entry points, two for each interface, which all go on to one body for each side.

use super::super::clsact;
use super::super::error::CaptureError;
use super::super::netlink::{Rtnetlink, interface_index};
use super::super::netns;
use super::Attachment;
use super::cgroup::{find, load_once};
use super::table::PointTable;
use crate::config::TcMode;
use aya::Ebpf;
use aya::maps::{MapData, ProgramArray};
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions};
use aya::programs::{LinkOrder, Program, ProgramError, SchedClassifier, TcAttachType};
use mirror_common::{PointFlags, PointSettings};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// Bytes of an Ethernet header; loopback has one too.
const ETHERNET_BYTES: u32 = 14;
const ARPHRD_ETHER: u16 = 1;
const ARPHRD_LOOPBACK: u16 = 772;
/// ARPHRD_PPP, _RAWIP, _TUNNEL, _TUNNEL6, _SIT, _IPGRE, _IP6GRE, _NONE (tun, WireGuard): IP comes first.
const ARPHRD_WITHOUT_LINK_LAYER: [u16; 8] = [512, 519, 768, 769, 776, 778, 823, 65534];

/// What is to be attached where.
pub(super) struct Wanted<'a> {
    pub(super) number: u32,
    /// Its entry points' number.
    pub(super) entry: u32,
    pub(super) name: &'a str,
    pub(super) netns: Option<&'a Path>,
    pub(super) tc_mode: TcMode,
}

/// What holds an interface capture point in the kernel.
pub(super) struct InterfaceLinks {
    name: String,
    netns: Option<PathBuf>,
    index: u32,
    /// What the kernel knows of the point.
    place: PointSettings,
    /// The mode that it was attached by.
    mode: TcMode,
    how: Hooks,
    others: Others,
}

/// What is known of other daemons on the same interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Others {
    /// There were none.
    None,
    /// There was one, or one had just been killed: to be looked at again.
    Perhaps,
    /// There is one, which was logged.
    Told,
}

enum Hooks {
    /// Held for their drop.
    Tcx(#[expect(dead_code, reason = "held for their drop")] Vec<SchedClassifierLink>),
    Clsact {
        program_ids: Vec<u32>,
        /// The qdisc is ours to delete.
        is_our_qdisc: bool,
        /// Where they are; `None`: in the daemon's own namespace. Filters that could not be deleted, because their namespace's path was gone before it, would
        /// go on to note an entry point that another interface has by then.
        namespace: Option<File>,
    },
}

impl InterfaceLinks {
    pub(super) const fn attachment(&self) -> Attachment {
        match self.how {
            Hooks::Tcx(_) => Attachment::Tcx,
            Hooks::Clsact { .. } => Attachment::Clsact,
        }
    }

    /// Whether this mode would attach it as it is.
    pub(super) fn is_attached_as(&self, mode: TcMode) -> bool {
        match (mode, self.attachment()) {
            (TcMode::Clsact, Attachment::Clsact) | (TcMode::Auto | TcMode::Tcx, Attachment::Tcx) => true,
            _ => mode == self.mode,
        }
    }

    /// Makes the records say whether a flow is the gateway's own, or not.
    pub(super) fn select(&mut self, table: &mut PointTable, is_in_use: bool) -> Result<(), CaptureError> {
        let others = self.place.flags & !PointFlags::SELECTION;
        self.set_flags(table, if is_in_use { others | PointFlags::SELECTION } else { others })
    }

    /// Makes the point tell what it sees.
    pub(super) fn resume(&mut self, table: &mut PointTable) -> Result<(), CaptureError> {
        self.set_flags(table, self.place.flags & !PointFlags::PAUSED)
    }

    fn set_flags(&mut self, table: &mut PointTable, flags: u32) -> Result<(), CaptureError> {
        if flags != self.place.flags {
            self.place.flags = flags;
            table.set(self.place)?;
        }
        Ok(())
    }

    /// Takes over what `other` may do with the qdisc, when it is on the same interface and goes.
    pub(super) fn inherit_qdisc(&mut self, other: &Self) {
        if let Hooks::Clsact { is_our_qdisc, .. } = &mut self.how
            && matches!(other.how, Hooks::Clsact { is_our_qdisc: true, .. })
            && (self.index, &self.netns) == (other.index, &other.netns)
        {
            *is_our_qdisc = true;
        }
    }

    /// False once the interface was deleted, or replaced by another of its name.
    pub(super) fn is_in_place(&self) -> bool {
        netns::within(self.netns.as_deref(), || self.find_index()).is_ok_and(|index| index == self.index)
    }

    /// Whether [`Self::look_for_others`] has something to do.
    pub(super) fn has_others(&self) -> bool {
        self.others != Others::None
    }

    /// Where another daemon seemed to live when this was attached: sweeps what it left behind, or says once that it
    /// lives. `own`: the ids of our programs. To be called more than [`mirror_common::HEARTBEAT_STALE_NS`] later.
    pub(super) fn look_for_others(&mut self, own: &[u32]) {
        if !self.has_others() {
            return;
        }
        let looked = netns::within(self.netns.as_deref(), || {
            let swept = clsact::sweep(self.index, own)?;
            Ok((swept, swept.is_shared || clsact::is_shared_by_tcx(&self.name, own)))
        });
        let Ok((swept, is_shared)) = looked else { return };
        self.take_over_qdisc(swept.is_our_qdisc);
        if is_shared && self.others == Others::Perhaps {
            let interface = &self.name;
            tracing::warn!(
                interface,
                "another mirror-daemon captures here: where both mirror, every request is mirrored twice"
            );
        }
        self.others = if is_shared { Others::Told } else { Others::None };
    }

    /// Makes a qdisc that a killed daemon left behind ours to delete, and deletes it where it is of no use.
    fn take_over_qdisc(&mut self, is_left: bool) {
        match &mut self.how {
            Hooks::Clsact { is_our_qdisc, .. } => *is_our_qdisc |= is_left,
            Hooks::Tcx(_) if is_left => {
                let delete = || clsact::detach(self.index, &[], true);
                // It does no harm where it stays.
                let _ = netns::within(self.netns.as_deref(), delete);
            }
            Hooks::Tcx(_) => {}
        }
    }

    /// Takes the programs off the interface.
    pub(super) fn detach(self) {
        let Hooks::Clsact { program_ids, is_our_qdisc, namespace } = &self.how else {
            // Dropping a TCX link detaches it, in whichever namespace it is.
            return;
        };
        let path =
            namespace.as_ref().map(|file| PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd())));
        // Where the interface is gone, so are the filters.
        let _ = netns::within(path.as_deref(), || {
            if self.find_index()? == self.index {
                clsact::detach(self.index, program_ids, *is_our_qdisc)?;
            }
            Ok(())
        });
    }

    fn find_index(&self) -> Result<u32, CaptureError> {
        find_index(&self.name, self.netns.as_deref())
    }
}

/// The object, and the map by which entry points find the bodies.
pub(super) struct Programs<'a> {
    pub(super) ebpf: &'a mut Ebpf,
    pub(super) bodies: &'a mut ProgramArray<MapData>,
}

/// Attaches both sides (on a loopback one), after sweeping what a killed daemon left behind.
pub(super) fn attach(
    programs: &mut Programs<'_>,
    table: &mut PointTable,
    wanted: &Wanted<'_>,
    flags: u32,
) -> Result<InterfaceLinks, CaptureError> {
    netns::within(wanted.netns, || {
        let index = find_index(wanted.name, wanted.netns)?;
        let link = Rtnetlink::open()?.link(index)?;
        let link_header_bytes = match link.kind {
            ARPHRD_ETHER | ARPHRD_LOOPBACK => ETHERNET_BYTES,
            kind if ARPHRD_WITHOUT_LINK_LAYER.contains(&kind) => 0,
            kind => return Err(CaptureError::LinkLayer { name: wanted.name.to_owned(), kind }),
        };
        // Both ends of a loopback's connections pass here, each segment by both hooks: one sees all.
        let (flags, sides) = if link.is_loopback {
            (flags | PointFlags::BOTH_ENDS, &[Side::Ingress][..])
        } else {
            (flags, &[Side::Ingress, Side::Egress][..])
        };
        let place = PointSettings { number: wanted.number, link_header_bytes, flags };
        table.set(place)?;
        table.set_entry(wanted.entry, wanted.number)?;
        let own = program_ids(programs.ebpf);
        let swept = clsact::sweep(index, &own)?;
        let is_shared = swept.is_shared || clsact::is_shared_by_tcx(wanted.name, &own);
        let how = attach_sides(programs, wanted, index, sides, swept.is_our_qdisc)?;
        let mut links = InterfaceLinks {
            name: wanted.name.to_owned(),
            netns: wanted.netns.map(Path::to_owned),
            index,
            place,
            mode: wanted.tc_mode,
            how,
            others: if is_shared { Others::Perhaps } else { Others::None },
        };
        links.take_over_qdisc(swept.is_our_qdisc);
        Ok(links)
    })
}

/// Those of our tc programs that are loaded.
pub(super) fn program_ids(ebpf: &Ebpf) -> Vec<u32> {
    let id = |program: &Program| match program {
        Program::SchedClassifier(program) => program.info().ok().map(|info| info.id()),
        _ => None,
    };
    ebpf.programs().filter_map(|(_, program)| id(program)).collect()
}

#[derive(Clone, Copy)]
enum Side {
    Ingress,
    Egress,
}

impl Side {
    fn entry(self, number: u32) -> String {
        format!("{}_{number}", self.body())
    }

    const fn body(self) -> &'static str {
        match self {
            Self::Ingress => "mirror_tci",
            Self::Egress => "mirror_tce",
        }
    }

    /// Its body's place in the map of bodies: `INGRESS` and `EGRESS` in `mirror-ebpf/src/capture.rs`.
    const fn index(self) -> u32 {
        match self {
            Self::Ingress => 0,
            Self::Egress => 1,
        }
    }

    const fn attach_type(self) -> TcAttachType {
        match self {
            Self::Ingress => TcAttachType::Ingress,
            Self::Egress => TcAttachType::Egress,
        }
    }
}

/// Gives the kernel's memory for entry points back. They may not be loaded.
pub(super) fn unload(ebpf: &mut Ebpf, entry: u32) {
    for side in [Side::Ingress, Side::Egress] {
        if let Ok(program) = find::<SchedClassifier>(ebpf, &side.entry(entry)) {
            // It says only that there is nothing to unload.
            let _ = program.unload();
        }
    }
}

impl Programs<'_> {
    /// Loads what all entry points share.
    ///
    /// # Errors
    /// When the kernel refuses a program.
    pub(super) fn load_bodies(&mut self) -> Result<(), CaptureError> {
        [Side::Ingress, Side::Egress].into_iter().try_for_each(|side| self.load_body(side))
    }

    /// Loads the entry point `entry` of this side, and before the first of them the body.
    fn load(&mut self, side: Side, entry: u32) -> Result<(), CaptureError> {
        self.load_body(side)?;
        let name = side.entry(entry);
        let program: &mut SchedClassifier = find(self.ebpf, &name)?;
        let loaded = load_once(program.fd().is_ok(), || program.load());
        loaded.map(drop).map_err(|error| CaptureError::program(&name, error))
    }

    fn load_body(&mut self, side: Side) -> Result<(), CaptureError> {
        let body: &mut SchedClassifier = find(self.ebpf, side.body())?;
        if load_once(body.fd().is_ok(), || body.load())
            .map_err(|error| CaptureError::program(side.body(), error))?
        {
            let set = body
                .fd()
                .map_err(|error| CaptureError::program(side.body(), error))
                .and_then(|fd| self.bodies.set(side.index(), fd, 0).map_err(CaptureError::map("BODIES")));
            if set.is_err() {
                // So that it is tried again.
                let _ = body.unload();
            }
            set?;
        }
        Ok(())
    }
}

/// `is_left_qdisc`: there is a qdisc that a killed daemon had made.
fn attach_sides(
    programs: &mut Programs<'_>,
    wanted: &Wanted<'_>,
    index: u32,
    sides: &[Side],
    is_left_qdisc: bool,
) -> Result<Hooks, CaptureError> {
    for side in sides {
        programs.load(*side, wanted.entry)?;
    }
    let ebpf = &mut *programs.ebpf;
    if wanted.tc_mode == TcMode::Clsact {
        return attach_clsact(ebpf, wanted, index, sides, is_left_qdisc);
    }
    match attach_tcx(ebpf, wanted, sides) {
        // A kernel without TCX says EINVAL.
        Err(CaptureError::Program { .. }) if wanted.tc_mode == TcMode::Auto => {
            attach_clsact(ebpf, wanted, index, sides, is_left_qdisc)
        }
        attached => attached.map(Hooks::Tcx),
    }
}

/// In front of the programs that are there, for one of them may end the row with its verdict.
fn attach_tcx(
    ebpf: &mut Ebpf,
    wanted: &Wanted<'_>,
    sides: &[Side],
) -> Result<Vec<SchedClassifierLink>, CaptureError> {
    let mut links = Vec::new();
    for side in sides {
        let name = side.entry(wanted.entry);
        let program: &mut SchedClassifier = find(ebpf, &name)?;
        let attached = (|| {
            let first = TcAttachOptions::TcxOrder(LinkOrder::first());
            let link = program.attach_with_options(wanted.name, side.attach_type(), first)?;
            program.take_link(link)
        })();
        links.push(attached.map_err(|error: ProgramError| CaptureError::program(&name, error))?);
    }
    Ok(links)
}

fn attach_clsact(
    ebpf: &mut Ebpf,
    wanted: &Wanted<'_>,
    index: u32,
    sides: &[Side],
    is_left_qdisc: bool,
) -> Result<Hooks, CaptureError> {
    let refused = |source| CaptureError::Io { what: "open this thread's network namespace", source };
    let namespace = wanted.netns.map(|_| File::open(netns::OF_THIS_THREAD)).transpose().map_err(refused)?;
    let is_our_qdisc = Rtnetlink::open()?.add_clsact(index)? || is_left_qdisc;
    let mut program_ids = Vec::new();
    for side in sides {
        let name = side.entry(wanted.entry);
        let program: &mut SchedClassifier = find(ebpf, &name)?;
        match clsact::attach(program, wanted.name, side.attach_type(), is_our_qdisc) {
            Ok(id) => program_ids.push(id),
            Err(error) => {
                // Half a capture point is worse than none.
                clsact::detach(index, &program_ids, is_our_qdisc)?;
                return Err(CaptureError::program(&name, error));
            }
        }
    }
    Ok(Hooks::Clsact { program_ids, is_our_qdisc, namespace })
}

fn find_index(name: &str, netns: Option<&Path>) -> Result<u32, CaptureError> {
    interface_index(name).map_err(|source| CaptureError::NoInterface {
        name: name.to_owned(),
        netns: netns::in_words(netns),
        source,
    })
}
