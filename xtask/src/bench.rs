//! The measurement: set-up and release builds here, the rest in `mirror-bench`.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::setup::{self, Need};
use crate::{ebpf, run};

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Options of the measurement; `-- --help` lists them (--quick, --json FILE, ...).
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<OsString>,
}

/// Builds everything and becomes the measurement, so that Ctrl-C reaches only what can clean up.
///
/// # Errors
/// When set-up or build fail. Does not return otherwise.
pub(crate) fn bench(options: &Options) -> Result<()> {
    setup::setup(&[Need::Kernel, Need::Peers, Need::KernelBuild])?;
    println!("build, as for users");
    ebpf::build_ebpf()?;
    let built = run::build_release_binaries(&["mirror-daemon", "mirror-bench"])?;
    let [daemon, bench] = built.as_slice() else { anyhow::bail!("cargo built other binaries") };
    let mut command = Command::new(bench);
    command.env("MIRROR_DAEMON", daemon).args(&options.options);
    Err(command.exec()).with_context(|| format!("cannot start {}", bench.display()))
}
