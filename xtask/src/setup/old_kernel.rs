//! Debian 12's kernel and an emulator to boot it in.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use super::{Impossible, Progress, debian};
use crate::kernel_test::OldKernel;
use crate::{run, toolchain};

/// The package that names the current kernel package, and what its name starts with.
const META_PACKAGE: &str = "linux-image-amd64";
const PACKAGE_PREFIX: &str = "linux-image-";
/// The last series without TCX that a Debian release has.
const SERIES: &str = "6.1.";

/// Emulator, busybox and the kernel, unpacked in the cache.
///
/// # Errors
/// [`Impossible`] when one of them cannot be had.
pub(crate) fn old_kernel() -> Result<OldKernel> {
    emulator()?;
    let progress = Progress::begin("Debian 12's kernel");
    let package = package_name()?;
    let release = package.strip_prefix(PACKAGE_PREFIX).unwrap_or_default().to_owned();
    let root = toolchain::cache_dir()?.join("kernels").join(&release);
    // The last file to be written.
    if root.join("lib/modules").join(&release).join("modules.dep").is_file() {
        progress.is_there();
        return Ok(OldKernel { root, release });
    }
    progress.installing();
    unpack(&package, &root)?;
    let mut depmod = Command::new("busybox");
    run::run(depmod.args(["depmod", "-b"]).arg(&root).arg(&release))?;
    progress.installed();
    Ok(OldKernel { root, release })
}

fn emulator() -> Result<()> {
    let progress = Progress::begin("Debian packages: qemu-system-x86, busybox-static");
    let wanted = [("qemu-system-x86_64", "qemu-system-x86"), ("busybox", "busybox-static")];
    let missing: Vec<&str> = wanted
        .iter()
        .filter(|(program, _)| run::find(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        progress.is_there();
        return Ok(());
    }
    progress.installing();
    debian::install(&missing)?;
    progress.installed();
    Ok(())
}

fn package_name() -> Result<String> {
    let listed = run::ask(Command::new("apt-cache").args(["depends", META_PACKAGE])).unwrap_or_default();
    let wanted = format!("{PACKAGE_PREFIX}{SERIES}");
    let named = listed.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    named.map(str::trim).find(|name| name.starts_with(&wanted)).map(str::to_owned).ok_or_else(|| {
        let what = format!("apt knows no {META_PACKAGE} of the {SERIES}x series");
        Impossible::new(what, "run this on Debian 12 (amd64), after apt-get update").into()
    })
}

/// Fetches the package and unpacks it, without installing it.
fn unpack(package: &str, root: &Path) -> Result<()> {
    std::fs::create_dir_all(root).with_context(|| format!("cannot make {}", root.display()))?;
    let mut fetch = Command::new("apt-get");
    fetch.current_dir(root).args(["-q", "download", package]);
    fetch.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let fetched = fetch.status().context("cannot start apt-get")?.success();
    let files: Vec<_> = std::fs::read_dir(root)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    let archive = files.iter().find(|file| file.extension().is_some_and(|end| end == "deb"));
    let Some(archive) = archive.filter(|_| fetched) else {
        let what = format!("apt-get could not download {package}");
        return Err(Impossible::new(what, "is there a network? Try apt-get update").into());
    };
    run::run(Command::new("dpkg-deb").arg("-x").arg(archive).arg(root))?;
    std::fs::remove_file(archive)?;
    Ok(())
}
