//! Bad weather for tests: a classifier on a receiver's ingress that loses, doubles and delays segments by chance.
//!
//! Loss here is true loss: the sender sees no acknowledgement and sends again. (Loss on a sender's egress is
//! reported to its TCP, which hides it.) Never part of the daemon.
#![no_std]
#![no_main]
#![allow(unsafe_code, reason = "kernel programs; every block says why it is sound")]
#![allow(unreachable_pub, missing_docs, reason = "entry points are found by name in the object file")]

use aya_ebpf::{
    helpers::{bpf_clone_redirect, bpf_get_prandom_u32},
    macros::{classifier, map},
    maps::{Array, PerCpuArray},
    programs::TcContext,
};

/// What to do: one segment in so many is lost, doubled, delayed; 0: none.
#[map]
static FORECAST: Array<[u32; 3]> = Array::with_max_entries(1, 0);

/// How many were lost, doubled, delayed.
#[map]
static FALLEN: PerCpuArray<[u64; 3]> = PerCpuArray::with_max_entries(1, 0);

/// `TC_ACT_UNSPEC`, `TCX_NEXT`: later programs run.
const NEXT: i32 = -1;
/// `TC_ACT_SHOT`, `TCX_DROP`.
const DROP: i32 = 2;
const BPF_F_INGRESS: u64 = 1;
/// Marks the copies that come in a second time, so that nothing happens to them again.
const SECOND_TIME: u32 = 0x7e57;
/// Frames of no more than this are ARP: a connection that finds no neighbour proves nothing.
const ARP_BYTES: u32 = 60;

/// None of the helpers used is reserved for GPL programs.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
pub static LICENSE: [u8; 11] = *b"Apache-2.0\0";

/// `int tcf_classify / tcx_run(struct sk_buff *)`, clsact since 4.5, TCX since 6.6.
#[classifier]
pub fn weather(ctx: TcContext) -> i32 {
    let skb = ctx.skb.skb;
    // SAFETY: the kernel hands a valid context over; the verifier checks each access.
    let (mark, bytes, index) = unsafe { ((*skb).mark, (*skb).len, (*skb).ifindex) };
    let Some(forecast) = FORECAST.get(0) else { return NEXT };
    if mark == SECOND_TIME || bytes <= ARP_BYTES {
        return NEXT;
    }
    if happens(forecast[0]) {
        count(0);
        return DROP;
    }
    let (is_doubled, is_delayed) = (happens(forecast[1]), happens(forecast[2]));
    if !is_doubled && !is_delayed {
        return NEXT;
    }
    ctx.set_mark(SECOND_TIME);
    // SAFETY: the context is valid; the copy goes to the end of this CPU's backlog, behind what waits there.
    let refused = unsafe { bpf_clone_redirect(skb, index, BPF_F_INGRESS) } != 0;
    ctx.set_mark(mark);
    if refused {
        return NEXT;
    }
    count(if is_delayed { 2 } else { 1 });
    if is_delayed { DROP } else { NEXT }
}

#[inline(always)]
fn happens(one_in: u32) -> bool {
    // SAFETY: a helper without arguments.
    one_in != 0 && unsafe { bpf_get_prandom_u32() }.checked_rem(one_in) == Some(0)
}

#[inline(always)]
fn count(what: usize) {
    let Some(counts) = FALLEN.get_ptr_mut(0) else { return };
    // SAFETY: the slot belongs to this CPU, on which nothing else runs this program meanwhile.
    if let Some(count) = unsafe { &mut *counts }.get_mut(what) {
        *count = count.wrapping_add(1);
    }
}

/// Never reached: the programs are built without unwinding and the verifier would refuse a path to it.
#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
