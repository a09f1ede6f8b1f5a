//! The real daemon, started as a user starts it, and seen as a user sees it: admin pages, signals, memory.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::bpf::{self, HeldObjects};
use crate::cleanup::RunDir;
use crate::client;
use crate::netns::Netns;
use crate::process::{Launch, Process};
use crate::wait;

/// The variable that names the daemon to test; without it, cargo builds the one of this workspace.
pub const BINARY: &str = "MIRROR_DAEMON";

/// The variable that says how TC programs are attached (`tcx`, `clsact`); `cargo xtask test` sets it for its
/// second pass. It becomes `capture.attach` where a test does not say otherwise.
pub const TC_MODE: &str = "MIRROR_TC_MODE";

/// How long the daemon may take to attach and be ready: an emulated machine is slow.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// How often its memory is looked at.
const MEMORY_LOOK: Duration = Duration::from_millis(50);

/// A running daemon; killed on Drop.
#[derive(Debug)]
pub struct Daemon {
    process: Process,
    netns: Netns,
    admin: SocketAddr,
    dir: RunDir,
    peak: Arc<PeakMemory>,
}

#[derive(Debug, Default)]
struct PeakMemory {
    rss_anon_bytes: AtomicU64,
    ends: AtomicBool,
}

impl Daemon {
    /// Starts one in `netns` with this TOML, which must not have an `[admin]` table: the harness adds one with
    /// a free port. Waits until `/readyz` says ready.
    ///
    /// # Errors
    /// When it does not become ready; what it said is in the message.
    pub fn start(netns: &Netns, toml: &str) -> Result<Self> {
        Self::start_with(netns, toml, |launch| launch)
    }

    /// As [`Self::start`], with changes to how it is launched (cgroup, CPU, environment).
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(netns: &Netns, toml: &str, change: impl FnOnce(Launch) -> Launch) -> Result<Self> {
        let dir = RunDir::new()?;
        let admin = free_address(netns)?;
        let file = dir.path().join("mirror.toml");
        let config = Config { toml, admin };
        std::fs::write(&file, config.text())?;
        let launch = Launch::new(binary()?)
            .args(["run".into(), "--config".into(), file.into_os_string()])
            .output_to(dir.path().join("output"))
            .in_netns(netns);
        let process = change(launch).spawn()?;
        let peak = Arc::new(PeakMemory::default());
        let (watched, pid) = (Arc::clone(&peak), process.pid());
        std::thread::spawn(move || watched.watch(pid));
        let mut daemon = Self { process, netns: netns.clone(), admin, dir, peak };
        daemon.wait_until_ready()?;
        Ok(daemon)
    }

    /// The process id of the attacher, which is the one that was started.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The process id of the parser.
    ///
    /// # Errors
    /// When there is none at the moment.
    pub fn parser_pid(&self) -> Result<u32> {
        parser_of(self.pid())
    }

    /// Both.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        [self.pid()].into_iter().chain(self.parser_pid()).collect()
    }

    /// Where its admin pages are, in its namespace.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// What it has logged so far.
    #[must_use]
    pub fn output(&self) -> String {
        self.process.output()
    }

    /// An admin page: status and body.
    ///
    /// # Errors
    /// When no whole answer comes.
    pub fn page(&self, path: &str) -> Result<(u16, String)> {
        let answer = client::get(&self.netns, self.admin, "localhost", path)?;
        Ok((answer.status, String::from_utf8_lossy(&answer.body).into_owned()))
    }

    /// The ledger.
    ///
    /// # Errors
    /// When the page is not there or is no JSON.
    pub fn ledger(&self) -> Result<Value> {
        let (status, body) = self.page("/ledger")?;
        ensure!(status == 200, "/ledger answers {status}");
        serde_json::from_str(&body).with_context(|| body.clone())
    }

    /// The metrics.
    ///
    /// # Errors
    /// When the page is not there.
    pub fn metrics(&self) -> Result<Metrics> {
        let (status, text) = self.page("/metrics")?;
        ensure!(status == 200, "/metrics answers {status}");
        Ok(Metrics { text })
    }

    /// Replaces the configuration file (the admin address stays) in one step, as an editor or a ConfigMap does.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn reconfigure(&self, toml: &str) -> Result<()> {
        let (file, fresh) = (self.dir.path().join("mirror.toml"), self.dir.path().join("fresh.toml"));
        let config = Config { toml, admin: self.admin };
        std::fs::write(&fresh, config.text())?;
        Ok(std::fs::rename(&fresh, &file)?)
    }

    /// Sends a signal: to the attacher, as a user does; those that stop a process and let it go on, to both.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        if [Signal::STOP, Signal::CONT].contains(&signal) {
            signal_process(self.parser_pid()?, signal)?;
        }
        self.process.signal(signal)
    }

    /// Sends a signal to the parser alone.
    ///
    /// # Errors
    /// When there is none.
    pub fn signal_parser(&self, signal: Signal) -> Result<()> {
        signal_process(self.parser_pid()?, signal)
    }

    /// SIGKILL to the attacher alone, and waits until both are gone.
    ///
    /// # Panics
    /// When the parser lives on.
    pub fn kill(&mut self) {
        let parser = self.parser_pid();
        drop(self.process.signal(Signal::KILL));
        if let Ok(parser) = parser {
            let is_gone = || !Path::new(&format!("/proc/{parser}")).exists();
            wait::until_true("the parser dies with its attacher", READY_LIMIT, is_gone)
                .expect("a dead parser");
        }
        self.process.kill();
    }

    /// SIGTERM, and waits for a good end.
    ///
    /// # Errors
    /// When it takes longer than `limit`, or ends with another code than 0.
    pub fn stop(&mut self, limit: Duration) -> Result<()> {
        let status = self.process.stop(limit).with_context(|| self.output())?;
        ensure!(status.success(), "the daemon ended with {status}:\n{}", self.output());
        Ok(())
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// The kernel objects it has open.
    ///
    /// # Errors
    /// When it is gone.
    pub fn held_objects(&self) -> Result<HeldObjects> {
        let mut held = bpf::held_by(self.pid())?;
        held.extend(bpf::held_by(self.parser_pid()?)?);
        Ok(held)
    }

    /// The highest RssAnon of both processes together seen, in bytes; looked at every 50 ms.
    #[must_use]
    pub fn peak_rss_anon_bytes(&self) -> u64 {
        self.peak.rss_anon_bytes.load(Ordering::Relaxed)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let ready = wait::until("the daemon is ready", READY_LIMIT, || {
            self.process.still_runs()?;
            Ok(self.page("/readyz").is_ok_and(|(status, _)| status == 200).then_some(()))
        });
        ready.with_context(|| self.output())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.peak.ends.store(true, Ordering::Relaxed);
    }
}

impl PeakMemory {
    fn watch(&self, pid: u32) {
        while !self.ends.load(Ordering::Relaxed) {
            let Ok(bytes) = rss_anon_bytes(pid) else { return };
            let of_parser = parser_of(pid).and_then(rss_anon_bytes).unwrap_or(0);
            let bytes = bytes + of_parser;
            self.rss_anon_bytes.fetch_max(bytes, Ordering::Relaxed);
            std::thread::sleep(MEMORY_LOOK);
        }
    }
}

/// The child of an attacher.
fn parser_of(attacher: u32) -> Result<u32> {
    let children = std::fs::read_to_string(format!("/proc/{attacher}/task/{attacher}/children"))?;
    children.split_whitespace().next().and_then(|pid| pid.parse().ok()).context("there is no parser")
}

fn signal_process(pid: u32, signal: Signal) -> Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("no such process id")?;
    kill_process(pid, signal).context("cannot signal the parser")
}

/// Anonymous resident memory of a process, in bytes.
///
/// # Errors
/// When the process is gone.
pub fn rss_anon_bytes(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("no RssAnon")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}

/// A page of metrics in Prometheus' text form.
#[derive(Clone, Debug)]
pub struct Metrics {
    text: String,
}

impl Metrics {
    /// A page that somebody else has asked for.
    #[must_use]
    pub fn of(text: String) -> Self {
        Self { text }
    }

    /// The sum of all series of that name that carry all of these labels; 0 when there is none.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let wanted: Vec<String> = labels.iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect();
        let of_line = |line: &str| -> Option<f64> {
            let rest = line.strip_prefix(name)?;
            let (series, value) = match rest.strip_prefix('{') {
                Some(rest) => rest.rsplit_once("} ")?,
                None => ("", rest.strip_prefix(' ')?),
            };
            let all = wanted.iter().all(|pair| series.split(',').any(|found| found == pair));
            all.then(|| value.split(' ').next()?.parse().ok()).flatten()
        };
        self.text.lines().filter_map(of_line).sum()
    }

    /// The page.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// What a daemon's log says of the time that each pod took to be captured, in milliseconds, in order of size.
#[must_use]
pub fn attach_times_ms(log: &str) -> Vec<u64> {
    let digits = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
    let mut times: Vec<u64> = log
        .lines()
        .filter(|line| line.contains("pod is captured"))
        .filter_map(|line| line.split("took_ms").nth(1))
        .filter_map(|rest| digits(rest.split_whitespace().next()?.trim_start_matches('=')).parse().ok())
        .collect();
    times.sort_unstable();
    times
}

/// The value below which so many percent of `sorted` lie; 0 of nothing.
#[must_use]
pub fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((sorted.len() * percent / 100).min(last)).copied().unwrap_or(0)
}

/// The daemon's binary: from [`BINARY`], or built now, once per process, in the profile of the test.
///
/// # Errors
/// When the build fails; cargo's messages have gone to stderr.
pub fn binary() -> Result<&'static Path> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| match std::env::var_os(BINARY) {
        Some(path) => Ok(PathBuf::from(path)),
        None => build().map_err(|failure| format!("{failure:#}")),
    });
    built.as_deref().map_err(|failure| anyhow::anyhow!("{failure}"))
}

fn build() -> Result<PathBuf> {
    let cargo = option_env!("CARGO").unwrap_or("cargo");
    let mut launch = Launch::new(cargo).args(["build", "--quiet", "--bin", "mirror-daemon"]);
    if !cfg!(debug_assertions) {
        launch = launch.arg("--release");
    }
    // No --package: the features would be others than those of the test command, and all be built anew.
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    launch = launch.args(["--manifest-path", manifest, "--message-format", "json"]).without_package_env();
    for line in launch.run()?.lines() {
        let message: Value = serde_json::from_str(line).unwrap_or_default();
        if message["target"]["name"] == "mirror-daemon"
            && let Some(path) = message["executable"].as_str()
        {
            return Ok(PathBuf::from(path));
        }
    }
    bail!("cargo built no mirror-daemon")
}

struct Config<'a> {
    toml: &'a str,
    admin: SocketAddr,
}

impl Config<'_> {
    fn text(&self) -> String {
        let mode = match std::env::var(TC_MODE) {
            Ok(mode) if !self.toml.contains("attach =") => format!("[capture]\nattach = \"{mode}\""),
            _ => "[capture]".to_owned(),
        };
        format!("{}\n[admin]\nlisten = \"{}\"\n", self.toml.replacen("[capture]", &mode, 1), self.admin)
    }
}

/// A port nobody listens at. Another process may take it before it is used; in a lab there is none.
fn free_address(netns: &Netns) -> Result<SocketAddr> {
    let listener = netns.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))??;
    Ok(listener.local_addr()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sum_takes_the_series_with_all_labels() {
        let text = "# TYPE x counter\nx_total{shadow=\"a\",reason=\"gap\"} 3\nx_total{shadow=\"b\",reason=\"gap\"} 4\n\
            x_total_more 9\nplain 2.5\n";
        let metrics = Metrics { text: text.to_owned() };
        assert_eq!(metrics.sum("x_total", &[("reason", "gap")]), 7.0);
        assert_eq!(metrics.sum("x_total", &[("reason", "gap"), ("shadow", "b")]), 4.0);
        assert_eq!(metrics.sum("plain", &[]), 2.5);
        assert_eq!(metrics.sum("absent", &[]), 0.0);
    }

    #[test]
    fn own_anonymous_memory_is_not_zero() {
        assert!(rss_anon_bytes(std::process::id()).unwrap() > 0);
    }
}
