//! Where everything runs: namespaces, CPUs, port ranges, and which CPU receives whose packets.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mirror_tests::cgroup::Cgroup;
use mirror_tests::netns::{Lab, Netns, Role};
use mirror_tests::process::Launch;
use mirror_tests::server::{LogMode, TestApp};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The CPU of the gateway and of the mirror.
pub(crate) const GATEWAY_CPU: u32 = 0;

/// The CPU of client, production and shadow, and of this program.
const OTHER_CPU: u32 = 1;

/// The stage on which every case plays. The order of the fields is the order of the end.
pub(crate) struct Place {
    pub(crate) production: TestApp,
    pub(crate) shadow: TestApp,
    pub(crate) lab: Lab,
    pub(crate) gateway_cgroup: Cgroup,
    pub(crate) mirror_cgroup: Cgroup,
}

impl Place {
    /// Builds it and pins this program.
    pub(crate) fn new() -> Result<Self> {
        pin_here()?;
        let lab = Lab::new()?;
        for role in Role::PODS {
            lab.netns(role).sysctl("net.ipv4.ip_local_port_range", "1024 65535")?;
        }
        steer_packets(&lab)?;
        let app = |role: Role| TestApp::start(lab.netns(role), role.at(8000), LogMode::Count);
        Ok(Self {
            production: app(Role::Production)?,
            shadow: app(Role::Shadow)?,
            gateway_cgroup: Cgroup::new()?,
            mirror_cgroup: Cgroup::new()?,
            lab,
        })
    }

    /// Forgets what the apps have noted, once nothing of an earlier run can still come.
    pub(crate) fn clear(&self) {
        self.production.close_connections();
        self.shadow.close_connections();
        // Requests of a case that has ended may still be in the apps' hands.
        let mut before = None;
        let quiet = || {
            let now = (self.production.log().summary(), self.shadow.log().summary());
            let same = before.as_ref() == Some(&now);
            before = Some(now);
            same
        };
        drop(mirror_tests::wait::until_true("the apps are quiet", Duration::from_secs(2), quiet));
        self.production.log().clear();
        self.shadow.log().clear();
    }
}

fn pin_here() -> Result<()> {
    let allowed = sched_getaffinity(None)?;
    let both = allowed.is_set(GATEWAY_CPU as usize) && allowed.is_set(OTHER_CPU as usize);
    ensure!(both, "the measurement needs CPUs {GATEWAY_CPU} and {OTHER_CPU}");
    let mut cpus = CpuSet::new();
    cpus.set(OTHER_CPU as usize);
    Ok(sched_setaffinity(None, &cpus)?)
}

/// A veth hands its packets to the receiver on the sender's CPU. Here the gateway's are received on its own
/// CPU, and all others on the other, as if they had come by a wire.
fn steer_packets(lab: &Lab) -> Result<()> {
    for role in Role::PODS.into_iter().chain([Role::Node]) {
        let netns = lab.netns(role);
        for interface in netns.interfaces()?.iter().filter(|name| *name != "lo") {
            let of_gateway = role == Role::Gateway || interface == "gateway0";
            steer(netns, interface, if of_gateway { GATEWAY_CPU } else { OTHER_CPU })?;
        }
    }
    Ok(())
}

fn steer(netns: &Netns, interface: &str, cpu: u32) -> Result<()> {
    let name = netns.path().and_then(|path| path.file_name()).context("a namespace without a name")?;
    // `ip netns exec` mounts the namespace's own /sys, which `nsenter` does not.
    let script = format!(
        "for queue in /sys/class/net/{interface}/queues/rx-*; do echo {:x} > $queue/rps_cpus; done",
        1_u32 << cpu
    );
    let launch = Launch::new("ip").args(["netns", "exec"]).arg(name).args(["sh", "-e", "-c"]).arg(script);
    launch.run().with_context(|| format!("packets for {interface} cannot be steered"))?;
    Ok(())
}
