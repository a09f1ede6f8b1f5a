//! Legacy tc filters, for kernels below 6.6. Unlike links they outlive the daemon, so they are found again and
//! deleted by what the kernel says hangs on the interface, never by what this process remembers.
//!
//! Everything here works in the calling thread's network namespace.

use super::error::CaptureError;
use super::live::now;
use super::netlink::{Filter, Rtnetlink, Side};
use aya::maps::{Array, Map, MapData};
use aya::programs::tc::{NlOptions, TcAttachOptions, TcHandle};
use aya::programs::{SchedClassifier, TcAttachType, loaded_programs};
use mirror_common::{HEARTBEAT_STALE_NS, Live};

/// What the names of the tc programs start with.
const OWN_PREFIX: &str = "mirror_tc";
/// The handle of filters on a qdisc that we have made, so that whoever sweeps them knows that it may go with them.
const ON_OUR_QDISC: u32 = 0x6d69_7272;
const SIDES: [Side; 2] = [Side::Ingress, Side::Egress];

/// What [`sweep`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Swept {
    /// The qdisc was made by the daemon that left its filters behind.
    pub(crate) is_our_qdisc: bool,
    /// Another daemon has filters here, and lives, or did so less than [`HEARTBEAT_STALE_NS`] ago.
    pub(crate) is_shared: bool,
}

/// Attaches `program` as a filter in front of those that are there, and returns its program id. The filter
/// lets every later one run.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn attach(
    program: &mut SchedClassifier,
    interface: &str,
    side: TcAttachType,
    is_our_qdisc: bool,
) -> Result<u32, aya::programs::ProgramError> {
    let id = program.info()?.id();
    let handle = if is_our_qdisc { TcHandle::from(ON_OUR_QDISC) } else { TcHandle::AUTO_ASSIGN };
    let options = TcAttachOptions::Netlink(NlOptions { handle, ..NlOptions::default() });
    let link = program.attach_with_options(interface, side, options)?;
    // aya would detach in whatever namespace the dropping thread happens to be.
    std::mem::forget(program.take_link(link)?);
    Ok(id)
}

/// Deletes the filters of these programs, and the qdisc when `delete_qdisc` and nothing is left on it.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn detach(index: u32, programs: &[u32], delete_qdisc: bool) -> Result<(), CaptureError> {
    let rtnetlink = Rtnetlink::open()?;
    delete_where(&rtnetlink, index, |filter| filter.program_id.is_some_and(|id| programs.contains(&id)))?;
    if delete_qdisc && is_bare(&rtnetlink, index)? {
        rtnetlink.delete_clsact(index)?;
    }
    Ok(())
}

/// Deletes the filters that a daemon left behind when it was killed. One whose daemon still lives (its
/// heartbeat is fresh) stays, and so do those of `own` programs; where the heartbeat cannot be read for want of
/// privilege, it counts as stale.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn sweep(index: u32, own: &[u32]) -> Result<Swept, CaptureError> {
    let mut swept = Swept::default();
    delete_where(&Rtnetlink::open()?, index, |filter| {
        let is_mirror = filter.kind == "bpf" && filter.name.starts_with(OWN_PREFIX);
        if !is_mirror || filter.program_id.is_some_and(|id| own.contains(&id)) {
            return false;
        }
        let is_left = !filter.program_id.is_some_and(has_fresh_heartbeat);
        swept.is_shared |= !is_left;
        swept.is_our_qdisc |= is_left && filter.handle == ON_OUR_QDISC;
        is_left
    })?;
    Ok(swept)
}

/// Whether a daemon that lives has TCX programs on the interface, other than `own`.
pub(crate) fn is_shared_by_tcx(interface: &str, own: &[u32]) -> bool {
    [TcAttachType::Ingress, TcAttachType::Egress].into_iter().any(|side| {
        // A kernel without TCX has none.
        let programs = SchedClassifier::query_tcx(interface, side).map(|(_, programs)| programs);
        programs.unwrap_or_default().iter().any(|program| {
            program.name_as_str().is_some_and(|name| name.starts_with(OWN_PREFIX))
                && !own.contains(&program.id())
                && has_fresh_heartbeat(program.id())
        })
    })
}

fn delete_where(
    rtnetlink: &Rtnetlink,
    index: u32,
    mut is_meant: impl FnMut(&Filter) -> bool,
) -> Result<(), CaptureError> {
    for side in SIDES {
        for filter in rtnetlink.filters(index, side)?.iter().filter(|filter| is_meant(filter)) {
            rtnetlink.delete_filter(index, side, filter)?;
        }
    }
    Ok(())
}

fn is_bare(rtnetlink: &Rtnetlink, index: u32) -> Result<bool, CaptureError> {
    for side in SIDES {
        if !rtnetlink.filters(index, side)?.is_empty() {
            return Ok(false);
        }
    }
    Ok(true)
}

fn has_fresh_heartbeat(program_id: u32) -> bool {
    heartbeat_ns(program_id).is_some_and(|beat_ns| now().0.saturating_sub(beat_ns) <= HEARTBEAT_STALE_NS)
}

/// The heartbeat that this program looks at.
///
/// Entry points use it after the map of their bodies, which must not be opened: whoever opens and closes a map of
/// programs in the moment after its daemon was killed makes the kernel keep it until it boots, for
/// `prog_array_map_clear` takes a reference each time the last descriptor goes, and gives back one for both when its
/// work is queued already. So from the end, and no further than needed.
fn heartbeat_ns(program_id: u32) -> Option<u64> {
    let program = loaded_programs().filter_map(Result::ok).find(|info| info.id() == program_id)?;
    let map = program.map_ids().ok()??.into_iter().rev().find_map(|id| {
        let map = MapData::from_id(id).ok()?;
        let is_live = map.info().ok()?.name_as_str() == Some("LIVE");
        is_live.then_some(map)
    })?;
    let live: Array<MapData, Live> = Map::Array(map).try_into().ok()?;
    Some(live.get(&0, 0).ok()?.heartbeat_ns)
}
