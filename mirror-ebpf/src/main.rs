//! The kernel programs. They copy what passes and never decide: every path lets the packet go on.
//!
//! A program cannot ask which capture point it is attached to (interface indexes repeat in every network
//! namespace, and `bpf_get_netns_cookie` came to tc with 6.13), so each point has entry points of its own,
//! which pass its number to the one body. Only those in use are loaded.
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
mod maps;
mod parse;
mod sockops;

use aya_ebpf::{
    macros::{cgroup_skb, classifier, sock_ops},
    programs::{SkBuffContext, SockOpsContext, TcContext},
};
use capture::{EGRESS, INGRESS};

/// `TC_ACT_UNSPEC`, `TCX_NEXT`: on both kinds of attachment the only verdict after which later programs run.
const TC_NEXT: i32 = -1;
/// `cgroup_skb`: 1 passes, 0 would drop the packet.
const CGROUP_PASS: i32 = 1;
/// `sock_ops`: 1 keeps the replies of other programs.
const SOCK_OPS_OK: u32 = 1;

/// None of the helpers used is reserved for GPL programs.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
pub static LICENSE: [u8; 11] = *b"Apache-2.0\0";

/// The entry points of each capture point:
/// - tc ingress and egress: `int tcf_classify / tcx_run(struct sk_buff *)`, clsact since 4.5, TCX since 6.6;
/// - `cgroup_skb` ingress and egress: `__cgroup_bpf_run_filter_skb`, since 4.10;
/// - `sock_ops`: `__cgroup_bpf_run_filter_sock_ops`, since 4.13.
macro_rules! capture_points {
    ($($point:literal => $tci:ident $tce:ident $cgi:ident $cge:ident $ops:ident;)*) => {$(
        #[classifier]
        pub fn $tci(ctx: TcContext) -> i32 {
            capture::capture(ctx.skb.skb, $point, INGRESS);
            TC_NEXT
        }
        #[classifier]
        pub fn $tce(ctx: TcContext) -> i32 {
            capture::capture(ctx.skb.skb, $point, EGRESS);
            TC_NEXT
        }
        #[cgroup_skb]
        pub fn $cgi(ctx: SkBuffContext) -> i32 {
            capture::capture(ctx.skb.skb, $point, INGRESS);
            CGROUP_PASS
        }
        #[cgroup_skb]
        pub fn $cge(ctx: SkBuffContext) -> i32 {
            capture::capture(ctx.skb.skb, $point, EGRESS);
            CGROUP_PASS
        }
        #[sock_ops]
        pub fn $ops(ctx: SockOpsContext) -> u32 {
            sockops::watch(ctx.ops, $point);
            SOCK_OPS_OK
        }
    )*};
}

/// Watches the gateway's cgroups where the capture points are interfaces.
#[sock_ops]
pub fn mirror_ops_0(ctx: SockOpsContext) -> u32 {
    sockops::watch(ctx.ops, mirror_common::ANY_POINT);
    SOCK_OPS_OK
}

capture_points! {
    1 => mirror_tci_1 mirror_tce_1 mirror_cgi_1 mirror_cge_1 mirror_ops_1;
    2 => mirror_tci_2 mirror_tce_2 mirror_cgi_2 mirror_cge_2 mirror_ops_2;
    3 => mirror_tci_3 mirror_tce_3 mirror_cgi_3 mirror_cge_3 mirror_ops_3;
    4 => mirror_tci_4 mirror_tce_4 mirror_cgi_4 mirror_cge_4 mirror_ops_4;
    5 => mirror_tci_5 mirror_tce_5 mirror_cgi_5 mirror_cge_5 mirror_ops_5;
    6 => mirror_tci_6 mirror_tce_6 mirror_cgi_6 mirror_cge_6 mirror_ops_6;
    7 => mirror_tci_7 mirror_tce_7 mirror_cgi_7 mirror_cge_7 mirror_ops_7;
    8 => mirror_tci_8 mirror_tce_8 mirror_cgi_8 mirror_cge_8 mirror_ops_8;
    9 => mirror_tci_9 mirror_tce_9 mirror_cgi_9 mirror_cge_9 mirror_ops_9;
    10 => mirror_tci_10 mirror_tce_10 mirror_cgi_10 mirror_cge_10 mirror_ops_10;
    11 => mirror_tci_11 mirror_tce_11 mirror_cgi_11 mirror_cge_11 mirror_ops_11;
    12 => mirror_tci_12 mirror_tce_12 mirror_cgi_12 mirror_cge_12 mirror_ops_12;
    13 => mirror_tci_13 mirror_tce_13 mirror_cgi_13 mirror_cge_13 mirror_ops_13;
    14 => mirror_tci_14 mirror_tce_14 mirror_cgi_14 mirror_cge_14 mirror_ops_14;
    15 => mirror_tci_15 mirror_tce_15 mirror_cgi_15 mirror_cge_15 mirror_ops_15;
    16 => mirror_tci_16 mirror_tce_16 mirror_cgi_16 mirror_cge_16 mirror_ops_16;
}

/// Never reached: the programs are built without unwinding and the verifier would refuse a path to it.
#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
