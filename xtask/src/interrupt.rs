//! Ctrl-C and its like: noted, so that what was made can be taken down before the end.

use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::wait;

/// How long a program that is asked to end may take.
const POLITE_LIMIT: Duration = Duration::from_secs(20);

/// How often a running program is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

static NOTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From now on SIGINT, SIGTERM and SIGHUP are noted and end nothing by themselves.
///
/// # Errors
/// When no signal handler can be set.
pub(crate) fn note_signals() -> Result<()> {
    let flag = NOTED.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(flag)).context("cannot handle signals")?;
    }
    Ok(())
}

/// Whether a signal has asked for the end.
pub(crate) fn is_noted() -> bool {
    NOTED.get().is_some_and(|flag| flag.load(Ordering::SeqCst))
}

/// Fails once a signal has asked for the end.
///
/// # Errors
/// Then.
pub(crate) fn check() -> Result<()> {
    if is_noted() {
        bail!("interrupted");
    }
    Ok(())
}

/// Forgets a signal: what follows (taking down) is to be done to its end.
pub(crate) fn forget() {
    if let Some(flag) = NOTED.get() {
        flag.store(false, Ordering::SeqCst);
    }
}

/// Runs a program whose output the user sees; a signal ends it, politely first.
///
/// # Errors
/// When it cannot be started, fails, or a signal came.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    check()?;
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
    loop {
        if let Some(status) = child.try_wait().with_context(|| format!("cannot wait for {name}"))? {
            return judge(&name, status);
        }
        if is_noted() {
            end(&mut child);
            bail!("interrupted");
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn judge(name: &str, status: ExitStatus) -> Result<()> {
    check()?;
    if !status.success() {
        bail!("{name} failed: {status}");
    }
    Ok(())
}

fn end(child: &mut Child) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // An error means that it has ended.
        let _ = kill_process(pid, Signal::TERM);
    }
    let ended = wait::until_true("it ends", POLITE_LIMIT, || !matches!(child.try_wait(), Ok(None)));
    if ended.is_err() {
        drop(child.kill());
        drop(child.wait());
    }
}
