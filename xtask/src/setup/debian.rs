//! Debian packages, installed without starting what they bring.

use std::fs::File;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use super::machine::not_root;
use super::{Impossible, Progress};
use crate::{run, toolchain};

/// A program that is used, and the package that brings it.
const PEERS: [(&str, &str); 14] = [
    ("nginx", "nginx-light"),
    ("haproxy", "haproxy"),
    ("ip", "iproute2"),
    ("wrk", "wrk"),
    ("h2load", "nghttp2-client"),
    ("nghttp", "nghttp2-client"),
    ("tshark", "tshark"),
    ("bpftool", "bpftool"),
    ("tcpdump", "tcpdump"),
    ("curl", "curl"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
    ("taskset", "util-linux"),
    ("update-rc.d", "init-system-helpers"),
];

/// Services that these packages would start, now and at boot.
const SERVICES: [&str; 2] = ["nginx", "haproxy"];

/// Asked by every package before it starts a service.
const POLICY_FILE: &str = "/usr/sbin/policy-rc.d";

/// Says no to all (101: forbidden by policy).
const POLICY: &str =
    "#!/bin/sh\n# Written by cargo xtask setup for the time of one installation.\nexit 101\n";

/// The gateways and tools that demo and tests use.
///
/// # Errors
/// [`Impossible`] when a package cannot be installed.
pub(super) fn peers() -> Result<()> {
    let progress = Progress::begin("Debian packages: nginx, haproxy, iproute2, wrk, h2load, tshark, ...");
    let missing: Vec<_> = PEERS.iter().filter(|(program, _)| run::find(program).is_none()).collect();
    if missing.is_empty() {
        ServicesHeld::release_leftover();
        progress.is_there();
        return Ok(());
    }
    let mut packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
    packages.dedup();
    progress.installing();
    install(&packages)?;
    keep_from_boot(&SERVICES, &packages);
    if let Some((program, package)) = missing.iter().find(|(program, _)| run::find(program).is_none()) {
        let what = format!("the package {package} is installed, and there is still no {program} in PATH");
        return Err(Impossible::new(what, "add its directory to PATH").into());
    }
    progress.installed();
    Ok(())
}

/// Keeps services from starting at boot, where their packages have just been installed.
pub(super) fn keep_from_boot(services: &[&str], installed: &[&str]) {
    for service in services.iter().filter(|name| installed.iter().any(|package| package.starts_with(*name))) {
        // Where there is no init system, there is nothing to switch off.
        drop(run::ask(Command::new("update-rc.d").args([service, "disable"])));
    }
}

/// Installs packages; the package lists are fetched only when apt cannot do without.
///
/// # Errors
/// [`Impossible`], with the end of what apt said.
pub(super) fn install(packages: &[&str]) -> Result<()> {
    let named = packages.join(" ");
    if !rustix::process::geteuid().is_root() {
        return Err(not_root(&format!("Debian packages ({named})")).into());
    }
    if run::find("apt-get").is_none() {
        let what = format!("these packages are missing, and there is no apt-get: {named}");
        return Err(Impossible::new(what, "install them by your system's means").into());
    }
    let _quiet = ServicesHeld::hold()?;
    let log = toolchain::cache_dir()?.join("apt.log");
    if apt(&log, "install", packages)? {
        return Ok(());
    }
    if apt(&log, "update", &[])? && apt(&log, "install", packages)? {
        return Ok(());
    }
    let said = std::fs::read_to_string(&log).unwrap_or_default();
    let errors: Vec<&str> = said.lines().filter(|line| line.starts_with("E:")).take(4).collect();
    let what = format!("apt-get could not install {named}:\n    {}", errors.join("\n    "));
    let remedy = format!("look at {}; is there a network, and is Debian's archive reached?", log.display());
    Err(Impossible::new(what, remedy).into())
}

/// Runs apt-get without questions; what it says goes to the log.
fn apt(log: &Path, action: &str, packages: &[&str]) -> Result<bool> {
    let dir = log.parent().context("the log has no directory")?;
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut command = Command::new("apt-get");
    command.args(["-y", "-q", "-o", "Acquire::Retries=2", "-o", "DPkg::Lock::Timeout=120"]).arg(action);
    if action == "install" {
        // Never at the price of something the user has.
        command.args(["--no-install-recommends", "--no-remove", "--"]).args(packages);
    }
    command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C.UTF-8");
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    Ok(command.status().context("cannot start apt-get")?.success())
}

/// Keeps packages from starting services while it lives.
struct ServicesHeld {
    written: bool,
}

impl ServicesHeld {
    fn hold() -> Result<Self> {
        let path = Path::new(POLICY_FILE);
        Self::release_leftover();
        if path.exists() {
            // The user's own policy stands.
            return Ok(Self { written: false });
        }
        std::fs::write(path, POLICY).with_context(|| format!("cannot write {POLICY_FILE}"))?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
        Ok(Self { written: true })
    }

    /// Removes a policy of ours that an interrupted run has left: no service would start again.
    fn release_leftover() {
        if std::fs::read_to_string(POLICY_FILE).is_ok_and(|text| text == POLICY) {
            drop(std::fs::remove_file(POLICY_FILE));
        }
    }
}

impl Drop for ServicesHeld {
    fn drop(&mut self) {
        if self.written {
            drop(std::fs::remove_file(POLICY_FILE));
        }
    }
}
