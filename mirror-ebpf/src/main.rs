//! The kernel programs. They copy what passes and never decide: every path lets the packet go on.
//!
//! How a program knows its capture point's number:
//! - on a cgroup, from the storage of the cgroup that it is attached to (`maps.rs`): one program for all cgroups;
//! - on an interface it cannot ask (interface indexes repeat in every network namespace, and `bpf_get_netns_cookie`
//!   came to tc with 6.13), so each has small entry points of its own (`entries.rs`), which note which they are and
//!   go on to one body by a tail call. So only the body is large, and it is verified once.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![allow(unsafe_code, reason = "kernel programs; every block says why it is sound")]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    reason = "the verifier proves every access; BPF arithmetic cannot trap"
)]
#![allow(
    clippy::needless_borrows_for_generic_args,
    reason = "a key that is handed over by value is copied on the program's small stack"
)]
#![allow(unreachable_pub, missing_docs, reason = "entry points are found by name in the object file")]

mod capture;
mod emit;
mod entries;
mod maps;
mod parse;
mod sockops;

use aya_ebpf::{
    macros::{cgroup_skb, classifier, sock_ops},
    programs::{SkBuffContext, SockOpsContext, TcContext},
};
use capture::{EGRESS, INGRESS};
use mirror_common::ANY_POINT;

/// `TC_ACT_UNSPEC`, `TCX_NEXT`: on both kinds of attachment the only verdict after which later programs run.
pub(crate) const TC_NEXT: i32 = -1;
/// `cgroup_skb`: 1 passes, 0 would drop the packet.
const CGROUP_PASS: i32 = 1;
/// `sock_ops`: 1 keeps the replies of other programs.
const SOCK_OPS_OK: u32 = 1;

/// None of the helpers used is reserved for GPL programs.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
pub static LICENSE: [u8; 11] = *b"Apache-2.0\0";

/// `int tcf_classify / tcx_run(struct sk_buff *)`, clsact since 4.5, TCX since 6.6; reached by [`entries`] alone.
#[classifier]
pub fn mirror_tci(ctx: TcContext) -> i32 {
    capture::capture(ctx.skb.skb, maps::point_of_interface(), INGRESS);
    TC_NEXT
}

/// As [`mirror_tci`].
#[classifier]
pub fn mirror_tce(ctx: TcContext) -> i32 {
    capture::capture(ctx.skb.skb, maps::point_of_interface(), EGRESS);
    TC_NEXT
}

/// `int __cgroup_bpf_run_filter_skb(struct sock *, struct sk_buff *, enum cgroup_bpf_attach_type)`, since 4.10; by
/// link since 5.7.
#[cgroup_skb]
pub fn mirror_cgi(ctx: SkBuffContext) -> i32 {
    capture::capture(ctx.skb.skb, maps::point_of_cgroup(), INGRESS);
    CGROUP_PASS
}

/// As [`mirror_cgi`].
#[cgroup_skb]
pub fn mirror_cge(ctx: SkBuffContext) -> i32 {
    capture::capture(ctx.skb.skb, maps::point_of_cgroup(), EGRESS);
    CGROUP_PASS
}

/// On cgroups that are capture points: `int __cgroup_bpf_run_filter_sock_ops(struct sock *, struct bpf_sock_ops_kern *,
/// enum cgroup_bpf_attach_type)`, since 4.13; by link since 5.7.
#[sock_ops]
pub fn mirror_ops(ctx: SockOpsContext) -> u32 {
    let point = maps::point_of_cgroup();
    if point != ANY_POINT {
        sockops::watch(ctx.ops, point);
    }
    SOCK_OPS_OK
}

/// As [`mirror_ops`], on the gateway's cgroups where the capture points are interfaces.
#[sock_ops]
pub fn mirror_ops_any(ctx: SockOpsContext) -> u32 {
    sockops::watch(ctx.ops, ANY_POINT);
    SOCK_OPS_OK
}

/// Never reached: the programs are built without unwinding and the verifier would refuse a path to it.
#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
