//! Real Envoy as the gateway.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::cgroup::Cgroup;
use crate::cleanup::RunDir;
use crate::netns::Netns;
use crate::peers;
use crate::process::{Launch, Process};
use crate::wait;

/// How long it may take to listen, on a machine that others use too.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Streams that Envoy lets a client have open at once.
const MAX_STREAMS: u32 = 1024;

/// What Envoy is to do. Its listener takes HTTP/1.1 and HTTP/2 by prior knowledge.
#[derive(Clone, Debug)]
pub struct EnvoyConfig {
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// Where it proxies to.
    pub upstream: SocketAddr,
    /// Whether the upstream is spoken HTTP/2 to.
    pub http2_upstream: bool,
}

/// A running Envoy with one worker; stopped on Drop.
#[derive(Debug)]
pub struct Envoy {
    process: Process,
    _dir: RunDir,
}

impl Envoy {
    /// Starts it in `netns` and waits until it listens.
    ///
    /// # Errors
    /// When it is not installed or does not start; what it said is in the message.
    pub fn start(netns: &Netns, config: &EnvoyConfig) -> Result<Self> {
        Self::start_with(netns, config, |launch| launch)
    }

    /// As [`Self::start`], in a cgroup.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_in_cgroup(netns: &Netns, config: &EnvoyConfig, cgroup: &Cgroup) -> Result<Self> {
        Self::start_with(netns, config, |launch| launch.in_cgroup(cgroup))
    }

    fn start_with(
        netns: &Netns,
        config: &EnvoyConfig,
        change: impl FnOnce(Launch) -> Launch,
    ) -> Result<Self> {
        let dir = RunDir::new()?;
        let file = dir.path().join("envoy.json");
        std::fs::write(&file, config.bootstrap().to_string())?;
        let launch = Launch::new(peers::program("envoy")?)
            .args(["-c".into(), file.into_os_string()])
            // Without this its shared memory would be that of every other Envoy on the machine.
            .args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"])
            .output_to(dir.path().join("output"))
            .in_netns(netns);
        let mut envoy = Self { process: change(launch).spawn()?, _dir: dir };
        for address in &config.listen {
            let listens = wait::until(&format!("envoy listens at {address}"), START_LIMIT, || {
                envoy.process.still_runs()?;
                Ok(netns.run(|| std::net::TcpStream::connect(address))?.is_ok().then_some(()))
            });
            listens.with_context(|| envoy.process.output())?;
        }
        Ok(envoy)
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// What it said.
    #[must_use]
    pub fn output(&self) -> String {
        self.process.output()
    }
}

impl EnvoyConfig {
    /// HTTP/2 to the upstream.
    #[must_use]
    pub fn new(listen: impl IntoIterator<Item = SocketAddr>, upstream: SocketAddr) -> Self {
        Self { listen: listen.into_iter().collect(), upstream, http2_upstream: true }
    }

    fn bootstrap(&self) -> Value {
        let listeners: Vec<Value> = self.listen.iter().map(|address| listener(*address)).collect();
        json!({ "static_resources": { "listeners": listeners, "clusters": [self.cluster()] } })
    }

    fn cluster(&self) -> Value {
        let version = if self.http2_upstream { "http2_protocol_options" } else { "http_protocol_options" };
        let endpoint = json!({ "endpoint": { "address": socket_address(self.upstream) } });
        // The breakers' defaults are below what load tests have open.
        let thresholds = json!([{ "max_connections": 10_000, "max_pending_requests": 100_000,
            "max_requests": 100_000 }]);
        json!({
            "name": "app",
            "type": "STATIC",
            "connect_timeout": "5s",
            "circuit_breakers": { "thresholds": thresholds },
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": type_url("upstreams.http.v3.HttpProtocolOptions"),
                    "explicit_http_config": { version: {} },
                },
            },
            "load_assignment": { "cluster_name": "app", "endpoints": [{ "lb_endpoints": [endpoint] }] },
        })
    }
}

fn listener(address: SocketAddr) -> Value {
    let route = json!({ "match": { "prefix": "/" }, "route": { "cluster": "app", "timeout": "0s" } });
    let manager = json!({
        "@type": type_url("filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "front",
        "codec_type": "AUTO",
        "stream_idle_timeout": "0s",
        "max_request_headers_kb": 1024,
        "http2_protocol_options": { "max_concurrent_streams": MAX_STREAMS },
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": { "@type": type_url("filters.http.router.v3.Router") },
        }],
        "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": [route] }] },
    });
    json!({
        "name": format!("at {address}"),
        "address": socket_address(address),
        "filter_chains": [{ "filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": manager,
        }] }],
    })
}

fn socket_address(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } })
}

/// Says of which message a `typed_config` is; not a host that anybody asks.
fn type_url(name: &str) -> String {
    format!("type.googleapis.com/envoy.extensions.{name}")
}
