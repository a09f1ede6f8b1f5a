//! What a Kubernetes for tests needs beside its own programs: from Debian, and a compiler for what holds pods.

use std::path::Path;

use anyhow::Result;

use super::{Impossible, Progress, debian};
use crate::run;

/// A file that is used, and the package that brings it.
const NEEDED: [(&str, &str); 10] = [
    ("etcd", "etcd-server"),
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("nft", "nftables"),
    ("conntrack", "conntrack"),
    ("ip", "iproute2"),
    ("iptables", "iptables"),
    ("openssl", "openssl"),
    ("cc", "gcc"),
];

/// A plugin of the container network, outside PATH, and its package.
const PLUGIN: (&str, &str) = ("/usr/lib/cni/ptp", "containernetworking-plugins");

/// Installs it.
///
/// # Errors
/// [`Impossible`] when a package can't be installed.
pub(super) fn install() -> Result<()> {
    let progress = Progress::begin("Debian packages: etcd-server, containerd, runc, nftables, ...");
    let missing = missing();
    if missing.is_empty() {
        progress.is_there();
        return Ok(());
    }
    progress.installing();
    debian::install(&missing)?;
    debian::keep_from_boot(&["etcd", "containerd"], &missing);
    if let Some(package) = self::missing().first() {
        let what = format!("the package {package} is installed, and what it should bring is not found");
        return Err(Impossible::new(what, "is it Debian's?").into());
    }
    progress.installed();
    Ok(())
}

fn missing() -> Vec<&'static str> {
    let absent = NEEDED.iter().filter(|(program, _)| run::find(program).is_none());
    let mut packages: Vec<&str> = absent.map(|(_, package)| *package).collect();
    packages.extend((!Path::new(PLUGIN.0).exists()).then_some(PLUGIN.1));
    packages.dedup();
    packages
}
