//! Running other programs.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// The root of the workspace.
pub(crate) fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// The cargo that runs this program. It does not see that: with the variables that cargo sets for a program of a
/// package, build scripts of dependencies (ring's) would run anew, and all that needs them be built again.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    for (name, _) in std::env::vars_os() {
        if ["CARGO_PKG_", "CARGO_MANIFEST_"]
            .iter()
            .any(|of| name.as_encoded_bytes().starts_with(of.as_bytes()))
        {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a program whose output the user sees.
///
/// # Errors
/// When it cannot be started or fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {}", name(command)))?;
    if !status.success() {
        bail!("{} failed: {status}", line(command));
    }
    Ok(())
}

/// Runs a program and gives what it wrote to stdout; its stderr is the user's.
///
/// # Errors
/// When it cannot be started or fails.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    command.stdin(Stdio::null()).stderr(Stdio::inherit());
    let done = command.output().with_context(|| format!("cannot start {}", name(command)))?;
    if !done.status.success() {
        bail!("{} failed: {}", line(command), done.status);
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// As [`output`], with stderr thrown away: for questions whose answer may be no.
pub(crate) fn ask(command: &mut Command) -> Option<String> {
    let done = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    done.status.success().then(|| String::from_utf8_lossy(&done.stdout).into_owned())
}

/// The path of a program, looked for in PATH.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// Builds binaries of the workspace and gives their paths, in the same order.
///
/// # Errors
/// When the build fails or makes no such binary.
pub(crate) fn build_binaries(binaries: &[&str]) -> Result<Vec<PathBuf>> {
    build(binaries, &[])
}

/// As [`build_binaries`], optimised as for users.
///
/// # Errors
/// As [`build_binaries`].
pub(crate) fn build_release_binaries(binaries: &[&str]) -> Result<Vec<PathBuf>> {
    build(binaries, &["--release"])
}

fn build(binaries: &[&str], options: &[&str]) -> Result<Vec<PathBuf>> {
    let mut command = cargo();
    command.args(["build", "--message-format", "json-render-diagnostics"]).args(options);
    command.args(binaries.iter().flat_map(|binary| ["--bin", binary]));
    let messages = messages(&mut command)?;
    let path_of = |binary: &str| {
        let mut of_it = messages.iter().filter(|m| m.pointer("/target/name").is_some_and(|n| n == binary));
        let path = of_it.find_map(|message| message.get("executable")?.as_str().map(PathBuf::from));
        path.with_context(|| format!("cargo built no {binary}"))
    };
    binaries.iter().map(|binary| path_of(binary)).collect()
}

/// Runs a cargo that builds one binary, with messages in JSON, and gives its path.
///
/// # Errors
/// When the build fails or makes no such binary.
pub(crate) fn built(command: &mut Command, binary: &str) -> Result<PathBuf> {
    let built = messages(command)?.into_iter().find_map(|message| {
        (message.pointer("/target/name")? == binary).then_some(())?;
        message.get("executable")?.as_str().map(PathBuf::from)
    });
    built.with_context(|| format!("cargo built no {binary}"))
}

/// Builds one integration test of the workspace and gives its path.
///
/// # Errors
/// When the build fails or makes no such test.
pub(crate) fn build_test(test: &str) -> Result<PathBuf> {
    let mut command = cargo();
    command.args(["test", "--no-run", "--message-format", "json-render-diagnostics", "--test", test]);
    built(&mut command, test).with_context(|| format!("no test {test}"))
}

/// What cargo says in its machine-readable form.
fn messages(command: &mut Command) -> Result<Vec<Value>> {
    Ok(output(command)?.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

fn name(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}
