//! Legacy tc filters, for kernels below 6.6. Unlike links they outlive the daemon, so they are found again and
//! deleted by what the kernel says hangs on the interface, never by what this process remembers.
//!
//! Everything here works in the calling thread's network namespace.

use super::error::CaptureError;
use super::live::now;
use super::netlink::{Filter, Rtnetlink, Side};
use aya::maps::{Array, Map, MapData};
use aya::programs::tc::{NlOptions, TcAttachOptions};
use aya::programs::{SchedClassifier, TcAttachType, loaded_programs};
use mirror_common::{HEARTBEAT_STALE_NS, Live};

/// What the names of the tc programs start with.
const OWN_PREFIX: &str = "mirror_tc";
const SIDES: [Side; 2] = [Side::Ingress, Side::Egress];

/// Attaches `program` as a filter in front of those that are there, and returns its program id. The filter
/// lets every later one run.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn attach(
    program: &mut SchedClassifier,
    interface: &str,
    side: TcAttachType,
) -> Result<u32, aya::programs::ProgramError> {
    let id = program.info()?.id();
    let options = TcAttachOptions::Netlink(NlOptions::default());
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
/// heartbeat is fresh) stays; where the heartbeat cannot be read for want of privilege, it counts as stale.
/// Returns how many were deleted.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn sweep(index: u32) -> Result<usize, CaptureError> {
    delete_where(&Rtnetlink::open()?, index, |filter| {
        filter.kind == "bpf"
            && filter.name.starts_with(OWN_PREFIX)
            && !filter.program_id.is_some_and(has_fresh_heartbeat)
    })
}

fn delete_where(
    rtnetlink: &Rtnetlink,
    index: u32,
    mut is_meant: impl FnMut(&Filter) -> bool,
) -> Result<usize, CaptureError> {
    let mut deleted = 0_usize;
    for side in SIDES {
        for filter in rtnetlink.filters(index, side)?.iter().filter(|filter| is_meant(filter)) {
            rtnetlink.delete_filter(index, side, filter)?;
            deleted = deleted.saturating_add(1);
        }
    }
    Ok(deleted)
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
fn heartbeat_ns(program_id: u32) -> Option<u64> {
    let program = loaded_programs().filter_map(Result::ok).find(|info| info.id() == program_id)?;
    program.map_ids().ok()??.into_iter().find_map(|id| {
        let map = MapData::from_id(id).ok()?;
        if map.info().ok()?.name_as_str() != Some("LIVE") {
            return None;
        }
        let live: Array<MapData, Live> = Map::Array(map).try_into().ok()?;
        Some(live.get(&0, 0).ok()?.heartbeat_ns)
    })
}
