//! A real Kubernetes on this machine, for tests: etcd, API server, controller manager and scheduler, and nodes with
//! containerd, kubelet and kube-proxy, each in namespaces of its own, with CoreDNS. Nothing of it can reach, or be
//! reached from, any network of this machine.
//!
//! ```text
//!   node-1  10.77.0.1 ── br0 ── 10.77.0.2  node-2        Services 10.77.128.0/17, DNS 10.77.128.10
//!   pods 10.77.65.0/24          pods 10.77.66.0/24       API server https://10.77.0.1:6443
//! ```

mod binaries;
mod control_plane;
mod down;
mod envoy_gateway;
mod images;
mod layout;
mod network;
mod node;
mod process;
mod up;

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use rustix::fs::{FlockOperation, flock};

use crate::{interrupt, toolchain};

pub(crate) use layout::{Layout, NAME};
pub(crate) use up::prepare;

/// Which cluster, and what to do with it.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Its name: there can be several. Lower case letters and digits.
    #[arg(long, global = true, env = NAME, default_value = layout::DEFAULT_NAME)]
    name: String,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Bring it up, building what it needs. The first time that takes about ten minutes, then less than one.
    Up {
        /// Nodes; the first has the control plane, too.
        #[arg(long, default_value_t = 2)]
        nodes: u32,
    },
    /// Take it down; nothing of it is left then.
    Down,
    /// Build or fetch what it needs, and no more.
    Build {
        /// Envoy Gateway and helm, too.
        #[arg(long)]
        envoy_gateway: bool,
    },
    /// Run kubectl as its administrator.
    #[command(visible_alias = "k")]
    Kubectl {
        /// For kubectl, as they are.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Put images into every node: nginx, envoy, ..., or an archive by its path.
    Load {
        /// Names or paths.
        #[arg(required = true)]
        images: Vec<String>,
    },
    /// Install Envoy Gateway from its own chart.
    EnvoyGateway,
    /// End one of its processes, at once.
    Kill {
        /// kube-apiserver, kubelet-1, ...: the names of its logs.
        process: String,
    },
    /// Start a process again that has ended, as it was started; the API server is waited for.
    Start {
        /// As for `kill`.
        process: String,
    },
}

/// Does it.
///
/// # Errors
/// When it can't be done; see the modules.
pub(crate) fn cluster(options: &Options) -> Result<()> {
    let layout = Layout::new(&options.name)?;
    match &options.action {
        Action::Up { nodes } => up_by_hand(&layout, *nodes),
        Action::Down => {
            let _lock = lock(&layout)?;
            down::down(&layout)?;
            println!("nothing is left of {}", layout.prefix());
            Ok(())
        }
        Action::Build { envoy_gateway } => up::prepare(*envoy_gateway),
        Action::Kubectl { arguments } => {
            require(&layout)?;
            Err(control_plane::kubectl(&layout)?.args(arguments).exec()).context("cannot start kubectl")
        }
        Action::Load { images } => {
            let (paths, names): (Vec<&String>, Vec<&String>) =
                images.iter().partition(|image| image.contains('/'));
            let names: Vec<&str> = names.into_iter().map(String::as_str).collect();
            load(&layout, &names, &paths.into_iter().map(Path::new).collect::<Vec<_>>())
        }
        Action::EnvoyGateway => {
            up::prepare(true)?;
            load(&layout, &["envoy", "envoy-gateway"], &[])?;
            install_envoy_gateway(&layout)
        }
        Action::Kill { process } => process::Process::recorded(&layout, process)?.stop(true),
        Action::Start { process } => start_again(&layout, process),
    }
}

/// Brings a cluster up, runs `work` beside it, and takes it down whatever came of that. With `keep` one that is up is
/// taken, and it is left up.
///
/// # Errors
/// When the cluster does not come up or does not go down, or `work` fails.
pub(crate) fn with_cluster(
    layout: &Layout,
    nodes: u32,
    keep: bool,
    work: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let _lock = lock(layout)?;
    let is_up = keep && layout.record().exists();
    let up = if is_up { Ok(()) } else { up::up(layout, nodes) };
    let done = up.and_then(|()| work());
    if keep && !interrupt::is_noted() {
        say_how_to_use(layout);
        return done;
    }
    // What came of it is told first: taking it down removes the logs.
    if let Err(failure) = &done {
        eprintln!("error: {failure:#}");
    }
    interrupt::forget();
    println!("taking the cluster down");
    down::down(layout)?;
    done
}

fn up_by_hand(layout: &Layout, nodes: u32) -> Result<()> {
    interrupt::note_signals()?;
    let _lock = lock(layout)?;
    up::prepare(false)?;
    match up::up(layout, nodes) {
        Ok(()) => {
            say_how_to_use(layout);
            Ok(())
        }
        Err(failure) if interrupt::is_noted() => {
            interrupt::forget();
            down::down(layout)?;
            Err(failure)
        }
        Err(failure) => {
            let logs = layout.state().join("log");
            let left = format!("all logs are in {}; `cargo xtask cluster down` removes them", logs.display());
            bail!("{failure:#}\n  {left}")
        }
    }
}

/// Puts images into every node: those that this program makes, by name, and archives.
///
/// # Errors
/// When there is no cluster, one can't be made, or a node does not take it.
pub(crate) fn load(layout: &Layout, names: &[&str], archives: &[&Path]) -> Result<()> {
    require(layout)?;
    up::step("images of the tests", || {
        up::load(layout, names)?;
        archives.iter().try_for_each(|archive| up::load_archive(layout, archive))
    })
}

/// Installs Envoy Gateway, whose images are there.
///
/// # Errors
/// When helm fails.
pub(crate) fn install_envoy_gateway(layout: &Layout) -> Result<()> {
    up::step("Envoy Gateway", || envoy_gateway::install(layout))
}

fn start_again(layout: &Layout, name: &str) -> Result<()> {
    let process = process::Process::recorded(layout, name)?.start_again(layout)?;
    if name == control_plane::API_SERVER {
        control_plane::wait_until_ready(layout, &[&process])?;
    }
    Ok(())
}

/// Keeps another run of this program from replacing a cluster that this one works with.
fn lock(layout: &Layout) -> Result<File> {
    let dir = toolchain::cache_dir()?;
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let lock = File::create(dir.join(format!("{}.lock", layout.prefix())))?;
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        let prefix = layout.prefix();
        bail!("another run of cargo xtask works with {prefix}; {NAME}=other names another cluster");
    }
    Ok(lock)
}

fn require(layout: &Layout) -> Result<()> {
    if !layout.record().exists() {
        bail!("there is no cluster {}: cargo xtask cluster up", layout.prefix());
    }
    Ok(())
}

fn say_how_to_use(layout: &Layout) {
    println!("{} is up", layout.prefix());
    let name = match layout.name() {
        layout::DEFAULT_NAME => String::new(),
        other => format!(" --name {other}"),
    };
    println!("  use it     cargo xtask cluster{name} kubectl -- get pods --all-namespaces");
    println!("  logs       {}", layout.state().join("log").display());
    println!("  a node     nsenter --net=/run/netns/{} ...", layout.netns(1));
    println!("  end it     cargo xtask cluster{name} down");
}
