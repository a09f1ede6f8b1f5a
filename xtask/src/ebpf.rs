//! `cargo xtask build-ebpf`: the kernel programs, from an ordinary rustc.
//!
//! A stable compiler builds them with `RUSTC_BOOTSTRAP=1` and its own `core` (`-Z build-std`), `bpf-linker` links
//! them. The result is `target/bpf/mirror-ebpf`, which `mirror-daemon/build.rs` puts into the daemon.
//!
//! `MIRROR_EBPF_CARGO`, `MIRROR_EBPF_RUSTC` and `BPF_LINKER` name other tools than those of this run.

use anyhow::{Context, Result, ensure};
use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "bpfel-unknown-none";

/// Builds the kernel programs and returns where they are. When nothing has changed the file stays as it is, so
/// that the daemon need not be built again.
///
/// # Errors
/// When a tool is missing or the build fails.
pub(crate) fn build_ebpf() -> Result<PathBuf> {
    let root = workspace_root()?;
    let build_dir = root.join("target/bpf-build");
    let mut cargo = Command::new(tool("MIRROR_EBPF_CARGO", "CARGO", "cargo"));
    cargo
        .current_dir(&root)
        .args(["build", "--quiet", "--locked", "--release", "--package", "mirror-ebpf"])
        .args(["--target", TARGET, "-Z", "build-std=core"])
        .env("CARGO_TARGET_DIR", &build_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags())
        // The maps are of the kind that needs no type information, so the object loads without BTF.
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
        .env("RUSTC_BOOTSTRAP", "1");
    for hindrance in ["RUSTFLAGS", "CARGO_BUILD_TARGET", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"] {
        cargo.env_remove(hindrance);
    }
    if let Some(rustc) = env::var_os("MIRROR_EBPF_RUSTC") {
        cargo.env("RUSTC", rustc);
    }
    let status = cargo.status().context("cannot run cargo")?;
    ensure!(
        status.success(),
        "the kernel programs could not be built: it takes the component rust-src and bpf-linker, which \
         `cargo xtask setup` installs"
    );
    let object = root.join("target/bpf/mirror-ebpf");
    replace_if_changed(&build_dir.join(TARGET).join("release/mirror-ebpf"), &object)?;
    Ok(object)
}

/// `v3`: 32-bit operations and atomics, known to every kernel since 5.12.
fn rustflags() -> OsString {
    let mut flags = OsString::from("-Clinker=");
    flags.push(env::var_os("BPF_LINKER").unwrap_or_else(|| "bpf-linker".into()));
    flags.push("\u{1f}-Ctarget-cpu=v3");
    flags
}

fn tool(own: &str, of_this_run: &str, fallback: &str) -> OsString {
    env::var_os(own).or_else(|| env::var_os(of_this_run)).unwrap_or_else(|| fallback.into())
}

fn replace_if_changed(from: &Path, to: &Path) -> Result<()> {
    let object = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    if fs::read(to).is_ok_and(|present| present == object) {
        return Ok(());
    }
    if let Some(directory) = to.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(to, object).with_context(|| format!("cannot write {}", to.display()))
}

fn workspace_root() -> Result<PathBuf> {
    let manifest_dir = env::var_os("CARGO_MANIFEST_DIR").context("run this as `cargo xtask`")?;
    let root = Path::new(&manifest_dir).parent().context("xtask lies in the workspace")?;
    Ok(root.to_owned())
}
