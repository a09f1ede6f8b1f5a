//! Real nghttpx: a gateway that accepts `Upgrade: h2c`, which no other here does, and a front of shadows that speaks
//! HTTP/2 over TLS as it was agreed on by ALPN.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::cleanup::RunDir;
use crate::netns::Netns;
use crate::process::{Launch, Process};
use crate::wait;

/// How long it may take to listen, on a machine that others use too.
const START_LIMIT: Duration = Duration::from_secs(30);

/// What nghttpx is to do.
#[derive(Clone, Debug)]
pub struct NghttpxConfig {
    /// Where it listens: for HTTP/1.1 and HTTP/2, by prior knowledge or by upgrade; with TLS for what ALPN says.
    pub listen: SocketAddr,
    /// Where it proxies to.
    pub upstream: SocketAddr,
    /// Whether the upstream is spoken HTTP/2 to.
    pub http2_upstream: bool,
    /// Files with its key and its certificate; `None`: no TLS.
    pub tls: Option<(PathBuf, PathBuf)>,
}

/// A running nghttpx with one worker; stopped on Drop.
#[derive(Debug)]
pub struct Nghttpx {
    process: Process,
    dir: RunDir,
}

impl Nghttpx {
    /// Starts it in `netns` and waits until it listens.
    ///
    /// # Errors
    /// When it does not start; what it said is in the message.
    pub fn start(netns: &Netns, config: &NghttpxConfig) -> Result<Self> {
        let dir = RunDir::new()?;
        let (listen, upstream) = (config.listen, config.upstream);
        let tls = if config.tls.is_some() { "" } else { ";no-tls" };
        let version = if config.http2_upstream { "h2" } else { "http/1.1" };
        let mut launch = Launch::new("nghttpx")
            .args(["--conf=/dev/null".to_owned(), "--workers=1".to_owned(), "--single-process".to_owned()])
            .arg(format!("--frontend={},{}{tls}", listen.ip(), listen.port()))
            .arg(format!("--backend={},{};;proto={version}", upstream.ip(), upstream.port()))
            .arg(format!("--accesslog-file={}", dir.path().join("access.log").display()))
            .arg("--accesslog-format=$alpn \"$request\" $status")
            // What comes in goes out.
            .args(["--no-via", "--no-add-x-forwarded-proto", "--no-server-rewrite"])
            .output_to(dir.path().join("output"))
            .in_netns(netns);
        if let Some((key, certificate)) = &config.tls {
            launch = launch.arg(key).arg(certificate);
        }
        let mut nghttpx = Self { process: launch.spawn()?, dir };
        wait::until(&format!("nghttpx listens at {listen}"), START_LIMIT, || {
            nghttpx.process.still_runs()?;
            Ok(netns.run(|| std::net::TcpStream::connect(listen))?.is_ok().then_some(()))
        })
        .with_context(|| nghttpx.process.output())?;
        Ok(nghttpx)
    }

    /// A line for each request that was answered: what was agreed on (`h2`, `h2c` or `http/1.1`), the request line, the
    /// status.
    #[must_use]
    pub fn access_log(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.dir.path().join("access.log")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}
