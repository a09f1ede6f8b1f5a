//! Control groups of version 2, wherever this machine mounts them.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::cleanup::{self, Held};

/// A cgroup of this run's own, directly below the root; removed on Drop with all that runs in it.
#[derive(Debug)]
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// Makes an empty one.
    ///
    /// # Errors
    /// When cgroup v2 is not mounted or not writable.
    pub fn new() -> Result<Self> {
        cleanup::sweep_leftovers();
        let path = mount_point()?.join(cleanup::unique_name());
        std::fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        cleanup::hold(Held::Cgroup(path.clone()));
        Ok(Self(path))
    }

    /// Makes an empty one within this one, and what is missing in between; removed with this one, or on Drop.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn below(&self, path: &str) -> Result<Self> {
        let path = self.0.join(path);
        std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        cleanup::hold(Held::Cgroup(path.clone()));
        Ok(Self(path))
    }

    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A number from one of its files, by key (`usage_usec` in `cpu.stat`).
    ///
    /// # Errors
    /// When the file or the key is missing.
    pub fn stat(&self, file: &str, key: &str) -> Result<u64> {
        let text = std::fs::read_to_string(self.0.join(file)).with_context(|| format!("no {file}"))?;
        let found = text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok());
        found.with_context(|| format!("no {key} in {file}"))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        cleanup::release(&Held::Cgroup(self.0.clone()));
    }
}

/// Where cgroup v2 is mounted: /sys/fs/cgroup on new systems, below it on hybrid ones.
///
/// # Errors
/// When it is not mounted.
pub fn mount_point() -> Result<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/mounts").context("cannot read /proc/mounts")?;
    let found = mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let path = words.next()?;
        (words.next()? == "cgroup2").then(|| PathBuf::from(path))
    });
    found.context("cgroup v2 is not mounted")
}
