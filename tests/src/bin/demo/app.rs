//! The two apps of the demonstration: httpbin, or the bundled app where httpbin is not installed.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use mirror_tests::netns::Netns;
use mirror_tests::process::{Launch, Process};
use mirror_tests::server::{LogMode, TestApp};
use mirror_tests::wait;

/// How long httpbin may take to import and listen.
const START_LIMIT: Duration = Duration::from_secs(30);

/// One line of gunicorn's log: method, path with query, host, each up to a space. `U` and `q` are apart.
const LOG_FORMAT: &str = "%(m)s %(U)s %(q)s %({host}i)s";

/// An app and its log.
pub(crate) enum App {
    /// httpbin served by gunicorn.
    Httpbin {
        /// Kept for its Drop.
        _server: Process,
        log: PathBuf,
    },
    /// The bundled app.
    Bundled(TestApp),
}

/// One request in the log of an app.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Seen {
    pub(crate) target: String,
    pub(crate) method: String,
    pub(crate) host: String,
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} host={}", self.method, self.target, self.host)
    }
}

impl App {
    /// Starts one that listens at `address`; `files` is where its files' names begin.
    pub(crate) fn start(
        gunicorn: Option<&Path>,
        netns: &Netns,
        address: SocketAddr,
        files: &Path,
    ) -> Result<Self> {
        let Some(gunicorn) = gunicorn else {
            return Ok(Self::Bundled(TestApp::start(netns, address, LogMode::Full)?));
        };
        let log = files.with_extension("access");
        let mut server = Launch::new(gunicorn)
            .args(["--bind".to_owned(), address.to_string()])
            // Threads keep connections open; the default worker closes after each answer.
            .args(["--worker-class", "gthread", "--threads", "8"])
            .args(["--access-logformat", LOG_FORMAT, "--access-logfile"])
            .arg(&log)
            .arg("httpbin:app")
            .output_to(files.with_extension("output"))
            .in_netns(netns)
            .end_politely()
            .spawn()?;
        wait::until("httpbin listens", START_LIMIT, || {
            server.still_runs()?;
            Ok(netns.run(|| std::net::TcpStream::connect(address))?.is_ok().then_some(()))
        })?;
        Ok(Self::Httpbin { _server: server, log })
    }

    /// What it is, in words.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Httpbin { .. } => "httpbin",
            Self::Bundled(_) => "the bundled app",
        }
    }

    /// Its log so far.
    pub(crate) fn seen(&self) -> Result<Vec<Seen>> {
        Ok(match self {
            Self::Httpbin { log, .. } => {
                let text = std::fs::read_to_string(log).unwrap_or_default();
                text.lines().filter_map(parse_line).collect()
            }
            Self::Bundled(app) => app
                .requests()
                .iter()
                .map(|request| Seen {
                    method: request.method().to_owned(),
                    target: request.target().to_owned(),
                    host: request.host().unwrap_or_default(),
                })
                .collect(),
        })
    }
}

fn parse_line(line: &str) -> Option<Seen> {
    let [method, path, query, host] = line.split(' ').collect::<Vec<_>>().try_into().ok()?;
    let target = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
    Some(Seen { method: method.to_owned(), target, host: host.to_owned() })
}
