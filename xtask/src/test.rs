//! Every test: the pure ones, the ones on the real kernel, and these once more with clsact forced.

mod cluster;

use std::process::Command;

use anyhow::{Context as _, Result, bail};
use rustix::process::geteuid;

use crate::setup::{self, Need};
use crate::{ebpf, run};

/// The variable that names the daemon to test.
const DAEMON: &str = "MIRROR_DAEMON";

/// The variable that skips the tests that need root, even as root.
const NO_ROOT: &str = "MIRROR_TESTS_NO_ROOT";

/// The variable that turns a test skipped for want of root into a failure.
const STRICT: &str = "MIRROR_TESTS_STRICT";

/// The variable that skips the tests that need Envoy, grpcio or h2 from PyPI.
const NO_H2_PEERS: &str = "MIRROR_TESTS_NO_H2_PEERS";

/// The variable that skips the tests in a cluster, also where nothing else may be skipped: they have a run of their
/// own.
const NO_CLUSTER: &str = "MIRROR_TESTS_NO_CLUSTER";

/// The variable that says how TC programs are attached.
const TC_MODE: &str = "MIRROR_TC_MODE";

/// What to test.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Options {
    /// Only tests whose name contains this.
    filter: Option<String>,
    /// Only the tests that need no root, no kernel programs and no set-up.
    #[arg(long)]
    no_root: bool,
    /// Only the tests in a real Kubernetes, which is brought up and taken down.
    #[arg(long, conflicts_with = "no_root")]
    cluster: bool,
    /// With these gateways; nginx and envoy when none is named.
    #[arg(long, value_enum, requires = "cluster")]
    gateway: Vec<cluster::GatewayKind>,
    /// With more pods and more requests than every run has: takes minutes more.
    #[arg(long, requires = "cluster")]
    long: bool,
    /// Leave the cluster up; take one that is up already.
    #[arg(long, requires = "cluster")]
    keep: bool,
    /// Put a daemon into the cluster that is built fast and is slow.
    #[arg(long, requires = "cluster")]
    dev_image: bool,
}

/// Runs them.
///
/// # Errors
/// When a test fails, or set-up does.
pub(crate) fn test(options: &Options) -> Result<()> {
    if options.cluster {
        return cluster::in_cluster(options);
    }
    if options.no_root {
        return run::run(cargo_test(options).env(NO_ROOT, "1"));
    }
    setup::setup(&[Need::Kernel, Need::Peers, Need::H2Peers, Need::KernelBuild])?;
    println!("kernel object");
    println!("  {}", ebpf::build_ebpf()?.display());
    passes(options)
}

/// The tests in a cluster, as `cargo xtask test --cluster` runs them.
///
/// # Errors
/// When one of them fails, or the cluster does.
pub(crate) fn in_cluster() -> Result<()> {
    cluster::in_cluster(&Options { cluster: true, ..Options::default() })
}

/// Both passes; the second is done even when the first fails, so that one run shows everything.
///
/// # Errors
/// When a test of either fails.
pub(crate) fn passes(options: &Options) -> Result<()> {
    println!("tests, first pass: everything");
    let built = run::build_binaries(&["mirror-daemon"])?;
    let daemon = built.first().context("cargo built nothing")?;
    let first = run::run(cargo_test(options).env(DAEMON, daemon));
    println!("tests, second pass: on the real kernel with clsact");
    let mut clsact = cargo_test(options);
    clsact.args(["--test", "netns"]).env(TC_MODE, "clsact").env(DAEMON, daemon);
    let second = run::run(&mut clsact);
    match (first, second) {
        (Ok(()), Ok(())) => Ok(()),
        (Err(failure), Ok(())) => Err(failure.context("the first pass failed")),
        (Ok(()), Err(failure)) => Err(failure.context("the pass with clsact failed")),
        (Err(first), Err(second)) => bail!("both passes failed: {first:#}; {second:#}"),
    }
}

/// `cargo test`, with the filter behind whatever options are still added: cargo takes them in any order.
fn cargo_test(options: &Options) -> Command {
    let mut command = run::cargo();
    command.args(["test", "--no-fail-fast"]).args(&options.filter).env_remove(TC_MODE).env(NO_CLUSTER, "1");
    if geteuid().is_root() && !options.no_root {
        command.env(STRICT, "1");
    }
    if !setup::has_h2_peers() {
        command.env(NO_H2_PEERS, "1");
    }
    command
}
