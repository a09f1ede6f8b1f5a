//! Which tests can run here.

use mirror_daemon::capture::CaptureError;
use rustix::process::geteuid;

/// The variable that turns "skipped for want of root" into a failure: `cargo xtask test` sets it as root.
pub const STRICT: &str = "MIRROR_TESTS_STRICT";

/// The variable that skips these tests even as root: `cargo xtask test --no-root` sets it.
pub const NO_ROOT: &str = "MIRROR_TESTS_NO_ROOT";

/// Whether a test that needs root and the kernel programs can run. Where it cannot, says so on stderr; the test
/// then returns. Kernel programs that are built also mean that `cargo xtask` has installed what tests use.
///
/// # Panics
/// When something is missing although [`STRICT`] or `CI` is set: a gate must not pass by skipping. Also when there are
/// kernel programs of other sources: whoever built them can build them again.
#[must_use]
#[expect(clippy::panic, reason = "a test that passes although its kernel programs are stale would mislead")]
pub fn root_or_skip(test: &str) -> bool {
    let unwanted = std::env::var_os(NO_ROOT).is_some();
    if unwanted {
        eprintln!("skipped {test}: it needs root");
        false
    } else if !geteuid().is_root() {
        missing(test, "root (network namespaces and BPF)")
    } else {
        match mirror_daemon::capture::unbuilt() {
            None => true,
            Some(stale @ CaptureError::Stale) => panic!("{test}: {stale}"),
            Some(_) => missing(test, "the kernel programs: run `cargo xtask test`"),
        }
    }
}

/// Whether this kernel is 6.6 or later, and so attaches by TCX where nothing else is said.
#[must_use]
pub fn kernel_has_tcx() -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 6)
}

/// [`root_or_skip`] for a test of TCX itself, which older kernels need not pass: it is skipped there, also where
/// nothing else may be.
#[must_use]
pub fn tcx_or_skip(test: &str) -> bool {
    if !kernel_has_tcx() {
        eprintln!("skipped {test}: this kernel has no TCX, which came with 6.6");
        return false;
    }
    root_or_skip(test)
}

/// Says that a test is skipped, and why. Always false.
///
/// # Panics
/// When nothing may be skipped.
#[expect(clippy::panic, reason = "a gate that skips its tests is a failed gate")]
pub(crate) fn missing(test: &str, what: &str) -> bool {
    let strict = std::env::var_os(STRICT).is_some() || std::env::var_os("CI").is_some_and(|ci| ci == "true");
    if strict && std::env::var_os(NO_ROOT).is_none() {
        panic!("{test} needs {what}, and may not be skipped here");
    }
    eprintln!("skipped {test}: it needs {what}");
    false
}
