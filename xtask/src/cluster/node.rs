//! A node: containerd, kubelet and kube-proxy, in namespaces of their own.
//!
//! A node has its own network, host name and mounts: `/run`, `/var/lib` and `/var/log` are its own, so that
//! everything is where it is on any node and two of them do not mix. Its mounts end with its last process.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::binaries;
use super::images;
use super::layout::{self, CNI_PLUGINS, DNS, Layout, cgroup_hierarchies, node_address, node_name, node_pods};
use super::process::Process;
use crate::{interrupt, run, wait};

const KUBELET_CONFIG: &str = include_str!("files/kubelet.yaml");
const CONTAINERD_CONFIG: &str = include_str!("files/containerd.toml");
const CNI_CONFIG: &str = include_str!("files/cni.conflist");

/// How long containerd may take to answer.
const CONTAINERD_LIMIT: Duration = Duration::from_secs(60);

/// Kernel settings that a kubelet changes, with the values that it wants: it is shown files that say so, since
/// the settings are those of the whole machine.
const SETTINGS: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// Makes the node's mounts, of its directory, its host name and [`SETTINGS`]. Then it stays, since namespaces live as
/// long as a process in them.
const HOLD: &str = r#"
set -e
mount --make-rshared /
for setting in $3; do
  if [ -e "/proc/sys/$setting" ]; then mount --bind "$1/settings/$setting" "/proc/sys/$setting"; fi
done
mount --bind "$1/log" /var/log
mount --bind "$1/lib" /var/lib
mount -t tmpfs -o mode=755 run /run
mkdir /run/netns /run/lock
hostname "$2"
touch "$1/held"
exec sleep infinity
"#;

/// A node that is being made or is there.
#[derive(Debug)]
pub(crate) struct Node<'a> {
    layout: &'a Layout,
    number: u32,
    holder: Process,
}

impl<'a> Node<'a> {
    /// Makes its namespaces and starts containerd.
    ///
    /// # Errors
    /// When the machine does not let us, or containerd does not start.
    pub(crate) fn start(layout: &'a Layout, number: u32) -> Result<Self> {
        write_files(layout, number)?;
        make_cgroups(layout, number)?;
        let node = Self { layout, number, holder: hold(layout, number)? };
        let config = node.dir("containerd.toml");
        let containerd = layout::program("containerd").display().to_string();
        node.spawn("containerd", vec![containerd, "--config".to_owned(), config])?;
        Ok(node)
    }

    /// The node as recorded.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn recorded(layout: &'a Layout, number: u32) -> Result<Self> {
        Ok(Self { layout, number, holder: Process::recorded(layout, &node_name(number))? })
    }

    /// Waits until containerd answers.
    ///
    /// # Errors
    /// When it ends, or takes too long.
    pub(crate) fn wait_for_containerd(&self) -> Result<()> {
        let containerd = Process::recorded(self.layout, &self.process_name("containerd"))?;
        let what = format!("containerd of {} answers", node_name(self.number));
        let waited = wait::until(&what, CONTAINERD_LIMIT, || {
            interrupt::check()?;
            containerd.still_runs(self.layout)?;
            Ok(run::ask(self.inside(&["ctr", "version"]).stderr(Stdio::null())).map(drop))
        });
        waited.with_context(|| containerd.log_end(self.layout))
    }

    /// Puts an image's archive into its containerd.
    ///
    /// # Errors
    /// When containerd refuses it.
    pub(crate) fn load(&self, archive: &Path) -> Result<()> {
        let mut import = self.inside(&["ctr", "--namespace=k8s.io", "images", "import"]);
        let done = import.arg(archive).stdin(Stdio::null()).output().context("cannot start ctr")?;
        if !done.status.success() {
            let said = String::from_utf8_lossy(&done.stderr);
            bail!("{} does not take {}: {}", node_name(self.number), archive.display(), said.trim());
        }
        Ok(())
    }

    /// Starts kubelet and kube-proxy.
    ///
    /// # Errors
    /// When they can't be started.
    pub(crate) fn join(&self) -> Result<()> {
        let program = |name: &str| Ok::<_, anyhow::Error>(binaries::dir()?.join(name).display().to_string());
        let kubeconfig = format!("--kubeconfig={}", self.layout.kubeconfig().display());
        let kubelet = [
            program("kubelet")?,
            kubeconfig.clone(),
            format!("--config={}", self.dir("kubelet.yaml")),
            format!("--node-ip={}", node_address(self.number)),
        ];
        self.spawn("kubelet", kubelet.to_vec())?;
        let proxy = [
            program("kube-proxy")?,
            kubeconfig,
            "--proxy-mode=nftables".to_owned(),
            format!("--cluster-cidr={}", layout::PODS),
            // These settings are the whole machine's.
            "--conntrack-max-per-core=0".to_owned(),
            "--conntrack-tcp-timeout-established=0s".to_owned(),
            "--conntrack-tcp-timeout-close-wait=0s".to_owned(),
        ];
        self.spawn("kube-proxy", proxy.to_vec())
    }

    /// The names of the processes that must run for it to work.
    pub(crate) fn process_names(&self) -> [String; 3] {
        ["containerd", "kubelet", "kube-proxy"].map(|name| self.process_name(name))
    }

    fn process_name(&self, program: &str) -> String {
        format!("{program}-{}", self.number)
    }

    fn dir(&self, file: &str) -> String {
        self.layout.node_dir(self.number).join(file).display().to_string()
    }

    fn spawn(&self, name: &str, words: Vec<String>) -> Result<()> {
        let enter = self.enter().into_iter().chain(words).collect();
        Process::start(self.layout, &self.process_name(name), enter).map(drop)
    }

    /// How to run something in its namespaces.
    fn enter(&self) -> Vec<String> {
        let pid = self.holder.pid().to_string();
        ["nsenter", "--net", "--mount", "--uts", "--target", &pid, "--"].map(str::to_owned).to_vec()
    }

    fn inside(&self, words: &[&str]) -> Command {
        let mut all = self.enter().into_iter().chain(words.iter().map(|word| (*word).to_owned()));
        let mut command = Command::new(all.next().unwrap_or_default());
        command.args(all);
        command
    }
}

/// Starts the process that holds the node's namespaces, and waits until they are made.
fn hold(layout: &Layout, number: u32) -> Result<Process> {
    let (dir, name) = (layout.node_dir(number), node_name(number));
    let netns = format!("--net=/run/netns/{}", layout.netns(number));
    let words =
        ["nsenter", &netns, "unshare", "--mount", "--uts", "--propagation", "slave", "sh", "-c", HOLD];
    let words = words.map(str::to_owned).into_iter();
    let settings = SETTINGS.map(|(setting, _)| setting).join(" ");
    let place = [name.clone(), dir.display().to_string(), name.clone(), settings];
    let holder = Process::start(layout, &name, words.chain(place).collect())?;
    let waited = wait::until("the node's namespaces are made", CONTAINERD_LIMIT, || {
        holder.still_runs(layout)?;
        Ok(dir.join("held").exists().then_some(()))
    });
    waited.context(
        "a node needs mount and UTS namespaces of its own; is this a container without CAP_SYS_ADMIN?",
    )?;
    Ok(holder)
}

fn write_files(layout: &Layout, number: u32) -> Result<()> {
    let dir = layout.node_dir(number);
    for below in ["log", "lib", "cni"] {
        std::fs::create_dir_all(dir.join(below))
            .with_context(|| format!("cannot write {}", dir.display()))?;
    }
    for (setting, value) in SETTINGS {
        let file = dir.join("settings").join(setting);
        std::fs::create_dir_all(file.parent().context("a setting has a directory")?)?;
        std::fs::write(file, format!("{value}\n"))?;
    }
    let cgroup = format!("/{}/{}", layout.cgroup(), node_name(number));
    let cni = dir.join("cni").display().to_string();
    let filled = |text: &str| {
        let filled =
            text.replace("@CGROUP@", &cgroup).replace("@DNS@", DNS).replace("@PODS@", &node_pods(number));
        filled
            .replace("@CNI_PLUGINS@", CNI_PLUGINS)
            .replace("@CNI_CONFIG@", &cni)
            .replace("@PAUSE@", &images::reference("pause"))
    };
    std::fs::write(dir.join("kubelet.yaml"), filled(KUBELET_CONFIG))?;
    std::fs::write(dir.join("containerd.toml"), filled(CONTAINERD_CONFIG))?;
    Ok(std::fs::write(dir.join("cni/10-pods.conflist"), filled(CNI_CONFIG))?)
}

/// The kubelet wants its cgroup to be there in every hierarchy; one with CPUs in cpuset of version 1.
fn make_cgroups(layout: &Layout, number: u32) -> Result<()> {
    for hierarchy in cgroup_hierarchies() {
        let cluster = hierarchy.join(layout.cgroup());
        for dir in [cluster.clone(), cluster.join(node_name(number))] {
            std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let parent = dir.parent().map(|parent| parent.join(file)).unwrap_or_default();
                // Only version 1 has something in the root.
                if let Ok(value) = std::fs::read_to_string(parent) {
                    std::fs::write(dir.join(file), value.trim())?;
                }
            }
        }
    }
    Ok(())
}
