//! Builds the kernel object.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::run;
use crate::toolchain;

const TARGET: &str = "bpfel-unknown-none";
/// `--btf`: the loader reads the maps' types from BTF.
const RUSTFLAGS: [&str; 4] = ["-Clinker=bpf-linker", "-Clink-arg=--btf", "-Cdebuginfo=2", "-Cpanic=abort"];

/// Builds `mirror-ebpf` for the BPF target and gives the path of the object, `target/bpf/mirror-ebpf`.
///
/// Cargo decides what there is to do, so that a second call costs a fraction of a second. The object is copied
/// only when it has changed: the daemon, which embeds it, is then not built again either.
///
/// # Errors
/// When the tool chain is missing or the build fails.
pub(crate) fn build_ebpf() -> Result<PathBuf> {
    let chain = toolchain::ebpf_toolchain()?;
    let target_dir = run::root().join("target/bpf-build");
    run::run(
        Command::new(&chain.cargo)
            .current_dir(run::root())
            .args(["build", "--quiet", "--release", "--package", "mirror-ebpf", "--target", TARGET])
            .args(["-Z", "build-std=core", "--target-dir"])
            .arg(&target_dir)
            .env("RUSTC", &chain.rustc)
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_ENCODED_RUSTFLAGS", RUSTFLAGS.join("\x1f")),
    )?;
    let object = run::root().join("target/bpf/mirror-ebpf");
    copy_if_changed(&target_dir.join(TARGET).join("release/mirror-ebpf"), &object)?;
    Ok(object)
}

fn copy_if_changed(from: &Path, to: &Path) -> Result<()> {
    let built = fs::read(from).with_context(|| format!("{} can't be read", from.display()))?;
    if fs::read(to).is_ok_and(|present| present == built) {
        return Ok(());
    }
    if let Some(directory) = to.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(to, built).with_context(|| format!("{} can't be written", to.display()))
}
