//! Puts the kernel programs into the daemon, when they have been built.
//!
//! `cargo xtask build-ebpf` leaves them in `target/bpf/mirror-ebpf`; `MIRROR_EBPF_OBJECT` names another file.
//! Without either the daemon is built all the same, and says at run time which command to run.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-env-changed=MIRROR_EBPF_OBJECT");
    let from = object_path();
    // The directory, made if need be: cargo would run this script every time for a file that is not there.
    if let Some(directory) = from.parent() {
        fs::create_dir_all(directory)?;
        println!("cargo:rerun-if-changed={}", directory.display());
    }
    let object = match fs::read(&from) {
        Ok(object) => object,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    let out = env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("cargo sets OUT_DIR"))?;
    fs::write(Path::new(&out).join("mirror-ebpf"), object)
}

fn object_path() -> PathBuf {
    if let Some(path) = env::var_os("MIRROR_EBPF_OBJECT") {
        return path.into();
    }
    let manifest_dir = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default();
    Path::new(&manifest_dir).join("../target/bpf/mirror-ebpf")
}
