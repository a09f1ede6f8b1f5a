//! Fuzzing: builds the targets in `fuzz/`, and runs them from the inputs that are kept.

mod log;

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::run;
use crate::setup::Impossible;
use log::Log;

/// The longest input that is made: longer ones are slow and find little more.
const MAX_INPUT_BYTES: u32 = 2048;
/// How often progress is shown.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);
/// How often a running target is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What to fuzz, and for how long.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Targets to run, one after the other; without any, they are listed.
    targets: Vec<String>,
    /// Every target.
    #[arg(long, conflicts_with = "targets")]
    all: bool,
    /// How often each target is run; 100,000 where no time is given either.
    #[arg(long, value_name = "N")]
    executions: Option<u64>,
    /// The longest time for each target, in seconds.
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// Afterwards, make the kept inputs of each target anew: the fewest that reach all that was reached.
    #[arg(long)]
    keep: bool,
}

impl Options {
    fn limits(&self) -> Vec<String> {
        let executions = self.executions.or(self.seconds.is_none().then_some(100_000));
        let executions = executions.map(|executions| format!("-runs={executions}"));
        let seconds = self.seconds.map(|seconds| format!("-max_total_time={seconds}"));
        executions.into_iter().chain(seconds).collect()
    }
}

/// One line of the table at the end.
struct Row {
    target: String,
    log: Log,
    has_failed: bool,
    seconds: f64,
}

/// Runs the targets that were asked for, all of them even when one finds something.
///
/// # Errors
/// When something was found, a target is not known, the build fails, or cargo-fuzz is missing.
pub(crate) fn fuzz(options: &Options) -> Result<()> {
    let known = targets()?;
    let wanted = if options.all { known.clone() } else { options.targets.clone() };
    if wanted.is_empty() {
        println!("targets: {}", known.join(", "));
        return Ok(());
    }
    if let Some(unknown) = wanted.iter().find(|target| !known.contains(target)) {
        bail!("there is no target {unknown}; there are: {}", known.join(", "));
    }
    check_toolchain()?;
    println!("build");
    for target in &wanted {
        run::run(cargo_fuzz().args(["build", "--sanitizer", "none"]).arg(target))?;
    }
    let mut rows = Vec::new();
    for target in &wanted {
        rows.push(run_target(target, options)?);
        if options.keep {
            keep(target)?;
        }
    }
    show(&rows);
    if rows.iter().any(|row| row.has_failed) {
        bail!("something was found; run it again with: {}", again(&rows));
    }
    Ok(())
}

/// The targets, as the directory has them.
fn targets() -> Result<Vec<String>> {
    let directory = directory().join("fuzz_targets");
    let entries = directory.read_dir().with_context(|| format!("{} cannot be read", directory.display()))?;
    let mut targets = Vec::new();
    for entry in entries {
        let path = entry?.path();
        targets.extend(path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned));
    }
    targets.sort();
    Ok(targets)
}

/// Any rustc will do: what is unstable is allowed to it for this build alone.
fn check_toolchain() -> Result<()> {
    if run::ask(cargo_fuzz().arg("--version")).is_some() {
        return Ok(());
    }
    let remedy = "install it: cargo install cargo-fuzz (a C++ compiler is needed too)";
    Err(Impossible::new("cargo-fuzz is missing, which builds fuzz targets", remedy).into())
}

/// `cargo fuzz`, in the directory of the targets.
fn cargo_fuzz() -> Command {
    let mut command = run::cargo();
    command.current_dir(directory()).arg("fuzz").env("RUSTC_BOOTSTRAP", "1");
    command
}

fn directory() -> PathBuf {
    run::root().join("fuzz")
}

/// Runs one target to its limits, or to its first finding.
fn run_target(target: &str, options: &Options) -> Result<Row> {
    println!("{target}");
    let directory = directory();
    let corpus = directory.join("corpus").join(target);
    let seeds = directory.join("seeds").join(target);
    let log_path = directory.join("corpus").join(format!("{target}.log"));
    std::fs::create_dir_all(&corpus).with_context(|| format!("cannot make {}", corpus.display()))?;
    std::fs::create_dir_all(&seeds).with_context(|| format!("cannot make {}", seeds.display()))?;
    let log_file = File::create(&log_path).with_context(|| format!("cannot write {}", log_path.display()))?;
    let mut command = cargo_fuzz();
    // New inputs go to the first directory.
    command.args(["run", "--sanitizer", "none", target]).args([&corpus, &seeds]).arg("--");
    command.args(options.limits()).arg(format!("-max_len={MAX_INPUT_BYTES}")).arg("-print_final_stats=1");
    let begun = Instant::now();
    let mut fuzzer = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log_file)
        .spawn()
        .context("cannot start cargo fuzz")?;
    let mut shown = begun;
    let status = loop {
        if let Some(status) = fuzzer.try_wait().context("cannot wait for cargo fuzz")? {
            break status;
        }
        if shown.elapsed() >= PROGRESS_EVERY {
            shown = Instant::now();
            show_progress(&read_log(&log_path)?, begun.elapsed());
        }
        std::thread::sleep(LOOK_EVERY);
    };
    let log = read_log(&log_path)?;
    if !status.success() && log.finding.is_none() {
        bail!("{target} did not run: see {}", log_path.display());
    }
    if let Some(finding) = &log.finding {
        println!("  found: {finding}\n  see {}", log_path.display());
    }
    let seconds = begun.elapsed().as_secs_f64();
    Ok(Row { target: target.to_owned(), has_failed: !status.success(), log, seconds })
}

fn read_log(path: &Path) -> Result<Log> {
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Log::read(&String::from_utf8_lossy(&text)))
}

fn show_progress(log: &Log, elapsed: Duration) {
    let Log { executions, coverage, .. } = log;
    println!("  {:>5} s  {executions:>12} executions, {coverage} edges reached", elapsed.as_secs());
    // Nothing is lost where nobody reads it.
    let _ = std::io::stdout().flush();
}

/// Makes the kept inputs anew from them and from what was found since.
fn keep(target: &str) -> Result<()> {
    let directory = directory();
    let (seeds, corpus) = (directory.join("seeds").join(target), directory.join("corpus").join(target));
    let fresh = tempfile::tempdir_in(directory.join("corpus")).context("no temporary directory")?;
    let mut command = cargo_fuzz();
    command.args(["run", "--sanitizer", "none", target]).arg(fresh.path()).args([&seeds, &corpus]);
    // Only edges, not how often each was passed: that keeps the inputs few.
    command.args(["--", "-set_cover_merge=1", "-use_counters=0"]).arg(format!("-max_len={MAX_INPUT_BYTES}"));
    run::run(command.stdout(Stdio::null()).stderr(Stdio::null()))?;
    std::fs::remove_dir_all(&seeds).with_context(|| format!("cannot empty {}", seeds.display()))?;
    std::fs::rename(fresh.keep(), &seeds).with_context(|| format!("cannot write {}", seeds.display()))?;
    println!("  {} inputs are kept", seeds.read_dir()?.count());
    Ok(())
}

fn show(rows: &[Row]) {
    println!("\n{:<10} {:>12} {:>8} {:>12} {:>8}", "target", "executions", "seconds", "a second", "findings");
    for Row { target, log, has_failed, seconds } in rows {
        let speed = log.executions as f64 / seconds.max(0.1);
        let (executions, findings) = (log.executions, u8::from(*has_failed));
        println!("{target:<10} {executions:>12} {seconds:>8.0} {speed:>12.0} {findings:>8}");
    }
}

/// How to run what was found once more.
fn again(rows: &[Row]) -> String {
    let findings = rows.iter().filter_map(|row| Some((&row.target, row.log.finding.as_ref()?)));
    let commands = findings.map(|(target, finding)| {
        format!("cd fuzz && RUSTC_BOOTSTRAP=1 cargo fuzz run --sanitizer none {target} {finding}")
    });
    commands.collect::<Vec<_>>().join("; ")
}
