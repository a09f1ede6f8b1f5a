//! Where the tools are: the cache outside the source tree, and the compiler that can build kernel programs.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::run;
use crate::setup::Impossible;

/// Part of the cache's name; raise it when a pinned tool changes, so that old trees keep theirs.
const TOOLS_VERSION: &str = "1";

/// Set once the PATH is complete.
const RESTARTED: &str = "MIRROR_XTASK_RESTARTED";

/// LLVM versions that the pinned bpf-linker has a feature for.
pub(crate) const LINKER_LLVM_MAJORS: [u32; 3] = [21, 22, 23];

/// A compiler with the sources of `core`, fit for the BPF target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EbpfToolchain {
    /// cargo to build with.
    pub(crate) cargo: PathBuf,
    /// rustc to build with; it needs `RUSTC_BOOTSTRAP=1`.
    pub(crate) rustc: PathBuf,
    /// The LLVM of this rustc; bpf-linker must be built with the same.
    pub(crate) llvm_major: u32,
    /// Whether the sources of `core` are there.
    pub(crate) has_sources: bool,
}

/// Where tools and the like are kept; made by whoever writes there first.
pub(crate) fn cache_dir() -> Result<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let base = base.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    Ok(base.context("neither XDG_CACHE_HOME nor HOME is set")?.join("mirror"))
}

/// The root that cargo installs our tools under.
pub(crate) fn tools_dir() -> Result<PathBuf> {
    Ok(cache_dir()?.join(format!("tools-{TOOLS_VERSION}")))
}

/// Starts this program again with our tools first in PATH and the system's administration tools in it, so that
/// every child finds them. Returns at once when that was done.
///
/// # Errors
/// When the program cannot be started again.
pub(crate) fn restart_with_tool_path() -> Result<()> {
    if std::env::var_os(RESTARTED).is_some() {
        return Ok(());
    }
    let old = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs = vec![tools_dir()?.join("bin")];
    dirs.extend(std::env::split_paths(&old));
    for system in ["/usr/sbin", "/sbin"] {
        // `su` without a dash leaves these out.
        if !dirs.iter().any(|dir| dir == Path::new(system)) {
            dirs.push(system.into());
        }
    }
    let failure = Command::new(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env("PATH", std::env::join_paths(dirs)?)
        .env(RESTARTED, "1")
        .exec();
    Err(failure).context("cannot start xtask again")
}

/// The compiler to build kernel programs with, as set-up has left things.
///
/// # Errors
/// When there is none: set-up has not been done.
pub(crate) fn ebpf_toolchain() -> Result<EbpfToolchain> {
    let usable = |chain: &EbpfToolchain| chain.has_sources && llvm_prefix(chain.llvm_major).is_some();
    active().filter(usable).or_else(|| debian().filter(usable)).ok_or_else(|| {
        Impossible::new("there is no compiler that can build kernel programs", "run: cargo xtask setup")
            .into()
    })
}

/// The rustc that this workspace is built with, usually rustup's.
pub(crate) fn active() -> Option<EbpfToolchain> {
    let rustc = run::find("rustc")?;
    let sysroot = run::ask(Command::new(&rustc).current_dir(run::root()).args(["--print", "sysroot"]))?;
    let core = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core");
    let cargo = std::env::var_os("CARGO").map_or_else(|| "cargo".into(), PathBuf::from);
    Some(EbpfToolchain { llvm_major: llvm_major(&rustc)?, cargo, rustc, has_sources: core.is_dir() })
}

/// Debian's rustc-web, cargo-web and rust-web-src.
pub(crate) fn debian() -> Option<EbpfToolchain> {
    let (rustc, cargo) = (PathBuf::from("/usr/bin/rustc"), PathBuf::from("/usr/bin/cargo"));
    let has_sources = Path::new("/usr/lib/rustlib/src/rust/library/core").is_dir();
    (cargo.is_file()).then_some(())?;
    Some(EbpfToolchain { llvm_major: llvm_major(&rustc)?, cargo, rustc, has_sources })
}

/// The directory of an LLVM with its headers, as Debian lays it out.
pub(crate) fn llvm_prefix(major: u32) -> Option<PathBuf> {
    let prefix = PathBuf::from(format!("/usr/lib/llvm-{major}"));
    prefix.join("bin/llvm-config").exists().then_some(prefix)
}

fn llvm_major(rustc: &Path) -> Option<u32> {
    let about = run::ask(Command::new(rustc).current_dir(run::root()).arg("-vV"))?;
    parse_llvm_major(&about)
}

fn parse_llvm_major(about: &str) -> Option<u32> {
    let version = about.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    version.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llvm_major_is_read_from_rustc() {
        assert_eq!(parse_llvm_major("rustc 1.95.0\nrelease: 1.95.0\nLLVM version: 22.1.2\n"), Some(22));
        assert_eq!(parse_llvm_major("rustc 1.95.0\n"), None);
    }
}
