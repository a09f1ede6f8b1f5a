//! `tap`: prints the requests seen, and sends nothing.

use super::start::RECORDS_PER_LOOK;
use super::{Failure, start};
use crate::capture::pcap::PcapSource;
use crate::capture::{self, Capture, VerdictWriter};
use crate::cli::TapArgs;
use crate::config::{CaptureConfig, CapturePoint, Leg};
use crate::drain::{Phase, Shutdown, Signals};
use crate::flow::{Answers, FlowEvent, FlowKey, FlowTable, Segment, Timestamp, Wakes};
use crate::http::{HttpEvent, HttpFlow, HttpOptions};
use crate::rule;
use crate::tap::{Outcome, TapBook, TapFormat, TapWriter};
use anyhow::Context;
use std::io::{self, StdoutLock};
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;

/// How long an idle tap sleeps before it looks whether it is to end, or says again that it lives.
const LONGEST_WAIT: Duration = Duration::from_millis(250);

/// Runs until the file's end, the wanted count, a signal, or a reader that has gone.
pub(super) fn run(args: &TapArgs) -> Result<(), Failure> {
    let mut tap = Tap::new(args)?;
    match &args.pcap {
        Some(path) => {
            let leg = Leg::from(args.leg);
            let mut source = PcapSource::open(path, leg, &args.ports).map_err(Failure::usage)?;
            while !tap.is_done() {
                match source.next(&mut |segment| tap.handle_segment(segment)) {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => {
                        tap.finish()?;
                        return Err(Failure::running(error));
                    }
                }
            }
        }
        None => run_live(args, &mut tap)?,
    }
    tap.finish()
}

fn run_live(args: &TapArgs, tap: &mut Tap) -> Result<(), Failure> {
    let shutdown = Shutdown::new();
    obey_signals(shutdown.clone())?;
    let Capture { attacher, mut readers, control, mut live, verdicts, .. } =
        capture::open(&capture_config(args)).map_err(Failure::usage)?;
    start::refuse_missing_points(&attacher)?;
    eprintln!("mirror-daemon: {}; Ctrl-C ends", capturing(&capture_config(args)));
    drop(control);
    tap.printer.verdicts = verdicts.into_iter().next();
    tap.clock_offset_ns = unix_now_ns().saturating_sub(capture::now().0);
    while shutdown.phase() == Phase::Running && !tap.is_done() {
        live.beat().map_err(Failure::running)?;
        for reader in &mut readers {
            reader.wait(Some(LONGEST_WAIT)).map_err(Failure::running)?;
            reader.drain(RECORDS_PER_LOOK, |segment| tap.handle_segment(&segment));
        }
        tap.handle_timeout(capture::now());
    }
    Ok(())
}

/// The daemon's signals, on a thread of their own: a tap has no runtime.
fn obey_signals(shutdown: Shutdown) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("signals can't be handled")
        .map_err(Failure::Running)?;
    let entered = runtime.enter();
    let signals = Signals::install().context("signals can't be handled").map_err(Failure::Running)?;
    drop(entered);
    std::thread::spawn(move || {
        let (reload_tx, _reload_rx) = mpsc::channel(1);
        runtime.block_on(async {
            tokio::select! {
                () = signals.obey(shutdown.clone(), || Duration::ZERO, reload_tx) => {}
                () = shutdown.drained() => {}
            }
        });
    });
    Ok(())
}

fn capture_config(args: &TapArgs) -> CaptureConfig {
    let interface = |name: &String| CapturePoint::Interface {
        name: name.clone(),
        netns: args.netns.clone(),
        host_side: false,
    };
    let cgroup = |path: &std::path::PathBuf| CapturePoint::Cgroup { path: path.clone() };
    let points = args.interfaces.iter().map(interface).chain(args.cgroups.iter().map(cgroup)).collect();
    CaptureConfig { points, leg: args.leg.into(), ports: args.ports.clone(), ..CaptureConfig::default() }
}

/// What is captured, in words.
fn capturing(config: &CaptureConfig) -> String {
    let points: Vec<_> = config.points.iter().map(ToString::to_string).collect();
    let ports: Vec<_> = config.ports.iter().map(ToString::to_string).collect();
    let leg = match config.leg {
        Leg::Downstream => "",
        Leg::Upstream => ", upstream leg",
    };
    format!("capturing {}, ports {}{leg}", points.join(", "), ports.join(","))
}

#[derive(Debug, Default)]
struct Connection {
    http: Option<HttpFlow>,
    client: Option<IpAddr>,
    /// Capture was asked to copy answers whole.
    has_whole_answers: bool,
    /// When the decoder is woken next; it may have found out since that it need not be.
    timeout: Option<Timestamp>,
}

struct Tap {
    flows: FlowTable<Connection>,
    printer: Printer,
    clock_offset_ns: u64,
}

/// What a tap has seen, printed or not.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    segments: u64,
    connections: u64,
    requests: u64,
}

struct Printer {
    seen: Seen,
    /// The decoders that hold something back.
    wakes: Wakes,
    book: TapBook,
    writer: TapWriter<StdoutLock<'static>>,
    left: u64,
    failed: Option<io::Error>,
    /// `None` where a file is read, which has what it has.
    verdicts: Option<VerdictWriter>,
}

impl Tap {
    fn new(args: &TapArgs) -> Result<Self, Failure> {
        let format = if args.json { TapFormat::Json } else { TapFormat::Lines };
        let printer = Printer {
            seen: Seen::default(),
            wakes: Wakes::default(),
            book: TapBook::new(args.headers).with_starts(args.live),
            writer: TapWriter::new(io::stdout().lock(), format).with_numbers(args.live),
            left: args.count.unwrap_or(u64::MAX),
            failed: None,
            verdicts: None,
        };
        let seed = start::seed()?;
        let limits = CaptureConfig::default().limits;
        Ok(Self { flows: FlowTable::new(limits, Answers::Glimpsed, seed), printer, clock_offset_ns: 0 })
    }

    fn is_done(&self) -> bool {
        self.printer.left == 0 || self.printer.failed.is_some()
    }

    fn handle_segment(&mut self, segment: &Segment<'_>) {
        let (printer, offset_ns) = (&mut self.printer, self.clock_offset_ns);
        printer.seen.segments = printer.seen.segments.saturating_add(1);
        let at_unix_ns = segment.at.0.saturating_add(offset_ns);
        self.flows.handle_segment(segment, &mut |key, connection, event| {
            printer.handle_flow(key, connection, &event, at_unix_ns);
        });
        self.handle_timeout(segment.at);
    }

    fn handle_timeout(&mut self, now: Timestamp) {
        let (printer, at_unix_ns) = (&mut self.printer, now.0.saturating_add(self.clock_offset_ns));
        if self.flows.next_timeout().is_some_and(|due| due <= now) {
            self.flows.handle_timeout(now, &mut |key, connection, event| {
                printer.handle_flow(key, connection, &event, at_unix_ns);
            });
        }
        while let Some(key) = printer.wakes.take_due(now) {
            if let Some(connection) = self.flows.state_mut(&key) {
                printer.handle_http_timeout(&key, connection, now, at_unix_ns);
            }
        }
    }

    fn finish(mut self) -> Result<(), Failure> {
        let printer = &mut self.printer;
        self.flows.handle_end(&mut |key, connection, event| printer.handle_flow(key, connection, &event, 0));
        let flushed = self.printer.writer.flush();
        let Seen { segments, connections, requests } = self.printer.seen;
        eprintln!(
            "mirror-daemon: {segments} segments, {connections} connections and {requests} requests were seen"
        );
        let not_shown = self.printer.book.not_shown();
        if not_shown > 0 {
            eprintln!(
                "mirror-daemon: {not_shown} more requests are not shown, for too many were under way at once"
            );
        }
        match self.printer.failed.or(flushed.err()) {
            // Whoever read us has seen enough.
            Some(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(Failure::Running(anyhow::Error::new(error).context("standard output can't be written")))
            }
            _ => Ok(()),
        }
    }
}

impl Printer {
    fn handle_flow(
        &mut self,
        key: &FlowKey,
        connection: &mut Connection,
        event: &FlowEvent<'_>,
        at_unix_ns: u64,
    ) {
        let Connection { http, client, timeout, .. } = connection;
        let http = http.get_or_insert_with(|| {
            self.seen.connections = self.seen.connections.saturating_add(1);
            HttpFlow::new(HttpOptions { proxy_protocol: true, ..HttpOptions::default() })
        });
        http.handle_event(event, &mut |event| self.handle_http(key, client, &event, at_unix_ns));
        if timeout.is_none() {
            *timeout = http.next_timeout();
            self.wakes.add(key, *timeout);
        }
        self.follow_wants(key, connection);
    }

    fn handle_http_timeout(
        &mut self,
        key: &FlowKey,
        connection: &mut Connection,
        now: Timestamp,
        at_unix_ns: u64,
    ) {
        let Connection { http: Some(http), client, timeout, .. } = connection else { return };
        http.handle_timeout(now, &mut |event| self.handle_http(key, client, &event, at_unix_ns));
        *timeout = http.next_timeout();
        self.wakes.add(key, *timeout);
        self.follow_wants(key, connection);
    }

    fn handle_http(
        &mut self,
        key: &FlowKey,
        client: &mut Option<IpAddr>,
        event: &HttpEvent<'_>,
        at_unix_ns: u64,
    ) {
        if let HttpEvent::Client { ip } = event {
            *client = Some(*ip);
        }
        let client_ip = client.unwrap_or_else(|| rule::ip_of(&key.remote_addr));
        let Some(record) = self.book.handle_event(key, client_ip, at_unix_ns, event) else { return };
        let ended = u64::from(record.outcome != Outcome::Started);
        self.seen.requests = self.seen.requests.saturating_add(ended);
        if self.left > 0 && self.failed.is_none() {
            self.left = self.left.saturating_sub(ended);
            self.failed = self.writer.write(&record).err();
        }
    }

    /// Has capture copy as much of the answers as the decoder needs.
    fn follow_wants(&mut self, key: &FlowKey, connection: &mut Connection) {
        let Connection { http: Some(http), has_whole_answers, .. } = connection else { return };
        let wants = http.wants_whole_answers();
        if *has_whole_answers != wants
            && let Some(verdicts) = &mut self.verdicts
        {
            *has_whole_answers = wants;
            // A verdict that can't be written costs the proof of this connection's requests, and no more.
            let _ = if wants { verdicts.copy_answers(key) } else { verdicts.capture(key) };
        }
    }
}

fn unix_now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
