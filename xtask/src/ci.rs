//! What CI runs, here as there.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::setup::{self, Need};
use crate::{ebpf, run, test, toolchain};

/// A source file without its tests should not be longer than this.
const MAX_FILE_LINES: usize = 500;

/// One check: fails, or says what it found.
type Check = fn() -> Result<()>;

/// What to check.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Options {
    /// The tests in a real Kubernetes, too.
    #[arg(long)]
    cluster: bool,
}

/// Runs every check, also after one has failed, and lists them at the end.
///
/// # Errors
/// When a check failed.
pub(crate) fn ci(options: &Options) -> Result<()> {
    let begun = Instant::now();
    setup::setup(&[Need::Kernel, Need::Peers, Need::AllH2Peers, Need::KernelBuild, Need::Policy])?;
    let mut checks: Vec<(&str, Check)> = vec![
        ("format", format),
        ("kernel object", || ebpf::build_ebpf().map(drop)),
        ("clippy", clippy),
        ("clippy of the kernel programs", clippy_ebpf),
        ("rustdoc", rustdoc),
        ("dependency policy", policy),
        ("length of files", || list_long_files(run::root())),
        ("tests", || test::passes(&test::Options::default())),
    ];
    if options.cluster {
        checks.push(("tests in a cluster", test::in_cluster));
    }
    let mut lines = Vec::new();
    let mut failed = false;
    for (name, check) in checks {
        println!("\n==> {name}");
        let check_begun = Instant::now();
        let outcome = check();
        let word = if outcome.is_ok() { "ok" } else { "FAILED" };
        lines.push(format!("  {word:<7} {:>7.1} s  {name}", check_begun.elapsed().as_secs_f64()));
        if let Err(failure) = outcome {
            eprintln!("error: {failure:#}");
            failed = true;
        }
    }
    println!("\n{}\n  all     {:>7.1} s", lines.join("\n"), begun.elapsed().as_secs_f64());
    if failed {
        bail!("a check failed");
    }
    Ok(())
}

fn format() -> Result<()> {
    run::run(run::cargo().args(["fmt", "--all", "--check"]))
}

fn clippy() -> Result<()> {
    run::run(run::cargo().args(["clippy", "--quiet", "--all-targets", "--", "-D", "warnings"]))
}

/// The kernel programs are checked for their own target; Debian's compiler comes without clippy.
fn clippy_ebpf() -> Result<()> {
    let chain = toolchain::ebpf_toolchain()?;
    if Some(&chain) != toolchain::active().as_ref() {
        println!("left out: the compiler of the kernel programs has no clippy");
        return Ok(());
    }
    let mut command = run::cargo();
    command.args(["clippy", "--quiet", "--package", "mirror-ebpf", "--release", "-Z", "build-std=core"]);
    command.args(["--target", "bpfel-unknown-none", "--target-dir", "target/clippy-ebpf"]);
    run::run(command.args(["--", "-D", "warnings"]).env("RUSTC_BOOTSTRAP", "1"))
}

fn rustdoc() -> Result<()> {
    let mut command = run::cargo();
    command.args(["doc", "--quiet", "--no-deps", "--document-private-items"]);
    run::run(command.env("RUSTDOCFLAGS", "-D warnings"))
}

fn policy() -> Result<()> {
    let checks = ["deny", "--log-level", "error", "check", "bans", "licenses", "sources"];
    run::run(run::cargo().args(checks))
}

/// Names the files that are too long to hold in mind. A warning: cutting one is a person's decision.
fn list_long_files(root: &Path) -> Result<()> {
    let mut git = Command::new("git");
    let listed = run::output(git.current_dir(root).args(["ls-files", "*.rs"]))?;
    for name in listed.lines() {
        let path = root.join(name);
        if !path.exists() {
            continue;
        }
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {name}"))?;
        let lines = lines_without_tests(&text);
        if lines > MAX_FILE_LINES {
            println!(
                "warning: {name} has {lines} lines without tests; aim for 300, at most {MAX_FILE_LINES}"
            );
        }
    }
    Ok(())
}

/// Tests come last in a file.
fn lines_without_tests(text: &str) -> usize {
    text.lines().take_while(|line| *line != "#[cfg(test)]").count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_at_the_end_do_not_count() {
        assert_eq!(lines_without_tests("a\nb\n#[cfg(test)]\nmod tests {}\n"), 2);
        assert_eq!(lines_without_tests("a\n    #[cfg(test)]\nb\n"), 3);
    }
}
