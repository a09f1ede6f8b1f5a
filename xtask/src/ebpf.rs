//! Builds the kernel programs, from an ordinary rustc.
//!
//! A stable compiler builds them with `RUSTC_BOOTSTRAP=1` and its own `core` (`-Z build-std`), `bpf-linker` links
//! them. The result is `target/bpf/mirror-ebpf`, which the daemon's build script puts into the daemon
//! when the sources are still those recorded beside it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::run;
use crate::toolchain;

#[path = "../../mirror-daemon/build/sources.rs"]
mod sources;

const TARGET: &str = "bpfel-unknown-none";
/// Embedded by the daemon.
const DAEMON_OBJECT: &str = "mirror-ebpf";
/// Loaded by the tests on the real kernel.
const TEST_OBJECT: &str = "weather";
/// `v3`: 32-bit operations and atomics, known to every kernel since 5.12.
const RUSTFLAGS: [&str; 2] = ["-Clinker=bpf-linker", "-Ctarget-cpu=v3"];

/// Builds `mirror-ebpf` and gives the path of the daemon's object; that of the tests lies beside it.
///
/// Cargo decides what there is to do, so that a second call costs a fraction of a second. Files are written
/// only when they have changed: the daemon, which embeds the object, is then not built again either.
///
/// # Errors
/// When the tool chain is missing or the build fails.
pub(crate) fn build_ebpf() -> Result<PathBuf> {
    let chain = toolchain::ebpf_toolchain()?;
    let target_dir = run::root().join("target/bpf-build");
    let mut cargo = Command::new(&chain.cargo);
    cargo
        .current_dir(run::root())
        .args(["build", "--quiet", "--locked", "--release", "--package", "mirror-ebpf"])
        .args(["--target", TARGET, "-Z", "build-std=core", "--target-dir"])
        .arg(&target_dir)
        .env("RUSTC", &chain.rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        // The maps are of the kind that needs no type information, so the object loads without BTF.
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
        .env("CARGO_ENCODED_RUSTFLAGS", RUSTFLAGS.join("\x1f"));
    for hindrance in ["RUSTFLAGS", "CARGO_BUILD_TARGET", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"] {
        cargo.env_remove(hindrance);
    }
    run::run(&mut cargo)?;
    let fingerprint =
        sources::fingerprint(run::root()).context("the kernel programs' sources can't be read")?;
    let (built, objects) = (target_dir.join(TARGET).join("release"), run::root().join("target/bpf"));
    for name in [DAEMON_OBJECT, TEST_OBJECT] {
        let from = built.join(name);
        let object = fs::read(&from).with_context(|| format!("{} can't be read", from.display()))?;
        write_if_changed(&object, &objects.join(name))?;
    }
    let object = objects.join(DAEMON_OBJECT);
    write_if_changed(fingerprint.as_bytes(), &sources::record_of(&object))?;
    Ok(object)
}

fn write_if_changed(built: &[u8], to: &Path) -> Result<()> {
    if fs::read(to).is_ok_and(|present| present == built) {
        return Ok(());
    }
    if let Some(directory) = to.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(to, built).with_context(|| format!("{} can't be written", to.display()))
}
