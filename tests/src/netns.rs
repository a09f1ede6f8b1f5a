//! Network namespaces: one for each part that a real installation has, joined by a bridge, with no way out.
//!
//! ```text
//!  client 10.77.0.1   gateway 10.77.0.2   production 10.77.0.3   shadow 10.77.0.4
//!        eth0               eth0                 eth0                 eth0
//!         |                  |                    |                    |
//!      client0           gateway0            production0            shadow0
//!         +--------------- br0 10.77.0.254, in the namespace "node" ---+
//! ```
//!
//! Every namespace also has fd77::N with the same last number. "node" stands for the host of the pods.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::cleanup::{self, Held, RunDir};

/// The part that a namespace plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Sends the requests.
    Client,
    /// Runs the gateway.
    Gateway,
    /// Runs the production app.
    Production,
    /// Runs the shadow app.
    Shadow,
    /// Holds the bridge.
    Node,
}

impl Role {
    /// All but the node.
    pub const PODS: [Self; 4] = [Self::Client, Self::Gateway, Self::Production, Self::Shadow];

    /// Its word in names.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Gateway => "gateway",
            Self::Production => "production",
            Self::Shadow => "shadow",
            Self::Node => "node",
        }
    }

    /// The last number of its addresses.
    fn number(self) -> u8 {
        match self {
            Self::Client => 1,
            Self::Gateway => 2,
            Self::Production => 3,
            Self::Shadow => 4,
            Self::Node => 254,
        }
    }

    /// Its IPv4 address.
    #[must_use]
    pub fn v4(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, self.number())
    }

    /// Its IPv6 address.
    #[must_use]
    pub fn v6(self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, u16::from(self.number()))
    }

    /// Its IPv4 address with a port.
    #[must_use]
    pub fn at(self, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.v4()), port)
    }

    /// Its IPv6 address with a port.
    #[must_use]
    pub fn at_v6(self, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V6(self.v6()), port)
    }
}

/// A network namespace, or the one that the test itself runs in.
#[derive(Clone, Debug)]
pub struct Netns {
    path: Option<PathBuf>,
}

impl Netns {
    /// The namespace of the test itself.
    #[must_use]
    pub fn own() -> Self {
        Self { path: None }
    }

    /// One made by `ip netns add`.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self { path: Some(Path::new(cleanup::NETNS_DIR).join(name)) }
    }

    /// Its file; `None`: the test's own.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Runs `work` on a thread inside. Sockets made there stay there, whoever uses them later.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let Some(path) = &self.path else { return Ok(work()) };
        let file = std::fs::File::open(path).with_context(|| format!("no namespace {}", path.display()))?;
        std::thread::scope(|scope| {
            let inside = scope.spawn(move || {
                use std::os::fd::AsFd as _;
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
                Ok::<T, rustix::io::Errno>(work())
            });
            match inside.join() {
                Ok(done) => done.context("cannot enter the namespace"),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Writes a sysctl of this namespace, by its dotted name.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        self.run(|| std::fs::write(&path, value))?.with_context(|| format!("cannot set {name}"))
    }

    /// The names of its interfaces.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn interfaces(&self) -> Result<Vec<String>> {
        // /proc/net/dev follows the reading thread; /sys/class/net follows the mount.
        let table = self.run(|| std::fs::read_to_string("/proc/thread-self/net/dev"))??;
        let names = table.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()));
        Ok(names.collect())
    }
}

/// The namespaces of one test. Drop kills what runs in them and removes them.
#[derive(Debug)]
pub struct Lab {
    name: String,
    dir: RunDir,
    /// Where requests come from.
    pub client: Netns,
    /// Where the gateway runs.
    pub gateway: Netns,
    /// Where the production app runs.
    pub production: Netns,
    /// Where the shadow app runs.
    pub shadow: Netns,
    /// Where the bridge is.
    pub node: Netns,
}

impl Lab {
    /// Builds one; removes first what dead runs left behind.
    ///
    /// # Errors
    /// When `ip` fails: usually for want of root.
    pub fn new() -> Result<Self> {
        cleanup::sweep_leftovers();
        let name = cleanup::unique_name();
        let full = |role: Role| full_name(&name, role);
        let of = |role: Role| Netns::named(&full(role));
        let lab = Self {
            dir: RunDir::new()?,
            client: of(Role::Client),
            gateway: of(Role::Gateway),
            production: of(Role::Production),
            shadow: of(Role::Shadow),
            node: of(Role::Node),
            name: name.clone(),
        };
        let mut adds = String::new();
        for role in Role::PODS.into_iter().chain([Role::Node]) {
            cleanup::hold(Held::Netns(full(role)));
            adds.push_str(&format!("netns add {}\n", full(role)));
        }
        ip_batch(None, &adds)?;
        ip_batch(Some(&full(Role::Node)), &node_script(&name))?;
        for role in Role::PODS {
            let script = format!(
                "link set lo up\naddr add {}/24 dev eth0\naddr add {}/64 dev eth0 nodad\nlink set eth0 up\n",
                role.v4(),
                role.v6()
            );
            ip_batch(Some(&full(role)), &script)?;
        }
        Ok(lab)
    }

    /// The namespace of a part.
    #[must_use]
    pub fn netns(&self, role: Role) -> &Netns {
        match role {
            Role::Client => &self.client,
            Role::Gateway => &self.gateway,
            Role::Production => &self.production,
            Role::Shadow => &self.shadow,
            Role::Node => &self.node,
        }
    }

    /// A directory for this test's files, removed with the lab.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for role in Role::PODS.into_iter().chain([Role::Node]) {
            cleanup::release(&Held::Netns(full_name(&self.name, role)));
        }
    }
}

fn full_name(lab: &str, role: Role) -> String {
    format!("{lab}-{}", role.label())
}

fn node_script(lab: &str) -> String {
    let mut script = format!(
        "link set lo up\nlink add br0 type bridge\naddr add {}/24 dev br0\naddr add {}/64 dev br0 nodad\n",
        Role::Node.v4(),
        Role::Node.v6()
    );
    for role in Role::PODS {
        let (port, pod) = (format!("{}0", role.label()), full_name(lab, role));
        script.push_str(&format!("link add {port} type veth peer name eth0 netns {pod}\n"));
        script.push_str(&format!("link set {port} master br0 up\n"));
    }
    script.push_str("link set br0 up\n");
    script
}

/// Runs lines of `ip`, in a namespace of `ip netns` if one is named.
fn ip_batch(netns: Option<&str>, script: &str) -> Result<()> {
    cleanup::fail_if_interrupted()?;
    let mut command = Command::new("ip");
    if let Some(netns) = netns {
        command.args(["-n", netns]);
    }
    command.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().context("cannot start ip (package iproute2)")?;
    child.stdin.take().context("no stdin")?.write_all(script.as_bytes())?;
    let done = child.wait_with_output()?;
    if !done.status.success() {
        bail!("ip failed: {}\nscript:\n{script}", String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(())
}
