//! Puts the kernel programs into the daemon, when they have been built.
//!
//! `cargo xtask build-ebpf` leaves them in `target/bpf/mirror-ebpf`; `MIRROR_EBPF_OBJECT` names another file.
//! Without either, or when they are of other sources than there are now, the daemon is built all the same, and says at
//! run time which command to run.

mod sources;

use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-env-changed=MIRROR_EBPF_OBJECT");
    let (object, is_stale) = match env::var_os("MIRROR_EBPF_OBJECT") {
        // Whoever names one vouches for it.
        Some(path) => (read(&PathBuf::from(path))?, false),
        None => workspace_object()?,
    };
    if is_stale {
        println!(
            "cargo:warning=the kernel programs are of other sources than there are now: run `cargo xtask build-ebpf`"
        );
        println!("cargo:rustc-env=MIRROR_EBPF_STALE=1");
    }
    let out = env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("cargo sets OUT_DIR"))?;
    fs::write(Path::new(&out).join("mirror-ebpf"), object)
}

/// The object of this workspace, or none; and whether there is one that is of no use.
fn workspace_object() -> io::Result<(Vec<u8>, bool)> {
    let manifest_dir = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default();
    let root = Path::new(&manifest_dir).join("..");
    for source in sources::SOURCES {
        println!("cargo:rerun-if-changed={}", root.join(source).display());
    }
    let path = root.join("target/bpf/mirror-ebpf");
    let object = read(&path)?;
    let recorded = read(&sources::record_of(&path))?;
    if object.is_empty() || recorded == sources::fingerprint(&root)?.as_bytes() {
        return Ok((object, false));
    }
    Ok((Vec::new(), true))
}

/// The file's bytes; none when it is not there.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    // The directory, made if need be: cargo would run this script every time for a file that is not there.
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
        println!("cargo:rerun-if-changed={}", directory.display());
    }
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read,
    }
}
