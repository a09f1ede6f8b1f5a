use super::support::*;
use crate::config::BreakerConfig;
use crate::drop_reason::DropReason;
use crate::replay::BreakerState;
use crate::replay::tests::support::*;
use ::h2::{Reason, server};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Streams under way: now on each connection, and most of all times on one.
#[derive(Default)]
struct Load {
    now: Mutex<HashMap<usize, usize>>,
    most: AtomicUsize,
}

impl Load {
    fn begin(&self, connection: usize) {
        let mut now = self.now.lock().unwrap();
        let here = now.entry(connection).or_default();
        *here += 1;
        self.most.fetch_max(*here, Ordering::Relaxed);
    }

    fn end(&self, connection: usize) {
        *self.now.lock().unwrap().get_mut(&connection).unwrap() -= 1;
    }

    fn total(&self) -> usize {
        self.now.lock().unwrap().values().sum()
    }
}

/// A script that answers as permits come.
fn gated(
    load: &Arc<Load>,
    gate: &Arc<Semaphore>,
) -> impl Fn(Call) -> futures::Served + Clone + Send + Sync + use<> {
    let (load, gate) = (Arc::clone(load), Arc::clone(gate));
    move |call: Call| {
        let (load, gate) = (Arc::clone(&load), Arc::clone(&gate));
        Box::pin(async move {
            load.begin(call.connection);
            gate.acquire().await.unwrap().forget();
            load.end(call.connection);
            call.serve().await;
        })
    }
}

mod futures {
    pub(super) type Served = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;
}

#[tokio::test]
async fn peers_limit_is_kept_and_more_connections_are_opened() {
    let (load, gate) = (Arc::new(Load::default()), Arc::new(Semaphore::new(0)));
    let mut builder = server::Builder::new();
    builder.max_concurrent_streams(4);
    let mut rig = Rig::new(config(h2_shadow(builder, gated(&load, &gate)).await));
    (0..10).for_each(|_| rig.offer(h2_get()));
    rig.handle.flush();
    until(|| load.total() == 10).await;
    assert_eq!((rig.status().open_connections, rig.status().in_flight), (3, 10));
    gate.add_permits(100);
    for _ in 0..50 {
        rig.offer(h2_get());
    }
    rig.handle.flush();
    rig.settled().await;
    assert_eq!((rig.ledger.replayed.value(), load.most.load(Ordering::Relaxed)), (60, 4));
    assert_eq!(rig.ledger.resent.value(), 0);
}

#[tokio::test]
async fn no_more_connections_than_allowed() {
    let (load, gate) = (Arc::new(Load::default()), Arc::new(Semaphore::new(0)));
    let mut builder = server::Builder::new();
    builder.max_concurrent_streams(4);
    let mut config = config(h2_shadow(builder, gated(&load, &gate)).await);
    config.max_connections = 1;
    let mut rig = Rig::new(config);
    (0..10).for_each(|_| rig.offer(h2_get()));
    rig.handle.flush();
    until(|| load.total() == 4).await;
    assert_eq!((rig.status().queued_items, rig.status().in_flight), (6, 4));
    gate.add_permits(10);
    rig.settled().await;
    assert_eq!((rig.ledger.replayed.value(), rig.ledger.connections_opened.value()), (10, 1));
}

/// A shadow that speaks both versions, as the first bytes say, and answers as permits come.
async fn both_ways(load: &Arc<Load>, gate: &Arc<Semaphore>) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (load, gate) = (Arc::clone(load), Arc::clone(gate));
    tokio::spawn(async move {
        for connection in 0.. {
            let Ok((stream, _)) = listener.accept().await else { return };
            let (load, gate) = (Arc::clone(&load), Arc::clone(&gate));
            tokio::spawn(async move {
                let mut first = [0; 4];
                while stream.peek(&mut first).await.unwrap_or(4) < 4 {}
                if first == *b"PRI " {
                    return serve_h2(server::Builder::new(), stream, connection, gated(&load, &gate)).await;
                }
                let mut peer = Peer::new(stream);
                while peer.request().await.is_some() {
                    load.begin(connection);
                    gate.acquire().await.unwrap().forget();
                    load.end(connection);
                    peer.say(OK).await;
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn both_lanes_share_what_may_be_in_flight_and_neither_starves() {
    let (load, gate) = (Arc::new(Load::default()), Arc::new(Semaphore::new(0)));
    let mut config = config(both_ways(&load, &gate).await);
    config.max_in_flight = 6;
    config.queue_items = 100;
    let mut rig = Rig::new(config);
    for _ in 0..50 {
        rig.offer(get());
        rig.offer(h2_get());
    }
    rig.handle.flush();
    until(|| load.total() == 6).await;
    assert_eq!((rig.status().in_flight, rig.status().queued_items), (6, 94));
    for _ in 0..6 {
        rig.offer(h2_get());
    }
    rig.offer(get());
    rig.handle.flush();
    assert_eq!(rig.ledger.shed.of(DropReason::QueueFull).value(), 1, "one queue bound for both");
    let most = Arc::new(AtomicU64::new(0));
    for _ in 0..106 {
        gate.add_permits(1);
        most.fetch_max(rig.status().in_flight, Ordering::Relaxed);
        tokio::task::yield_now().await;
    }
    rig.settled().await;
    assert_eq!((rig.ledger.replayed.value(), rig.ledger.answered[1].value()), (106, 106));
    assert!(most.load(Ordering::Relaxed) <= 6);
}

#[tokio::test]
async fn breaker_opens_sheds_both_lanes_and_closes_by_a_probe() {
    let is_good = Arc::new(AtomicBool::new(false));
    let script = {
        let is_good = Arc::clone(&is_good);
        move |mut call: Call| {
            let is_good = is_good.load(Ordering::Relaxed);
            async move {
                match is_good {
                    true => call.serve().await,
                    false => call.reset(Reason::INTERNAL_ERROR),
                }
            }
        }
    };
    let mut config = config(h2_shadow(server::Builder::new(), script).await);
    config.breaker = BreakerConfig { failures: 3, open_for: Duration::from_millis(1_500) };
    let mut rig = Rig::new(config);
    for _ in 0..3 {
        rig.send_and_settle(h2_get()).await;
    }
    assert_eq!(rig.ledger.dropped.of(DropReason::ShadowClosed).value(), 3);
    assert_eq!(rig.status().breaker, BreakerState::Open);
    rig.send_and_settle(h2_get()).await;
    rig.send_and_settle(get()).await;
    assert_eq!(rig.ledger.shed.of(DropReason::BreakerOpen).value(), 2);
    is_good.store(true, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(1_600)).await;
    rig.send_and_settle(h2_get()).await;
    assert_eq!((rig.ledger.replayed.value(), rig.status().breaker), (1, BreakerState::Closed));
}

#[tokio::test]
async fn idle_connection_says_goodbye_in_time() {
    let mut config = config(good_h2_shadow().await);
    config.idle_timeout = Duration::from_millis(100);
    let mut rig = Rig::new(config);
    rig.send_and_settle(h2_get()).await;
    until(|| rig.status().open_connections == 0).await;
    rig.send_and_settle(h2_get()).await;
    assert_eq!((rig.ledger.replayed.value(), rig.ledger.connections_opened.value()), (2, 2));
}

#[tokio::test]
async fn drain_finishes_what_it_can_and_books_the_rest() {
    let mut rig = Rig::new(config(good_h2_shadow().await));
    (0..300).for_each(|_| rig.send(h2_get()));
    rig.replayer.drain(Instant::now() + LIMIT).await;
    assert_eq!((rig.ledger.replayed.value(), rig.ledger.open()), (300, 0));
    assert_eq!(rig.status().open_connections, 0);

    let (load, gate) = (Arc::new(Load::default()), Arc::new(Semaphore::new(0)));
    let mut config = config(h2_shadow(server::Builder::new(), gated(&load, &gate)).await);
    config.max_in_flight = 2;
    let mut rig = Rig::new(config);
    (0..10).for_each(|_| rig.send(h2_get()));
    until(|| load.total() == 2).await;
    rig.replayer.drain(Instant::now() + Duration::from_millis(50)).await;
    assert_eq!((rig.ledger.replayed.value(), rig.ledger.open()), (2, 0), "these were fully written");
    assert_eq!(rig.ledger.dropped.of(DropReason::Shutdown).value(), 8);
}

#[test]
fn books_balance_when_the_runtime_goes_first() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut rig = runtime.block_on(async {
        let (load, gate) = (Arc::new(Load::default()), Arc::new(Semaphore::new(0)));
        let mut rig = Rig::new(config(h2_shadow(server::Builder::new(), gated(&load, &gate)).await));
        (0..100).for_each(|_| rig.send(h2_get()));
        until(|| load.total() > 2).await;
        rig
    });
    drop(runtime);
    rig.send(h2_get());
    let ledger = Arc::clone(&rig.ledger);
    drop(rig);
    assert_eq!(ledger.open(), 0);
}
