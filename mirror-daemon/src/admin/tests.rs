//! The pages over a real loopback socket.

use super::*;
use crate::cluster::discovery::Reading;
use crate::telemetry::snapshot::{PointStatus, RulesStatus, Snapshot, WatchState, WatchStatus};
use crate::telemetry::{Ledger, LedgerReading};
use std::sync::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

struct Running {
    address: SocketAddr,
    snapshot: Arc<Mutex<Snapshot>>,
    health: Arc<Mutex<Health>>,
    stop_tx: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

async fn start() -> Running {
    let server = AdminServer::bind("127.0.0.1:0".parse().unwrap()).unwrap().listen().unwrap();
    let (snapshot, health) = (Arc::<Mutex<Snapshot>>::default(), Arc::<Mutex<Health>>::default());
    let (shown, felt) = (Arc::clone(&snapshot), Arc::clone(&health));
    let pages =
        Pages::new(Arc::new(move || shown.lock().unwrap().clone()), move || felt.lock().unwrap().clone());
    let (stop_tx, stop_rx) = oneshot::channel();
    let address = server.address();
    let server = tokio::spawn(server.serve(pages, async move {
        let _ = stop_rx.await;
    }));
    Running { address, snapshot, health, stop_tx, server }
}

async fn exchange(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

async fn ask(running: &Running, method: &str, path: &str) -> (u16, String, String) {
    let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let answer = exchange(running.address, &request).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), head.to_ascii_lowercase(), body.to_owned())
}

#[tokio::test]
async fn root_lists_every_page_and_each_listed_page_answers() {
    let running = start().await;
    let (status, _, body) = ask(&running, "GET", "/").await;
    assert_eq!(status, 200);
    let paths: Vec<_> = body.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
    assert_eq!(paths, ["/", "/metrics", "/healthz", "/readyz", "/ledger"]);
    for path in paths {
        assert_eq!(ask(&running, "GET", path).await.0, 200, "{path}");
    }
    assert_eq!(ask(&running, "GET", "/ledger?pretty").await.0, 200, "a query is ignored");
}

#[tokio::test]
async fn metrics_page_is_open_metrics_and_reads_live_numbers() {
    let running = start().await;
    running.snapshot.lock().unwrap().flows_open = 41;
    let (status, head, body) = ask(&running, "GET", "/metrics").await;
    assert_eq!(status, 200);
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"));
    assert!(body.contains("\nmirror_flows 41\n") && body.ends_with("# EOF\n"));
    running.snapshot.lock().unwrap().flows_open = 42;
    assert!(ask(&running, "GET", "/metrics").await.2.contains("\nmirror_flows 42\n"));
}

#[tokio::test]
async fn ready_only_when_every_wanted_point_is_attached() {
    let running = start().await;
    assert_eq!(ask(&running, "GET", "/readyz").await.0, 200, "none wanted is ready");
    let point = |name: &str, attached| PointStatus { name: name.to_owned(), attached, is_pod: false };
    running.snapshot.lock().unwrap().points = vec![point("interface a", true), point("interface b", false)];
    let (status, _, body) = ask(&running, "GET", "/readyz").await;
    assert_eq!((status, body.as_str()), (503, "not attached: interface b\n"));
    let pod = PointStatus { name: "pod a/b: cgroup x".to_owned(), attached: false, is_pod: true };
    running.snapshot.lock().unwrap().points = vec![point("interface a", true), pod];
    let (status, _, body) = ask(&running, "GET", "/readyz").await;
    let expected = "ready: 1 of 2 capture points attached\nnot attached: pod a/b: cgroup x\n";
    assert_eq!((status, body.as_str()), (200, expected));
    running.snapshot.lock().unwrap().pods = Some(Reading::default());
    assert_eq!(ask(&running, "GET", "/readyz").await.0, 503, "pods are not known yet");
    running.snapshot.lock().unwrap().pods = Some(Reading { is_known: true, ..Reading::default() });
    let kind = |kind, state| WatchStatus {
        kind,
        state,
        objects: 0,
        refused: 0,
        silence: None,
        lists: 0,
        watches: 0,
        changes: 0,
        failures: vec![],
    };
    let kinds = vec![kind("HTTPRoute", WatchState::Watching), kind("Service", WatchState::Forbidden)];
    let rules = RulesStatus { kinds, ..RulesStatus::default() };
    running.snapshot.lock().unwrap().rules = Some(rules.clone());
    let (status, _, body) = ask(&running, "GET", "/readyz").await;
    let expected = "the cluster's rules are not known yet; those of the files hold\nrules of the cluster: Service forbidden\n";
    assert_eq!((status, body.as_str()), (503, expected));
    running.snapshot.lock().unwrap().rules = Some(RulesStatus { is_synced: true, ..rules });
    let (status, _, body) = ask(&running, "GET", "/readyz").await;
    assert_eq!(status, 200, "what is known holds");
    assert!(body.ends_with("\nrules of the cluster: Service forbidden\n"), "{body}");
    running.snapshot.lock().unwrap().points = vec![point("interface a", true)];
    assert_eq!(ask(&running, "GET", "/readyz").await.0, 200);
    running.snapshot.lock().unwrap().draining = true;
    assert_eq!(ask(&running, "GET", "/readyz").await.0, 503);
    assert_eq!(ask(&running, "GET", "/healthz").await.0, 200, "a draining daemon is alive");
}

#[tokio::test]
async fn unhealthy_names_the_stuck_threads() {
    let running = start().await;
    running.health.lock().unwrap().stalled = vec!["shard 0: silent for 12 s".to_owned()];
    let (status, _, body) = ask(&running, "GET", "/healthz").await;
    assert_eq!((status, body.as_str()), (503, "stalled: shard 0: silent for 12 s\n"));
}

#[tokio::test]
async fn ledger_page_has_both_levels_and_says_when_they_balance() {
    let running = start().await;
    let ledger = Ledger::default();
    let books = ledger.shadow("httpbin");
    ledger.unmatched.increment();
    ledger.matched.add(2);
    books.owed.add(2);
    books.replayed.increment();
    running.snapshot.lock().unwrap().ledger = LedgerReading::of(&ledger);
    running.snapshot.lock().unwrap().flow = vec![("gap_timeout_bytes", 7), ("gap_timeout_bytes", 1)];
    let page: serde_json::Value = serde_json::from_str(&ask(&running, "GET", "/ledger").await.2).unwrap();
    assert_eq!((&page["balanced"], &page["open"]), (&true.into(), &1.into()));
    assert_eq!(page["requests"]["seen"], 3);
    assert_eq!(page["flow"]["gap_timeout_bytes"], 8);
    assert_eq!(page["kernel_complete"], true);
    books.lost(crate::drop_reason::DropReason::QueueFull);
    running.snapshot.lock().unwrap().ledger = LedgerReading::of(&ledger);
    running.snapshot.lock().unwrap().kernel_losses = vec![("ring_full", 1)];
    let page: serde_json::Value = serde_json::from_str(&ask(&running, "GET", "/ledger").await.2).unwrap();
    assert_eq!((&page["balanced"], &page["kernel_complete"]), (&true.into(), &false.into()));
    let shadow = &page["shadows"]["httpbin"];
    assert_eq!((&shadow["shed"], &shadow["shed_by_reason"]["queue_full"]), (&1.into(), &1.into()));
    books.replayed.increment();
    running.snapshot.lock().unwrap().ledger = LedgerReading::of(&ledger);
    let twice: serde_json::Value = serde_json::from_str(&ask(&running, "GET", "/ledger").await.2).unwrap();
    assert_eq!((&twice["balanced"], &twice["open"]), (&false.into(), &0.into()));
    let dropped = crate::drop_reason::DropReason::ALL.iter().filter(|reason| !reason.is_shed()).count();
    let reasons = |key: &str| shadow[key].as_object().unwrap();
    assert_eq!(reasons("dropped_by_reason").len(), dropped, "every reason, also at 0");
    let both =
        reasons("shed_by_reason").keys().any(|reason| reasons("dropped_by_reason").contains_key(reason));
    assert!(!both, "the README adds them to one list");
}

#[tokio::test]
async fn unknown_pages_and_methods_are_refused() {
    let running = start().await;
    let (status, _, body) = ask(&running, "GET", "/nothing").await;
    assert_eq!(status, 404);
    assert!(body.contains("/metrics"), "a 404 tells what there is");
    for method in ["POST", "DELETE", "OPTIONS"] {
        let (status, head, _) = ask(&running, method, "/metrics").await;
        assert_eq!(status, 405, "{method}");
        assert!(head.contains("allow: get, head"), "{head}");
    }
}

#[tokio::test]
async fn head_has_the_length_of_get_and_no_body() {
    let running = start().await;
    let (status, head, body) = ask(&running, "HEAD", "/").await;
    let (_, _, page) = ask(&running, "GET", "/").await;
    assert_eq!((status, body.as_str()), (200, ""));
    assert!(head.contains(&format!("content-length: {}", page.len())), "{head}");
}

#[tokio::test]
async fn request_bodies_are_refused_unread() {
    let running = start().await;
    for framing in ["content-length: 1000000000", "transfer-encoding: chunked"] {
        let request = format!("POST /metrics HTTP/1.1\r\nhost: x\r\n{framing}\r\n\r\n");
        let answer = exchange(running.address, &request).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    }
}

#[tokio::test]
async fn hostile_bytes_get_an_error_and_do_not_harm_the_next_client() {
    let running = start().await;
    let too_large = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(2 * MAX_HEAD_BYTES));
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let _ = stream.write_all(too_large.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431 "));
    let answer = exchange(running.address, "\x16\x03\x01\x02\x00\x01\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 ") || answer.is_empty(), "{answer}");
    assert_eq!(ask(&running, "GET", "/healthz").await.0, 200);
}

#[tokio::test]
async fn connection_beyond_the_bound_is_served_and_the_oldest_closed() {
    let running = start().await;
    let mut idle = Vec::new();
    for _ in 0..=MAX_CONNECTIONS {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        assert!(stream.read(&mut [0; 512]).await.unwrap() > 0, "it is answered");
        idle.push(stream);
    }
    assert_eq!(idle[0].read(&mut [0; 1]).await.unwrap_or(0), 0, "the oldest is closed");
    for stream in &mut idle[1..] {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        assert!(stream.read(&mut [0; 512]).await.unwrap() > 0, "the others live");
    }
}

#[tokio::test]
async fn stop_ends_idle_connections_and_frees_the_address() {
    let running = start().await;
    let mut idle = TcpStream::connect(running.address).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert!(idle.read(&mut [0; 512]).await.unwrap() > 0);
    running.stop_tx.send(()).unwrap();
    time::timeout(Duration::from_secs(10), running.server).await.unwrap().unwrap();
    assert_eq!(idle.read(&mut [0; 512]).await.unwrap_or(0), 0);
    assert!(TcpStream::connect(running.address).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn half_a_request_head_is_cut_off() {
    let (ours, theirs) = {
        // A paused clock and real sockets: the time-out comes as soon as nothing else can happen.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connect = TcpStream::connect(address);
        let (ours, accepted) = tokio::join!(connect, listener.accept());
        (ours.unwrap(), accepted.unwrap().0)
    };
    let pages = Arc::new(Pages::new(Arc::new(Snapshot::default), Health::default));
    let (_stop_tx, stop_rx) = watch::channel(false);
    let mut ours = ours;
    ours.write_all(b"GET /healthz HT").await.unwrap();
    let before = time::Instant::now();
    serve_connection(theirs, pages, stop_rx).await;
    assert!(before.elapsed() >= HEAD_TIMEOUT && before.elapsed() < CONNECTION_LIFETIME);
}

#[tokio::test]
async fn address_in_use_names_itself_and_the_way_out() {
    let running = start().await;
    let error = AdminServer::bind(running.address).unwrap_err();
    assert!(matches!(error, AdminError::InUse { .. }));
    let text = error.to_string();
    assert!(text.contains(&running.address.to_string()) && text.contains("admin.listen"), "{text}");
    let error = AdminServer::bind("203.0.113.7:9090".parse().unwrap()).unwrap_err();
    assert!(matches!(error, AdminError::NotOurs { .. }), "{error}");
}
