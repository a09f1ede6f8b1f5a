//! Whether the records tell of every byte once, at each kind of capture point.

mod attaching;
mod hooks;
mod many;
mod rings;

use crate::place::{Place, may_test_kernel, run, within};
use crate::traffic::{Exchange, Log, Server, pattern, read_all, record};
use mirror_common::{ANY_POINT, KernelCounter, LossReason, SHED_LEVELS};
use mirror_daemon::capture::{
    self, Attachment, Capture, ControlEvent, LiveWriter, PointState, RingReader, TestKnobs,
};
use mirror_daemon::config::{CaptureConfig, CapturePoint, FlowLimits, Leg, TcMode};
use mirror_daemon::flow::SeqNumber;
use mirror_daemon::http::h2::H2Options;
use mirror_tests::privilege::{kernel_has_tcx, tcx_or_skip};
use rustix::thread::CapabilitySet;
use std::net::Ipv4Addr;
use std::sync::mpsc;
use std::time::{Duration, Instant};

pub(crate) const PORT: u16 = 8080;
pub(crate) const SMALL: Exchange = Exchange { request_bytes: 300, answer_bytes: 2000, write_bytes: 65_536 };
/// Writes large enough that segments travel as GSO super-packets.
const LARGE: Exchange = Exchange { request_bytes: 3_000_000, answer_bytes: 1_000_000, write_bytes: 262_144 };

pub(crate) fn config(points: Vec<CapturePoint>) -> CaptureConfig {
    CaptureConfig {
        points,
        gateways: Vec::new(),
        leg: Leg::Downstream,
        ports: vec![PORT],
        tc_mode: TcMode::Auto,
        gateway_cgroups: Vec::new(),
        ring_bytes: 16 << 20,
        shards: 1,
        answer_snap_bytes: 16_384,
        http2: H2Options::default(),
        tick: Duration::from_millis(1),
        proxy_protocol: false,
        exclude: Vec::new(),
        limits: FlowLimits::default(),
    }
}

/// What `TcMode::Auto` comes to on this kernel.
pub(crate) fn by_default() -> Attachment {
    if kernel_has_tcx() { Attachment::Tcx } else { Attachment::Clsact }
}

pub(crate) fn interface(place: &Place, name: &str) -> CapturePoint {
    CapturePoint::Interface { name: name.to_owned(), netns: Some(place.gateway_netns()), host_side: false }
}

pub(crate) fn opened(config: &CaptureConfig, how: Attachment) -> Capture {
    let capture = capture::open(config).expect("root, and built kernel programs");
    for point in capture.attacher.points() {
        assert_eq!(point.state, PointState::Attached(how), "{point:?}");
        assert_eq!(point.lifecycle_error, None);
    }
    capture
}

/// Every byte of the request once; of the answer the first bytes of each segment; the books balance.
pub(crate) fn assert_told_once(log: &Log, capture: &Capture, place: &Place, exchange: Exchange) {
    let (request, answer) = log.only();
    let times = request.coverage(&pattern(b'q', exchange.request_bytes));
    assert!(times.iter().all(|times| *times > 0), "missing: {}", times.iter().filter(|t| **t == 0).count());
    let repeated = times.iter().filter(|times| **times > 1).count();
    assert!(repeated == 0 || place.retransmissions() > 0, "{repeated} bytes told twice");
    answer.coverage(&pattern(b'a', exchange.answer_bytes));
    assert!(answer.segment_bytes >= exchange.answer_bytes as u64);
    let counters = capture.counters.snapshot().expect("counters");
    assert_eq!(counters.unbalanced_bytes(), 0, "{counters:?}");
    assert_eq!(counters.of(KernelCounter::Records), log.records as u64);
    assert_eq!(counters.of(KernelCounter::CopiedBytes), log.copied_bytes);
    assert_eq!(counters.of(KernelCounter::RingFullRecords), 0);
}

fn exchange_is_told_once(config: &CaptureConfig, how: Attachment, place: &Place, exchange: Exchange) {
    let mut capture = opened(config, how);
    let server = Server::new(&place.gateway_netns(), place.gateway_addr(), PORT);
    let client_netns = place.client_netns();
    let log = record(&mut capture, || server.exchange(&client_netns, exchange, 1), |log| log.finished() == 1);
    assert_told_once(&log, &capture, place, exchange);
}

/// Runs `work` while the heart beats, however long loading takes on this machine.
fn with_heartbeat<T>(live: &mut LiveWriter, work: impl FnOnce() -> T) -> T {
    live.beat().expect("a map to write");
    let (done_tx, done_rx) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while done_rx.recv_timeout(Duration::from_millis(200)) == Err(mpsc::RecvTimeoutError::Timeout) {
                live.beat().expect("a map to write");
            }
        });
        let done = work();
        drop(done_tx);
        done
    })
}
