//! Real HAProxy as the gateway.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::cleanup::RunDir;
use crate::netns::Netns;
use crate::process::{Launch, Process};
use crate::wait;

/// How long it may take to listen.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A running HAProxy that proxies one address to another; stopped on Drop.
#[derive(Debug)]
pub struct Haproxy {
    process: Process,
    _dir: RunDir,
}

/// How HAProxy talks on one of its sides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sides {
    /// The listener reads the PROXY protocol.
    pub accept_proxy: bool,
    /// The server is sent the PROXY protocol, in this version (1 or 2): HAProxy as a load balancer.
    pub send_proxy_version: Option<u8>,
    /// Pass bytes without reading HTTP.
    pub tcp: bool,
}

impl Haproxy {
    /// Starts it in `netns` and waits until it listens.
    ///
    /// # Errors
    /// When it does not start; what it said is in the message.
    pub fn start(netns: &Netns, listen: SocketAddr, upstream: SocketAddr, sides: Sides) -> Result<Self> {
        let dir = RunDir::new()?;
        let file = dir.path().join("haproxy.cfg");
        std::fs::write(&file, render(listen, upstream, sides))?;
        let process = Launch::new("haproxy")
            .args(["-db".into(), "-f".into(), file.into_os_string()])
            .output_to(dir.path().join("output"))
            .in_netns(netns)
            .end_politely()
            .spawn()?;
        let mut haproxy = Self { process, _dir: dir };
        wait::until(&format!("haproxy listens at {listen}"), START_LIMIT, || {
            haproxy.process.still_runs()?;
            Ok(netns.run(|| std::net::TcpStream::connect(listen))?.is_ok().then_some(()))
        })
        .with_context(|| haproxy.process.output())?;
        Ok(haproxy)
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }
}

fn render(listen: SocketAddr, upstream: SocketAddr, sides: Sides) -> String {
    let mode = if sides.tcp { "tcp" } else { "http" };
    let accept = if sides.accept_proxy { " accept-proxy" } else { "" };
    let send = match sides.send_proxy_version {
        None => "",
        Some(2) => " send-proxy-v2",
        Some(_) => " send-proxy",
    };
    format!(
        "global\n  nbthread 1\n  maxconn 4000\ndefaults\n  mode {mode}\n  timeout connect 5s\n  timeout client 60s\n  \
         timeout server 60s\nfrontend front\n  bind {listen}{accept}\n  default_backend back\nbackend back\n  \
         server app {upstream}{send}\n"
    )
}
