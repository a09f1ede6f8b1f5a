//! Compiler, LLVM, bpf-linker and cargo-deny.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use super::{Impossible, Progress, debian};
use crate::run;
use crate::toolchain::{self, EbpfToolchain, LINKER_LLVM_MAJORS};

/// The bpf-linker that the kernel programs are linked with.
const LINKER_VERSION: &str = "0.13.0";

/// The cargo-deny that is installed where there is none.
const DENY_VERSION: &str = "0.20.2";

/// Debian's compiler with its sources, for machines whose rustup cannot give them.
const DEBIAN_COMPILER: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

/// What the kernel programs are built with.
///
/// # Errors
/// [`Impossible`] when neither rustup's nor Debian's compiler can be made to do it.
pub(super) fn kernel_build() -> Result<()> {
    let chain = compiler()?;
    linker(chain.llvm_major)
}

/// cargo-deny, of any version that is there.
///
/// # Errors
/// [`Impossible`] when it cannot be built.
pub(super) fn policy() -> Result<()> {
    let progress = Progress::begin("cargo-deny");
    if run::find("cargo-deny").is_some() {
        progress.is_there();
        return Ok(());
    }
    progress.installing();
    cargo_install("cargo-deny", DENY_VERSION, &["--locked"], None)?;
    progress.installed();
    Ok(())
}

/// A compiler with sources whose LLVM is there: the active one if it can be made so, else Debian's.
fn compiler() -> Result<EbpfToolchain> {
    let own = match toolchain::active() {
        Some(chain) => with_sources_and_llvm(chain),
        None => Err(Impossible::new("there is no rustc in PATH", "install rustup").into()),
    };
    match own {
        Ok(chain) => Ok(chain),
        Err(why) => {
            println!("  {:<10} {why:#}", "note");
            debian_compiler().context("and Debian's compiler cannot be had instead")
        }
    }
}

fn with_sources_and_llvm(mut chain: EbpfToolchain) -> Result<EbpfToolchain> {
    let progress = Progress::begin("sources of core (rust-src)");
    if chain.has_sources {
        progress.is_there();
    } else {
        progress.installing();
        let mut rustup = Command::new("rustup");
        rustup.current_dir(run::root()).args(["component", "add", "rust-src"]);
        run::run(rustup.stdin(Stdio::null())).map_err(|failure| {
            let remedy = "rustup component add rust-src, where there is a network";
            Impossible::new(format!("rust-src cannot be added: {failure:#}"), remedy)
        })?;
        chain.has_sources = true;
        progress.installed();
    }
    llvm(chain.llvm_major)?;
    Ok(chain)
}

fn debian_compiler() -> Result<EbpfToolchain> {
    let progress = Progress::begin("Debian's rustc-web, cargo-web and rust-web-src");
    match toolchain::debian().filter(|chain| chain.has_sources) {
        Some(_) => progress.is_there(),
        None => {
            progress.installing();
            debian::install(&DEBIAN_COMPILER)?;
            progress.installed();
        }
    }
    let chain = toolchain::debian().filter(|chain| chain.has_sources);
    let chain = chain.ok_or_else(|| {
        Impossible::new("Debian's compiler came without its sources", "install rust-web-src by hand")
    })?;
    llvm(chain.llvm_major)?;
    Ok(chain)
}

fn llvm(major: u32) -> Result<()> {
    let progress = Progress::begin(format!("LLVM {major}"));
    if !LINKER_LLVM_MAJORS.contains(&major) {
        let what = format!("this rustc has LLVM {major}, and bpf-linker {LINKER_VERSION} cannot use that");
        let remedy = format!("take a rustc with one of LLVM {LINKER_LLVM_MAJORS:?}: rustup default 1.95");
        return Err(Impossible::new(what, remedy).into());
    }
    if toolchain::llvm_prefix(major).is_some() {
        progress.is_there();
        return Ok(());
    }
    progress.installing();
    debian::install(&[&format!("llvm-{major}-dev")])?;
    progress.installed();
    Ok(())
}

fn linker(llvm_major: u32) -> Result<()> {
    let progress = Progress::begin(format!("bpf-linker {LINKER_VERSION} with LLVM {llvm_major}"));
    if run::find("bpf-linker").is_some_and(|found| linker_matches(&found, llvm_major)) {
        progress.is_there();
        return Ok(());
    }
    progress.installing();
    let feature = format!("llvm-{llvm_major}");
    let options = ["--no-default-features", "--features", &feature, "--force"];
    let prefix = toolchain::llvm_prefix(llvm_major).context("LLVM has gone")?;
    cargo_install("bpf-linker", LINKER_VERSION, &options, Some((llvm_major, &prefix)))?;
    progress.installed();
    Ok(())
}

/// Whether a bpf-linker has the right version and is linked with the right LLVM.
fn linker_matches(linker: &Path, llvm_major: u32) -> bool {
    let said = run::ask(Command::new(linker).arg("--version")).unwrap_or_default();
    let libraries = run::ask(Command::new("ldd").arg(linker)).unwrap_or_default();
    said.trim() == format!("bpf-linker {LINKER_VERSION}")
        && libraries.contains(&format!("libLLVM.so.{llvm_major}"))
}

/// Installs a crate's binaries into the cache; what cargo says goes to a log beside them.
fn cargo_install(krate: &str, version: &str, options: &[&str], llvm: Option<(u32, &PathBuf)>) -> Result<()> {
    let root = toolchain::tools_dir()?;
    std::fs::create_dir_all(&root).with_context(|| format!("cannot make {}", root.display()))?;
    let log = root.join(format!("{krate}.log"));
    let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut command = run::cargo();
    command.args(["install", krate, "--version", version, "--root"]).arg(&root).args(options);
    // Not from inside the workspace: its profile and target directory are not meant for tools.
    command.current_dir(&root).env_remove("CARGO_TARGET_DIR");
    if let Some((major, prefix)) = llvm {
        command.env("LLVM_PREFIX", prefix).env(format!("LLVM_SYS_{major}1_PREFIX"), prefix);
    }
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    if command.status().context("cannot start cargo")?.success() {
        return Ok(());
    }
    let said = std::fs::read_to_string(&log).unwrap_or_default();
    let errors: Vec<&str> = said.lines().filter(|line| line.starts_with("error")).take(3).collect();
    let what = format!("{krate} {version} could not be installed:\n    {}", errors.join("\n    "));
    let remedy = format!("look at {}; is there a network, and is cargo's registry reached?", log.display());
    Err(Impossible::new(what, remedy).into())
}
