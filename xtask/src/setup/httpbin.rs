//! httpbin, the app of the K8sGateway guide, from PyPI in an environment of its own.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::{Progress, debian};
use crate::{run, toolchain};

/// What pip installs.
const PACKAGES: [&str; 2] = ["httpbin==0.10.2", "gunicorn==23.0.0"];

/// The program that serves httpbin, if it was installed.
pub(crate) fn gunicorn() -> Option<PathBuf> {
    let dir = dir().ok()?;
    dir.join("complete").exists().then(|| dir.join("bin/gunicorn"))
}

/// Installs it; where that cannot be done, the demo takes the bundled app.
pub(super) fn install() {
    let progress = Progress::begin("httpbin (PyPI)");
    if gunicorn().is_some() {
        progress.is_there();
        return;
    }
    progress.installing();
    match create() {
        Ok(()) => progress.installed(),
        Err(why) => progress.left_out(&format!("the demo takes the bundled app instead: {why:#}")),
    }
}

fn create() -> Result<()> {
    let has_venv = run::ask(Command::new("python3").args(["-c", "import ensurepip, venv"])).is_some();
    if !has_venv {
        debian::install(&["python3-venv"])?;
    }
    let dir = dir()?;
    let parent = dir.parent().context("no cache directory")?;
    std::fs::create_dir_all(parent)?;
    let log = parent.join("httpbin.log");
    let file = File::create(&log)?;
    let python = dir.join("bin/python");
    let mut venv = Command::new("python3");
    venv.args(["-m", "venv", "--clear"]).arg(&dir);
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "1"])
        .args(PACKAGES);
    let mut import = Command::new(&python);
    import.args(["-c", "import httpbin, gunicorn"]);
    for command in [&mut venv, &mut pip, &mut import] {
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file.try_clone()?);
        if run::run(command).is_err() {
            bail!("look at {}", log.display());
        }
    }
    Ok(std::fs::write(dir.join("complete"), "")?)
}

fn dir() -> Result<PathBuf> {
    Ok(toolchain::cache_dir()?.join("httpbin-1"))
}
