//! From a segment to records in a data ring.

use crate::maps::{self, Books};
use aya_ebpf::{
    bindings::{__sk_buff, BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::generated::{bpf_get_prandom_u32, bpf_skb_load_bytes},
};
use mirror_common::{
    ControlKind, ControlRecord, FORCED_WAKE_UP_GAP_NS, KernelCounter, KernelSettings,
    LOSS_MARK_WAITING_BYTES, LossReason, MAX_PIECE_BYTES, MAX_PIECES, ReaderState, RecordHeader,
};

/// Where a segment's payload lies and where it is to go.
pub(crate) struct Emission<'a> {
    pub(crate) skb: *mut __sk_buff,
    pub(crate) payload_offset: u32,
    pub(crate) settings: &'a KernelSettings,
    pub(crate) books: Books,
}

/// Copies the first `wanted_bytes` of the payload that `header` describes, in pieces. With 0, the header
/// alone goes out.
#[inline(always)]
pub(crate) fn segment(to: &Emission<'_>, header: &mut RecordHeader, wanted_bytes: u32) {
    header.piece_bytes = wanted_bytes;
    let told = if wanted_bytes <= MAX_PIECE_BYTES {
        piece(to, header, tier(wanted_bytes))
    } else {
        pieces(to, header, wanted_bytes)
    };
    if let Err(reason) = told {
        lost(to, header, wanted_bytes - header.offset_bytes, reason);
    }
}

/// More than one piece. `header.offset_bytes` is left at the first byte that was not handed over.
#[inline(always)]
fn pieces(to: &Emission<'_>, header: &mut RecordHeader, wanted_bytes: u32) -> Result<(), LossReason> {
    let mut rest_bytes = wanted_bytes;
    for _ in 0..MAX_PIECES {
        if rest_bytes <= MAX_PIECE_BYTES {
            header.piece_bytes = rest_bytes;
            return piece(to, header, coarse_tier(rest_bytes));
        }
        header.piece_bytes = MAX_PIECE_BYTES;
        piece(to, header, MAX_PIECE_BYTES)?;
        header.offset_bytes += MAX_PIECE_BYTES;
        rest_bytes -= MAX_PIECE_BYTES;
    }
    to.books.add(KernelCounter::BeyondPiecesBytes, u64::from(rest_bytes));
    Ok(())
}

/// Books bytes that could not be handed over, and tells user space which they are.
#[inline(always)]
pub(crate) fn lost(to: &Emission<'_>, header: &RecordHeader, bytes: u32, reason: LossReason) {
    let counter = match reason {
        LossReason::RingFull => KernelCounter::RingFullBytes,
        LossReason::Shed => KernelCounter::ShedBytes,
        LossReason::LoadFailed => KernelCounter::LoadFailedBytes,
    };
    Books::add_to_reason(counter, u64::from(bytes));
    if maps::CONTROL.query(u64::from(BPF_RB_AVAIL_DATA)) > LOSS_MARK_WAITING_BYTES {
        to.books.add(KernelCounter::ControlFull, 1);
        return;
    }
    control(
        to.books,
        &ControlRecord {
            flow: header.flow,
            at_ns: header.captured_ns,
            seq: header.seq.wrapping_add(header.offset_bytes),
            bytes,
            kind: ControlKind::Lost as u32,
            direction: u16::from(header.direction),
            reason: reason as u16,
        },
    );
}

/// Writes one record of the control ring. Default wake-ups: the kernel only wakes a reader that has caught up.
#[inline(always)]
pub(crate) fn control(books: Books, record: &ControlRecord) {
    let Some(slot) = maps::CONTROL.reserve_bytes(size_of::<ControlRecord>(), 0) else {
        books.add(KernelCounter::ControlFull, 1);
        return;
    };
    let mut slot = slot;
    // SAFETY: the reservation has the record's size, and reservations are aligned to 8 bytes.
    unsafe { write_words(slot.as_mut_ptr(), record) };
    slot.submit(0);
}

/// Hands one record over: `header`, and the `piece_bytes` bytes of payload at its `offset_bytes`, in a
/// reservation for `tier_bytes`.
#[inline(always)]
fn piece(to: &Emission<'_>, header: &mut RecordHeader, tier_bytes: u32) -> Result<(), LossReason> {
    let bytes = header.piece_bytes;
    to.books.add(KernelCounter::TriedRecords, 1);
    header.record_number = to.books.count(KernelCounter::TriedRecords) as u32;
    if dropped_on_purpose(to.settings) {
        to.books.add(KernelCounter::TestDroppedRecords, 1);
        to.books.add(KernelCounter::TestDroppedBytes, u64::from(bytes));
        return Ok(());
    }
    let ring = maps::data_ring(u32::from(header.shard));
    let waiting_bytes = ring.query(u64::from(BPF_RB_AVAIL_DATA));
    let Some(mut slot) = ring.reserve_bytes(RecordHeader::BYTES + tier_bytes as usize, 0) else {
        to.books.add(KernelCounter::RingFullRecords, 1);
        return Err(LossReason::RingFull);
    };
    let start = slot.as_mut_ptr();
    // SAFETY: the reservation holds at least a header, and reservations are aligned to 8 bytes.
    unsafe { write_words(start, header) };
    // Read back, the shard is an unknown number to the verifier, which knows it since it chose the ring. So
    // from here on, for all rings alike, it walks one path and not four.
    // SAFETY: the record was written above.
    header.shard = unsafe { (&raw const (*start.cast::<RecordHeader>()).shard).read_volatile() };
    if bytes != 0 {
        // LLVM must not know that this is bounded by the tier: it would remove the comparison that the verifier
        // needs to see. And verifiers before 6.8 learn nothing from `bytes != 0`, but from the sum.
        let last = core::hint::black_box(bytes - 1);
        let offset = to.payload_offset + header.offset_bytes;
        // SAFETY: the reservation holds a header and `tier_bytes` more.
        let loaded = last < tier_bytes
            && unsafe {
                let room = start.add(RecordHeader::BYTES);
                bpf_skb_load_bytes(to.skb.cast(), offset, room.cast(), last + 1) == 0
            };
        if !loaded {
            slot.discard(u64::from(BPF_RB_NO_WAKEUP));
            return Err(LossReason::LoadFailed);
        }
    }
    slot.submit(wake_up(to, header, waiting_bytes));
    to.books.add(KernelCounter::Records, 1);
    to.books.add(KernelCounter::CopiedBytes, u64::from(bytes));
    Ok(())
}

/// Copies a record word by word. An ordinary copy would become a call of `memmove`, byte by byte.
///
/// # Safety
/// `to` has room for a `T` and is aligned to 8 bytes, as `T` is.
#[inline(always)]
unsafe fn write_words<T: Copy>(to: *mut u8, record: &T) {
    const { assert!(align_of::<T>() == 8) };
    let words = core::ptr::from_ref(record).cast::<u64>();
    let mut index = 0;
    while index < size_of::<T>() / 8 {
        // SAFETY: within both, by the caller's word and the bound above.
        unsafe { to.cast::<u64>().add(index).write_volatile(words.add(index).read_volatile()) };
        index += 1;
    }
}

/// The payload room of the smallest record that holds `bytes`. `reserve` wants constants; each step costs the
/// verifier one more path, each missing step costs ring space.
#[inline(always)]
fn tier(bytes: u32) -> u32 {
    smallest(bytes, &[0, 128, 256, 512, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12_288])
}

/// As [`tier`], for the last of several pieces, where the verifier walks every path once for each number of
/// pieces before it.
#[inline(always)]
fn coarse_tier(bytes: u32) -> u32 {
    smallest(bytes, &[4096, 8192])
}

#[inline(always)]
fn smallest<const N: usize>(bytes: u32, tiers: &[u32; N]) -> u32 {
    let mut index = 0;
    while index < N {
        if bytes <= tiers[index] {
            // Opaque, so that LLVM keeps the branches and makes no table of them.
            return core::hint::black_box(tiers[index]);
        }
        index += 1;
    }
    MAX_PIECE_BYTES
}

/// How to submit: without a wake-up, which is the main cost of a record, unless the reader sleeps or too much
/// waits for it.
#[inline(always)]
fn wake_up(to: &Emission<'_>, header: &RecordHeader, waiting_bytes: u64) -> u64 {
    let Some(state) = maps::READERS.get_ptr_mut(u32::from(header.shard)) else {
        return u64::from(BPF_RB_NO_WAKEUP);
    };
    let too_much_waits = waiting_bytes >= u64::from(to.settings.wake_up_bytes);
    if !must_wake(state, too_much_waits, header.captured_ns) {
        return u64::from(BPF_RB_NO_WAKEUP);
    }
    to.books.add(KernelCounter::WakeUps, 1);
    u64::from(BPF_RB_FORCE_WAKEUP)
}

#[inline(always)]
fn must_wake(state: *mut ReaderState, too_much_waits: bool, now_ns: u64) -> bool {
    // SAFETY: a live array value. Two CPUs may race here: then the reader is woken twice.
    unsafe {
        if (&raw const (*state).sleeping).read_volatile() != 0 {
            (&raw mut (*state).sleeping).write_volatile(0);
            return true;
        }
        let last_ns = (&raw const (*state).forced_wake_up_ns).read_volatile();
        if !too_much_waits || now_ns.wrapping_sub(last_ns) < FORCED_WAKE_UP_GAP_NS {
            return false;
        }
        (&raw mut (*state).forced_wake_up_ns).write_volatile(now_ns);
    }
    true
}

#[inline(always)]
fn dropped_on_purpose(settings: &KernelSettings) -> bool {
    let one_in = settings.drop_one_in;
    if one_in == 0 {
        return false;
    }
    // SAFETY: a helper without arguments.
    unsafe { bpf_get_prandom_u32() }.checked_rem(one_in) == Some(0)
}
