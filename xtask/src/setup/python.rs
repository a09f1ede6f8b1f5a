//! Environments of Python packages from PyPI, each in a directory of its own in the cache.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::debian;
use crate::{run, toolchain};

/// One environment. Its name holds a number: raise it when the packages change, so that old trees keep theirs.
#[derive(Debug)]
pub(super) struct Environment {
    /// The directory in the cache, and the name of its log.
    pub(super) name: &'static str,
    /// What pip installs.
    pub(super) packages: &'static [&'static str],
    /// What must be importable then.
    pub(super) modules: &'static str,
}

impl Environment {
    /// A program of a complete environment.
    pub(super) fn program(&self, name: &str) -> Option<PathBuf> {
        let dir = self.dir().ok()?;
        dir.join("complete").exists().then(|| dir.join("bin").join(name))
    }

    /// Makes it anew.
    ///
    /// # Errors
    /// When a step fails, naming the log that says why.
    pub(super) fn create(&self) -> Result<()> {
        let has_venv = run::ask(Command::new("python3").args(["-c", "import ensurepip, venv"])).is_some();
        if !has_venv {
            debian::install(&["python3-venv"])?;
        }
        let dir = self.dir()?;
        let parent = dir.parent().context("no cache directory")?;
        std::fs::create_dir_all(parent)?;
        let log = parent.join(format!("{}.log", self.name));
        let file = File::create(&log)?;
        let python = dir.join("bin/python");
        let mut venv = Command::new("python3");
        venv.args(["-m", "venv", "--clear"]).arg(&dir);
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "1"])
            .args(self.packages);
        let mut import = Command::new(&python);
        import.args(["-c", &format!("import {}", self.modules)]);
        for command in [&mut venv, &mut pip, &mut import] {
            command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file.try_clone()?);
            if run::run(command).is_err() {
                bail!("look at {}", log.display());
            }
        }
        Ok(std::fs::write(dir.join("complete"), "")?)
    }

    fn dir(&self) -> Result<PathBuf> {
        Ok(toolchain::cache_dir()?.join(self.name))
    }
}
