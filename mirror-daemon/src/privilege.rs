//! What the two processes of a daemon may do: the attacher keeps what attaching takes, the parser keeps nothing.
//!
//! Capabilities, Landlock and seccomp are a thread's own and pass on to the threads that it starts. So all of this is done while
//! a process has one thread, and refused when it has more.

mod calls;

pub use calls::CallsError;

use crate::telemetry::logging::in_words;
use landlock::{ABI, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetStatus, Scope};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{CapabilitySet, CapabilitySets};
use std::io;

/// What attaching takes in any mode, of which a process has what it was started with: loading and attaching (and
/// verifying before 6.6), entering network namespaces, finding them by a process, locked memory before 5.11.
const OF_ATTACHER: CapabilitySet = CapabilitySet::BPF
    .union(CapabilitySet::NET_ADMIN)
    .union(CapabilitySet::PERFMON)
    .union(CapabilitySet::SYS_ADMIN)
    .union(CapabilitySet::SYS_PTRACE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::SYS_RESOURCE)
    .union(CapabilitySet::NET_BIND_SERVICE);

/// What a parser takes to map its rings and to bind its pages' port.
const OF_STARTING_PARSER: CapabilitySet = CapabilitySet::BPF.union(CapabilitySet::NET_BIND_SERVICE);

/// Why privileges could not be given up.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// They are a thread's own, and another thread would keep its own.
    #[error("privileges can be given up by a process of one thread, and this one has {0}")]
    Threads(usize),
    /// Something is left although the kernel said nothing.
    #[error("the parser still has privileges: {0}")]
    Left(String),
    /// The kernel refused.
    #[error("privileges can't be given up")]
    Kernel(#[from] io::Error),
    /// Landlock is there, and does not work.
    #[error("the file system can't be made read-only")]
    Landlock(#[from] landlock::RulesetError),
}

/// Keeps of this process's capabilities those that an attacher needs.
///
/// # Errors
/// When the kernel refuses.
pub fn keep_for_attaching() -> Result<(), PrivilegeError> {
    keep(OF_ATTACHER)
}

/// Keeps of this process's capabilities those that a parser needs before [`give_up`], so that the configuration is read
/// at the start with the rights with which it is read again later. No core file of it is ever written: it would hold
/// what clients sent.
///
/// # Errors
/// When the kernel refuses.
pub fn keep_for_starting() -> Result<(), PrivilegeError> {
    let has_bpf = capabilities()?.permitted.contains(CapabilitySet::BPF);
    // It stands for CAP_BPF where that one is not given.
    let instead = if has_bpf { CapabilitySet::empty() } else { CapabilitySet::SYS_ADMIN };
    keep(OF_STARTING_PARSER | instead)?;
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(io::Error::from)?)
}

/// Gives up every capability for good, and every right to write to the file system, start a program, or send signals to
/// other processes, as far as this kernel can refuse it. Logs what holds.
///
/// # Errors
/// When something is left.
pub fn give_up() -> Result<(), PrivilegeError> {
    refuse_threads()?;
    rustix::thread::clear_ambient_capability_set().map_err(io::Error::from)?;
    let none = CapabilitySet::empty();
    set(CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    rustix::thread::set_no_new_privs(true).map_err(io::Error::from)?;
    let landlock = restrict_files()?;
    if let Err(error) = calls::refuse() {
        let why = in_words(&error);
        tracing::warn!(why, "the parser's system calls are refused only as its container or unit says");
    }
    look_at(&std::fs::read_to_string("/proc/thread-self/status")?).map_err(PrivilegeError::Left)?;
    let file_system = match landlock {
        RulesetStatus::FullyEnforced => "read-only",
        RulesetStatus::PartiallyEnforced => "read-only, as far as this kernel's Landlock goes",
        RulesetStatus::NotEnforced => "as its mounts and its user allow: this kernel has no Landlock",
    };
    tracing::info!(file_system, "the parser has given up all capabilities");
    Ok(())
}

/// Whether every thread of a process has given up what it could. True also for one that this process may not look at
/// (proc(5), `hidepid`), or that is gone.
///
/// # Errors
/// What is left, in words.
pub fn look_at_threads(pid: u32) -> Result<(), String> {
    let threads = format!("/proc/{pid}/task");
    let Ok(entries) = std::fs::read_dir(&threads) else {
        tracing::warn!(threads, "it can't be seen whether the parser has given up its capabilities");
        return Ok(());
    };
    let statuses = entries.flatten().map(|entry| entry.path().join("status"));
    // A thread may have ended since it was listed.
    statuses.filter_map(|path| std::fs::read_to_string(path).ok()).try_for_each(|status| look_at(&status))
}

fn look_at(status: &str) -> Result<(), String> {
    let is_empty = |set: &str| of(status, set).is_some_and(|mask| u64::from_str_radix(mask, 16) == Ok(0));
    let left = ["CapInh", "CapPrm", "CapEff", "CapAmb"].into_iter().find(|set| !is_empty(set));
    match left {
        Some(set) => Err(format!("{set} {}", of(status, set).unwrap_or_default())),
        None if of(status, "NoNewPrivs") != Some("1") => Err("NoNewPrivs is not 1".to_owned()),
        None => Ok(()),
    }
}

/// A line of `/proc/PID/status`.
fn of<'a>(status: &'a str, key: &str) -> Option<&'a str> {
    let value = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    Some(value.trim())
}

/// No rule is added, so that what is handled is refused everywhere.
fn restrict_files() -> Result<RulesetStatus, PrivilegeError> {
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_write(ABI::V6) | AccessFs::Execute)?
        .scope(Scope::Signal | Scope::AbstractUnixSocket)?
        .create()?;
    Ok(ruleset.restrict_self()?.ruleset)
}

fn keep(wanted: CapabilitySet) -> Result<(), PrivilegeError> {
    refuse_threads()?;
    let present = capabilities()?;
    set(CapabilitySets {
        effective: present.effective & wanted,
        permitted: present.permitted & wanted,
        inheritable: present.inheritable & wanted,
    })
}

fn capabilities() -> Result<CapabilitySets, PrivilegeError> {
    Ok(rustix::thread::capabilities(None).map_err(io::Error::from)?)
}

fn set(sets: CapabilitySets) -> Result<(), PrivilegeError> {
    Ok(rustix::thread::set_capabilities(None, sets).map_err(io::Error::from)?)
}

fn refuse_threads() -> Result<(), PrivilegeError> {
    match std::fs::read_dir("/proc/self/task")?.count() {
        1 => Ok(()),
        threads => Err(PrivilegeError::Threads(threads)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapAmb:\t0000000000000000\n";

    #[test]
    fn nothing_counts_as_given_up_but_empty_sets_without_new_privileges() {
        assert_eq!(look_at(&format!("{STATUS}NoNewPrivs:\t1\n")), Ok(()));
        assert!(look_at(&format!("{STATUS}NoNewPrivs:\t0\n")).unwrap_err().ends_with("NoNewPrivs is not 1"));
        assert!(look_at(STATUS).is_err());
        let one = STATUS.replace("CapEff:\t0000000000000000", "CapEff:\t0000008000000000");
        assert!(look_at(&format!("{one}NoNewPrivs:\t1\n")).unwrap_err().ends_with("CapEff 0000008000000000"));
        assert!(look_at("").is_err());
    }

    #[test]
    fn process_of_several_threads_gives_nothing_up() {
        // A test runs on a thread of its own.
        assert!(matches!(give_up(), Err(PrivilegeError::Threads(2..))));
        assert!(matches!(keep_for_attaching(), Err(PrivilegeError::Threads(2..))));
    }
}
