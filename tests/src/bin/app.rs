//! The test app as a program: see `mirror_tests::server`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Parser;
use mirror_tests::netns::Netns;
use mirror_tests::server::{Behaviour, LogMode, TestApp};

/// An app of HTTP/1.1 and HTTP/2 (prior knowledge) that notes what it was sent. GET /_summary?expect=N tells what it counted.
#[derive(Debug, Parser)]
struct Options {
    /// Where to listen, e.g. 10.77.0.4:8000.
    #[arg(long)]
    listen: Vec<SocketAddr>,
    /// none, count (numbers of `id` in the query) or full (needs --log-file).
    #[arg(long, default_value = "count")]
    log: String,
    /// One JSON line per request goes here.
    #[arg(long)]
    log_file: Option<PathBuf>,
    /// normal, silent (never answers), slow=MS, close (after a head) or status=N.
    #[arg(long, default_value = "normal")]
    behaviour: String,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let log = match (options.log.as_str(), options.log_file) {
        ("none", None) => LogMode::None,
        ("count", None) => LogMode::Count,
        ("full", Some(path)) if options.listen.len() == 1 => LogMode::File(path),
        _ => bail!("--log is none, count or full; full needs --log-file and one --listen"),
    };
    let behaviour = match options.behaviour.split_once('=') {
        None if options.behaviour == "normal" => Behaviour::Normal,
        None if options.behaviour == "silent" => Behaviour::Silent,
        None if options.behaviour == "close" => Behaviour::CloseAfterHead,
        Some(("slow", delay_ms)) => Behaviour::Slow(Duration::from_millis(delay_ms.parse()?)),
        Some(("status", status)) => Behaviour::Status(status.parse()?),
        _ => bail!("--behaviour is normal, silent, slow=MS, close or status=N"),
    };
    let mut apps = Vec::new();
    for address in options.listen {
        let app = TestApp::start(&Netns::own(), address, log.clone())?;
        app.behave(behaviour);
        println!("listening at {}", app.address());
        apps.push(app);
    }
    if apps.is_empty() {
        bail!("nothing to do: give --listen ADDRESS:PORT");
    }
    loop {
        std::thread::park();
    }
}
