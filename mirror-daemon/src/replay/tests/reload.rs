use super::support::*;
use crate::drop_reason::DropReason;
use crate::telemetry::ShadowLedger;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::Instant;

fn in_ms(ms: u64) -> Instant {
    Instant::now() + Duration::from_millis(ms)
}

#[tokio::test]
async fn drain_finishes_what_it_can() {
    let mut rig = Rig::new(config(good_shadow().await));
    for _ in 0..300 {
        rig.send(get());
    }
    rig.replayer.drain(in_ms(10_000)).await;
    assert_eq!((rig.ledger.replayed.value(), rig.ledger.open()), (300, 0));
    rig.send(get());
    assert_eq!(rig.ledger.dropped.of(DropReason::Shutdown).value(), 1, "too late");
    assert_eq!(rig.status().open_connections, 0);
}

#[tokio::test]
async fn drain_books_shutdown_for_what_it_cannot_finish() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = config(silent.local_addr().unwrap());
    config.max_in_flight = 2;
    let mut rig = Rig::new(config);
    for _ in 0..10 {
        rig.send(get());
    }
    until(|| rig.status().in_flight == 2).await;
    rig.replayer.drain(in_ms(50)).await;
    assert_eq!(rig.ledger.open(), 0);
    assert_eq!(rig.ledger.dropped.of(DropReason::Shutdown).value(), 8);
    assert_eq!(rig.ledger.replayed.value(), 2, "these were fully written");
}

#[test]
fn books_balance_when_the_runtime_goes_first() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut rig = runtime.block_on(async {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut rig = Rig::new(config(silent.local_addr().unwrap()));
        for _ in 0..100 {
            rig.send(get());
        }
        until(|| rig.status().in_flight > 2).await;
        rig
    });
    drop(runtime);
    rig.send(get());
    let ledger = Arc::clone(&rig.ledger);
    drop(rig);
    assert_eq!(ledger.open(), 0);
}

#[tokio::test]
async fn reload_keeps_the_pool_of_an_unchanged_shadow() {
    let address = good_shadow().await;
    let mut rig = Rig::new(config(address));
    rig.send_and_settle(get()).await;
    let mut rewritten = config(address);
    rewritten.rewrite.own_authority = "other".to_owned();
    rig.replayer.reconfigure(vec![(Arc::new(rewritten), Arc::clone(&rig.ledger))]).unwrap();
    rig.handle = rig.replayer.handle();
    rig.send_and_settle(get()).await;
    assert_eq!((rig.ledger.replayed.value(), rig.ledger.connections_opened.value()), (2, 1));
}

#[tokio::test]
async fn changed_shadow_finishes_under_the_old_settings_and_goes_on_under_the_new() {
    let (old_address, new_address) = (good_shadow().await, good_shadow().await);
    let mut rig = Rig::new(config(old_address));
    rig.send(get());
    rig.replayer.reconfigure(vec![(Arc::new(config(new_address)), Arc::clone(&rig.ledger))]).unwrap();
    rig.send_and_settle(get()).await;
    rig.handle = rig.replayer.handle();
    rig.send_and_settle(get()).await;
    assert_eq!((rig.ledger.replayed.value(), rig.ledger.dropped.total()), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn vanished_shadow_books_config_changed_for_what_it_cannot_finish() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = config(silent.local_addr().unwrap());
    config.max_in_flight = 1;
    config.timeout = Duration::from_secs(100);
    config.connect_timeout = Duration::from_secs(100);
    let mut rig = Rig::new(config);
    for _ in 0..3 {
        rig.send(get());
    }
    while rig.status().in_flight == 0 {
        tokio::task::yield_now().await;
    }
    rig.replayer.reconfigure(Vec::new()).unwrap();
    rig.settled().await;
    assert_eq!(rig.ledger.dropped.of(DropReason::ConfigChanged).value(), 2);
    assert_eq!(rig.ledger.replayed.value(), 1);
    rig.send(get());
    assert_eq!(rig.ledger.dropped.of(DropReason::ConfigChanged).value(), 3, "through an old handle");
}

#[tokio::test]
async fn requests_offered_by_another_thread_arrive() {
    let rig = Rig::new(config(good_shadow().await));
    let mut handles: Vec<_> = (0..3).map(|_| rig.handle.clone()).collect();
    let ledger: Arc<ShadowLedger> = Arc::clone(&rig.ledger);
    let threads: Vec<_> = handles
        .drain(..)
        .map(|mut handle| {
            let ledger = Arc::clone(&ledger);
            std::thread::spawn(move || {
                for number in 0..1_000 {
                    ledger.owed.increment();
                    handle.offer(crate::config::ShadowId(0), get());
                    if number % 7 == 0 {
                        handle.flush();
                    }
                }
                handle.flush();
            })
        })
        .collect();
    until(|| threads.iter().all(std::thread::JoinHandle::is_finished)).await;
    rig.settled().await;
    assert_eq!(rig.ledger.replayed.value(), 3_000);
}
