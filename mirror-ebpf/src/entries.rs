//! The tc entry points, one for each side of an interface: they differ in nothing but the number that they note.
//!
//! Between the note and the body's look at it nothing else runs on the CPU: tc programs run with softirqs off, at
//! ingress (`sch_handle_ingress`) and at egress (`sch_handle_egress`, from `__dev_queue_xmit`). Only a PREEMPT_RT kernel
//! without the lock on softirqs (optional since 6.18) may switch to another packet there: that segment would be told
//! at the other point, where it belongs to no connection, and be missing at its own, as a lost one is.

use crate::{
    TC_NEXT,
    capture::{self, EGRESS, INGRESS},
    maps::{self, Books},
};
use aya_ebpf::{helpers::generated::bpf_ktime_get_ns, macros::classifier, programs::TcContext};
use mirror_common::{KernelCounter, MAX_INTERFACE_POINTS};

/// Returns only when there is no body any more: then its daemon is gone, and has left this on a clsact qdisc.
#[inline(always)]
fn enter(ctx: &TcContext, entry: u32, side: u32) {
    if let Some(note) = maps::ENTERED.get_ptr_mut(0) {
        // SAFETY: a live per-CPU array value.
        unsafe { note.write_volatile(entry) };
        // SAFETY: nothing here needs to be dropped, and the context is this program's own.
        unsafe { maps::BODIES.tail_call(ctx, side) };
    }
    // Here last, for by this map the next daemon knows whose this is, and looks through a program's maps from the end:
    // it must not open that of the bodies (`clsact.rs`).
    // SAFETY: a helper without arguments.
    let counter = capture::live(unsafe { bpf_ktime_get_ns() }).err().unwrap_or(KernelCounter::Stalled);
    Books::add_to_reason(counter, 1);
}

macro_rules! entries {
    ($($entry:literal => $ingress:ident $egress:ident;)*) => {
        const _: () = assert!([$($entry),*].len() == MAX_INTERFACE_POINTS);
        $(
            #[classifier]
            pub fn $ingress(ctx: TcContext) -> i32 {
                enter(&ctx, $entry, INGRESS);
                TC_NEXT
            }
            #[classifier]
            pub fn $egress(ctx: TcContext) -> i32 {
                enter(&ctx, $entry, EGRESS);
                TC_NEXT
            }
        )*
    };
}

entries! {
    1 => mirror_tci_1 mirror_tce_1;
    2 => mirror_tci_2 mirror_tce_2;
    3 => mirror_tci_3 mirror_tce_3;
    4 => mirror_tci_4 mirror_tce_4;
    5 => mirror_tci_5 mirror_tce_5;
    6 => mirror_tci_6 mirror_tce_6;
    7 => mirror_tci_7 mirror_tce_7;
    8 => mirror_tci_8 mirror_tce_8;
    9 => mirror_tci_9 mirror_tce_9;
    10 => mirror_tci_10 mirror_tce_10;
    11 => mirror_tci_11 mirror_tce_11;
    12 => mirror_tci_12 mirror_tce_12;
    13 => mirror_tci_13 mirror_tce_13;
    14 => mirror_tci_14 mirror_tce_14;
    15 => mirror_tci_15 mirror_tce_15;
    16 => mirror_tci_16 mirror_tce_16;
    17 => mirror_tci_17 mirror_tce_17;
    18 => mirror_tci_18 mirror_tce_18;
    19 => mirror_tci_19 mirror_tce_19;
    20 => mirror_tci_20 mirror_tce_20;
    21 => mirror_tci_21 mirror_tce_21;
    22 => mirror_tci_22 mirror_tce_22;
    23 => mirror_tci_23 mirror_tce_23;
    24 => mirror_tci_24 mirror_tce_24;
    25 => mirror_tci_25 mirror_tce_25;
    26 => mirror_tci_26 mirror_tce_26;
    27 => mirror_tci_27 mirror_tce_27;
    28 => mirror_tci_28 mirror_tce_28;
    29 => mirror_tci_29 mirror_tce_29;
    30 => mirror_tci_30 mirror_tce_30;
    31 => mirror_tci_31 mirror_tce_31;
    32 => mirror_tci_32 mirror_tce_32;
    33 => mirror_tci_33 mirror_tce_33;
    34 => mirror_tci_34 mirror_tce_34;
    35 => mirror_tci_35 mirror_tce_35;
    36 => mirror_tci_36 mirror_tce_36;
    37 => mirror_tci_37 mirror_tce_37;
    38 => mirror_tci_38 mirror_tce_38;
    39 => mirror_tci_39 mirror_tce_39;
    40 => mirror_tci_40 mirror_tce_40;
    41 => mirror_tci_41 mirror_tce_41;
    42 => mirror_tci_42 mirror_tce_42;
    43 => mirror_tci_43 mirror_tce_43;
    44 => mirror_tci_44 mirror_tce_44;
    45 => mirror_tci_45 mirror_tce_45;
    46 => mirror_tci_46 mirror_tce_46;
    47 => mirror_tci_47 mirror_tce_47;
    48 => mirror_tci_48 mirror_tce_48;
    49 => mirror_tci_49 mirror_tce_49;
    50 => mirror_tci_50 mirror_tce_50;
    51 => mirror_tci_51 mirror_tce_51;
    52 => mirror_tci_52 mirror_tce_52;
    53 => mirror_tci_53 mirror_tce_53;
    54 => mirror_tci_54 mirror_tce_54;
    55 => mirror_tci_55 mirror_tce_55;
    56 => mirror_tci_56 mirror_tce_56;
    57 => mirror_tci_57 mirror_tce_57;
    58 => mirror_tci_58 mirror_tce_58;
    59 => mirror_tci_59 mirror_tce_59;
    60 => mirror_tci_60 mirror_tce_60;
    61 => mirror_tci_61 mirror_tce_61;
    62 => mirror_tci_62 mirror_tce_62;
    63 => mirror_tci_63 mirror_tce_63;
    64 => mirror_tci_64 mirror_tce_64;
}
