//! The cluster's processes: each is recorded in a file, so that another run of this program finds it again, and
//! runs in the cluster's cgroup, so that nothing that it starts can get lost.

use std::fs::OpenOptions;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::layout::{Layout, cgroup_hierarchies};
use crate::wait;

/// How long a process may take to end after SIGTERM.
const END_LIMIT: Duration = Duration::from_secs(10);

/// Lines of a log that a message shows.
const SHOWN_LINES: usize = 8;

/// Enters the cgroup named first, and becomes the rest.
const ENTER_CGROUP: &str = "echo 0 > \"$0/cgroup.procs\" && exec \"$@\"";

/// A process that was started, as recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    /// `etcd`, `kubelet-1`: also the name of its log.
    pub(crate) name: String,
    pid: u32,
    /// In clock ticks since boot: tells a process from a later one with its id.
    start_time: u64,
    words: Vec<String>,
}

impl Process {
    /// Starts a program in the cluster's cgroup and records it. Its output goes to its log.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn start(layout: &Layout, name: &str, words: Vec<String>) -> Result<Self> {
        let log = layout.log(name);
        let output = OpenOptions::new().create(true).append(true).open(&log);
        let output = output.with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = Command::new("setsid");
        command.args(["sh", "-c", ENTER_CGROUP]).arg(own_cgroup(layout)?).args(&words);
        command.current_dir(layout.state()).stdin(Stdio::null());
        command.stdout(output.try_clone()?).stderr(output);
        // The child is left to itself: it is meant to outlive this program.
        let pid = command.spawn().with_context(|| format!("cannot start {name}"))?.id();
        let start_time = start_time(pid).with_context(|| format!("{name} ended at once"))?;
        let process = Self { name: name.to_owned(), pid, start_time, words };
        let record = json!({ "pid": pid, "start_time": start_time, "words": process.words });
        let file = layout.processes().join(name);
        std::fs::write(&file, format!("{record:#}\n"))
            .with_context(|| format!("cannot write {}", file.display()))?;
        Ok(process)
    }

    /// The recorded process of that name.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn recorded(layout: &Layout, name: &str) -> Result<Self> {
        let file = layout.processes().join(name);
        let text = std::fs::read_to_string(&file).with_context(|| format!("the cluster has no {name}"))?;
        let record: Value = serde_json::from_str(&text).with_context(|| format!("{}", file.display()))?;
        let number = |key: &str| record.get(key).and_then(Value::as_u64);
        let words = record.get("words").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        Ok(Self {
            name: name.to_owned(),
            pid: number("pid").and_then(|pid| u32::try_from(pid).ok()).context("a record without pid")?,
            start_time: number("start_time").context("a record without start time")?,
            words: words.iter().filter_map(|word| word.as_str().map(str::to_owned)).collect(),
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it runs: this one, and not a later process with its id.
    pub(crate) fn is_running(&self) -> bool {
        start_time(self.pid).is_ok_and(|found| found == self.start_time)
    }

    /// Fails with the end of its log when it has ended.
    ///
    /// # Errors
    /// Then.
    pub(crate) fn still_runs(&self, layout: &Layout) -> Result<()> {
        if !self.is_running() {
            bail!("{} has ended\n{}", self.name, self.log_end(layout));
        }
        Ok(())
    }

    /// Where its log is, and how it ends.
    pub(crate) fn log_end(&self, layout: &Layout) -> String {
        let log = layout.log(&self.name);
        let text = std::fs::read(&log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        let end = lines.get(lines.len().saturating_sub(SHOWN_LINES)..).unwrap_or_default();
        format!("  look at {}, which ends:\n    {}", log.display(), end.join("\n    "))
    }

    /// Sends a signal, if it runs.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw)
            && self.is_running()
        {
            // An error means that it has just ended.
            let _ = kill_process(pid, signal);
        }
    }

    /// SIGTERM or, where it must end at once, SIGKILL; waits until it is gone.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub(crate) fn stop(&self, at_once: bool) -> Result<()> {
        if !at_once {
            self.signal(Signal::TERM);
            if wait::until_true("it ends", END_LIMIT, || !self.is_running()).is_ok() {
                return Ok(());
            }
        }
        self.signal(Signal::KILL);
        wait::until_true(&format!("{} ends", self.name), END_LIMIT, || !self.is_running())
    }

    /// Starts it again as it was started.
    ///
    /// # Errors
    /// When it runs, or cannot be started.
    pub(crate) fn start_again(&self, layout: &Layout) -> Result<Self> {
        if self.is_running() {
            bail!("{} is running", self.name);
        }
        Self::start(layout, &self.name, self.words.clone())
    }
}

/// The cgroup of the cluster's own processes, made if need be. Pods have others beside it.
fn own_cgroup(layout: &Layout) -> Result<PathBuf> {
    let root = cgroup_hierarchies().pop().context("cgroup v2 is not mounted")?;
    let dir = root.join(layout.cgroup()).join("system");
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}

/// When a process started; an error when it runs no more.
fn start_time(pid: u32) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("no such process")?;
    parse_start_time(&stat).context("it has ended")
}

/// Field 22 of proc_pid_stat(5); `None` for a zombie. The name, field 2, may contain anything.
fn parse_start_time(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?;
    (state != "Z" && state != "X").then_some(())?;
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_start_time_is_found_and_a_zombie_has_none() {
        assert!(start_time(std::process::id()).unwrap() > 0);
        let rest = "1 2 2 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 1 1";
        assert_eq!(parse_start_time(&format!("7 (a) b) S {rest}")), Some(4711));
        assert_eq!(parse_start_time(&format!("7 (a) b) Z {rest}")), None);
    }
}
