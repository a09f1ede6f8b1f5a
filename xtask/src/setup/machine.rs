//! The kernel and the user: what cannot be installed.

use std::path::Path;

use anyhow::Result;

use super::{Impossible, Progress};

/// The oldest kernel that the programs are made for.
const OLDEST_KERNEL: (u32, u32) = (5, 15);

/// Fails when the kernel programs cannot run here.
///
/// # Errors
/// [`Impossible`].
pub(super) fn check() -> Result<()> {
    let progress = Progress::begin("kernel with BPF, and root");
    if !rustix::process::geteuid().is_root() {
        return Err(not_root("kernel programs and network namespaces").into());
    }
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    if version(&release).is_none_or(|found| found < OLDEST_KERNEL) {
        let what = format!("kernel {release} is too old: 5.15 is the oldest that works");
        return Err(Impossible::new(what, "boot a newer kernel (Debian 12 has 6.1)").into());
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        let what = "this kernel has no BTF (/sys/kernel/btf/vmlinux is missing)";
        let remedy = "boot a kernel with CONFIG_DEBUG_INFO_BTF=y (Debian's own has it), or mount /sys";
        return Err(Impossible::new(what, remedy).into());
    }
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    if !mounts.lines().any(|line| line.split(' ').nth(2) == Some("cgroup2")) {
        let remedy =
            "mount it: mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified";
        return Err(Impossible::new("cgroup v2 is not mounted", remedy).into());
    }
    progress.is_there();
    Ok(())
}

/// The message for a step that only root can do.
pub(super) fn not_root(step: &str) -> Impossible {
    Impossible::new(
        format!("{step} need root"),
        "become root (su -, sudo -i) and type the command again; `cargo xtask test --no-root` runs the tests \
         that need none",
    )
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_releases_are_compared_by_number() {
        assert_eq!(version("6.1.0-28-amd64"), Some((6, 1)));
        assert!(version("5.4.0-foo").unwrap() < OLDEST_KERNEL);
        assert!(version("5.15.0").unwrap() >= OLDEST_KERNEL);
        assert!(version("10.0-rc1").unwrap() >= OLDEST_KERNEL);
        assert_eq!(version("weird"), None);
    }
}
