//! Real nginx as the gateway: its own configuration, prefix and log; the machine's own nginx is left alone.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::cgroup::Cgroup;
use crate::cleanup::RunDir;
use crate::netns::Netns;
use crate::process::{Launch, Process};
use crate::wait;

/// How long nginx may take to listen.
const START_LIMIT: Duration = Duration::from_secs(60);

/// What nginx is to do.
#[derive(Clone, Debug)]
pub struct NginxConfig {
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// Where it proxies to.
    pub upstream: SocketAddr,
    /// Where nginx's own `mirror` sends copies; `None`: no `mirror`.
    pub mirror: Option<SocketAddr>,
    /// Worker processes.
    pub workers: u32,
    /// Idle connections to the upstream per worker.
    pub upstream_keepalive: u32,
    /// Whether listeners read the PROXY protocol; its address is then passed on as `X-Client`.
    pub proxy_protocol: bool,
    /// Whether bodies are passed on while they come in, rather than read whole first.
    pub stream_bodies: bool,
    /// Whether listeners speak HTTP/2, by prior knowledge, and nothing else: nginx 1.22 does not do both at once.
    pub http2: bool,
    /// Whether the upstream is spoken HTTP/2 to, by nginx's gRPC module; bodies are then streamed, too.
    pub http2_upstream: bool,
    /// Whether requests are logged.
    pub access_log: bool,
    /// More directives for the `server` block.
    pub extra: String,
}

impl NginxConfig {
    /// One worker that proxies, with keep-alive to the upstream and an access log.
    #[must_use]
    pub fn new(listen: impl IntoIterator<Item = SocketAddr>, upstream: SocketAddr) -> Self {
        Self {
            listen: listen.into_iter().collect(),
            upstream,
            mirror: None,
            workers: 1,
            upstream_keepalive: 64,
            proxy_protocol: false,
            stream_bodies: false,
            http2: false,
            http2_upstream: false,
            access_log: true,
            extra: String::new(),
        }
    }

    fn render(&self, prefix: &Path) -> Result<String> {
        let dir = prefix.display();
        let mut text = String::new();
        writeln!(text, "worker_processes {};\npid {dir}/nginx.pid;", self.workers)?;
        writeln!(text, "error_log {dir}/error.log notice;")?;
        writeln!(text, "worker_rlimit_nofile 8192;\nevents {{ worker_connections 4096; }}\nhttp {{")?;
        for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
            writeln!(text, "  {kind}_temp_path {dir}/{kind};")?;
        }
        writeln!(text, "  log_format mirror escape=json {ACCESS_FORMAT};")?;
        match self.access_log {
            true => writeln!(text, "  access_log {dir}/access.log mirror buffer=64k flush=50ms;")?,
            false => writeln!(text, "  access_log off;")?,
        }
        writeln!(text, "  keepalive_requests 10000000;\n  client_max_body_size 64m;")?;
        writeln!(text, "  large_client_header_buffers 8 64k;\n  underscores_in_headers on;")?;
        let keepalive = self.upstream_keepalive;
        for (name, address) in [("upstream_app", Some(self.upstream)), ("mirror_app", self.mirror)] {
            let Some(address) = address else { continue };
            writeln!(text, "  upstream {name} {{ server {address}; keepalive {keepalive};")?;
            writeln!(text, "    keepalive_requests 10000000; }}")?;
        }
        self.render_server(&mut text)?;
        text.push_str("}\n");
        Ok(text)
    }

    fn render_server(&self, text: &mut String) -> Result<()> {
        let client =
            if self.proxy_protocol { " proxy_set_header X-Client $proxy_protocol_addr;" } else { "" };
        let proxy = format!(
            "proxy_http_version 1.1; proxy_set_header Connection \"\"; \
             proxy_set_header Host $http_host;{client}"
        );
        text.push_str("  server {\n");
        for address in &self.listen {
            let http2 = if self.http2 { " http2" } else { "" };
            let option = if self.proxy_protocol { " proxy_protocol" } else { "" };
            writeln!(text, "    listen {address}{http2}{option};")?;
        }
        if self.stream_bodies {
            text.push_str("    proxy_request_buffering off;\n");
        }
        writeln!(text, "    {}", self.extra)?;
        let mirror = if self.mirror.is_some() { "mirror /_mirror; " } else { "" };
        if self.http2_upstream {
            writeln!(text, "    location / {{ {mirror}grpc_set_header Host $http_host;{GRPC_LIMITS}")?;
            writeln!(text, "      grpc_pass grpc://upstream_app; }}")?;
        } else {
            writeln!(text, "    location / {{ {mirror}{proxy} proxy_pass http://upstream_app; }}")?;
        }
        if self.mirror.is_some() {
            writeln!(text, "    location = /_mirror {{ internal; {proxy}")?;
            writeln!(text, "      proxy_pass http://mirror_app$request_uri; }}")?;
        }
        text.push_str("  }\n");
        Ok(())
    }
}

/// Calls stay open for as long as their ends like.
const GRPC_LIMITS: &str = " grpc_read_timeout 1h; grpc_send_timeout 1h; client_body_timeout 1h;";

/// One line of the access log.
const ACCESS_FORMAT: &str = r#"'{"method":"$request_method","target":"$request_uri","host":"$http_host",'
    '"status":$status,"request_bytes":$request_length,"answer_bytes":$bytes_sent,'
    '"connection":$connection,"number":$connection_requests,"client_port":$remote_port}'"#;

/// A running nginx; stopped on Drop.
#[derive(Debug)]
pub struct Nginx {
    process: Process,
    dir: RunDir,
}

impl Nginx {
    /// Starts it in `netns` and waits until it listens.
    ///
    /// # Errors
    /// When it does not start; its error log is in the message.
    pub fn start(netns: &Netns, config: &NginxConfig) -> Result<Self> {
        Self::start_with(netns, config, |launch| launch)
    }

    /// As [`Self::start`], in a cgroup.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_in_cgroup(netns: &Netns, config: &NginxConfig, cgroup: &Cgroup) -> Result<Self> {
        Self::start_with(netns, config, |launch| launch.in_cgroup(cgroup))
    }

    /// As [`Self::start`], with changes to how it is launched (cgroup, CPU).
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(
        netns: &Netns,
        config: &NginxConfig,
        change: impl FnOnce(Launch) -> Launch,
    ) -> Result<Self> {
        let dir = RunDir::new()?;
        let file = dir.path().join("nginx.conf");
        std::fs::write(&file, config.render(dir.path())?)?;
        let error_log = dir.path().join("error.log");
        let launch = Launch::new("nginx")
            .args(["-p".into(), dir.path().as_os_str().to_owned(), "-c".into(), file.into_os_string()])
            .args(["-e".into(), error_log.into_os_string()])
            .args(["-g", "daemon off;"])
            .output_to(dir.path().join("output"))
            .in_netns(netns)
            .end_politely();
        let mut nginx = Self { process: change(launch).spawn()?, dir };
        nginx.wait_until_listening(netns, &config.listen)?;
        Ok(nginx)
    }

    /// Its master's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Its log of requests so far; lines reach it within 50 ms.
    ///
    /// # Errors
    /// When a line is no JSON.
    pub fn access_log(&self) -> Result<Vec<Value>> {
        let text = std::fs::read_to_string(self.access_log_file()).unwrap_or_default();
        // The last line may be half written.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
    }

    /// Where its log of requests is.
    #[must_use]
    pub fn access_log_file(&self) -> PathBuf {
        self.dir.path().join("access.log")
    }

    /// What it said about its own faults.
    #[must_use]
    pub fn error_log(&self) -> String {
        let log = std::fs::read_to_string(self.dir.path().join("error.log")).unwrap_or_default();
        format!("{}{log}", self.process.output())
    }

    /// Stops it in good order.
    ///
    /// # Errors
    /// When it had to be killed.
    pub fn stop(mut self) -> Result<()> {
        self.process.stop(Duration::from_secs(30)).map(drop)
    }

    fn wait_until_listening(&mut self, netns: &Netns, listen: &[SocketAddr]) -> Result<()> {
        for address in listen {
            let listens = wait::until(&format!("nginx listens at {address}"), START_LIMIT, || {
                self.process.still_runs()?;
                Ok(netns.run(|| std::net::TcpStream::connect(address))?.is_ok().then_some(()))
            });
            listens.with_context(|| self.error_log())?;
        }
        Ok(())
    }
}
