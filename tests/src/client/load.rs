//! A load generator: numbered requests at a fixed rate (open loop), or as fast as answers come.
//!
//! At a fixed rate latency counts from the moment at which a request was due, so that a stalled server cannot
//! hide behind a waiting client.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{Connection, READ_TIMEOUT};
use crate::netns::Netns;

/// What to send.
#[derive(Clone, Debug)]
pub struct Load {
    /// Where to.
    pub to: SocketAddr,
    /// Value of Host.
    pub host: String,
    /// Path; `?id=N` is added.
    pub path: String,
    /// Requests in all; their numbers are `first_id` and up.
    pub requests: u64,
    /// The first number.
    pub first_id: u64,
    /// Requests a second over all connections; `None`: as fast as answers come.
    pub rate: Option<f64>,
    /// Keep-alive connections, each a thread.
    pub connections: u64,
    /// Requests after which a connection is opened anew; `None`: each is kept. Only new ones reach new pods of a
    /// Service.
    pub connection_requests: Option<u64>,
    /// How long a connection, or a part of an answer, may take.
    pub patience: Duration,
    /// Bytes of a POST body; 0: GET.
    pub body_bytes: usize,
}

/// Load that goes on beside a test, until it is told to stop or has sent all.
#[derive(Debug)]
pub struct RunningLoad {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<LoadReport>>>,
}

/// How it went.
#[derive(Clone, Debug, Default)]
pub struct LoadReport {
    /// Requests written.
    pub sent: u64,
    /// Final answers with a status below 400.
    pub good: u64,
    /// Final answers with another status.
    pub bad: u64,
    /// Requests without a whole answer.
    pub failed: u64,
    /// Why, for the first of them.
    pub first_failure: Option<String>,
    /// From the first request due to the last answer.
    pub took: Duration,
    /// Latency of each answered request in microseconds, sorted.
    pub latencies_us: Vec<u32>,
}

impl Load {
    /// GETs of `/?id=N` at 2,000 a second on 16 connections.
    #[must_use]
    pub fn new(to: SocketAddr, host: &str, requests: u64) -> Self {
        Self {
            to,
            host: host.to_owned(),
            path: "/".to_owned(),
            requests,
            first_id: 0,
            rate: Some(2000.0),
            connections: 16,
            connection_requests: None,
            patience: READ_TIMEOUT,
            body_bytes: 0,
        }
    }

    /// Sends everything from inside `netns`.
    ///
    /// # Errors
    /// When the first connections cannot be opened. Later failures are counted.
    pub fn run(&self, netns: &Netns) -> Result<LoadReport> {
        self.run_until(netns, &AtomicBool::new(false))
    }

    /// Sends from inside `netns` on a thread of its own.
    #[must_use]
    pub fn start(self, netns: &Netns) -> RunningLoad {
        let is_over = Arc::new(AtomicBool::new(false));
        let (netns, told) = (netns.clone(), Arc::clone(&is_over));
        let thread = std::thread::spawn(move || self.run_until(&netns, &told));
        RunningLoad { is_over, thread: Some(thread) }
    }

    fn run_until(&self, netns: &Netns, is_over: &AtomicBool) -> Result<LoadReport> {
        ensure!(self.connections > 0, "a load needs a connection");
        let opened: Vec<_> = (0..self.connections).map(|_| self.open(netns)).collect::<Result<_>>()?;
        let begun = Instant::now();
        let parts: Vec<LoadReport> = std::thread::scope(|scope| {
            let run_one = |(lane, connection)| {
                scope.spawn(move || self.run_lane(netns, (lane, begun), connection, is_over))
            };
            let lanes: Vec<_> = (0_u64..).zip(opened).map(run_one).collect();
            lanes.into_iter().filter_map(|lane| lane.join().ok()).collect()
        });
        let mut all = LoadReport { took: begun.elapsed(), ..LoadReport::default() };
        for part in parts {
            all.sent += part.sent;
            all.good += part.good;
            all.bad += part.bad;
            all.failed += part.failed;
            all.first_failure = all.first_failure.or(part.first_failure);
            all.latencies_us.extend(part.latencies_us);
        }
        all.latencies_us.sort_unstable();
        Ok(all)
    }

    /// One connection: the requests whose number leaves `lane` when divided by the number of connections.
    fn run_lane(
        &self,
        netns: &Netns,
        (lane, begun): (u64, Instant),
        connection: Connection,
        is_over: &AtomicBool,
    ) -> LoadReport {
        let mut report = LoadReport::default();
        let mut connection = Some(connection);
        for number in (lane..self.requests).step_by(self.connections as usize) {
            if is_over.load(Ordering::Relaxed) {
                break;
            }
            let due = match self.rate {
                Some(rate) => begun + Duration::from_secs_f64(number as f64 / rate),
                None => Instant::now(),
            };
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let is_used_up = |most| report.sent > 0 && report.sent.is_multiple_of(most);
            if self.connection_requests.is_some_and(is_used_up) {
                connection = None;
            }
            report.sent += 1;
            match self.ask(netns, &mut connection, number) {
                Ok(status) => {
                    let us = u32::try_from(due.elapsed().as_micros()).unwrap_or(u32::MAX);
                    report.latencies_us.push(us);
                    *(if status < 400 { &mut report.good } else { &mut report.bad }) += 1;
                }
                Err(failure) => {
                    report.failed += 1;
                    report.first_failure.get_or_insert_with(|| format!("{failure:#}"));
                    connection = None;
                }
            }
        }
        report
    }

    fn ask(&self, netns: &Netns, connection: &mut Option<Connection>, number: u64) -> Result<u16> {
        let connection = match connection {
            Some(open) => open,
            None => connection.insert(self.open(netns)?),
        };
        Ok(connection.exchange(&self.request(number))?.status)
    }

    fn open(&self, netns: &Netns) -> Result<Connection> {
        Connection::open_with(netns, self.to, self.patience)
    }

    fn request(&self, number: u64) -> Vec<u8> {
        let (method, length) = match self.body_bytes {
            0 => ("GET", String::new()),
            bytes => ("POST", format!("Content-Length: {bytes}\r\n")),
        };
        let (path, host, id) = (&self.path, &self.host, self.first_id + number);
        let mut request =
            format!("{method} {path}?id={id} HTTP/1.1\r\nHost: {host}\r\n{length}\r\n").into_bytes();
        request.resize(request.len() + self.body_bytes, b'x');
        request
    }
}

impl RunningLoad {
    /// Ends it, and waits for the answers that are still to come.
    ///
    /// # Errors
    /// When its first connections could not be opened.
    pub fn stop(mut self) -> Result<LoadReport> {
        self.is_over.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("stopped twice")?;
        thread.join().ok().context("the load has panicked")?
    }
}

impl Drop for RunningLoad {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

impl LoadReport {
    /// The latency that `share` (0 to 1) of the answers did not exceed, in milliseconds.
    #[must_use]
    pub fn percentile_ms(&self, share: f64) -> f64 {
        let last = self.latencies_us.len().saturating_sub(1);
        let index = (share * last as f64).round() as usize;
        self.latencies_us.get(index.min(last)).map_or(f64::NAN, |us| f64::from(*us) / 1000.0)
    }

    /// Answers a second.
    #[must_use]
    pub fn answers_per_second(&self) -> f64 {
        (self.good + self.bad) as f64 / self.took.as_secs_f64()
    }

    /// The report without the single latencies.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "sent": self.sent,
            "good": self.good,
            "bad": self.bad,
            "failed": self.failed,
            "first_failure": self.first_failure,
            "seconds": self.took.as_secs_f64(),
            "answers_per_second": self.answers_per_second(),
            "p50_ms": self.percentile_ms(0.50),
            "p90_ms": self.percentile_ms(0.90),
            "p99_ms": self.percentile_ms(0.99),
            "max_ms": self.percentile_ms(1.0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::{Behaviour, LogMode, TestApp};

    fn app() -> TestApp {
        TestApp::start(&Netns::own(), "127.0.0.1:0".parse().unwrap(), LogMode::Count).unwrap()
    }

    #[test]
    fn fixed_rate_sends_every_number_once_and_not_faster() {
        let app = app();
        let load = Load { rate: Some(1000.0), ..Load::new(app.address(), "h", 300) };
        let report = load.run(&Netns::own()).unwrap();
        assert_eq!((report.sent, report.good, report.failed), (300, 300, 0));
        assert!(report.took >= Duration::from_millis(299), "{:?}", report.took);
        let summary = app.log().summary();
        assert_eq!((summary.distinct, summary.duplicates), (300, 0));
        assert!(app.log().missing(300).is_empty());
        assert_eq!(app.accepted(), 16);
    }

    #[test]
    fn closed_connections_are_counted_as_failures() {
        let app = app();
        app.behave(Behaviour::CloseAfterHead);
        let load = Load { rate: None, connections: 2, ..Load::new(app.address(), "h", 10) };
        let report = load.run(&Netns::own()).unwrap();
        assert_eq!((report.sent, report.good, report.failed), (10, 0, 10));
        assert!(report.first_failure.is_some());
    }

    #[test]
    fn running_load_ends_when_it_is_told_and_opens_connections_anew() {
        let app = app();
        let load =
            Load { connections: 1, connection_requests: Some(5), ..Load::new(app.address(), "h", u64::MAX) };
        let running = load.start(&Netns::own());
        crate::wait::until_true("requests come", Duration::from_secs(30), || {
            app.log().summary().distinct > 20
        })
        .unwrap();
        let report = running.stop().unwrap();
        assert_eq!((report.sent, report.bad, report.failed), (report.good, 0, 0));
        assert_eq!(app.accepted(), report.sent.div_ceil(5));
    }

    #[test]
    fn percentiles_are_of_the_sorted_latencies() {
        let report = LoadReport { latencies_us: (0..=1000).collect(), ..LoadReport::default() };
        assert_eq!((report.percentile_ms(0.5), report.percentile_ms(1.0)), (0.5, 1.0));
    }
}
