//! Processes that cannot outlive the test: killed on Drop, and by the kernel when the test dies first.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::cgroup::Cgroup;
use crate::cleanup::{self, Held};
use crate::netns::Netns;
use crate::wait;

/// How long a process that is asked to end may take before it is killed.
const POLITE_LIMIT: Duration = Duration::from_secs(2);

/// How a process is to be started.
#[derive(Debug)]
pub struct Launch {
    program: OsString,
    args: Vec<OsString>,
    netns: Option<PathBuf>,
    cgroup: Option<PathBuf>,
    cpu: Option<u32>,
    capabilities: Option<String>,
    output: Option<PathBuf>,
    polite: bool,
    envs: Vec<(OsString, OsString)>,
    unset: Vec<OsString>,
}

fn is_package_env(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.starts_with(b"CARGO_PKG_") || name.starts_with(b"CARGO_MANIFEST_")
}

impl Launch {
    /// Starts `program`, found in PATH.
    #[must_use]
    pub fn new(program: impl Into<OsString>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            netns: None,
            cgroup: None,
            cpu: None,
            capabilities: None,
            output: None,
            polite: false,
            envs: Vec::new(),
            unset: Vec::new(),
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.envs.push((name.into(), value.into()));
        self
    }

    /// Takes away the environment variables that cargo sets for a program of a package. A build with them is another
    /// build: build scripts of dependencies (ring's) ask for them, and run anew when they are others than last time.
    #[must_use]
    pub fn without_package_env(mut self) -> Self {
        let names = std::env::vars_os().map(|(name, _)| name);
        self.unset.extend(names.filter(|name| is_package_env(name)));
        self
    }

    /// Runs it in a network namespace; mounts stay the host's, so that /sys/fs/cgroup is seen.
    #[must_use]
    pub fn in_netns(mut self, netns: &Netns) -> Self {
        self.netns = netns.path().map(Path::to_path_buf);
        self
    }

    /// Runs it in a cgroup.
    #[must_use]
    pub fn in_cgroup(mut self, cgroup: &Cgroup) -> Self {
        self.cgroup = Some(cgroup.path().to_path_buf());
        self
    }

    /// Pins it to one CPU.
    #[must_use]
    pub fn on_cpu(mut self, cpu: u32) -> Self {
        self.cpu = Some(cpu);
        self
    }

    /// Leaves it no capabilities but these (by their numbers), and no way to others.
    #[must_use]
    pub fn with_capabilities(mut self, numbers: &[u32]) -> Self {
        let kept: String = numbers.iter().map(|number| format!(",+cap_{number}")).collect();
        self.capabilities = Some(format!("-all{kept}"));
        self
    }

    /// Writes its output and errors to a file; without this they are the test's own.
    #[must_use]
    pub fn output_to(mut self, file: impl Into<PathBuf>) -> Self {
        self.output = Some(file.into());
        self
    }

    /// Asks it to end before it is killed, on Drop and when the test dies: for programs with children of
    /// their own, which only they can reap.
    #[must_use]
    pub fn end_politely(mut self) -> Self {
        self.polite = true;
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn spawn(self) -> Result<Process> {
        let name = self.program.to_string_lossy().into_owned();
        cleanup::fail_if_interrupted()?;
        let (output, polite) = (self.output.clone(), self.polite);
        let mut command = self.command()?;
        command.process_group(0).stdin(Stdio::null());
        let child = spawn_by_lasting_thread(command).with_context(|| format!("cannot start {name}"))?;
        let held = Held::Group(child.id());
        cleanup::hold(held.clone());
        Ok(Process { name, child, held, output, polite })
    }

    /// Runs it to its end and gives what it wrote to stdout.
    ///
    /// # Errors
    /// When it cannot be started or does not end well; its stderr is in the message.
    pub fn run(self) -> Result<String> {
        let name = self.program.to_string_lossy().into_owned();
        let mut command = self.command()?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = spawn_by_lasting_thread(command).with_context(|| format!("cannot start {name}"))?;
        let done = child.wait_with_output()?;
        if !done.status.success() {
            bail!("{name} ended with {}: {}", done.status, String::from_utf8_lossy(&done.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    }

    fn command(self) -> Result<Command> {
        let death_signal = if self.polite { "TERM" } else { "KILL" };
        let mut words: Vec<OsString> = vec!["setpriv".into(), "--pdeathsig".into(), death_signal.into()];
        if let Some(netns) = self.netns {
            let mut option = OsString::from("--net=");
            option.push(netns);
            words.extend(["nsenter".into(), option]);
        }
        if let Some(cgroup) = self.cgroup {
            let script = "echo $$ > \"$0/cgroup.procs\" && exec \"$@\"";
            words.extend(["sh".into(), "-c".into(), script.into(), cgroup.into()]);
        }
        if let Some(cpu) = self.cpu {
            words.extend(["taskset".into(), "-c".into(), cpu.to_string().into()]);
        }
        if let Some(capabilities) = self.capabilities {
            let option = format!("--bounding-set={capabilities}");
            words.extend(["setpriv".into(), "--no-new-privs".into(), option.into()]);
        }
        words.push(self.program);
        words.extend(self.args);
        let mut words = words.into_iter();
        let mut command = Command::new(words.next().context("no program")?);
        command.args(words).envs(self.envs);
        for name in self.unset {
            command.env_remove(name);
        }
        if let Some(path) = self.output {
            let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
            command.stdout(file.try_clone()?).stderr(file);
        }
        Ok(command)
    }
}

/// A running process and its group; killed on Drop.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    held: Held,
    output: Option<PathBuf>,
    polite: bool,
}

impl Process {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written so far, if it writes to a file.
    #[must_use]
    pub fn output(&self) -> String {
        let bytes = self.output.as_ref().and_then(|path| std::fs::read(path).ok()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Sends a signal to the process, not to its children.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(self.raw_pid()?, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Fails with what it wrote when it has ended.
    ///
    /// # Errors
    /// When it has ended.
    pub fn still_runs(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} has ended with {status}:\n{}", self.name, self.output().trim()),
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it still runs after `limit`.
    pub fn wait_for_end(&mut self, limit: Duration) -> Result<ExitStatus> {
        let what = format!("{} ends", self.name);
        wait::until(&what, limit, || Ok(self.child.try_wait()?))
    }

    /// SIGTERM, and SIGKILL to the whole group once `limit` has passed.
    ///
    /// # Errors
    /// When it had to be killed.
    pub fn stop(&mut self, limit: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        self.signal(Signal::TERM)?;
        let ended = self.wait_for_end(limit);
        self.kill();
        ended
    }

    /// SIGKILL to the whole group, and waits until the kernel has let go of it.
    pub fn kill(&mut self) {
        if let Ok(pid) = self.raw_pid() {
            // An error means that it is gone already.
            let _ = kill_process_group(pid, Signal::KILL);
        }
        drop(self.child.wait());
    }

    fn raw_pid(&self) -> Result<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("no such process id")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.polite {
            drop(self.stop(POLITE_LIMIT));
        }
        self.kill();
        cleanup::release(&self.held);
    }
}

type SpawnJob = (Command, Sender<std::io::Result<Child>>);

/// The kernel sends the death signal when the *thread* that spawned ends, so all spawning is done by one
/// thread that lasts as long as the process.
fn spawn_by_lasting_thread(command: Command) -> Result<Child> {
    static JOBS: OnceLock<Mutex<Sender<SpawnJob>>> = OnceLock::new();
    let jobs = JOBS.get_or_init(|| {
        let (job_tx, job_rx) = channel::<SpawnJob>();
        std::thread::spawn(move || {
            for (mut command, child_tx) in job_rx {
                drop(child_tx.send(command.spawn()));
            }
        });
        Mutex::new(job_tx)
    });
    let (child_tx, child_rx) = channel();
    jobs.lock().unwrap_or_else(PoisonError::into_inner).send((command, child_tx))?;
    Ok(child_rx.recv()??)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_outlives_the_thread_that_asked_for_it_and_dies_on_drop() {
        let mut sleeper =
            std::thread::spawn(|| Launch::new("sleep").arg("60").spawn().unwrap()).join().unwrap();
        assert!(sleeper.is_running());
        let proc = PathBuf::from(format!("/proc/{}", sleeper.pid()));
        assert!(proc.exists());
        drop(sleeper);
        assert!(!proc.exists());
    }

    #[test]
    fn failed_run_says_what_the_program_said() {
        let failure = Launch::new("sh").args(["-c", "echo bad luck >&2; exit 3"]).run().unwrap_err();
        assert!(format!("{failure:#}").contains("bad luck"), "{failure:#}");
    }
}
