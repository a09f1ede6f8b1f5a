//! The demonstration: set-up and build here, the rest in `mirror-demo`.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::setup::{self, Need};
use crate::{ebpf, run};

/// How to show it.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Use the bundled app even where httpbin is installed.
    #[arg(long)]
    bundled_app: bool,
}

/// Builds everything and becomes the demonstration, so that Ctrl-C reaches only what can clean up.
///
/// # Errors
/// When set-up or build fail. Does not return otherwise.
pub(crate) fn demo(options: &Options) -> Result<()> {
    let mut needs = vec![Need::Kernel, Need::Peers, Need::KernelBuild];
    if !options.bundled_app {
        needs.push(Need::Httpbin);
    }
    setup::setup(&needs)?;
    println!("build");
    ebpf::build_ebpf()?;
    let built = run::build_binaries(&["mirror-daemon", "mirror-demo"])?;
    let [daemon, demo] = built.as_slice() else { anyhow::bail!("cargo built other binaries") };
    let mut command = Command::new(demo);
    command.env("MIRROR_DAEMON", daemon);
    if let Some(gunicorn) = setup::gunicorn().filter(|_| !options.bundled_app) {
        command.arg("--gunicorn").arg(gunicorn);
    }
    Err(command.exec()).with_context(|| format!("cannot start {}", demo.display()))
}
