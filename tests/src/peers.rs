//! Peers that `cargo xtask setup` installs from PyPI: Envoy, and Python with grpcio and h2.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

use crate::privilege;
use crate::process::Launch;

/// The environment's directory in the cache, as `xtask/src/setup/h2_peers.rs` names it.
const NAME: &str = "h2-peers-1";

/// The variable that skips the tests that need them: `cargo xtask test` sets it where they cannot be had.
const NO_H2_PEERS: &str = "MIRROR_TESTS_NO_H2_PEERS";

/// Where the scripts are.
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/peers");

/// As [`privilege::root_or_skip`], for a test that also needs these peers.
///
/// # Panics
/// When something is missing where nothing may be skipped.
#[must_use]
pub fn peers_or_skip(test: &str) -> bool {
    let is_gate = std::env::var_os("CI").is_some_and(|ci| ci == "true");
    if std::env::var_os(NO_H2_PEERS).is_some() && !is_gate {
        eprintln!("skipped {test}: Envoy, grpcio and h2 could not be installed");
        return false;
    }
    if let Err(missing) = program("envoy") {
        return privilege::missing(test, &format!("{missing:#}"));
    }
    privilege::root_or_skip(test)
}

/// A program of the environment.
///
/// # Errors
/// When set-up has not been done.
pub fn program(name: &str) -> Result<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let base = base.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    let dir = base.context("neither XDG_CACHE_HOME nor HOME is set")?.join("mirror").join(NAME);
    ensure!(dir.join("complete").exists(), "Envoy, grpcio and h2: run `cargo xtask setup`");
    Ok(dir.join("bin").join(name))
}

/// Runs one of the scripts in `fixtures/peers`.
///
/// # Errors
/// When set-up has not been done.
pub fn script(name: &str) -> Result<Launch> {
    // No compiled copies beside the scripts, and what is printed is seen at once.
    Ok(Launch::new(program("python")?).args(["-B", "-u"]).arg(format!("{SCRIPTS}/{name}")))
}
