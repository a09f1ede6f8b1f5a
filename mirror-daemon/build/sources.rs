//! Of which sources the kernel programs are: a fingerprint that `cargo xtask build-ebpf` records beside the object and
//! the daemon's build script compares. Both compile this file.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// What the kernel programs are made of, from the workspace's root.
pub(crate) const SOURCES: [&str; 4] =
    ["mirror-ebpf/Cargo.toml", "mirror-ebpf/src", "mirror-common/Cargo.toml", "mirror-common/src"];

/// The name of the file beside an object that holds the fingerprint of its sources.
pub(crate) fn record_of(object: &Path) -> PathBuf {
    object.with_extension("sources")
}

/// The fingerprint of the sources as they are now: FNV-1a over names and contents, in the order of the names.
pub(crate) fn fingerprint(root: &Path) -> io::Result<String> {
    let mut files = Vec::new();
    for source in SOURCES {
        collect(&root.join(source), &mut files)?;
    }
    files.sort();
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for file in &files {
        let name = file.strip_prefix(root).unwrap_or(file).to_string_lossy().into_owned();
        // A length in front of each part, so that no two lists of files read the same.
        for part in [name.as_bytes(), &fs::read(file)?] {
            for byte in part.len().to_le_bytes().iter().chain(part) {
                hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
    }
    Ok(format!("{hash:016x}"))
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        if path.is_dir() || path.extension().is_some_and(|extension| extension == "rs") {
            collect(&path, files)?;
        }
    }
    Ok(())
}
