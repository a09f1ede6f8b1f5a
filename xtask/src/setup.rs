//! Everything that a fresh machine lacks, installed once.
//!
//! Nothing is put into the source tree, and no service is started. A step whose result is there already costs
//! a few milliseconds.

mod cluster;
mod debian;
mod h2_peers;
mod httpbin;
mod machine;
mod old_kernel;
mod python;
mod tools;

use std::time::{Duration, Instant};

use anyhow::Result;

/// What a command needs before it can work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// A kernel that can run it, and root.
    Kernel,
    /// Gateways, load tools and the like, from Debian.
    Peers,
    /// Compiler, LLVM and bpf-linker for the kernel programs.
    KernelBuild,
    /// Envoy, grpcio and h2 from PyPI; done without where they cannot be had.
    H2Peers,
    /// The same where nothing may be left out.
    AllH2Peers,
    /// httpbin from PyPI; done without where it cannot be had.
    Httpbin,
    /// cargo-deny.
    Policy,
    /// What a Kubernetes for tests needs from Debian.
    Cluster,
}

impl Need {
    /// Everything.
    pub(crate) const ALL: [Self; 6] =
        [Self::Kernel, Self::Peers, Self::H2Peers, Self::KernelBuild, Self::Httpbin, Self::Policy];
}

/// A step that cannot be done on this machine as it is: what failed, and what to do.
#[derive(Debug)]
pub(crate) struct Impossible {
    what: String,
    remedy: String,
}

impl Impossible {
    pub(crate) fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into() }
    }
}

impl std::fmt::Display for Impossible {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\n  what to do: {}", self.what, self.remedy)
    }
}

impl std::error::Error for Impossible {}

/// Makes sure of every need, in order, with a line for each step.
///
/// # Errors
/// [`Impossible`] when a step cannot be done here.
pub(crate) fn setup(needs: &[Need]) -> Result<()> {
    println!("set-up");
    for need in needs {
        match need {
            Need::Kernel => machine::check()?,
            Need::Peers => debian::peers()?,
            Need::KernelBuild => tools::kernel_build()?,
            Need::H2Peers => h2_peers::install(),
            Need::AllH2Peers => h2_peers::require()?,
            Need::Httpbin => httpbin::install(),
            Need::Policy => tools::policy()?,
            Need::Cluster => cluster::install()?,
        }
    }
    Ok(())
}

pub(crate) use h2_peers::{envoy, has_h2_peers};
pub(crate) use httpbin::gunicorn;
pub(crate) use old_kernel::old_kernel;

/// One line of progress, printed when the step is done; a second one before it, where it takes long.
pub(crate) struct Progress {
    name: String,
    begun: Instant,
}

impl Progress {
    pub(crate) fn begin(name: impl Into<String>) -> Self {
        Self { name: name.into(), begun: Instant::now() }
    }

    pub(crate) fn is_there(&self) {
        self.line("there");
    }

    pub(crate) fn installing(&self) {
        println!("  {:<10} {}", "installing", self.name);
    }

    pub(crate) fn installed(&self) {
        self.line("installed");
    }

    fn left_out(&self, why: &str) {
        println!("  {:<10} {} ({why})", "left out", self.name);
    }

    fn line(&self, outcome: &str) {
        println!("  {outcome:<10} {} ({})", self.name, shown(self.begun.elapsed()));
    }
}

fn shown(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}
