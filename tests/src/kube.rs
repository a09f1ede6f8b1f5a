//! The cluster that `cargo xtask cluster up` has brought up, seen through its kubectl and its nodes' networks.

pub mod pod;

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use pod::Pod;

use crate::netns::Netns;
use crate::{privilege, wait};

/// The variable that names the cluster, as `cargo xtask cluster` has it.
pub const NAME: &str = "MIRROR_CLUSTER";

/// The variable that skips these tests even where nothing may be skipped: every run of tests sets it but the one
/// that is for them.
pub const NO_CLUSTER: &str = "MIRROR_TESTS_NO_CLUSTER";

/// The variable that lists the gateways to test with, by commas.
pub const GATEWAYS: &str = "MIRROR_CLUSTER_GATEWAYS";

/// The variable of a long run: more pods, more requests.
pub const LONG: &str = "MIRROR_CLUSTER_LONG";

/// How long something may take in a cluster on a machine that is busy.
pub const LIMIT: Duration = Duration::from_secs(180);

/// How often kubectl is asked while waiting; each time costs some 50 ms of a CPU.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What is said of an object for which something that was made a moment ago is not in effect yet: the account of a
/// namespace, the kind of a definition.
const NOT_YET: [&str; 2] = ["serviceaccount \"default\" not found", "no matches for kind"];

/// Writes a line that is shown of tests that pass, too: what is printed is not.
pub fn say(line: &str) {
    // Nobody reads it then.
    drop(writeln!(std::io::stderr().lock(), "{line}"));
}

/// A cluster that is up.
#[derive(Debug)]
pub struct Cluster {
    prefix: String,
    kubectl: PathBuf,
    kubeconfig: PathBuf,
    xtask: PathBuf,
    gateway_api: PathBuf,
    /// How many nodes it has: `node-1`, `node-2`, ...
    pub nodes: u32,
}

/// A test's use of the cluster: beside others, or alone.
#[derive(Debug)]
pub struct Session {
    cluster: &'static Cluster,
    _turn: Turn,
}

#[derive(Debug)]
enum Turn {
    Shared { _guard: RwLockReadGuard<'static, ()> },
    Alone { _guard: RwLockWriteGuard<'static, ()> },
}

static TURNS: RwLock<()> = RwLock::new(());

/// Does it again for as long as it fails for something that is [`NOT_YET`].
fn patiently(mut work: impl FnMut() -> Result<()>) -> Result<()> {
    wait::until("what was just made is in effect", LIMIT, || match work() {
        Err(refused) if NOT_YET.iter().any(|words| format!("{refused:#}").contains(words)) => {
            std::thread::sleep(LOOK_EVERY);
            Ok(None)
        }
        done => done.map(Some),
    })
}

impl Cluster {
    /// The cluster, if there is one. Where there is none, says so on stderr; the test then returns.
    ///
    /// # Panics
    /// When there is none where nothing may be skipped ([`privilege::STRICT`], `CI`), unless [`NO_CLUSTER`] is set.
    #[must_use]
    pub fn or_skip(test: &str) -> Option<Session> {
        let cluster = Self::up_or_skip(test)?;
        // A test that failed has left its turn all the same.
        let guard = TURNS.read().unwrap_or_else(PoisonError::into_inner);
        Some(Session { cluster, _turn: Turn::Shared { _guard: guard } })
    }

    /// As [`Self::or_skip`], for a test that takes away what others need, the API server for one: no other test runs
    /// beside it.
    ///
    /// # Panics
    /// As [`Self::or_skip`].
    #[must_use]
    pub fn alone_or_skip(test: &str) -> Option<Session> {
        let cluster = Self::up_or_skip(test)?;
        let guard = TURNS.write().unwrap_or_else(PoisonError::into_inner);
        Some(Session { cluster, _turn: Turn::Alone { _guard: guard } })
    }

    fn up_or_skip(test: &str) -> Option<&'static Self> {
        static CLUSTER: OnceLock<Result<Cluster, String>> = OnceLock::new();
        if std::env::var_os(NO_CLUSTER).is_some() {
            eprintln!("skipped {test}: it needs a cluster; run `cargo xtask test --cluster`");
            return None;
        }
        match CLUSTER.get_or_init(|| Self::find().map_err(|why| format!("{why:#}"))) {
            Ok(cluster) => Some(cluster),
            Err(why) => {
                privilege::missing(test, why);
                None
            }
        }
    }

    /// As [`Self::or_skip`], for a test that needs a gateway of this kind.
    ///
    /// # Panics
    /// As [`Self::or_skip`].
    #[must_use]
    pub fn with_gateway_or_skip(test: &str, gateway: &str) -> Option<Session> {
        Self::is_for(test, gateway).then(|| Self::or_skip(test)).flatten()
    }

    /// As [`Self::alone_or_skip`], for a test that needs a gateway of this kind.
    ///
    /// # Panics
    /// As [`Self::or_skip`].
    #[must_use]
    pub fn alone_with_gateway_or_skip(test: &str, gateway: &str) -> Option<Session> {
        Self::is_for(test, gateway).then(|| Self::alone_or_skip(test)).flatten()
    }

    /// Whether this run is for the gateway. If not, says so.
    fn is_for(test: &str, gateway: &str) -> bool {
        if Self::up_or_skip(test).is_none() {
            return false;
        }
        let wanted = std::env::var(GATEWAYS).unwrap_or_else(|_| "nginx,envoy".to_owned());
        let is_for = wanted.split(',').any(|name| name == gateway);
        if !is_for {
            say(&format!("skipped {test}: it is for --gateway {gateway}, and this run is for {wanted}"));
        }
        is_for
    }

    fn find() -> Result<Self> {
        let name = std::env::var(NAME).unwrap_or_else(|_| "default".to_owned());
        let prefix = format!("mirror-cluster-{name}");
        let file = Path::new("/var/tmp").join(&prefix).join("cluster.json");
        let text = std::fs::read_to_string(&file)
            .with_context(|| format!("a cluster, and there is no {prefix}: run `cargo xtask cluster up`"))?;
        let record: Value = serde_json::from_str(&text).with_context(|| file.display().to_string())?;
        let path = |key: &str| -> Result<PathBuf> {
            Ok(record[key].as_str().with_context(|| format!("{} has no {key}", file.display()))?.into())
        };
        Ok(Self {
            kubectl: path("kubectl")?,
            kubeconfig: path("kubeconfig")?,
            xtask: path("xtask")?,
            gateway_api: path("gateway_api")?,
            nodes: record["nodes"].as_u64().unwrap_or(0) as u32,
            prefix,
        })
    }

    /// The network of a node, from 1 on: pods, Services and the API server are reached from there.
    #[must_use]
    pub fn node(&self, number: u32) -> Netns {
        Netns::named(&format!("{}-node-{number}", self.prefix))
    }

    /// The administrator's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// What a node has as `/var/lib` or `/var/log`, as this machine sees it (`var` is `lib` or `log`).
    #[must_use]
    pub fn node_var(&self, number: u32, var: &str) -> PathBuf {
        Path::new("/var/tmp").join(&self.prefix).join(format!("node-{number}")).join(var)
    }

    /// The files with the definitions of the Gateway API's kinds.
    #[must_use]
    pub fn gateway_api(&self) -> &Path {
        &self.gateway_api
    }

    /// Runs kubectl and gives what it wrote.
    ///
    /// # Errors
    /// When it fails; what it said is in the message.
    pub fn kubectl<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Result<String> {
        let mut command = self.command();
        command.args(args).stdin(Stdio::null());
        let done = command.output().context("cannot start kubectl")?;
        let words: Vec<_> = command.get_args().skip(4).map(OsStr::to_string_lossy).collect();
        let said = String::from_utf8_lossy(&done.stderr);
        ensure!(done.status.success(), "kubectl {} failed: {}", words.join(" "), said.trim());
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    }

    /// `kubectl get ... -o json`.
    ///
    /// # Errors
    /// When it fails.
    pub fn get(&self, args: &[&str]) -> Result<Value> {
        let args = ["get"].iter().chain(args).chain(&["-o", "json"]);
        Ok(serde_json::from_str(&self.kubectl(args)?)?)
    }

    /// Applies a manifest server-side; what is refused because what it needs was made a moment ago is tried again.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub fn apply(&self, manifest: &str) -> Result<()> {
        patiently(|| self.apply_with(manifest, &[]))
    }

    /// As [`Self::apply`], but nothing is kept: admission and validation only.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub fn apply_dry(&self, manifest: &str) -> Result<()> {
        self.apply_with(manifest, &["--dry-run=server"])
    }

    fn apply_with(&self, manifest: &str, options: &[&str]) -> Result<()> {
        let mut command = self.command();
        command.args(["apply", "--server-side", "--force-conflicts", "-f", "-"]).args(options);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().context("cannot start kubectl")?;
        child.stdin.take().context("kubectl has no input")?.write_all(manifest.as_bytes())?;
        let done = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&done.stderr);
        ensure!(done.status.success(), "kubectl apply failed: {}", said.trim());
        Ok(())
    }

    /// Applies files, or the files of a directory, server-side, as patiently as [`Self::apply`].
    ///
    /// # Errors
    /// When the API server refuses them.
    pub fn apply_files(&self, path: &Path) -> Result<()> {
        let args: [&OsStr; 5] = [
            "apply".as_ref(),
            "--server-side".as_ref(),
            "--force-conflicts".as_ref(),
            "-f".as_ref(),
            path.as_ref(),
        ];
        patiently(|| self.kubectl(args).map(drop))
    }

    /// Waits for a roll-out (`deployment/gateway`).
    ///
    /// # Errors
    /// When it takes too long; the pods' events are in the message.
    pub fn rolled_out(&self, namespace: &str, what: &str) -> Result<()> {
        let limit = format!("--timeout={}s", LIMIT.as_secs());
        let done = self.kubectl(["-n", namespace, "rollout", "status", what, &limit]);
        done.map(drop)
            .with_context(|| self.kubectl(["-n", namespace, "describe", "pods"]).unwrap_or_default())
    }

    /// The pods with a label that run and are not going.
    ///
    /// # Errors
    /// When kubectl fails.
    pub fn pods(&self, namespace: &str, label: &str) -> Result<Vec<Pod>> {
        let list = self.get(&["pods", "-n", namespace, "-l", label])?;
        let items = list["items"].as_array().context("no list")?;
        Ok(items.iter().filter_map(Pod::of).collect())
    }

    /// What a pod's container has written.
    ///
    /// # Errors
    /// When kubectl fails.
    pub fn logs(&self, pod: &Pod, container: &str) -> Result<String> {
        self.kubectl(["logs", "-n", &pod.namespace, &pod.name, "-c", container])
    }

    /// A Service's own address, with its first port.
    ///
    /// # Errors
    /// When there is no such Service.
    pub fn service(&self, namespace: &str, name: &str) -> Result<SocketAddr> {
        let service = self.get(&["service", "-n", namespace, name])?;
        let address = service["spec"]["clusterIP"].as_str().context("no address")?.parse()?;
        let port = service["spec"]["ports"][0]["port"].as_u64().context("no port")?;
        Ok(SocketAddr::new(address, port as u16))
    }

    /// Kills a process of the cluster (`kube-apiserver`, `kubelet-1`), at once.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn kill(&self, process: &str) -> Result<()> {
        self.xtask(["kill", process])
    }

    /// Starts a killed process again, and waits until it is ready if it is the API server.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(&self, process: &str) -> Result<()> {
        self.xtask(["start", process])
    }

    /// Asks `look` until it gives a value; a kubectl that fails in between is no end.
    ///
    /// # Errors
    /// When [`LIMIT`] has passed first, with the last failure.
    pub fn eventually<T>(&self, what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        let mut last = None;
        let found = wait::until(what, LIMIT, || match look() {
            Ok(Some(value)) => Ok(Some(value)),
            other => {
                last = other.err();
                std::thread::sleep(LOOK_EVERY);
                Ok(None)
            }
        });
        match (found, last) {
            (Err(late), Some(why)) => Err(why.context(late)),
            (found, _) => found,
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new("nsenter");
        let mut netns = OsString::from("--net=");
        netns.push(self.node(1).path().unwrap_or(Path::new("")));
        command.arg(netns).arg(&self.kubectl).arg("--kubeconfig").arg(&self.kubeconfig);
        command.env_remove("KUBECONFIG").env("KUBECACHEDIR", self.kubeconfig.with_file_name("kubectl"));
        command
    }

    fn xtask<const N: usize>(&self, args: [&str; N]) -> Result<()> {
        let name = self.prefix.trim_start_matches("mirror-cluster-");
        let mut command = Command::new(&self.xtask);
        let done = command.args(["cluster", "--name", name]).args(args).output()?;
        if !done.status.success() {
            bail!("{} failed: {}", args.join(" "), String::from_utf8_lossy(&done.stderr).trim());
        }
        Ok(())
    }
}

/// Whether there is time for more than what every run does (`cargo xtask test --cluster --long`).
#[must_use]
pub fn is_long_run() -> bool {
    std::env::var_os(LONG).is_some()
}

impl std::ops::Deref for Session {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        self.cluster
    }
}
