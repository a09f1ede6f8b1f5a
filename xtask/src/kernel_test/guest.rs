//! What the guest starts with: busybox, four drivers, and a script.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::{OldKernel, VERDICT};
use crate::run;

/// Without these the guest cannot see this machine's files.
const BOOT_MODULES: [&str; 4] = ["virtio_pci", "9pnet_virtio", "9p", "overlay"];

/// The rest is loaded from the kernel's own tree when it is asked for, as on any machine.
const INIT: &str = r#"#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs dev /dev
exec >/dev/ttyS0 2>&1
for module in @BOOT_MODULES@; do $b modprobe $module; done
$b mount -t 9p -o trans=virtio,version=9p2000.L,ro,msize=512000,cache=loose host /host
$b mount -t tmpfs layer /layer
$b mkdir /layer/upper /layer/work
$b mount -t overlay -o lowerdir=/host,upperdir=/layer/upper,workdir=/layer/work root /root
$b mount -o bind /host@KERNEL_ROOT@/lib/modules /lib/modules
echo /modprobe > /proc/sys/kernel/modprobe
$b mount -t proc proc /root/proc
$b mount -t sysfs sysfs /root/sys
$b mount -t devtmpfs dev /root/dev
$b mkdir -p /root/dev/shm /root/dev/pts
$b mount -t tmpfs shm /root/dev/shm
$b mount -t tmpfs run /root/run
$b mount -t cgroup2 cgroup2 /root/sys/fs/cgroup
$b cp /tests.sh /root/run/tests.sh
$b ip link set lo up
$b chroot /root /bin/sh /run/tests.sh
echo "@VERDICT@ $?"
$b sync
$b poweroff -f
"#;

/// Asked by the kernel when something needs a driver.
const MODPROBE: &str = "#!/bin/busybox sh\nexec /bin/busybox modprobe \"$@\"\n";

/// What runs in the guest.
pub(super) struct Job<'a> {
    pub(super) kernel: &'a OldKernel,
    pub(super) daemon: &'a Path,
    pub(super) tests: &'a Path,
    pub(super) filters: &'a [String],
}

impl Job<'_> {
    /// Tests stand in a directory of their own, as under cargo.
    fn script(&self) -> String {
        let words: Vec<String> = self.filters.iter().map(|filter| quoted(filter)).collect();
        format!(
            "cd {directory} || exit 1\nexport PATH={path} HOME=/root MIRROR_TESTS_STRICT=1\n\
             export MIRROR_DAEMON={daemon}\nexec {tests} --test-threads=2 {filters}\n",
            directory = quoted(&run::root().join("tests").to_string_lossy()),
            path = quoted(&std::env::var("PATH").unwrap_or_default()),
            daemon = quoted(&self.daemon.to_string_lossy()),
            tests = quoted(&self.tests.to_string_lossy()),
            filters = words.join(" "),
        )
    }
}

/// Puts the first files together in `directory` and packs them into `to`.
///
/// # Errors
/// When something of it is missing or cannot be written.
pub(super) fn write_initramfs(job: &Job<'_>, directory: &Path, to: &Path) -> Result<()> {
    let tree = directory.join("tree");
    for name in ["bin", "proc", "sys", "dev", "host", "layer", "root"] {
        fs::create_dir_all(tree.join(name))?;
    }
    let busybox = run::find("busybox").context("busybox has gone")?;
    fs::copy(&busybox, tree.join("bin/busybox"))?;
    copy_boot_modules(job.kernel, &tree)?;
    let init = INIT
        .replace("@BOOT_MODULES@", &BOOT_MODULES.join(" "))
        .replace("@KERNEL_ROOT@", &job.kernel.root.to_string_lossy())
        .replace("@VERDICT@", VERDICT);
    for (name, text) in [("init", init.as_str()), ("modprobe", MODPROBE), ("tests.sh", &job.script())] {
        let path = tree.join(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    let pack = "find . | busybox cpio -o -H newc 2>/dev/null | gzip -1 > \"$0\"";
    run::run(Command::new("sh").current_dir(&tree).args(["-c", pack]).arg(to))
}

/// The drivers and what they need, with the lists that modprobe reads.
fn copy_boot_modules(kernel: &OldKernel, tree: &Path) -> Result<()> {
    let from = kernel.root.join("lib/modules").join(&kernel.release);
    let to = tree.join("lib/modules").join(&kernel.release);
    fs::create_dir_all(&to)?;
    for list in ["modules.dep", "modules.alias", "modules.symbols", "modules.builtin"] {
        fs::copy(from.join(list), to.join(list)).with_context(|| format!("the kernel has no {list}"))?;
    }
    let dependencies = fs::read_to_string(from.join("modules.dep"))?;
    for module in BOOT_MODULES {
        for file in files_of(&dependencies, module)? {
            let target = to.join(file);
            fs::create_dir_all(target.parent().context("a module lies in a directory")?)?;
            fs::copy(from.join(file), &target)?;
        }
    }
    Ok(())
}

/// The module's own file, then those it needs: a line of modules.dep.
fn files_of<'a>(dependencies: &'a str, module: &str) -> Result<Vec<&'a str>> {
    let file = format!("/{module}.ko");
    for line in dependencies.lines() {
        if let Some((own, needed)) = line.split_once(':')
            && own.ends_with(&file)
        {
            return Ok(std::iter::once(own).chain(needed.split_whitespace()).collect());
        }
    }
    bail!("this kernel has no module {module}")
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn module_comes_with_what_it_needs() {
        let dependencies =
            "kernel/net/9p/9pnet.ko:\nkernel/fs/9p/9p.ko: kernel/net/9p/9pnet.ko kernel/fs/x.ko\n";
        let files = files_of(dependencies, "9p").unwrap();
        assert_eq!(files, ["kernel/fs/9p/9p.ko", "kernel/net/9p/9pnet.ko", "kernel/fs/x.ko"]);
        assert!(files_of(dependencies, "overlay").is_err());
    }

    #[test]
    fn words_reach_the_shell_as_they_are() {
        assert_eq!(quoted("a'b c"), "'a'\\''b c'");
    }
}
