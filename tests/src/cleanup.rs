//! What a run makes outside itself, and how it goes away again: at Drop, at a signal, or at the next run.
//!
//! Everything that outlives a process by nature (namespaces, cgroups, directories) carries the process id of
//! its maker in its name, so that a later run can tell leftovers from what is in use.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, Once, PoisonError};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// How every name begins that this harness gives to something outside its process.
pub const PREFIX: &str = "mirror-lab";

/// Where `ip netns add` puts namespaces.
pub const NETNS_DIR: &str = "/run/netns";

static SERIAL: AtomicU32 = AtomicU32::new(0);
static HELD: Mutex<BTreeSet<Held>> = Mutex::new(BTreeSet::new());
static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static SWEEP: Once = Once::new();

/// Something to clean. Sorted in the order in which it must go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Held {
    /// A process group, by its leader.
    Group(u32),
    /// A network namespace, by name.
    Netns(String),
    /// A cgroup directory.
    Cgroup(PathBuf),
    /// A directory.
    Dir(PathBuf),
}

/// A name nobody else has: prefix, process id, serial number.
#[must_use]
pub fn unique_name() -> String {
    format!("{PREFIX}-{}-{}", std::process::id(), SERIAL.fetch_add(1, Ordering::Relaxed))
}

/// Notes that `held` must be cleaned.
pub fn hold(held: Held) {
    HELD.lock().unwrap_or_else(PoisonError::into_inner).insert(held);
}

/// Cleans `held` now and forgets it.
pub fn release(held: &Held) {
    remove(held);
    HELD.lock().unwrap_or_else(PoisonError::into_inner).remove(held);
}

/// Cleans all that this process holds: for a signal, where no Drop runs.
pub fn release_all() {
    let held = std::mem::take(&mut *HELD.lock().unwrap_or_else(PoisonError::into_inner));
    held.iter().for_each(remove);
}

/// Cleans and exits with 130 when SIGINT, SIGTERM or SIGHUP arrives. For programs, not for tests.
///
/// # Errors
/// When no signal handler can be set.
pub fn release_all_at_signals() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};

    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let entered = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
    let mut hang_up = signal(SignalKind::hangup()).context("cannot handle SIGHUP")?;
    drop(entered);
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hang_up.recv() => {}
            }
        });
        INTERRUPTED.store(true, Ordering::SeqCst);
        eprintln!("\ninterrupted: cleaning up");
        release_all();
        std::process::exit(130);
    });
    Ok(())
}

/// Fails once a signal has asked for the end: what is made after that would not be cleaned.
///
/// # Errors
/// When [`release_all_at_signals`] was called and a signal has come.
pub fn fail_if_interrupted() -> Result<()> {
    if INTERRUPTED.load(Ordering::SeqCst) {
        bail!("interrupted");
    }
    Ok(())
}

/// Removes, once per process, what earlier runs left behind when they died.
pub fn sweep_leftovers() {
    SWEEP.call_once(|| {
        for name in leftovers(Path::new(NETNS_DIR)) {
            remove(&Held::Netns(name));
        }
        if let Ok(root) = crate::cgroup::mount_point() {
            for name in leftovers(&root) {
                remove(&Held::Cgroup(root.join(name)));
            }
        }
        let temp = std::env::temp_dir();
        for name in leftovers(&temp) {
            remove(&Held::Dir(temp.join(name)));
        }
    });
}

/// A directory of this run's own, removed on Drop.
#[derive(Debug)]
pub struct RunDir(PathBuf);

impl RunDir {
    /// Makes one under the system's temporary directory, readable by all (gateways drop their privileges).
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(unique_name());
        std::fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        hold(Held::Dir(path.clone()));
        Ok(Self(path))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        release(&Held::Dir(self.0.clone()));
    }
}

/// Names in `dir` that a process made which is no more.
fn leftovers(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| maker(name).is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())).collect()
}

/// The process id in a name made by [`unique_name`], possibly with more text after it.
fn maker(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.strip_prefix('-')?.split('-').next()?.parse().ok()
}

fn remove(held: &Held) {
    match held {
        Held::Group(leader) => kill_group(*leader),
        Held::Netns(name) => {
            kill_all_in(name);
            quiet(Command::new("ip").args(["netns", "delete", name]));
        }
        Held::Cgroup(path) => remove_cgroup(path),
        Held::Dir(path) => drop(std::fs::remove_dir_all(path)),
    }
}

fn kill_group(leader: u32) {
    if let Some(pid) = i32::try_from(leader).ok().and_then(Pid::from_raw) {
        // An error means that it is gone already.
        let _ = kill_process_group(pid, Signal::KILL);
    }
}

/// Kills what still runs in a namespace: no process of ours is meant to survive it.
fn kill_all_in(netns: &str) {
    let Ok(listed) = Command::new("ip").args(["netns", "pids", netns]).stderr(Stdio::null()).output() else {
        return;
    };
    kill_listed(&String::from_utf8_lossy(&listed.stdout));
}

fn remove_cgroup(path: &Path) {
    let below = std::fs::read_dir(path).into_iter().flatten().flatten();
    for entry in below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_cgroup(&entry.path());
    }
    kill_listed(&std::fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default());
    // The kernel refuses while killed processes are still leaving.
    let gone = || std::fs::remove_dir(path).is_ok() || !path.exists();
    drop(crate::wait::until_true("the cgroup empties", std::time::Duration::from_secs(2), gone));
}

fn kill_listed(pids: &str) {
    for pid in pids.lines().filter_map(|line| Pid::from_raw(line.trim().parse().ok()?)) {
        if pid != rustix::process::getpid() {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

fn quiet(command: &mut Command) {
    drop(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maker_is_read_back_from_a_unique_name() {
        assert_eq!(maker(&unique_name()), Some(std::process::id()));
        assert_eq!(maker(&format!("{}-gateway", unique_name())), Some(std::process::id()));
        assert_eq!(maker("mirror-laboratory-7-1"), None);
        assert_eq!(maker("somebody-else"), None);
    }

    #[test]
    fn run_dir_goes_with_its_owner() {
        let dir = RunDir::new().unwrap();
        let path = dir.path().to_path_buf();
        assert!(path.is_dir());
        drop(dir);
        assert!(!path.exists());
    }
}
