//! Where the tests run: namespaces, a veth pair, a cgroup; all gone again when the value is dropped.

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// False, with a line that says so, where the real kernel cannot be tested.
///
/// # Panics
/// Instead of returning false when `CI=true`.
pub(crate) fn may_test_kernel() -> bool {
    mirror_tests::privilege::root_or_skip("a test on the real kernel")
}

/// Two namespaces, joined by a veth pair `eth0` - `eth0`.
pub(crate) struct Place {
    gateway: String,
    client: String,
    is_v6: bool,
    cgroup: Option<PathBuf>,
}

impl Place {
    pub(crate) fn new(is_v6: bool) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let tag = format!("kt{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let place = Self { gateway: format!("{tag}-gw"), client: format!("{tag}-cl"), is_v6, cgroup: None };
        let (gateway, client) = (place.gateway.as_str(), place.client.as_str());
        ip(&["netns", "add", gateway]);
        ip(&["netns", "add", client]);
        ip(&["-n", gateway, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", client]);
        for (namespace, last) in [(gateway, 1), (client, 2)] {
            ip(&["-n", namespace, "addr", "add", &format!("10.77.1.{last}/24"), "dev", "eth0"]);
            ip(&["-n", namespace, "addr", "add", &format!("fd77:1::{last}/64"), "dev", "eth0", "nodad"]);
            ip(&["-n", namespace, "link", "set", "eth0", "up"]);
            ip(&["-n", namespace, "link", "set", "lo", "up"]);
        }
        place
    }

    /// The gateway's address as its clients know it.
    pub(crate) fn gateway_addr(&self) -> IpAddr {
        if self.is_v6 { "fd77:1::1" } else { "10.77.1.1" }.parse().expect("an address")
    }

    pub(crate) fn gateway_netns(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.gateway)
    }

    pub(crate) fn client_netns(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.client)
    }

    /// Makes a cgroup (v2) for the gateway.
    pub(crate) fn make_cgroup(&mut self) -> PathBuf {
        let mounts = std::fs::read_to_string("/proc/mounts").expect("mounts");
        let root = mounts
            .lines()
            .find_map(|line| {
                let mut fields = line.split(' ');
                let (_, directory, kind) = (fields.next()?, fields.next()?, fields.next()?);
                (kind == "cgroup2").then(|| PathBuf::from(directory))
            })
            .expect("a cgroup v2 mount");
        let path = root.join(&self.gateway);
        std::fs::create_dir(&path).expect("a new cgroup");
        self.cgroup = Some(path.clone());
        path
    }

    /// Retransmitted segments of both namespaces so far.
    pub(crate) fn retransmissions(&self) -> u64 {
        [self.gateway_netns(), self.client_netns()].iter().map(|netns| within(netns, retransmitted)).sum()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for namespace in [&self.gateway, &self.client] {
            let _ = Command::new("ip").args(["netns", "del", namespace]).status();
        }
        if let Some(cgroup) = &self.cgroup {
            let _ = std::fs::remove_dir(cgroup);
        }
    }
}

/// Runs `work` on a thread in the namespace at `path`.
pub(crate) fn within<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        scope
            .spawn(move || {
                let namespace = File::open(path).expect("the namespace");
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("setns");
                work()
            })
            .join()
            .expect("the work in the namespace")
    })
}

/// Runs `ip` or `tc` and wants it to succeed.
pub(crate) fn ip(arguments: &[&str]) {
    run("ip", arguments);
}

pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect("the program is installed");
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// `RetransSegs` of the calling thread's namespace.
fn retransmitted() -> u64 {
    let snmp = std::fs::read_to_string("/proc/thread-self/net/snmp").expect("counters");
    let mut lines = snmp.lines().filter(|line| line.starts_with("Tcp:"));
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let position = names.split(' ').position(|name| name == "RetransSegs").expect("the counter");
    values.split(' ').nth(position).and_then(|value| value.parse().ok()).expect("a number")
}
