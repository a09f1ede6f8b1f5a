//! System calls that a parser has no use for, refused to it: those by which a process without privileges gets at parts
//! of the kernel that are seldom looked at, or at other processes.
//!
//! Whatever else the container's own filter says, this one holds too, also where that one is lax because the attacher
//! has CAP_SYS_ADMIN. A list of what is refused, not of what is allowed: a new libc or runtime must not stop a daemon.

#[cfg(target_arch = "x86_64")]
use seccompiler::sock_filter;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter,
};
use std::collections::BTreeMap;

/// Why they could not be refused.
#[derive(Debug, thiserror::Error)]
pub enum CallsError {
    /// The filter can't be written for this processor.
    #[error("no filter can be made")]
    Filter(#[from] BackendError),
    /// The kernel does not take it.
    #[error("the kernel takes no filter")]
    Kernel(#[from] seccompiler::Error),
}

/// Refused whatever their arguments.
const REFUSED: [i64; 34] = [
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_fsconfig,
    libc::SYS_fspick,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_open_by_handle_at,
    libc::SYS_quotactl,
    libc::SYS_execve,
    libc::SYS_execveat,
];

/// New namespaces by clone(2), of which a user namespace gives every capability within itself.
const NEW_NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// Refuses them to this thread and to those that it starts, for good.
///
/// # Errors
/// When the kernel has no seccomp, or none for this processor is known.
pub(super) fn refuse() -> Result<(), CallsError> {
    apply_filter(&refused()?)?;
    #[cfg(target_arch = "x86_64")]
    apply_filter(&second_numbers())?;
    // Its flags are in memory, where no filter can look. Without it libc takes clone(2).
    apply_filter(&filter(BTreeMap::from([(libc::SYS_clone3, vec![])]), libc::ENOSYS)?)?;
    Ok(())
}

/// Refuses the calls of x32, which are the same ones by other numbers (`__X32_SYSCALL_BIT`).
#[cfg(target_arch = "x86_64")]
fn second_numbers() -> BpfProgram {
    const LOAD_NUMBER: u16 = 0x20;
    const JUMP_IF_AT_LEAST: u16 = 0x35;
    const RETURN: u16 = 0x06;
    let refuse = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs();
    vec![
        sock_filter { code: LOAD_NUMBER, jt: 0, jf: 0, k: 0 },
        sock_filter { code: JUMP_IF_AT_LEAST, jt: 0, jf: 1, k: 0x4000_0000 },
        sock_filter { code: RETURN, jt: 0, jf: 0, k: refuse },
        sock_filter { code: RETURN, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW },
    ]
}

fn refused() -> Result<BpfProgram, BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = REFUSED.iter().map(|call| (*call, vec![])).collect();
    let new_namespace = |flag: &libc::c_int| {
        let flag = u64::from(flag.unsigned_abs());
        let has_flag = SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(flag), flag)?;
        SeccompRule::new(vec![has_flag])
    };
    let clones = NEW_NAMESPACES.iter().map(new_namespace).collect::<Result<_, _>>()?;
    rules.insert(libc::SYS_clone, clones);
    filter(rules, libc::EPERM)
}

fn filter(rules: BTreeMap<i64, Vec<SeccompRule>>, error: libc::c_int) -> Result<BpfProgram, BackendError> {
    let refuse = SeccompAction::Errno(error.unsigned_abs());
    let processor = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, SeccompAction::Allow, refuse, processor)?.try_into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_calls_fail_and_threads_still_start() {
        let thread = std::thread::spawn(|| {
            refuse().unwrap();
            let started = std::process::Command::new("true").spawn();
            let refusal = started.err().map(|error| error.kind());
            (refusal, std::thread::spawn(|| 7).join().unwrap())
        });
        assert_eq!(thread.join().unwrap(), (Some(std::io::ErrorKind::PermissionDenied), 7));
    }
}
