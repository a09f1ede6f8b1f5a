//! The load generator as a program: see `mirror_tests::client::load`.

use std::net::SocketAddr;

use anyhow::{Result, bail};
use clap::Parser;
use mirror_tests::client::READ_TIMEOUT;
use mirror_tests::client::load::Load;
use mirror_tests::netns::Netns;

/// Sends numbered requests (`?id=N`) and prints one JSON line with counts and latencies.
#[derive(Debug, Parser)]
struct Options {
    /// Where to, e.g. 10.77.0.2:8080.
    to: SocketAddr,
    /// Value of Host.
    #[arg(long, default_value = "shadowing.example")]
    host: String,
    /// Path without a query.
    #[arg(long, default_value = "/")]
    path: String,
    /// How many requests.
    #[arg(long, default_value_t = 10_000)]
    requests: u64,
    /// Number of the first.
    #[arg(long, default_value_t = 0)]
    first_id: u64,
    /// Requests a second; 0: as fast as answers come.
    #[arg(long, default_value_t = 2000.0)]
    rate: f64,
    /// Keep-alive connections.
    #[arg(long, default_value_t = 16)]
    connections: u64,
    /// Bytes of a POST body; 0: GET.
    #[arg(long, default_value_t = 0)]
    body_bytes: usize,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let report = Load {
        to: options.to,
        host: options.host,
        path: options.path,
        requests: options.requests,
        first_id: options.first_id,
        rate: (options.rate > 0.0).then_some(options.rate),
        connections: options.connections,
        connection_requests: None,
        patience: READ_TIMEOUT,
        body_bytes: options.body_bytes,
    }
    .run(&Netns::own())?;
    println!("{}", report.to_json());
    if report.failed > 0 {
        bail!("{} requests got no answer", report.failed);
    }
    Ok(())
}
