//! Whether the kernel still has a map, asked without opening it.
//!
//! Whoever opens a map of programs in the moment after its owner has gone, and closes it again, makes the kernel keep it
//! for ever: `prog_array_map_clear` takes a reference each time the last descriptor goes, and gives back only one when
//! the work that it queues was queued already. No crate asks for ids alone, so this is the system call itself.
#![expect(unsafe_code, reason = "no crate on hand asks for the ids of maps without opening them")]

use std::ffi::{c_int, c_long, c_uint};
use std::io::{Error, ErrorKind};

/// `bpf(2)`.
#[cfg(target_arch = "x86_64")]
const SYS_BPF: c_long = 321;
#[cfg(not(target_arch = "x86_64"))]
const SYS_BPF: c_long = 280;
/// `enum bpf_cmd`.
const BPF_MAP_GET_NEXT_ID: c_int = 12;

/// What `union bpf_attr` is for this command.
#[repr(C)]
struct NextId {
    start_id: u32,
    next_id: u32,
    open_flags: u32,
}

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
}

/// True too where the kernel refuses to tell, so that nobody takes silence for an end.
pub(super) fn is_map_loaded(id: u64) -> bool {
    let Ok(id) = u32::try_from(id) else { return false };
    let mut asked = NextId { start_id: id.saturating_sub(1), next_id: 0, open_flags: 0 };
    let size = c_uint::try_from(size_of::<NextId>()).unwrap_or(0);
    // SAFETY: the kernel reads and writes `size` bytes of `asked`, which is plain and lives until it returns.
    let told = unsafe { syscall(SYS_BPF, BPF_MAP_GET_NEXT_ID, &raw mut asked, size) };
    if told != 0 {
        // There is no map with this id or a higher one.
        return Error::last_os_error().kind() != ErrorKind::NotFound;
    }
    asked.next_id == id
}
