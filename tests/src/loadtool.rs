//! wrk and h2load: load that somebody else generates, with the few numbers a test needs from their reports.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::cleanup::RunDir;
use crate::netns::Netns;
use crate::process::Launch;

/// What a load tool reported.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ToolReport {
    /// Answers of any status.
    pub answers: u64,
    /// Answers whose status was not 2xx or 3xx.
    pub bad: u64,
    /// Connect, read, write and time-out errors together.
    pub errors: u64,
    /// Answers a second.
    pub per_second: f64,
}

/// Closed-loop load by wrk: as many requests as `seconds` give room for.
///
/// # Errors
/// When wrk fails or its report is not understood.
pub fn wrk(netns: &Netns, to: SocketAddr, host: &str, shape: (u32, u32)) -> Result<ToolReport> {
    let (connections, seconds) = shape;
    let text = Launch::new("wrk")
        .args(["-t1".to_owned(), format!("-c{connections}"), format!("-d{seconds}s")])
        .args(["-H".to_owned(), format!("Host: {host}"), format!("http://{to}/")])
        .in_netns(netns)
        .run()?;
    parse_wrk(&text).with_context(|| format!("wrk said:\n{text}"))
}

/// So many requests of HTTP/1.1 by h2load, as fast as answers come.
///
/// # Errors
/// When h2load fails or its report is not understood.
pub fn h2load_h1(netns: &Netns, to: SocketAddr, host: &str, shape: (u32, u64)) -> Result<ToolReport> {
    let (connections, requests) = shape;
    let text = Launch::new("h2load")
        .args(["--h1".to_owned(), format!("-c{connections}"), format!("-n{requests}"), "-t1".to_owned()])
        // "Host" would be a second one, which gateways rightly refuse.
        .args(["-H".to_owned(), format!(":authority: {host}"), format!("http://{to}/")])
        .in_netns(netns)
        .run()?;
    parse_h2load(&text).with_context(|| format!("h2load said:\n{text}"))
}

/// Load over HTTP/2 by h2load: GETs, or POSTs of `body`.
#[derive(Clone, Debug)]
pub struct H2Load<'a> {
    /// Where to.
    pub to: SocketAddr,
    /// `:authority`.
    pub authority: &'a str,
    /// Connections (`-c`).
    pub connections: u32,
    /// Streams open at once on each (`-m`).
    pub streams: u32,
    /// Requests in all; a multiple of `connections`.
    pub requests: u64,
    /// Requests a second over all connections; `None`: as fast as answers come.
    pub rate: Option<u32>,
    /// A file that is the body of each.
    pub body: Option<&'a Path>,
}

impl<'a> H2Load<'a> {
    /// `h2load -c 8 -m 32`, as fast as answers come.
    #[must_use]
    pub fn new(to: SocketAddr, authority: &'a str, requests: u64) -> Self {
        Self { to, authority, connections: 8, streams: 32, requests, rate: None, body: None }
    }

    /// Sends all of it. Every connection sends `/?id=0`, `/?id=1`, ... in this order: each number comes as often as
    /// there are connections.
    ///
    /// # Errors
    /// When h2load fails or its report is not understood.
    pub fn run(&self, netns: &Netns) -> Result<ToolReport> {
        let dir = RunDir::new()?;
        let file = dir.path().join("targets");
        let each = self.requests / u64::from(self.connections);
        let targets: String = (0..each).map(|id| format!("http://{}/?id={id}\n", self.to)).collect();
        std::fs::write(&file, targets)?;
        let mut launch = Launch::new("h2load")
            .args([format!("-c{}", self.connections), format!("-m{}", self.streams)])
            .args([format!("-n{}", self.requests), "-t1".to_owned(), "-w20".to_owned(), "-W24".to_owned()])
            .args(["-H".to_owned(), format!(":authority: {}", self.authority)]);
        if let Some(rate) = self.rate {
            launch = launch.arg(format!("--rps={}", rate / self.connections));
        }
        if let Some(body) = self.body {
            launch = launch.arg("-d").arg(body);
        }
        let text = launch.arg("-i").arg(file).in_netns(netns).run()?;
        parse_h2load(&text).with_context(|| format!("h2load said:\n{text}"))
    }
}

fn parse_wrk(text: &str) -> Option<ToolReport> {
    let mut report = ToolReport::default();
    for line in text.lines().map(str::trim) {
        if let Some((count, _)) = line.split_once(" requests in ") {
            report.answers = count.parse().ok()?;
        } else if let Some(rate) = line.strip_prefix("Requests/sec:") {
            report.per_second = rate.trim().parse().ok()?;
        } else if let Some(count) = line.strip_prefix("Non-2xx or 3xx responses:") {
            report.bad = count.trim().parse().ok()?;
        } else if let Some(counts) = line.strip_prefix("Socket errors:") {
            report.errors = numbers(counts).sum();
        }
    }
    (report.per_second > 0.0).then_some(report)
}

fn parse_h2load(text: &str) -> Option<ToolReport> {
    let line = |start: &str| text.lines().find_map(|line| line.strip_prefix(start));
    let rate = line("finished in ")?.split(", ").nth(1)?.strip_suffix(" req/s")?;
    // "100 total, 100 started, 100 done, 100 succeeded, 0 failed, 0 errored, 0 timeout"
    let counts: Vec<u64> = numbers(line("requests: ")?).collect();
    let by_status: Vec<u64> = numbers(&line("status codes: ")?.replace("xx", "")).collect();
    let &[_, _, done, _, _, errored, timed_out] = counts.as_slice() else { return None };
    // "98 2xx, 0 3xx, 2 4xx, 0 5xx", with the digits of each class still in place.
    let bad = by_status.get(4)? + by_status.get(6)?;
    let per_second = rate.parse().ok()?;
    Some(ToolReport { answers: done, bad, errors: errored + timed_out, per_second })
}

fn numbers(text: &str) -> impl Iterator<Item = u64> {
    text.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_of_wrk_is_understood() {
        let text = "Running 1s test @ http://127.0.0.1:1/\n  1 threads and 4 connections\n  \
            15213 requests in 1.10s, 2.00MB read\n  Socket errors: connect 0, read 3, write 1, timeout 0\n  \
            Non-2xx or 3xx responses: 7\nRequests/sec:  13830.52\nTransfer/sec:      1.82MB\n";
        let report = parse_wrk(text).unwrap();
        assert_eq!(report, ToolReport { answers: 15213, bad: 7, errors: 4, per_second: 13830.52 });
    }

    #[test]
    fn report_of_h2load_is_understood() {
        let text = "starting benchmark...\nfinished in 20.1ms, 4975.12 req/s, 1.2MB/s\n\
            requests: 100 total, 100 started, 99 done, 97 succeeded, 2 failed, 1 errored, 0 timeout\n\
            status codes: 97 2xx, 0 3xx, 1 4xx, 1 5xx\n";
        let report = parse_h2load(text).unwrap();
        assert_eq!(report, ToolReport { answers: 99, bad: 2, errors: 1, per_second: 4975.12 });
    }
}
