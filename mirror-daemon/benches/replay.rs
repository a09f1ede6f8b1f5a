//! CPU time per replayed request, against a shadow on loopback: `cargo bench -p mirror-daemon --bench replay`.
//!
//! Three threads: the offering one stands for a pipeline thread (a batch each tick), the replaying one runs
//! the replayer's runtime, the third is the shadow. Figures are thread CPU time, system calls included.
#![allow(clippy::arithmetic_side_effects, missing_docs, reason = "a bench may panic")]

use anyhow::{Context as _, Result};
use bytes::Bytes;
use mirror_daemon::config::{
    BreakerConfig, Endpoint, EndpointHost, HostRewrite, Redaction, RewriteConfig, ShadowConfig, ShadowId,
    ShadowProtocol,
};
use mirror_daemon::replay::{Replayer, ShadowBody, ShadowRequest};
use mirror_daemon::rewrite::{Framing, HeadForm, MethodTraits, ShadowHead};
use mirror_daemon::telemetry::ShadowLedger;
use rustix::time::{ClockId, clock_gettime};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Handle};

const TICK: Duration = Duration::from_millis(2);
const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nServer: bench\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok";

struct Case {
    name: &'static str,
    form: HeadForm,
    body_bytes: usize,
    /// Offered each tick; 0: as many as the shadow takes.
    per_tick: usize,
    requests: u64,
}

fn main() -> Result<()> {
    let cases = [
        Case { form: HeadForm::Http1, name: "GET, 500/s", body_bytes: 0, per_tick: 1, requests: 1_500 },
        Case { form: HeadForm::Http1, name: "GET, 2000/s", body_bytes: 0, per_tick: 4, requests: 6_000 },
        Case { form: HeadForm::Http1, name: "GET, 8000/s", body_bytes: 0, per_tick: 16, requests: 24_000 },
        Case {
            form: HeadForm::Http1,
            name: "GET, all it can",
            body_bytes: 0,
            per_tick: 0,
            requests: 100_000,
        },
        Case {
            form: HeadForm::Http1,
            name: "POST 64 KiB, 1000/s",
            body_bytes: 64 * 1024,
            per_tick: 2,
            requests: 3_000,
        },
        Case { form: HeadForm::Http2, name: "h2 GET, 2000/s", body_bytes: 0, per_tick: 4, requests: 6_000 },
        Case { form: HeadForm::Http2, name: "h2 GET, 8000/s", body_bytes: 0, per_tick: 16, requests: 24_000 },
        Case {
            form: HeadForm::Http2,
            name: "h2 GET, all it can",
            body_bytes: 0,
            per_tick: 0,
            requests: 100_000,
        },
        Case {
            form: HeadForm::Http2,
            name: "h2 POST 64 KiB, 1000/s",
            body_bytes: 64 * 1024,
            per_tick: 2,
            requests: 3_000,
        },
    ];
    let (http1, http2) = (shadow(serve)?, shadow(serve_h2)?);
    let (replay, stop) = runtime()?;
    println!("{:<22} {:>12} {:>12} {:>12} {:>8}", "case", "replay us", "offer us", "requests/s", "conns");
    for case in &cases {
        let address = if case.form == HeadForm::Http1 { http1 } else { http2 };
        run(case, address, &replay)?;
    }
    drop(stop);
    Ok(())
}

fn run(case: &Case, address: SocketAddr, replay: &Handle) -> Result<()> {
    let ledger = Arc::new(ShadowLedger::default());
    let replayer = Replayer::start(replay, vec![(Arc::new(config(address)), Arc::clone(&ledger))])?;
    let mut handle = replayer.handle();
    let (cpu_before, offer_before, started) = (cpu_of(replay)?, cpu(), Instant::now());
    let mut offered = 0;
    let mut tick = started;
    while offered < case.requests {
        let batch =
            if case.per_tick == 0 { 512_u64.saturating_sub(ledger.open()) } else { case.per_tick as u64 };
        for _ in 0..batch {
            ledger.owed.increment();
            handle.offer(ShadowId(0), request(case.form, case.body_bytes));
        }
        handle.flush();
        offered += batch;
        tick += TICK;
        std::thread::sleep(tick.saturating_duration_since(Instant::now()));
    }
    while ledger.open() > 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let (elapsed, offer_cpu) = (started.elapsed(), cpu().saturating_sub(offer_before));
    let replay_cpu = cpu_of(replay)?.saturating_sub(cpu_before);
    anyhow::ensure!(ledger.replayed.value() == offered, "not all were replayed: {ledger:?}");
    println!(
        "{:<22} {:>12.1} {:>12.1} {:>12.0} {:>8}",
        case.name,
        replay_cpu.as_secs_f64() * 1e6 / offered as f64,
        offer_cpu.as_secs_f64() * 1e6 / offered as f64,
        offered as f64 / elapsed.as_secs_f64(),
        ledger.connections_opened.value(),
    );
    Ok(())
}

fn request(form: HeadForm, body_bytes: usize) -> ShadowRequest {
    let (method, length, framing) = match body_bytes {
        0 => ("GET", String::new(), Framing::None),
        some => ("POST", format!("content-length: {some}\r\n"), Framing::Length(some as u64)),
    };
    let fields = format!(
        "user-agent: wrk\r\naccept: */*\r\nx-request-id: 0123456789abcdef\r\nx-mirrored-by: bench\r\n{length}"
    );
    let (authority, path) = ("example.test-shadow", "/some/path?q=1");
    let wire = match form {
        HeadForm::Http1 => format!("{method} {path} HTTP/1.1\r\nhost: {authority}\r\n{fields}\r\n"),
        HeadForm::Http2 => format!(
            ":method: {method}\r\n:scheme: http\r\n:authority: {authority}\r\n:path: {path}\r\n{fields}"
        ),
    };
    let method = MethodTraits { is_safe: body_bytes == 0, is_head: false };
    let head = ShadowHead { wire: wire.into(), form, framing, method };
    let body = ShadowBody::Buffered { bytes: vec![b'x'; body_bytes].into(), trailers: Bytes::new() };
    ShadowRequest { head, body, original: None }
}

fn config(address: SocketAddr) -> ShadowConfig {
    ShadowConfig {
        name: "bench".to_owned(),
        endpoint: Endpoint { host: EndpointHost::Ip(address.ip()), port: address.port() },
        tls: None,
        protocol: ShadowProtocol::Same,
        max_in_flight: 256,
        max_connections: 64,
        queue_items: 4096,
        queue_bytes: 64 * 1024 * 1024,
        buffer_body_bytes: 128 * 1024,
        stream_window_bytes: 256 * 1024,
        connect_timeout: Duration::from_secs(2),
        timeout: Duration::from_secs(15),
        idle_timeout: Duration::from_secs(60),
        max_rps: None,
        breaker: BreakerConfig { failures: 5, open_for: Duration::from_secs(5) },
        rewrite: RewriteConfig {
            host: HostRewrite::Keep,
            own_authority: String::new(),
            own_scheme: "http",
            edits: Vec::new(),
            redact: Redaction::default(),
        },
    }
}

/// A thread that runs a runtime for as long as the other end of the second value lives.
fn runtime() -> Result<(Handle, tokio::sync::oneshot::Sender<()>)> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let (stop_tx, stop_rx) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = runtime.block_on(stop_rx);
    });
    Ok((handle, stop_tx))
}

fn shadow<R>(serve: fn(TcpStream) -> R) -> Result<SocketAddr>
where
    R: Future<Output = ()> + Send + 'static,
{
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener).expect("a listener");
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                tokio::spawn(serve(stream));
            }
        });
    });
    Ok(address)
}

async fn serve_h2(stream: TcpStream) {
    let mut builder = h2::server::Builder::new();
    builder.initial_window_size(1024 * 1024).initial_connection_window_size(16 * 1024 * 1024);
    let Ok(mut server) = builder.handshake::<_, Bytes>(stream).await else { return };
    while let Some(Ok((mut request, mut respond))) = server.accept().await {
        tokio::spawn(async move {
            while let Some(Ok(bytes)) = request.body_mut().data().await {
                let _ = request.body_mut().flow_control().release_capacity(bytes.len());
            }
            if let Ok(mut answer) = respond.send_response(http::Response::new(()), false) {
                let _ = answer.send_data(Bytes::from_static(b"ok"), true);
            }
        });
    }
}

/// Knows no more HTTP than it needs: each request says by its first byte how long it is.
async fn serve(mut stream: TcpStream) {
    let (get_bytes, post_bytes) = (whole_bytes(0), whole_bytes(64 * 1024));
    let mut buffer = vec![0; 256 * 1024];
    let mut have = 0;
    loop {
        match stream.read(buffer.get_mut(have..).unwrap_or_default()).await {
            Ok(read @ 1..) => have += read,
            _ => return,
        }
        let whole = if buffer.first() == Some(&b'P') { post_bytes } else { get_bytes };
        if have >= whole {
            have -= whole;
            if stream.write_all(ANSWER).await.is_err() {
                return;
            }
        }
    }
}

fn whole_bytes(body_bytes: usize) -> usize {
    request(HeadForm::Http1, body_bytes).head.wire.len() + body_bytes
}

fn cpu() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// CPU time of the thread that runs `runtime`.
fn cpu_of(runtime: &Handle) -> Result<Duration> {
    let (cpu_tx, cpu_rx) = mpsc::channel();
    runtime.spawn(async move {
        let _ = cpu_tx.send(cpu());
    });
    cpu_rx.recv().context("the replaying thread has gone")
}
