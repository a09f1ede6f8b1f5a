//! `doctor`: says what would work on this node, and what to change. It attaches nothing.
//!
//! ```text
//! /proc, /sys, a trial load, the API server ─▶ Facts (facts) ─▶ Findings (here, pure) ─▶ lines or JSON
//! ```

mod cluster;
mod facts;

pub use facts::{Capability, Facts, KernelRelease, Place};

use serde::Serialize;
use std::fmt;

/// Ring buffers came with 5.8; below 5.15 nothing was ever tried.
const OLDEST_KERNEL: KernelRelease = KernelRelease { major: 5, minor: 8 };
const OLDEST_TRIED_KERNEL: KernelRelease = KernelRelease { major: 5, minor: 15 };
/// TCX links.
const TCX_KERNEL: KernelRelease = KernelRelease { major: 6, minor: 6 };
/// The network plugin that hides pods from the host's side.
const CILIUM: &str = "Cilium";

/// How good a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It works.
    Good,
    /// It works with limits, or in some modes only.
    Limited,
    /// It does not work.
    Bad,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at: one word of a closed set.
    pub topic: &'static str,
    /// How good it is.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What to change; empty when there is nothing to.
    pub advice: String,
}

/// All findings, in the order in which one would look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The findings.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Judges what was found.
    #[must_use]
    pub fn of(facts: &Facts) -> Self {
        let findings = [programs(facts), kernel(facts), tc(facts), trial(facts), capabilities(facts)]
            .into_iter()
            .chain([cgroups(facts), cluster::node(facts), cluster::api_server(facts), cluster::rights(facts)])
            .chain([cluster::gateway_api(facts), cluster::pods(facts), cluster::namespaces(facts)])
            .chain([network(facts)])
            .flatten()
            .collect();
        Self { findings }
    }

    /// Whether anything stands in the way of mirroring.
    #[must_use]
    pub fn is_bad(&self) -> bool {
        self.findings.iter().any(|finding| finding.state == State::Bad)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Finding { topic, state, found, advice } in &self.findings {
            let word = match state {
                State::Good => "good",
                State::Limited => "limited",
                State::Bad => "BAD",
            };
            writeln!(f, "{word:<8} {topic:<13} {found}")?;
            if !advice.is_empty() {
                writeln!(f, "{:<22} {advice}", "")?;
            }
        }
        Ok(())
    }
}

fn finding(
    topic: &'static str,
    state: State,
    found: impl Into<String>,
    advice: impl Into<String>,
) -> Option<Finding> {
    Some(Finding { topic, state, found: found.into(), advice: advice.into() })
}

fn programs(facts: &Facts) -> Option<Finding> {
    match &facts.unbuilt {
        None => finding("programs", State::Good, "this binary has its kernel programs", ""),
        Some(why) => finding("programs", State::Bad, "this binary has no kernel programs", why),
    }
}

fn kernel(facts: &Facts) -> Option<Finding> {
    let Some(release) = facts.kernel else {
        return finding("kernel", State::Limited, "its release is not to be read", "");
    };
    let found = format!("Linux {release}");
    if release < OLDEST_KERNEL {
        return finding("kernel", State::Bad, found, "BPF ring buffers came with 5.8: take 5.15 or newer");
    }
    if release < OLDEST_TRIED_KERNEL {
        return finding("kernel", State::Limited, found, "untested below 5.15");
    }
    let btf = if facts.has_btf { ", BTF" } else { ", no BTF (not needed)" };
    finding("kernel", State::Good, format!("{found}{btf}"), "")
}

fn tc(facts: &Facts) -> Option<Finding> {
    if facts.kernel? >= TCX_KERNEL {
        return finding("interfaces", State::Good, "TCX links: they go when the daemon goes", "");
    }
    finding(
        "interfaces",
        State::Limited,
        "no TCX (it came with 6.6): clsact filters are used",
        "a filter outlives a killed daemon; it does nothing after 2 s and is swept at the next start",
    )
}

fn trial(facts: &Facts) -> Option<Finding> {
    match facts.trial.as_ref()? {
        Ok(()) => finding("loading", State::Good, "the kernel made every map and took every setting", ""),
        Err(why) => {
            let advice = "see capabilities below; a locked-down kernel (lockdown=integrity) refuses BPF too";
            finding("loading", State::Bad, why, advice)
        }
    }
}

fn capabilities(facts: &Facts) -> Option<Finding> {
    let missing = |wanted: &[Capability]| -> Vec<&'static str> {
        let lacking = wanted.iter().filter(|wanted| !facts.capabilities.contains(wanted));
        lacking.map(|capability| capability.name()).collect()
    };
    let mut basic = vec![Capability::Bpf, Capability::NetAdmin];
    if facts.kernel.is_some_and(|release| release < TCX_KERNEL) {
        // Verifiers of that age ask for it (spilled numbers).
        basic.push(Capability::Perfmon);
    }
    let lacking = missing(&basic);
    if !lacking.is_empty() {
        let advice =
            "run as root, or give the container exactly these (`drop: [ALL]`, `add: [BPF, NET_ADMIN]`)";
        return finding("capabilities", State::Bad, format!("lacking {}", lacking.join(", ")), advice);
    }
    let lacking = missing(&[Capability::SysAdmin, Capability::SysPtrace]);
    if lacking.is_empty() {
        return finding(
            "capabilities",
            State::Good,
            "enough for cgroups, interfaces and other namespaces",
            "",
        );
    }
    finding(
        "capabilities",
        State::Limited,
        format!(
            "enough for cgroups and for interfaces of the daemon's own namespace; lacking {}",
            lacking.join(", ")
        ),
        "for `netns` add SYS_ADMIN, and SYS_PTRACE where it is named by /proc/PID/ns/net",
    )
}

fn cgroups(facts: &Facts) -> Option<Finding> {
    let Some(mount) = &facts.cgroup2 else {
        let advice = "mount it: mount -t cgroup2 none /sys/fs/cgroup; without it `interfaces` still work";
        return finding(
            "cgroups",
            State::Limited,
            "cgroup v2 is not mounted: `cgroups` can't be used",
            advice,
        );
    };
    let hybrid = if facts.has_cgroup1 { ", beside v1 (hybrid)" } else { "" };
    finding("cgroups", State::Good, format!("v2 at {}{hybrid}", mount.display()), "")
}

fn network(facts: &Facts) -> Option<Finding> {
    const PREFIXES: [(&str, &str); 5] = [
        ("cilium_", CILIUM),
        ("cali", "Calico"),
        ("flannel", "Flannel"),
        ("weave", "Weave"),
        ("antrea", "Antrea"),
    ];
    let has = |prefix: &str| facts.interfaces.iter().any(|name| name.starts_with(prefix));
    let is_configured = facts.cni_configs.iter().any(|name| name.contains("cilium")).then_some(CILIUM);
    let seen = || PREFIXES.iter().find(|(prefix, _)| has(prefix)).map(|(_, name)| *name);
    match is_configured.or_else(seen).or_else(|| cluster::network_plugin(facts)) {
        Some(CILIUM) => finding(
            "network",
            State::Limited,
            "Cilium: with its host routing the host's side of a pod sees nothing",
            "take the pod's cgroup, or its own interface (`netns`), never `side = \"host\"`",
        ),
        Some(name) => {
            finding("network", State::Good, format!("{name}: cgroups and interfaces both see pods"), "")
        }
        None if !facts.cni_configs.is_empty() || facts.cluster.is_some() => {
            let found = "an unknown network plugin: pods' cgroups and pods' own interfaces work with any";
            finding("network", State::Good, found, "")
        }
        None => finding("network", State::Good, "no network plugin of Kubernetes found", ""),
    }
}

#[cfg(test)]
mod tests;
