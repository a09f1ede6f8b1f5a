//! The overlays of `deploy/` as they are: the guide end to end, and what the daemon's processes may do in its pod.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use mirror_tests::client::{self, Connection};
use mirror_tests::kube::pod::Pod;
use mirror_tests::kube::{Cluster, say};
use serde_json::{Value, json};

use crate::daemon;
use crate::gateway::{Gateway, Kind};

/// Capabilities by their bits (linux/capability.h).
const NET_ADMIN: u64 = 1 << 12;
const SYS_ADMIN: u64 = 1 << 21;
const BPF: u64 = 1 << 39;

/// A `mirror.toml` for Envoy Gateway, which keeps its pods in a namespace of its own: they are bound to the Gateway
/// that the guide's route names.
const AT_ENVOY_GATEWAY: &str = r#"
[capture]
ports = [8080]

[admin]
listen = "0.0.0.0:9900"

[kubernetes]
gateway_api = true

[[kubernetes.gateway]]
name = "http"
namespace = "gloo-system"
[kubernetes.gateway.pods]
namespace = "envoy-gateway-system"
selector = "gateway.envoyproxy.io/owning-gateway-name=production"
"#;

/// The daemon with everything that came with it; it goes at Drop.
struct Deployed<'a> {
    cluster: &'a Cluster,
    overlay: &'static str,
}

impl<'a> Deployed<'a> {
    /// The overlay as it is, or with a `mirror.toml` of the test's own.
    fn overlay(cluster: &'a Cluster, overlay: &'static str, toml: Option<&str>) -> Result<Self> {
        let deployed = Self { cluster, overlay };
        match toml {
            Some(toml) => daemon::apply(cluster, overlay, toml)?,
            None => daemon::apply_unchanged(cluster, overlay)?,
        }
        Ok(deployed)
    }

    fn pods(&self) -> Result<Vec<Pod>> {
        (1..=self.cluster.nodes).map(|node| daemon::on_node(self.cluster, node)).collect()
    }

    /// Waits until each node's daemon captures the gateway's pod there, and knows the rules.
    fn capture(&self, gateway: &Gateway) -> Result<()> {
        for pod in &gateway.pods {
            let there = daemon::on_node(self.cluster, pod.node_number()?)?;
            let name = format!("pod=\"{}/{}\" point={} ", pod.namespace, pod.name, self.overlay);
            self.cluster.eventually(&format!("{} is captured", pod.name), || {
                let log = daemon::log(self.cluster, &there)?;
                let is_told =
                    log.lines().any(|line| line.contains("pod is captured") && line.contains(&name));
                ensure!(is_told && log.contains("the cluster's rules are known"), "{log}");
                Ok(Some(()))
            })?;
        }
        Ok(())
    }
}

impl Drop for Deployed<'_> {
    fn drop(&mut self) {
        drop(daemon::remove_all(self.cluster, self.overlay));
    }
}

#[test]
fn guide_mirrors_at_nginx_with_the_overlay_cgroup_as_it_is() -> Result<()> {
    guide("guide_mirrors_at_nginx_with_the_overlay_cgroup_as_it_is", Kind::Nginx, "cgroup", None)
}

#[test]
fn guide_mirrors_at_envoy_with_the_overlay_cgroup_as_it_is() -> Result<()> {
    guide("guide_mirrors_at_envoy_with_the_overlay_cgroup_as_it_is", Kind::Envoy, "cgroup", None)
}

#[test]
fn guide_mirrors_at_nginx_with_the_overlay_interface_as_it_is() -> Result<()> {
    guide("guide_mirrors_at_nginx_with_the_overlay_interface_as_it_is", Kind::Nginx, "interface", None)
}

#[test]
fn guide_mirrors_at_envoy_gateway_that_is_bound_to_the_guides_parent() -> Result<()> {
    let test = "guide_mirrors_at_envoy_gateway_that_is_bound_to_the_guides_parent";
    guide(test, Kind::EnvoyGateway, "cgroup", Some(AT_ENVOY_GATEWAY))
}

fn guide(test: &str, kind: Kind, overlay: &'static str, toml: Option<&str>) -> Result<()> {
    let Some(cluster) = Cluster::alone_with_gateway_or_skip(test, kind.name()) else { return Ok(()) };
    let gateway = kind.start(&cluster)?;
    let before = processes(&gateway)?;
    let deployed = Deployed::overlay(&cluster, overlay, toml)?;
    deployed.capture(&gateway)?;
    for pod in deployed.pods()? {
        privileges_are_those_of(overlay, &pod)?;
        doctor_finds_all_that_the_overlay_needs(&cluster, overlay, &pod)?;
    }
    let run = std::process::id();
    let pods = gateway.pods.iter().map(|pod| Ok((pod.node_number()?, pod.at(gateway.port))));
    let places = pods.chain([Ok((1, gateway.service))]).collect::<Result<Vec<_>>>()?;
    for (number, (node, place)) in places.into_iter().enumerate() {
        let netns = cluster.node(node);
        // A Service is programmed some moments after its pods are ready.
        cluster.eventually(&format!("{place} takes connections"), || {
            Connection::open(&netns, place).map(|_| Some(()))
        })?;
        // As clients send it through a port that is not HTTP's own, too.
        for (host, mirrored) in [
            ("shadowing.example", "shadowing.example-shadow"),
            ("shadowing.example:8080", "shadowing.example-shadow:8080"),
        ] {
            let target = format!("/headers?{}-{overlay}-{number}-{}-{run}", kind.name(), host.len());
            let answer = client::get(&netns, place, host, &target)?;
            ensure!(answer.status == 200, "the gateway answers {}", answer.status);
            shadow_has(&cluster, &target, mirrored)?;
        }
    }
    drop(deployed);
    let after = kind.start(&cluster)?;
    assert_eq!(after.pods, gateway.pods, "the same pods, specifications and restarts");
    assert_eq!(processes(&after)?, before, "the same processes, started at the same time");
    Ok(())
}

/// Waits until the shadow has logged the request, once and with this host.
fn shadow_has(cluster: &Cluster, target: &str, host: &str) -> Result<()> {
    let shadow = cluster.pods("shadow", "app=httpbin")?.pop().context("the shadow runs")?;
    cluster.eventually(&format!("the shadow has logged {target}"), || {
        let log = cluster.logs(&shadow, "log")?;
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let found: Vec<Value> = lines.filter(|line| line["target"] == target).collect();
        let Some(first) = found.first() else { return Ok(None) };
        let expected = json!({ "method": "GET", "target": target, "host": host, "status": 200 });
        ensure!(found.len() == 1 && *first == expected, "{found:?}");
        Ok(Some(()))
    })
}

/// The gateway's processes with their start (proc(5), stat, field 22).
fn processes(gateway: &Gateway) -> Result<BTreeSet<(u32, String)>> {
    let mut found = BTreeSet::new();
    for pod in &gateway.pods {
        for pid in pod.pids()? {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
            let (_, rest) = stat.rsplit_once(')').context("no name")?;
            found.insert((pid, rest.split_whitespace().nth(19).context("no start")?.to_owned()));
        }
    }
    Ok(found)
}

/// What the pod's specification and both of its processes' status say. The status of each is shown.
fn privileges_are_those_of(overlay: &str, pod: &Pod) -> Result<()> {
    ensure!(pod.spec["hostPID"] != true && pod.spec["hostNetwork"] != true, "{:#}", pod.spec);
    let context = &pod.spec["containers"][0]["securityContext"];
    ensure!(context["readOnlyRootFilesystem"] == true && context["privileged"] == false, "{context:#}");
    let attacher = match overlay {
        "interface" => BPF | NET_ADMIN | SYS_ADMIN,
        _ => BPF | NET_ADMIN,
    };
    let mut seen = BTreeSet::new();
    for pid in pod.pids()? {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        // Of the sandbox and what is just going nothing is claimed.
        let Ok(name) = std::fs::read_to_string(proc.join("comm")) else { continue };
        let name = name.trim().to_owned();
        let capabilities = match name.as_str() {
            "mirror-daemon" => attacher,
            "mirror-parser" => 0,
            _ => continue,
        };
        let status = Status::read(&proc)?;
        say(&format!("{name} of {} ({overlay}): {}", pod.name, status.shown()));
        // The attacher is the container's first process, the parser its child.
        let inner = status.field("NSpid")?.split_whitespace().last().context("no pid")?.to_owned();
        ensure!((inner == "1") == (name == "mirror-daemon"), "{name} is process {inner} of its container");
        let effective = status.mask("CapEff")?;
        ensure!(effective == capabilities, "{name} has {effective:#x}, not {capabilities:#x}");
        ensure!(status.mask("CapPrm")? == capabilities && status.mask("CapAmb")? == 0, "{}", status.shown());
        if name == "mirror-parser" {
            ensure!(status.mask("CapInh")? == 0, "{}", status.shown());
        }
        ensure!(status.field("NoNewPrivs")? == "1" && status.field("Seccomp")? == "2", "{}", status.shown());
        seen.insert(name);
    }
    ensure!(seen.len() == 2, "processes of the daemon's pod: {seen:?}");
    Ok(())
}

/// `doctor`, run in the daemon's own container.
fn doctor_finds_all_that_the_overlay_needs(cluster: &Cluster, overlay: &str, pod: &Pod) -> Result<()> {
    let words = ["exec", "-n", daemon::NAMESPACE, &pod.name, "--", "/mirror-daemon", "doctor", "--json"];
    cluster.eventually(&format!("doctor in {} finds all good", pod.name), || {
        let report = cluster.kubectl(words)?;
        let report: Value = serde_json::from_str(&report).with_context(|| report.clone())?;
        let findings = report["findings"].as_array().context("no findings")?;
        // What the overlay leaves out on purpose.
        let is_meant = |topic: &Value| match overlay {
            "interface" => *topic == "capabilities",
            _ => *topic == "capabilities" || *topic == "namespaces",
        };
        let is_good = |one: &&Value| one["state"] == "good" || is_meant(&one["topic"]);
        let amiss: Vec<_> = findings.iter().filter(|one| !is_good(one)).collect();
        // A pod that starts or ends, such as another test's, has no cgroup for a moment.
        ensure!(amiss.is_empty() && findings.len() > 12, "{amiss:#?} of {}", findings.len());
        let node = findings.iter().find(|one| one["topic"] == "node").context("no node")?;
        ensure!(node["found"] == pod.node.as_str(), "{node}");
        Ok(Some(()))
    })
}

/// `/proc/PID/status`.
struct Status(String);

impl Status {
    fn read(proc: &std::path::Path) -> Result<Self> {
        Ok(Self(std::fs::read_to_string(proc.join("status"))?))
    }

    fn field(&self, key: &str) -> Result<&str> {
        let found = self.0.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        found.map(str::trim).with_context(|| format!("no {key} in\n{}", self.0))
    }

    fn mask(&self, key: &str) -> Result<u64> {
        Ok(u64::from_str_radix(self.field(key)?, 16)?)
    }

    /// What it says of privileges, in one line.
    fn shown(&self) -> String {
        let wanted = ["NSpid", "Uid", "Cap", "NoNewPrivs", "Seccomp:"];
        let lines = self.0.lines().filter(|line| wanted.iter().any(|key| line.starts_with(key)));
        lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>().join(", ")
    }
}

#[test]
fn pod_security_takes_the_daemon_at_privileged_only() -> Result<()> {
    let test = "pod_security_takes_the_daemon_at_privileged_only";
    let Some(cluster) = Cluster::or_skip(test) else { return Ok(()) };
    for overlay in ["cgroup", "interface"] {
        let objects = cluster.kubectl(["kustomize", &format!("{}/{overlay}", daemon::OVERLAYS)])?;
        let docs =
            mirror_daemon::kube::documents(&objects, overlay).map_err(|why| anyhow::anyhow!("{why}"))?;
        let daemon_set = docs.iter().find(|object| object["kind"] == "DaemonSet").context("no DaemonSet")?;
        for (profile, is_taken) in [("restricted", false), ("baseline", false), ("privileged", true)] {
            let namespace =
                Namespace::enforcing(&cluster, &format!("admission-{overlay}-{profile}"), profile)?;
            let mut spec = daemon_set["spec"]["template"]["spec"].clone();
            // What is only there with the daemon is left out: it has no part in this.
            spec["serviceAccountName"] = json!("default");
            spec["priorityClassName"] = Value::Null;
            let pod = json!({
                "apiVersion": "v1", "kind": "Pod", "spec": spec,
                "metadata": { "name": "mirror-daemon", "namespace": namespace.name }
            });
            // The account is made by a controller, some moments later.
            let answer = cluster.eventually("the API server has decided", || {
                match cluster.apply_dry(&pod.to_string()) {
                    Err(why) if why.to_string().contains("serviceaccount") => Err(why),
                    decided => Ok(Some(decided)),
                }
            })?;
            match answer {
                Ok(()) => ensure!(is_taken, "{overlay} is taken at {profile}"),
                Err(why) => {
                    ensure!(!is_taken && why.to_string().contains("PodSecurity"), "{overlay}: {why}");
                    say(&format!("overlay {overlay} at {profile}: {why}"));
                }
            }
        }
    }
    Ok(())
}

#[test]
fn api_server_takes_every_object_of_both_overlays() -> Result<()> {
    let Some(cluster) = Cluster::alone_or_skip("api_server_takes_every_object_of_both_overlays") else {
        return Ok(());
    };
    let _gone_again = Deployed { cluster: &cluster, overlay: "interface" };
    // A server-side dry run needs the namespace that all others are in.
    cluster.apply(
        &json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": daemon::NAMESPACE }
        })
        .to_string(),
    )?;
    for overlay in ["cgroup", "interface"] {
        let objects = cluster.kubectl(["kustomize", &format!("{}/{overlay}", daemon::OVERLAYS)])?;
        cluster.apply_dry(&objects)?;
        let objects = daemon::with_component(&cluster, overlay, "kernel-before-6.6")?;
        ensure!(objects.matches("- PERFMON\n").count() == 1, "{objects}");
        cluster.apply_dry(&objects)?;
    }
    Ok(())
}

/// A namespace that goes at Drop.
struct Namespace<'a> {
    cluster: &'a Cluster,
    name: String,
}

impl<'a> Namespace<'a> {
    fn enforcing(cluster: &'a Cluster, name: &str, profile: &str) -> Result<Self> {
        let labels = json!({ "pod-security.kubernetes.io/enforce": profile });
        let metadata = json!({ "name": name, "labels": labels });
        cluster
            .apply(&json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": metadata }).to_string())?;
        Ok(Self { cluster, name: name.to_owned() })
    }
}

impl Drop for Namespace<'_> {
    fn drop(&mut self) {
        drop(self.cluster.kubectl(["delete", "namespace", &self.name, "--wait=false", "--ignore-not-found"]));
    }
}
