//! The kernel tests once more, on the kernel of Debian 12 (6.1: no TCX, an older verifier), in a virtual machine.
//!
//! The guest sees this machine's files, read-only, under a layer of its own, so what was built here runs there
//! as it is. Nothing is installed into /boot and the guest has no network.

mod guest;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::setup::{self, Need};
use crate::{ebpf, run};

/// What the guest says last, in front of the exit code.
pub(crate) const VERDICT: &str = "guest exit code:";

/// In seconds. Emulated, everything together takes five to eight minutes on two busy cores.
const LONGEST_RUN: &str = "1200";

/// What to test.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Only tests whose name contains one of these.
    #[arg(default_values_t = ["capture::", "changes::", "packets::", "remains::"].map(str::to_owned))]
    filters: Vec<String>,
}

/// Boots the guest, runs the tests in it and shows what they say.
///
/// # Errors
/// When set-up fails, the guest does not come up, or a test fails.
pub(crate) fn kernel_test(options: &Options) -> Result<()> {
    setup::setup(&[Need::Kernel, Need::Peers, Need::KernelBuild])?;
    let kernel = setup::old_kernel()?;
    println!("build");
    ebpf::build_ebpf()?;
    let built = run::build_binaries(&["mirror-daemon"])?;
    let daemon = built.first().context("cargo built nothing")?;
    let tests = run::build_test("netns")?;
    let directory = tempfile::tempdir().context("no temporary directory")?;
    let initramfs = directory.path().join("initramfs");
    let job = guest::Job { kernel: &kernel, daemon, tests: &tests, filters: &options.filters };
    guest::write_initramfs(&job, directory.path(), &initramfs)?;
    boot(&kernel, &initramfs, &directory.path().join("console"))
}

/// A kernel package, unpacked outside the source tree.
#[derive(Debug)]
pub(crate) struct OldKernel {
    /// Where it was unpacked.
    pub(crate) root: PathBuf,
    /// What `uname -r` will say.
    pub(crate) release: String,
}

fn boot(kernel: &OldKernel, initramfs: &Path, console: &Path) -> Result<()> {
    let mut command = Command::new("timeout");
    command.args([LONGEST_RUN, "qemu-system-x86_64", "-machine", "pc", "-smp", "2", "-m", "2048"]);
    command.args(accelerator());
    command.args(["-display", "none", "-monitor", "none", "-no-reboot", "-nic", "none"]);
    command.args(["-serial", "stdio", "-serial"]).arg(format!("file:{}", console.display()));
    command.arg("-kernel").arg(kernel.root.join(format!("boot/vmlinuz-{}", kernel.release)));
    command.arg("-initrd").arg(initramfs);
    command.args(["-append", "console=ttyS1 panic=-1 edd=off"]);
    let share = "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap";
    command.args(["-virtfs", share]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    println!("boot {}", kernel.release);
    let mut machine = command.spawn().context("cannot start qemu")?;
    let output = machine.stdout.take().context("qemu has no output")?;
    let mut verdict = None;
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("cannot read from qemu")?;
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end();
        match line.strip_prefix(VERDICT) {
            Some(code) => verdict = Some(code.trim().to_owned()),
            None => println!("  {line}"),
        }
    }
    machine.wait().context("cannot wait for qemu")?;
    match verdict.as_deref() {
        Some("0") => Ok(()),
        Some(code) => bail!("the tests ended with code {code} on {}", kernel.release),
        None => bail!("the guest did not get to the end:\n{}", last_lines(console)),
    }
}

/// Hardware virtualisation where it is whole; a KVM without VMX or SVM behind it does not boot ordinary kernels.
fn accelerator() -> [&'static str; 4] {
    let is_whole = ["kvm_intel", "kvm_amd"].iter().any(|name| Path::new("/sys/module").join(name).is_dir());
    if is_whole && Path::new("/dev/kvm").exists() {
        return ["-accel", "kvm", "-cpu", "host"];
    }
    println!("  {:<10} no /dev/kvm with hardware behind it: the guest is emulated, which is slow", "note");
    ["-accel", "tcg,thread=multi", "-cpu", "max"]
}

fn last_lines(console: &Path) -> String {
    let text = std::fs::read(console).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
}
