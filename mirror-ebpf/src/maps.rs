//! The maps. User space finds them by these names (`mirror-daemon/src/capture/load.rs`).

use aya_ebpf::{
    bindings::{bpf_map_def, bpf_map_type::BPF_MAP_TYPE_CGROUP_STORAGE},
    helpers::generated::bpf_get_local_storage,
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, ProgramArray, RingBuf},
};
use core::cell::UnsafeCell;
use mirror_common::{
    ANY_POINT, CONTROL_RING_BYTES, ExcludedKey, FlowKey, FlowVerdict, KernelCounter, KernelCounters,
    KernelSettings, Live, MAX_CAPTURE_POINTS, MAX_EXCLUDED, MAX_INTERFACE_POINTS, MAX_SHARDS, PointSettings,
    ReaderState,
};

/// The smallest ring; user space gives those in use their real size when it loads the programs.
const UNUSED_RING_BYTES: u32 = 4096;

/// The smallest flow map; user space gives those in use their real size when it loads the programs.
const UNUSED_FLOWS: u32 = 1;

#[map]
pub(crate) static RING_0: RingBuf = RingBuf::with_byte_size(UNUSED_RING_BYTES, 0);
#[map]
pub(crate) static RING_1: RingBuf = RingBuf::with_byte_size(UNUSED_RING_BYTES, 0);
#[map]
pub(crate) static RING_2: RingBuf = RingBuf::with_byte_size(UNUSED_RING_BYTES, 0);
#[map]
pub(crate) static RING_3: RingBuf = RingBuf::with_byte_size(UNUSED_RING_BYTES, 0);

/// Opens, closes and loss marks.
#[map]
pub(crate) static CONTROL: RingBuf = RingBuf::with_byte_size(CONTROL_RING_BYTES, 0);

/// One [`ReaderState`] per data ring.
#[map]
pub(crate) static READERS: Array<ReaderState> = Array::with_max_entries(MAX_SHARDS as u32, 0);

#[map]
pub(crate) static SETTINGS: Array<KernelSettings> = Array::with_max_entries(1, 0);

#[map]
pub(crate) static LIVE: Array<Live> = Array::with_max_entries(1, 0);

/// By [`PointSettings::place_of`].
#[map]
static POINTS: Array<PointSettings> = Array::with_max_entries(MAX_CAPTURE_POINTS as u32, 0);

/// By cgroup: the number of its capture point, [`ANY_POINT`] until user space has said it.
#[map]
static CGROUPS: CgroupStorage = CgroupStorage::new();

/// By entry point, of which the first is 1: the number of its capture point, or [`ANY_POINT`].
#[map]
static INTERFACES: Array<u32> = Array::with_max_entries(MAX_INTERFACE_POINTS as u32 + 1, 0);

/// By side: the program that all tc entry points of that side go on to.
#[map]
pub(crate) static BODIES: ProgramArray = ProgramArray::with_max_entries(2, 0);

/// The entry point that this CPU came by.
#[map]
pub(crate) static ENTERED: PerCpuArray<u32> = PerCpuArray::with_max_entries(1, 0);

#[map]
pub(crate) static COUNTERS: PerCpuArray<KernelCounters> = PerCpuArray::with_max_entries(1, 0);

/// Counters that are chosen at run time, by [`KernelCounter`]. Arithmetic on a pointer into [`COUNTERS`] with a
/// number from several paths would need CAP_PERFMON, a look-up does not. User space adds both up.
#[map]
pub(crate) static REASONS: PerCpuArray<u64> = PerCpuArray::with_max_entries(KernelCounter::COUNT as u32, 0);

/// What is still wanted of a flow; written by user space, cleared by a SYN.
#[map]
pub(crate) static VERDICTS: LruHashMap<FlowKey, FlowVerdict> = LruHashMap::with_max_entries(UNUSED_FLOWS, 0);

/// The gateway's own flows, as `sockops` saw them open; the value is unused.
#[map]
pub(crate) static FLOWS: LruHashMap<FlowKey, u32> = LruHashMap::with_max_entries(UNUSED_FLOWS, 0);

#[map]
pub(crate) static EXCLUDED: HashMap<ExcludedKey, u32> = HashMap::with_max_entries(MAX_EXCLUDED as u32, 0);

/// The number of the capture point that is the cgroup where the running program is attached; [`ANY_POINT`]: none yet.
#[inline(always)]
pub(crate) fn point_of_cgroup() -> u32 {
    // SAFETY: storage is there before the program is, and user space replaces it as a whole.
    unsafe { CGROUPS.here().read_volatile() }
}

/// The number of the capture point whose entry point this CPU came by; [`ANY_POINT`]: none.
#[inline(always)]
pub(crate) fn point_of_interface() -> u32 {
    let entry = ENTERED.get(0).copied().unwrap_or(ANY_POINT);
    INTERFACES.get(entry).copied().unwrap_or(ANY_POINT)
}

/// What user space says of a capture point; `None` when it is gone, or there is none.
#[inline(always)]
pub(crate) fn point(number: u32) -> Option<PointSettings> {
    let place = *POINTS.get(PointSettings::place_of(number))?;
    (number != ANY_POINT && place.number == number).then_some(place)
}

/// One number for each cgroup, whichever of the programs is attached there. The kernel makes the entry when the
/// first of them is attached, and keeps it for as long as cgroup and map live.
///
/// `BPF_MAP_TYPE_CGROUP_STORAGE` is as old as 4.19; with the cgroup's id alone as the key, all programs and attach
/// types share the entry (5.9). Its successor, `BPF_MAP_TYPE_CGRP_STORAGE`, is younger (6.2), and goes by a cgroup
/// pointer, which a packet's program does not have.
#[repr(transparent)]
struct CgroupStorage(UnsafeCell<bpf_map_def>);

// SAFETY: only the kernel looks behind the address, and what is there never changes.
unsafe impl Sync for CgroupStorage {}

impl CgroupStorage {
    const fn new() -> Self {
        Self(UnsafeCell::new(bpf_map_def {
            type_: BPF_MAP_TYPE_CGROUP_STORAGE,
            key_size: size_of::<u64>() as u32,
            value_size: size_of::<u32>() as u32,
            // The kernel wants 0.
            max_entries: 0,
            map_flags: 0,
            id: 0,
            pinning: 0,
        }))
    }

    /// The number in the storage of the cgroup that the running program is attached to (not: that of the packet's
    /// socket, which may be one below it).
    #[inline(always)]
    fn here(&self) -> *const u32 {
        // SAFETY: a map of the kind that the helper wants; it never fails.
        unsafe { bpf_get_local_storage(self.0.get().cast(), 0) }.cast()
    }
}

/// This CPU's counters.
#[derive(Clone, Copy)]
pub(crate) struct Books(*mut KernelCounters);

impl Books {
    /// `None` never happens; the verifier wants it looked at.
    #[inline(always)]
    pub(crate) fn open() -> Option<Self> {
        COUNTERS.get_ptr_mut(0).map(Self)
    }

    /// Adds `amount` to a counter that is a constant where this is called.
    #[inline(always)]
    pub(crate) fn add(self, counter: KernelCounter, amount: u64) {
        // SAFETY: the pointer is a live per-CPU array value, and the index is below its length.
        unsafe { add((&raw mut (*self.0).counts).cast::<u64>().add(counter as usize), amount) };
    }

    /// Adds `amount` to whichever counter.
    #[inline(always)]
    pub(crate) fn add_to_reason(counter: KernelCounter, amount: u64) {
        if let Some(slot) = REASONS.get_ptr_mut(counter as u32) {
            // SAFETY: a live per-CPU array value.
            unsafe { add(slot, amount) };
        }
    }

    /// The count so far.
    #[inline(always)]
    pub(crate) fn count(self, counter: KernelCounter) -> u64 {
        // SAFETY: the pointer is a live per-CPU array value; the index is below its length.
        unsafe { (&raw const (*self.0).counts).cast::<u64>().add(counter as usize).read_volatile() }
    }
}

/// Atomic, for a `cgroup_skb` program in process context can be interrupted on its own CPU by another in softirq.
/// `AtomicU64` has no `fetch_add` on this target.
///
/// # Safety
/// `slot` is a live map value.
#[inline(always)]
unsafe fn add(slot: *mut u64, amount: u64) {
    // SAFETY: the caller's; the one instruction (`BPF_ATOMIC | BPF_ADD`, in every version of BPF) writes nothing
    // else.
    unsafe {
        core::arch::asm!("lock *(u64 *)({slot} + 0) += {amount}", slot = in(reg) slot, amount = in(reg) amount);
    }
}

/// The data ring of `shard`.
#[inline(always)]
pub(crate) fn data_ring(shard: u32) -> &'static RingBuf {
    match shard {
        0 => &RING_0,
        1 => &RING_1,
        2 => &RING_2,
        _ => &RING_3,
    }
}
