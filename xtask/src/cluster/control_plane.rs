//! etcd, API server, controller manager and scheduler: in node 1's network namespace, outside the nodes' other ones.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::binaries;
use super::layout::{self, API_PORT, Layout, SERVICES, api_server, node_address};
use super::process::{self, Process};
use crate::{interrupt, run, wait};

/// Of the process that tests end and start again.
pub(crate) const API_SERVER: &str = "kube-apiserver";

/// How long the API server may take to be ready, on a machine that is busy.
const API_LIMIT: Duration = Duration::from_secs(180);

const ETCD: &str = "http://127.0.0.1:2379";

/// Starts them and waits until the API server is ready.
///
/// # Errors
/// When one ends or takes too long; its log is named.
pub(crate) fn start(layout: &Layout) -> Result<()> {
    write_keys(layout)?;
    let etcd = start_etcd(layout)?;
    let api = start_api_server(layout)?;
    wait_until_ready(layout, &[&etcd, &api])?;
    let state = |name: &str| layout.state().join(name).display().to_string();
    let kubeconfig = format!("--kubeconfig={}", layout.kubeconfig().display());
    let controllers = [
        kubeconfig.clone(),
        format!("--service-account-private-key-file={}", state("sa.key")),
        format!("--root-ca-file={}", state("certs/apiserver.crt")),
        format!("--cert-dir={}", state("certs")),
        "--leader-elect=false".to_owned(),
        // Tests take the API server away for seconds, and no node: none is to be taken for lost meanwhile.
        "--node-monitor-grace-period=300s".to_owned(),
    ];
    start_kubernetes(layout, "kube-controller-manager", &controllers)?;
    let cert_dir = format!("--cert-dir={}", state("certs"));
    start_kubernetes(layout, "kube-scheduler", &[kubeconfig, cert_dir, "--leader-elect=false".to_owned()])?;
    Ok(())
}

/// Waits until the API server answers that it is ready.
///
/// # Errors
/// When one of `processes` ends, or it takes too long.
pub(crate) fn wait_until_ready(layout: &Layout, processes: &[&Process]) -> Result<()> {
    let is_ready = || {
        let mut ask = kubectl(layout)?;
        Ok::<bool, anyhow::Error>(
            run::ask(ask.args(["--request-timeout=5s", "get", "--raw", "/readyz"])).is_some(),
        )
    };
    let waited = wait::until("the API server is ready", API_LIMIT, || {
        interrupt::check()?;
        processes.iter().try_for_each(|process| process.still_runs())?;
        Ok(is_ready()?.then_some(()))
    });
    process::explained(waited, || {
        let ended = processes.iter().find(|process| !process.is_running());
        ended.or(processes.last()).map(|process| process.log_end(layout)).unwrap_or_default()
    })
}

/// kubectl of the cluster's version, as administrator, in the cluster's network.
///
/// # Errors
/// When there is no place for a cache.
pub(crate) fn kubectl(layout: &Layout) -> Result<Command> {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{}", layout.netns(1))).arg(binaries::dir()?.join("kubectl"));
    command.arg("--kubeconfig").arg(layout.kubeconfig());
    // What it keeps between calls goes where the cluster goes.
    command.env("KUBECACHEDIR", layout.state().join("kubectl")).env_remove("KUBECONFIG");
    Ok(command)
}

fn start_etcd(layout: &Layout) -> Result<Process> {
    let words = [
        layout::program("etcd").display().to_string(),
        format!("--data-dir={}", layout.state().join("etcd").display()),
        format!("--listen-client-urls={ETCD}"),
        format!("--advertise-client-urls={ETCD}"),
        "--listen-peer-urls=http://127.0.0.1:2380".to_owned(),
        // It does not outlive the machine.
        "--unsafe-no-fsync".to_owned(),
    ];
    Process::start(layout, "etcd", in_netns(layout, words.to_vec()))
}

fn start_api_server(layout: &Layout) -> Result<Process> {
    let state = |name: &str| layout.state().join(name).display().to_string();
    let key = state("sa.key");
    let options = [
        format!("--etcd-servers={ETCD}"),
        format!("--advertise-address={}", node_address(1)),
        "--bind-address=0.0.0.0".to_owned(),
        format!("--secure-port={API_PORT}"),
        format!("--cert-dir={}", state("certs")),
        format!("--token-auth-file={}", state("tokens.csv")),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-account-key-file={key}"),
        format!("--service-account-signing-key-file={key}"),
        format!("--service-cluster-ip-range={SERVICES}"),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        "--allow-privileged=true".to_owned(),
        // A test that ends it does not wait for watches to be let go.
        "--shutdown-delay-duration=0s".to_owned(),
    ];
    start_kubernetes(layout, API_SERVER, &options)
}

fn start_kubernetes(layout: &Layout, name: &str, options: &[String]) -> Result<Process> {
    let program = binaries::dir()?.join(name).display().to_string();
    let words = [&[program], options].concat();
    Process::start(layout, name, in_netns(layout, words))
}

fn in_netns(layout: &Layout, words: Vec<String>) -> Vec<String> {
    let enter = ["nsenter".to_owned(), format!("--net=/run/netns/{}", layout.netns(1))];
    enter.into_iter().chain(words).collect()
}

/// The key of service accounts, the administrator's token, and how to use it.
fn write_keys(layout: &Layout) -> Result<()> {
    let state = layout.state();
    let mut openssl = Command::new("openssl");
    openssl.args(["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-quiet", "-out"]);
    openssl.arg(state.join("sa.key")).stderr(Stdio::null());
    if !openssl.status().context("cannot start openssl")?.success() {
        // Before OpenSSL 3.0 there was no -quiet.
        let mut older = Command::new("openssl");
        run::run(older.arg("genrsa").arg("-out").arg(state.join("sa.key")).arg("2048"))?;
    }
    let mut random = [0_u8; 16];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
    let token: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    std::fs::write(state.join("tokens.csv"), format!("{token},admin,admin,\"system:masters\"\n"))?;
    Ok(std::fs::write(layout.kubeconfig(), kubeconfig(layout, &token))?)
}

fn kubeconfig(layout: &Layout, token: &str) -> String {
    let authority = layout.state().join("certs/apiserver.crt");
    format!(
        "apiVersion: v1
kind: Config
current-context: {name}
contexts:
  - name: {name}
    context: {{ cluster: {name}, user: admin }}
clusters:
  - name: {name}
    cluster:
      server: {server}
      certificate-authority: {authority}
users:
  - name: admin
    user: {{ token: {token} }}
",
        name = layout.prefix(),
        server = api_server(),
        authority = authority.display(),
    )
}
