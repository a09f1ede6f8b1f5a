//! Which tests can run here.

use rustix::process::geteuid;

/// The variable that turns "skipped for want of root" into a failure: `cargo xtask test` sets it as root.
pub const STRICT: &str = "MIRROR_TESTS_STRICT";

/// The variable that skips these tests even as root: `cargo xtask test --no-root` sets it.
pub const NO_ROOT: &str = "MIRROR_TESTS_NO_ROOT";

/// Whether a test that needs root can run. Where it cannot, says so on stderr; the test then returns.
///
/// # Panics
/// When root is missing although [`STRICT`] is set: a gate must not pass by skipping.
#[must_use]
#[expect(clippy::panic, reason = "a gate that skips its tests is a failed gate")]
pub fn root_or_skip(test: &str) -> bool {
    let unwanted = std::env::var_os(NO_ROOT).is_some();
    if geteuid().is_root() && !unwanted {
        return true;
    }
    if !unwanted && std::env::var_os(STRICT).is_some() {
        panic!("{test} needs root, and {STRICT} is set");
    }
    eprintln!("skipped {test}: it needs root (network namespaces and BPF)");
    false
}
