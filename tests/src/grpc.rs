//! gRPC with real peers: a server that notes every message, and a client, both `grpcio` in Python.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::cleanup::RunDir;
use crate::netns::Netns;
use crate::process::Process;
use crate::{peers, wait};

/// How long the server may take to listen, on a machine that others use too.
const START_LIMIT: Duration = Duration::from_secs(60);

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The client ended its side.
    Done,
    /// It was cancelled, or its connection was lost.
    Cancelled,
}

/// One call as the server got it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// Unary, `ClientStream`, `ServerStream` or Bidi.
    pub method: String,
    /// `:authority`.
    pub authority: String,
    /// What grpcio calls metadata: other fields, in order.
    pub metadata: Vec<(String, String)>,
    /// Length and SHA-256 of each message, in order.
    pub messages: Vec<(u64, String)>,
    /// `None`: it is still open.
    pub end: Option<End>,
    /// How many calls there were of this name.
    pub times: usize,
}

/// A running server; killed on Drop.
#[derive(Debug)]
pub struct GrpcServer {
    address: SocketAddr,
    process: Process,
    dir: RunDir,
}

impl GrpcServer {
    /// Starts one that listens at `address` in `netns`.
    ///
    /// # Errors
    /// When it is not installed or does not start; what it said is in the message.
    pub fn start(netns: &Netns, address: SocketAddr) -> Result<Self> {
        let dir = RunDir::new()?;
        let process = peers::script("grpc_server.py")?
            .args(["--listen".to_owned(), address.to_string(), "--log".to_owned()])
            .arg(dir.path().join("calls"))
            .output_to(dir.path().join("output"))
            .in_netns(netns)
            .spawn()?;
        let mut server = Self { address, process, dir };
        wait::until("the gRPC server listens", START_LIMIT, || {
            server.process.still_runs()?;
            Ok(server.process.output().contains("listening").then_some(()))
        })
        .with_context(|| server.process.output())?;
        Ok(server)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Every call so far, by its name (`call-N`).
    ///
    /// # Errors
    /// When its log is not understood.
    pub fn calls(&self) -> Result<BTreeMap<String, Call>> {
        let text = std::fs::read_to_string(self.log_file()).unwrap_or_default();
        // The last line may be half written.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let mut calls: BTreeMap<String, Call> = BTreeMap::new();
        for line in whole.lines() {
            let entry: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
            let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
            let call = calls.entry(text("call")).or_default();
            match entry["event"].as_str() {
                Some("open") => {
                    call.times += 1;
                    (call.method, call.authority) = (text("method"), text("host"));
                    call.metadata = pairs(&entry["metadata"]);
                }
                Some("message") => {
                    call.messages.push((entry["bytes"].as_u64().unwrap_or(0), text("sha256")));
                }
                Some("done") => call.end = Some(End::Done),
                Some("cancelled") => call.end = Some(End::Cancelled),
                _ => bail!("what is {line}?"),
            }
        }
        Ok(calls)
    }

    /// Waits until the calls are as wanted, and gives them.
    ///
    /// # Errors
    /// When they are not after `limit`; what there is is in the message.
    pub fn wait_for_calls(
        &self,
        what: &str,
        limit: Duration,
        holds: impl Fn(&BTreeMap<String, Call>) -> bool,
    ) -> Result<BTreeMap<String, Call>> {
        let mut last = BTreeMap::new();
        let waited = wait::until(what, limit, || {
            last = self.calls()?;
            std::thread::sleep(Duration::from_millis(20));
            Ok(holds(&last).then(|| last.clone()))
        });
        waited.with_context(|| format!("the server at {} has {} calls: {last:?}", self.address, last.len()))
    }

    /// Waits until `count` calls have ended, and gives all.
    ///
    /// # Errors
    /// As [`Self::wait_for_calls`].
    pub fn wait_for_ended(&self, count: usize, limit: Duration) -> Result<BTreeMap<String, Call>> {
        self.wait_for_calls(&format!("{count} calls end"), limit, |calls| {
            calls.values().filter(|call| call.end.is_some()).count() >= count
        })
    }

    /// Forgets all calls.
    ///
    /// # Errors
    /// When its log cannot be written.
    pub fn forget(&self) -> Result<()> {
        Ok(std::fs::OpenOptions::new().write(true).open(self.log_file())?.set_len(0)?)
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("calls")
    }
}

/// Runs batches of calls (see `fixtures/peers/grpc_client.py`) over one channel; every call must go well.
///
/// # Errors
/// When one did not.
pub fn make_calls(netns: &Netns, to: SocketAddr, authority: &str, batches: &[Value]) -> Result<()> {
    let dir = RunDir::new()?;
    let file = dir.path().join("batches");
    let lines: String = batches.iter().map(|batch| format!("{batch}\n")).collect();
    std::fs::write(&file, lines)?;
    let reports = peers::script("grpc_client.py")?
        .args(["--to".to_owned(), to.to_string(), "--authority".to_owned(), authority.to_owned()])
        .arg("--batches")
        .arg(file)
        .in_netns(netns)
        .run()?;
    for (report, batch) in reports.lines().zip(batches) {
        let report: Value = serde_json::from_str(report).with_context(|| report.to_owned())?;
        if report["failed"] != 0 {
            bail!("{batch}: {report}");
        }
    }
    if reports.lines().count() != batches.len() {
        bail!("{} batches, and these reports: {reports}", batches.len());
    }
    Ok(())
}

fn pairs(value: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    value.as_array().into_iter().flatten().map(|pair| (text(&pair[0]), text(&pair[1]))).collect()
}
