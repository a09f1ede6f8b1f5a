//! Builds the kernel object.

use std::path::PathBuf;

use anyhow::{Result, bail};

/// Builds `mirror-ebpf` for the BPF target and gives the path of the object.
///
/// # Errors
/// When the tool chain is missing or the build fails.
pub(crate) fn build_ebpf() -> Result<PathBuf> {
    bail!("this tree has no kernel programs yet")
}
