//! The daemon's container image: with a container engine from deploy/Dockerfile, without one from the built files.
//!
//! What is in it is decided in one place, [`contents`]: the Dockerfile's build stage runs `cargo xtask image --root`.

pub(crate) mod archive;
mod engine;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::setup::{self, Impossible, Need};
use crate::{ebpf, run};

use archive::Image;

/// How the image is named: for this machine, and as the manifests in deploy/ name it.
pub(crate) const NAMES: [&str; 2] = ["localhost/mirror-daemon:dev", "docker.io/library/mirror-daemon:latest"];

/// Where the daemon is in it.
const PROGRAM: &str = "/mirror-daemon";

/// Of certificate authorities, for shadows by https; here and in the image.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// What the image may weigh.
const MAX_BYTES: u64 = 40 << 20;

/// How to make it.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Make it from the built files even where there is a container engine.
    #[arg(long)]
    without_engine: bool,
    /// Make it both ways and compare what is in it.
    #[arg(long, conflicts_with = "without_engine")]
    check: bool,
    /// A daemon that is built fast and is slow, for trying things out.
    #[arg(long)]
    dev: bool,
    /// Write no image, but the files that are in it, into this directory.
    #[arg(long, value_name = "DIRECTORY", conflicts_with_all = ["without_engine", "check"])]
    root: Option<PathBuf>,
}

/// Makes the image, and says where it is and what it weighs.
///
/// # Errors
/// When a build fails, or the image is too large.
pub(crate) fn image(options: &Options) -> Result<()> {
    if let Some(root) = &options.root {
        return contents(options.dev)?.unpack(root);
    }
    let engine = if options.without_engine || options.dev { None } else { engine::find() };
    match engine {
        None if options.check => {
            let what = "two images can only be compared where there is a container engine";
            Err(Impossible::new(what, "start Docker, or install podman").into())
        }
        None => report(&from_files(options.dev)?, "from the built files"),
        Some(engine) => {
            let archive = output_dir().join("mirror-daemon.tar");
            engine::build(&engine, &archive)?;
            report(&archive, &format!("by {engine}, from deploy/Dockerfile"))?;
            if options.check { engine::compare(&archive, &contents(false)?) } else { Ok(()) }
        }
    }
}

/// Makes the image without a container engine and gives the path of its archive.
///
/// # Errors
/// When a build fails.
pub(crate) fn from_files(dev: bool) -> Result<PathBuf> {
    let archive = output_dir().join("mirror-daemon.tar");
    contents(dev)?.write(&NAMES, &archive)?;
    Ok(archive)
}

fn report(archive: &Path, how: &str) -> Result<()> {
    let bytes = archive.metadata().with_context(|| format!("no {}", archive.display()))?.len();
    let tenths_of_mb = bytes / 100_000;
    println!("{} ({}.{} MB, {how})", archive.display(), tenths_of_mb / 10, tenths_of_mb % 10);
    println!("  named {}", NAMES.join(", "));
    if bytes > MAX_BYTES {
        bail!("the image weighs more than {} MiB", MAX_BYTES >> 20);
    }
    Ok(())
}

fn output_dir() -> PathBuf {
    run::root().join("target/image")
}

/// The daemon, built static, and the certificate authorities.
fn contents(dev: bool) -> Result<Image> {
    setup::setup(&[Need::KernelBuild])?;
    println!("build, as for users, static");
    ebpf::build_ebpf()?;
    let daemon = build_static(dev)?;
    if !Path::new(AUTHORITIES).exists() {
        let what = format!("{AUTHORITIES} is missing: shadows by https could not be told from others");
        return Err(Impossible::new(what, "apt-get install ca-certificates").into());
    }
    let mut image = Image::new(&[PROGRAM]);
    image.file(daemon, PROGRAM, 0o755);
    image.file(AUTHORITIES, AUTHORITIES, 0o644);
    Ok(image)
}

/// glibc, linked in: its memcpy and allocator are faster than musl's, and nothing in the daemon asks it for names
/// or users, which it could not answer without its shared libraries.
fn build_static(dev: bool) -> Result<PathBuf> {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut command = run::cargo();
    command.args(["build", "--locked", "--bin", "mirror-daemon", "--target", &target]);
    command.args(["--message-format", "json-render-diagnostics"]);
    if !dev {
        command.arg("--release");
    }
    command.env("CARGO_ENCODED_RUSTFLAGS", "-C\u{1f}target-feature=+crt-static").env_remove("RUSTFLAGS");
    for profile in ["RELEASE", "DEV"] {
        command.env(format!("CARGO_PROFILE_{profile}_STRIP"), "symbols");
        command.env(format!("CARGO_PROFILE_{profile}_DEBUG"), "0");
    }
    let daemon = run::built(&mut command, "mirror-daemon")?;
    let dynamic = run::output(Command::new("readelf").arg("--program-headers").arg(&daemon))?;
    if dynamic.contains(" INTERP ") {
        bail!("{} is not static", daemon.display());
    }
    Ok(daemon)
}
