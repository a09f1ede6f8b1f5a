use super::support::*;
use crate::config::BreakerConfig;
use crate::drop_reason::DropReason;
use crate::replay::BreakerState;
use std::time::Duration;
use tokio::net::TcpListener;

#[tokio::test]
async fn full_queue_sheds_the_newest_by_items() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = config(listener.local_addr().unwrap());
    config.queue_items = 5;
    let mut rig = Rig::new(config);
    for _ in 0..8 {
        rig.offer(get());
    }
    rig.handle.flush();
    assert_eq!(rig.ledger.shed.of(DropReason::QueueFull).value(), 3);
    assert_eq!(rig.status().queued_items, 5);
}

#[tokio::test]
async fn queue_bytes_bound_holds_to_the_byte() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = config(listener.local_addr().unwrap());
    let cost = get().head.wire.len() as u64;
    config.queue_bytes = 3 * cost;
    let mut rig = Rig::new(config);
    for _ in 0..4 {
        rig.offer(get());
    }
    rig.handle.flush();
    assert_eq!(rig.status().held_bytes, 3 * cost);
    assert_eq!(rig.ledger.shed.of(DropReason::QueueFull).value(), 1);
}

#[tokio::test]
async fn requests_that_a_silent_shadow_has_taken_still_count() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = config(silent.local_addr().unwrap());
    let cost = get().head.wire.len() as u64;
    config.queue_bytes = 3 * cost;
    let mut rig = Rig::new(config);
    for taken in 1..=3 {
        rig.send(get());
        until(|| rig.status().in_flight == taken).await;
    }
    assert_eq!((rig.status().queued_items, rig.status().held_bytes), (0, 3 * cost));
    rig.offer(get());
    rig.handle.flush();
    assert_eq!(rig.ledger.shed.of(DropReason::QueueFull).value(), 1);
}

#[tokio::test]
async fn rate_above_max_rps_is_shed() {
    let mut config = config(good_shadow().await);
    config.max_rps = Some(50.0);
    let mut rig = Rig::new(config);
    for _ in 0..20 {
        rig.offer(get());
    }
    rig.handle.flush();
    rig.settled().await;
    assert_eq!(rig.ledger.shed.of(DropReason::RateLimited).value(), 15);
    assert_eq!(rig.ledger.replayed.value(), 5);
}

#[tokio::test]
async fn slow_shadow_does_not_hold_up_another() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut slow = Rig::new(config(silent.local_addr().unwrap()));
    let mut quick = Rig::new(config(good_shadow().await));
    for _ in 0..200 {
        slow.send(get());
    }
    for _ in 0..200 {
        quick.send_and_settle(get()).await;
    }
    assert_eq!((quick.ledger.replayed.value(), slow.ledger.open()), (200, 200));
}

#[tokio::test]
async fn breaker_opens_sheds_probes_once_and_closes() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut config = config(address);
    config.breaker = BreakerConfig { failures: 3, open_for: Duration::from_millis(1_500) };
    let mut rig = Rig::new(config);
    for _ in 0..10 {
        rig.offer(get());
    }
    rig.handle.flush();
    rig.settled().await;
    assert_eq!(rig.ledger.dropped.of(DropReason::Connect).value(), 3, "one for each attempt");
    assert_eq!(rig.ledger.shed.of(DropReason::BreakerOpen).value(), 7, "what waited");
    assert_eq!(rig.status().breaker, BreakerState::Open);
    rig.send_and_settle(get()).await;
    assert_eq!(rig.ledger.shed.of(DropReason::BreakerOpen).value(), 8, "what came");

    tokio::time::sleep(Duration::from_millis(1_600)).await;
    let listener = TcpListener::bind(address).await.unwrap();
    for _ in 0..5 {
        rig.offer(get());
    }
    rig.handle.flush();
    assert_eq!(rig.status().breaker, BreakerState::HalfOpen);
    assert_eq!(rig.ledger.shed.of(DropReason::BreakerOpen).value(), 12, "all but the probe");
    let (stream, _) = listener.accept().await.unwrap();
    let serving = tokio::spawn(async move { Peer::new(stream).serve().await });
    rig.settled().await;
    assert_eq!(rig.status().breaker, BreakerState::Closed);
    rig.send_and_settle(get()).await;
    assert_eq!(rig.ledger.replayed.value(), 2);
    drop(rig);
    assert_eq!(serving.await.unwrap(), 2);
}

#[tokio::test]
async fn failed_probe_opens_the_breaker_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = config(listener.local_addr().unwrap());
    drop(listener);
    config.breaker = BreakerConfig { failures: 1, open_for: Duration::from_millis(50) };
    let mut rig = Rig::new(config);
    rig.send_and_settle(get()).await;
    tokio::time::sleep(Duration::from_millis(60)).await;
    rig.send_and_settle(get()).await;
    assert_eq!(rig.ledger.dropped.of(DropReason::Connect).value(), 2);
    assert_eq!(rig.status().breaker, BreakerState::Open);
}
