//! The overlays of `deploy/` as they are: the guide end to end, and what the daemon's processes may do in its pod.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use mirror_tests::client;
use mirror_tests::kube::Cluster;
use mirror_tests::kube::pod::Pod;
use serde_json::{Value, json};

use crate::daemon;
use crate::gateway::{Gateway, Kind};

/// Capabilities by their bits (linux/capability.h).
const NET_ADMIN: u64 = 1 << 12;
const SYS_ADMIN: u64 = 1 << 21;
const BPF: u64 = 1 << 39;

/// The daemon with everything that came with it; it goes at Drop.
struct Deployed<'a>(&'a Cluster);

impl<'a> Deployed<'a> {
    fn unchanged(cluster: &'a Cluster, overlay: &str) -> Result<Self> {
        let deployed = Self(cluster);
        daemon::apply_unchanged(cluster, overlay)?;
        Ok(deployed)
    }

    fn pods(&self) -> Result<Vec<Pod>> {
        (1..=self.0.nodes).map(|node| daemon::on_node(self.0, node)).collect()
    }

    /// Waits until each node's daemon captures the gateway's pod there.
    fn capture(&self, gateway: &Gateway) -> Result<()> {
        for pod in &gateway.pods {
            let there = daemon::on_node(self.0, pod.node_number()?)?;
            let name = format!("pod=\"{}/{}\"", pod.namespace, pod.name);
            self.0.eventually(&format!("{} is captured", pod.name), || {
                let log = daemon::log(self.0, &there)?;
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
        drop(daemon::remove(self.0));
        drop(self.0.kubectl(["delete", "namespace", daemon::NAMESPACE, "--ignore-not-found"]));
    }
}

#[test]
fn guide_mirrors_at_nginx_with_the_overlay_cgroup_as_it_is() -> Result<()> {
    guide("guide_mirrors_at_nginx_with_the_overlay_cgroup_as_it_is", Kind::Nginx, "cgroup")
}

#[test]
fn guide_mirrors_at_envoy_with_the_overlay_cgroup_as_it_is() -> Result<()> {
    guide("guide_mirrors_at_envoy_with_the_overlay_cgroup_as_it_is", Kind::Envoy, "cgroup")
}

#[test]
fn guide_mirrors_at_nginx_with_the_overlay_interface_as_it_is() -> Result<()> {
    guide("guide_mirrors_at_nginx_with_the_overlay_interface_as_it_is", Kind::Nginx, "interface")
}

fn guide(test: &str, kind: Kind, overlay: &str) -> Result<()> {
    let wanted = std::env::var(mirror_tests::kube::GATEWAYS).unwrap_or_else(|_| "nginx,envoy".to_owned());
    if !wanted.split(',').any(|name| name == kind.name()) {
        eprintln!("skipped {test}: it is for --gateway {}, and this run is for {wanted}", kind.name());
        return Ok(());
    }
    let Some(cluster) = Cluster::alone_or_skip(test) else { return Ok(()) };
    let gateway = kind.start(&cluster)?;
    let before = processes(&gateway)?;
    let deployed = Deployed::unchanged(&cluster, overlay)?;
    deployed.capture(&gateway)?;
    for pod in deployed.pods()? {
        privileges_are_those_of(overlay, &pod)?;
    }
    for (number, pod) in gateway.pods.iter().enumerate() {
        let target = format!("/headers?{}-{overlay}-{number}-{}", kind.name(), std::process::id());
        let netns = cluster.node(pod.node_number()?);
        let answer = client::get(&netns, pod.at(gateway.port), "shadowing.example", &target)?;
        ensure!(answer.status == 200, "the gateway answers {}", answer.status);
        shadow_has(&cluster, &target)?;
    }
    drop(deployed);
    let after = kind.start(&cluster)?;
    assert_eq!(after.pods, gateway.pods, "the same pods, specifications and restarts");
    assert_eq!(processes(&after)?, before, "the same processes, started at the same time");
    Ok(())
}

/// Waits until the shadow has logged the request once, with the suffix.
fn shadow_has(cluster: &Cluster, target: &str) -> Result<()> {
    let shadow = cluster.pods("shadow", "app=httpbin")?.pop().context("the shadow runs")?;
    cluster.eventually(&format!("the shadow has logged {target}"), || {
        let log = cluster.logs(&shadow, "log")?;
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let found: Vec<Value> = lines.filter(|line| line["target"] == target).collect();
        let Some(first) = found.first() else { return Ok(None) };
        let expected = json!({
            "method": "GET", "target": target, "host": "shadowing.example-shadow", "status": 200
        });
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

/// What the pod's specification and both of its processes' status say. The status of each is printed.
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
        println!("{} of {} ({overlay}):\n{}", name, pod.name, status.shown());
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

    /// The lines about privileges.
    fn shown(&self) -> String {
        let wanted = ["Name", "NSpid", "Uid", "Cap", "NoNewPrivs", "Seccomp:"];
        let lines = self.0.lines().filter(|line| wanted.iter().any(|key| line.starts_with(key)));
        lines.map(|line| format!("  {line}\n")).collect()
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
        for (profile, is_taken) in [("baseline", false), ("privileged", true)] {
            let namespace =
                Namespace::enforcing(&cluster, &format!("admission-{overlay}-{profile}"), profile)?;
            let mut spec = daemon_set["spec"]["template"]["spec"].clone();
            // No such account is needed to be admitted, and none is here.
            spec["serviceAccountName"] = json!("default");
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
                Err(why) => ensure!(!is_taken && why.to_string().contains("PodSecurity"), "{overlay}: {why}"),
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
    let _gone_again = Deployed(&cluster);
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
