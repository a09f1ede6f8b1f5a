//! The binaries of a cluster, built from their Go modules into the cache, once.
//!
//! Kubernetes' own modules are no use to others as they stand: its go.mod replaces the modules of its staging
//! directory by paths. Here each of them is replaced by its published version instead.

use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use rustix::fs::{FlockOperation, flock};

use crate::setup::{Impossible, Progress};
use crate::{interrupt, run, toolchain};

/// Of Kubernetes, behind its major version: its modules are v1.X.Y, those of its staging directory v0.X.Y.
const KUBERNETES: &str = "36.3";

/// The first minor version of Go that fetches the newer one that a module asks for.
const GO_NEEDED: u32 = 21;

/// One program.
#[derive(Clone, Copy, Debug)]
struct Program {
    name: &'static str,
    source: Source,
}

#[derive(Clone, Copy, Debug)]
enum Source {
    /// `cmd/NAME` of Kubernetes.
    Kubernetes,
    /// A package of a module, and the version.
    Module(&'static str, &'static str),
}

/// What every cluster needs, the longest build first.
const PROGRAMS: [Program; 8] = [
    kubernetes("kube-apiserver"),
    kubernetes("kube-controller-manager"),
    kubernetes("kube-scheduler"),
    kubernetes("kubelet"),
    kubernetes("kube-proxy"),
    kubernetes("kubectl"),
    module("coredns", "github.com/coredns/coredns", "v1.12.4"),
    module("go-httpbin", "github.com/mccutchen/go-httpbin/v2/cmd/go-httpbin", "v2.26.0"),
];

/// What Envoy Gateway needs beside them.
const ENVOY_GATEWAY: [Program; 2] = [
    module("envoy-gateway", "github.com/envoyproxy/gateway/cmd/envoy-gateway", ENVOY_GATEWAY_VERSION),
    module("helm", "helm.sh/helm/v3/cmd/helm", "v3.18.6"),
];

/// Its chart is taken from the same module.
const ENVOY_GATEWAY_VERSION: &str = "v1.9.1";

/// Of the definitions of the Gateway API: the version that this Envoy Gateway knows.
const GATEWAY_API_VERSION: &str = "v1.6.1";

const fn kubernetes(name: &'static str) -> Program {
    Program { name, source: Source::Kubernetes }
}

const fn module(name: &'static str, package: &'static str, version: &'static str) -> Program {
    Program { name, source: Source::Module(package, version) }
}

/// Where the binaries are.
///
/// # Errors
/// When there is no place for a cache.
pub(crate) fn dir() -> Result<PathBuf> {
    Ok(toolchain::cache_dir()?.join(format!("kubernetes-1.{KUBERNETES}")))
}

/// Builds what is missing, with a line of progress for each. What is there costs nothing.
///
/// # Errors
/// [`Impossible`] where there is no Go; else when a build fails.
pub(crate) fn build(with_envoy_gateway: bool) -> Result<()> {
    let dir = dir()?;
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    // Two builds at once would only be slower, and would build everything twice.
    let lock = File::create(dir.join("lock"))?;
    flock(&lock, FlockOperation::LockExclusive).context("cannot lock the cache")?;
    let wanted = PROGRAMS.iter().chain(ENVOY_GATEWAY.iter().filter(|_| with_envoy_gateway));
    for program in wanted {
        interrupt::check()?;
        let progress = Progress::begin(program.label());
        if program.is_there(&dir) {
            progress.is_there();
            continue;
        }
        check_go()?;
        progress.installing();
        program.build(&dir)?;
        progress.installed();
    }
    fetch(&format!("sigs.k8s.io/gateway-api@{GATEWAY_API_VERSION}"), "config/crd/standard", &gateway_api()?)?;
    if with_envoy_gateway {
        let module = format!("github.com/envoyproxy/gateway@{ENVOY_GATEWAY_VERSION}");
        fetch(&module, "charts/gateway-helm", &envoy_gateway_chart()?)?;
    }
    Ok(())
}

/// The directory of a module's files, fetched if need be.
///
/// # Errors
/// When it can't be fetched.
fn module_dir(module: &str) -> Result<PathBuf> {
    check_go()?;
    let mut go = go(&std::env::temp_dir());
    let said = run::output(go.args(["mod", "download", "-json", module]))?;
    let about: serde_json::Value = serde_json::from_str(&said).context("go mod download -json")?;
    let found = about.get("Dir").and_then(serde_json::Value::as_str);
    Ok(PathBuf::from(found.with_context(|| format!("go has no directory for {module}"))?))
}

/// Where the definitions of the Gateway API's kinds are.
///
/// # Errors
/// When there is no place for a cache.
pub(crate) fn gateway_api() -> Result<PathBuf> {
    Ok(dir()?.join(format!("gateway-api-{GATEWAY_API_VERSION}")))
}

/// Where Envoy Gateway's chart is.
///
/// # Errors
/// When there is no place for a cache.
pub(crate) fn envoy_gateway_chart() -> Result<PathBuf> {
    Ok(dir()?.join(format!("envoy-gateway-chart-{ENVOY_GATEWAY_VERSION}")))
}

/// Copies a directory of a module into the cache.
fn fetch(module: &str, below: &str, to: &Path) -> Result<()> {
    let name = format!("{below} of {module}");
    let progress = Progress::begin(&name);
    if to.is_dir() {
        progress.is_there();
        return Ok(());
    }
    progress.installing();
    let fresh = to.with_extension("fresh");
    drop(std::fs::remove_dir_all(&fresh));
    let from = module_dir(module)?.join(below);
    run::run(Command::new("cp").args(["-r", "--no-preserve=mode"]).arg(from).arg(&fresh))?;
    std::fs::rename(fresh, to)?;
    progress.installed();
    Ok(())
}

impl Program {
    /// What is recorded when it was built: another version is another line.
    fn label(self) -> String {
        match self.source {
            Source::Kubernetes => format!("{} v1.{KUBERNETES}", self.name),
            Source::Module(_, version) => format!("{} {version}", self.name),
        }
    }

    fn stamp(self, dir: &Path) -> PathBuf {
        dir.join("built").join(self.name)
    }

    fn is_there(self, dir: &Path) -> bool {
        let stamped = std::fs::read_to_string(self.stamp(dir)).is_ok_and(|text| text == self.label());
        stamped && dir.join(self.name).is_file()
    }

    /// Builds beside the cache's own place and moves there when it is whole.
    fn build(self, dir: &Path) -> Result<()> {
        let log_path = dir.join(format!("{}.log", self.name));
        let fresh = dir.join("fresh");
        std::fs::create_dir_all(&fresh)?;
        let mut command = match self.source {
            Source::Kubernetes => {
                let module = dir.join("module");
                write_kubernetes_module(&module)?;
                let mut command = go(&module);
                command.args(["build", "-trimpath", "-ldflags", &kubernetes_flags(), "-o"]);
                command.arg(fresh.join(self.name));
                command.arg(format!("k8s.io/kubernetes/cmd/{}", self.name));
                command
            }
            Source::Module(package, version) => {
                let mut command = go(&fresh);
                command.args(["install", "-trimpath", "-ldflags", "-s -w", &format!("{package}@{version}")]);
                command.env("GOBIN", &fresh);
                command
            }
        };
        let log = File::create(&log_path)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        interrupt::run(&mut command).with_context(|| failure(self.name, &log_path))?;
        std::fs::rename(fresh.join(self.name), dir.join(self.name))?;
        std::fs::create_dir_all(dir.join("built"))?;
        Ok(std::fs::write(self.stamp(dir), self.label())?)
    }
}

fn failure(name: &str, log: &Path) -> String {
    let said = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = said.lines().filter(|line| !line.starts_with("go: downloading")).collect();
    let end = lines.get(lines.len().saturating_sub(4)..).unwrap_or_default().join("\n    ");
    format!(
        "{name} could not be built; is there a network, and is Go's module proxy reached?\n  look at {}, which \
         ends:\n    {end}",
        log.display()
    )
}

/// For the linker: small, and with the version, which others ask for (charts, clients).
fn kubernetes_flags() -> String {
    let version = format!("v1.{KUBERNETES}");
    let minor = KUBERNETES.split('.').next().unwrap_or_default();
    let packages = ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"];
    let of_package = |package: &&str| {
        format!("-X {package}.gitVersion={version} -X {package}.gitMajor=1 -X {package}.gitMinor={minor}")
    };
    let settings: Vec<String> = packages.iter().map(of_package).collect();
    format!("-s -w {}", settings.join(" "))
}

/// A module that has Kubernetes' programs as its tools, with every staging module replaced.
fn write_kubernetes_module(dir: &Path) -> Result<()> {
    let go_mod = dir.join("go.mod");
    let complete = dir.join("complete");
    if std::fs::read_to_string(&complete).is_ok_and(|text| text == KUBERNETES) {
        return Ok(());
    }
    std::fs::create_dir_all(dir)?;
    let source = module_dir(&format!("k8s.io/kubernetes@v1.{KUBERNETES}"))?;
    let upstream = std::fs::read_to_string(source.join("go.mod")).context("Kubernetes has no go.mod")?;
    std::fs::write(&go_mod, kubernetes_module(&upstream)?)?;
    let log = File::create(dir.join("tidy.log"))?;
    let mut tidy = go(dir);
    tidy.args(["mod", "tidy"]).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    interrupt::run(&mut tidy).with_context(|| failure("Kubernetes' module", &dir.join("tidy.log")))?;
    Ok(std::fs::write(complete, KUBERNETES)?)
}

/// Our go.mod, by the go.mod of Kubernetes.
fn kubernetes_module(upstream: &str) -> Result<String> {
    let go = upstream.lines().find(|line| line.starts_with("go ")).context("a go.mod without version")?;
    let staged = upstream.lines().filter_map(|line| line.trim().split_once(" => ./staging/"));
    let mut text = format!("module mirror-cluster\n\n{go}\n\nrequire k8s.io/kubernetes v1.{KUBERNETES}\n");
    for program in PROGRAMS.iter().filter(|program| matches!(program.source, Source::Kubernetes)) {
        writeln!(text, "tool k8s.io/kubernetes/cmd/{}", program.name)?;
    }
    for (name, _) in staged {
        writeln!(text, "replace {name} => {name} v0.{KUBERNETES}")?;
    }
    Ok(text)
}

/// Go, unmoved by the user's own settings for other projects.
fn go(dir: &Path) -> Command {
    let mut command = Command::new("go");
    command.current_dir(dir).env("CGO_ENABLED", "0").env("GO111MODULE", "on");
    command.env("GOWORK", "off").env("GOFLAGS", "-buildvcs=false");
    command
}

/// Any Go that fetches the version that a module asks for.
fn check_go() -> Result<()> {
    let remedy =
        "install Go 1.21 or newer (https://go.dev/dl) and have it in PATH; it fetches what else it needs";
    let Some(said) = run::ask(Command::new("go").arg("version")) else {
        return Err(
            Impossible::new("the cluster's programs are built from Go, and there is none", remedy).into()
        );
    };
    match minor_version(&said) {
        Some(minor) if minor >= GO_NEEDED => Ok(()),
        Some(minor) => Err(Impossible::new(format!("Go 1.{minor} is too old"), remedy).into()),
        None => bail!("cannot make out the version of Go in {said:?}"),
    }
}

/// Y of `go version go1.Y.Z linux/amd64`.
fn minor_version(said: &str) -> Option<u32> {
    let (_, rest) = said.split_once("go1.")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn staging_modules_are_replaced_by_their_published_versions() {
        let upstream = "module k8s.io/kubernetes\n\ngo 1.26.0\n\nreplace (\n\tk8s.io/api => ./staging/src/k8s.io/api\n\
            \tother.org/x => other.org/y v1.0.0\n)\n";
        let text = kubernetes_module(upstream).unwrap();
        assert!(text.contains("go 1.26.0\n"), "{text}");
        assert!(text.contains(&format!("replace k8s.io/api => k8s.io/api v0.{KUBERNETES}\n")), "{text}");
        assert!(text.contains("tool k8s.io/kubernetes/cmd/kubelet\n"), "{text}");
        assert!(!text.contains("other.org"), "{text}");
    }

    #[test]
    fn version_of_go_is_read() {
        assert_eq!(minor_version("go version go1.26.8 linux/amd64\n"), Some(26));
        assert_eq!(minor_version("gibberish"), None);
    }
}
