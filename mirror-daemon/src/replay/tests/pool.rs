use super::support::*;
use crate::drop_reason::DropReason;
use crate::rewrite::Framing;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};

#[tokio::test]
async fn requests_one_after_the_other_share_a_connection() {
    let mut rig = Rig::new(config(good_shadow().await));
    for _ in 0..50 {
        rig.send_and_settle(get()).await;
    }
    assert_eq!(rig.ledger.replayed.value(), 50);
    assert_eq!(rig.ledger.answered[1].value(), 50);
    assert_eq!(rig.ledger.connections_opened.value(), 1);
    assert_eq!((rig.status().open_connections, rig.status().in_flight), (1, 0));
}

#[tokio::test]
async fn bodies_arrive_as_their_framing_says() {
    let (request_tx, mut request_rx) = mpsc::unbounded_channel();
    let address = shadow(move |_, mut peer| {
        let request_tx = request_tx.clone();
        async move {
            while let Some(request) = peer.request().await {
                request_tx.send(String::from_utf8(request).unwrap()).unwrap();
                peer.say(OK).await;
            }
        }
    })
    .await;
    let mut rig = Rig::new(config(address));
    let expect = "Expect: 100-continue\r\nContent-Length: 3\r\n";
    for (sent, tail) in [
        (get(), "\r\n\r\n"),
        (post(b"abc"), "Content-Length: 3\r\n\r\nabc"),
        (request("POST", Framing::Length(3), expect, buffered(b"abc", "")), "Length: 3\r\n\r\nabc"),
        (chunked(buffered(b"", "")), "chunked\r\n\r\n0\r\n\r\n"),
        (chunked(buffered(b"0123456789abcdefg", "")), "\r\n\r\n11\r\n0123456789abcdefg\r\n0\r\n\r\n"),
        (chunked(buffered(b"a", "X: y\r\n")), "\r\n\r\n1\r\na\r\n0\r\nX: y\r\n\r\n"),
    ] {
        let head = sent.head.wire.clone();
        rig.send_and_settle(sent).await;
        let received = request_rx.recv().await.unwrap();
        assert!(received.as_bytes().starts_with(&head) && received.ends_with(tail), "{received}");
    }
    assert_eq!((rig.ledger.replayed.value(), rig.ledger.connections_opened.value()), (6, 1));
}

#[tokio::test]
async fn answer_is_read_to_its_end_before_the_next_request() {
    const LENGTH: usize = 3 * 1024 * 1024;
    let address = shadow(|_, mut peer| async move {
        while let Some(request) = peer.request().await {
            peer.say(b"HTTP/1.1 100 Continue\r\n\r\n").await;
            peer.say(format!("HTTP/1.1 404 No\r\nContent-Length: {LENGTH}\r\n\r\n").as_bytes()).await;
            if !request.starts_with(b"HEAD") {
                peer.say(&vec![b'x'; LENGTH]).await;
            }
        }
    })
    .await;
    let mut rig = Rig::new(config(address));
    for _ in 0..3 {
        rig.send_and_settle(get()).await;
        rig.send_and_settle(request("HEAD", Framing::None, "", buffered(b"", ""))).await;
    }
    assert_eq!((rig.ledger.answered[3].value(), rig.ledger.connections_opened.value()), (6, 1));
}

#[tokio::test]
async fn answer_that_ends_with_the_connection_is_no_failure() {
    let address = shadow(|_, mut peer| async move {
        peer.request().await;
        peer.say(b"HTTP/1.1 200 OK\r\n\r\nuntil close").await;
    })
    .await;
    let mut rig = Rig::new(config(address));
    for _ in 0..5 {
        rig.send_and_settle(post(b"x")).await;
    }
    assert_eq!((rig.ledger.replayed.value(), rig.ledger.answered[1].value()), (5, 5));
    assert_eq!((rig.ledger.answers_cut.value(), rig.ledger.connections_opened.value()), (0, 5));
}

#[tokio::test]
async fn in_flight_limit_is_reached_and_never_passed() {
    let (gate, open) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let (peer_gate, peer_open) = (Arc::clone(&gate), Arc::clone(&open));
    let address = shadow(move |_, mut peer| {
        let (gate, open) = (Arc::clone(&peer_gate), Arc::clone(&peer_open));
        async move {
            while peer.request().await.is_some() {
                open.fetch_add(1, Ordering::SeqCst);
                gate.acquire().await.unwrap().forget();
                open.fetch_sub(1, Ordering::SeqCst);
                peer.say(OK).await;
            }
        }
    })
    .await;
    let mut config = config(address);
    config.max_in_flight = 7;
    let mut rig = Rig::new(config);
    for _ in 0..100 {
        rig.offer(get());
    }
    rig.handle.flush();
    until(|| open.load(Ordering::SeqCst) == 7).await;
    assert_eq!(rig.status().in_flight, 7);
    assert_eq!(rig.status().queued_items, 93);
    gate.add_permits(100);
    rig.settled().await;
    assert_eq!(rig.ledger.replayed.value(), 100);
    assert_eq!(rig.ledger.connections_opened.value(), 7);
}

#[tokio::test]
async fn idle_connections_expire_and_the_last_used_is_used_again() {
    let gate = Arc::new(Semaphore::new(0));
    let peer_gate = Arc::clone(&gate);
    let address = shadow(move |_, mut peer| {
        let gate = Arc::clone(&peer_gate);
        async move {
            while peer.request().await.is_some() {
                gate.acquire().await.unwrap().forget();
                peer.say(OK).await;
            }
        }
    })
    .await;
    let mut config = config(address);
    config.idle_timeout = Duration::from_millis(300);
    let mut rig = Rig::new(config);
    for _ in 0..4 {
        rig.offer(get());
    }
    rig.handle.flush();
    until(|| rig.status().in_flight == 4).await;
    gate.add_permits(1_000);
    rig.settled().await;
    assert_eq!(rig.status().open_connections, 4);
    until(|| {
        rig.send(get());
        rig.status().open_connections == 1
    })
    .await;
    rig.settled().await;
    assert_eq!(rig.ledger.connections_opened.value(), 4, "the hot one was kept");
    until(|| rig.status().open_connections == 0).await;
}

#[tokio::test]
async fn burst_opens_connections_step_by_step_and_reuses_them() {
    let mut rig = Rig::new(config(good_shadow().await));
    for _ in 0..20 {
        for _ in 0..100 {
            rig.offer(get());
        }
        rig.handle.flush();
        rig.settled().await;
    }
    assert_eq!(rig.ledger.replayed.value(), 2_000);
    assert!(rig.ledger.connections_opened.value() <= 64);
}

#[tokio::test]
async fn closed_idle_connection_is_noticed_before_it_is_used() {
    let address = shadow(|_, mut peer| async move {
        peer.request().await;
        peer.say(OK).await;
    })
    .await;
    let mut rig = Rig::new(config(address));
    for _ in 0..5 {
        rig.send_and_settle(post(b"unsafe")).await;
        until(|| rig.status().open_connections == 0).await;
    }
    assert_eq!(rig.ledger.replayed.value(), 5);
    assert_eq!(rig.ledger.dropped.of(DropReason::ShadowClosed).value(), 0);
}

/// The first connection serves one request, and closes when the second one has arrived.
async fn shadow_that_closes_on_the_second_request() -> std::net::SocketAddr {
    shadow(|number, mut peer| async move {
        if number > 0 {
            peer.serve().await;
            return;
        }
        peer.request().await;
        peer.say(OK).await;
        peer.request().await;
    })
    .await
}

#[tokio::test]
async fn safe_request_is_sent_once_more_when_its_pooled_connection_closes() {
    let mut rig = Rig::new(config(shadow_that_closes_on_the_second_request().await));
    rig.send_and_settle(get()).await;
    rig.send_and_settle(get()).await;
    assert_eq!((rig.ledger.replayed.value(), rig.ledger.resent.value()), (2, 1));
    assert_eq!(rig.ledger.connections_opened.value(), 2);
}

#[tokio::test]
async fn unsafe_request_is_not_sent_once_more() {
    let mut rig = Rig::new(config(shadow_that_closes_on_the_second_request().await));
    rig.send_and_settle(get()).await;
    rig.send_and_settle(post(b"once")).await;
    assert_eq!((rig.ledger.replayed.value(), rig.ledger.resent.value()), (1, 0));
    assert_eq!(rig.ledger.dropped.of(DropReason::ShadowClosed).value(), 1);
}

#[tokio::test]
async fn safe_request_is_sent_twice_at_most_and_not_again_on_a_fresh_connection() {
    let address = shadow(|number, mut peer| async move {
        if number == 0 {
            peer.request().await;
            peer.say(OK).await;
        }
        peer.request().await;
    })
    .await;
    let mut rig = Rig::new(config(address));
    rig.send_and_settle(get()).await;
    rig.send_and_settle(get()).await;
    assert_eq!((rig.ledger.replayed.value(), rig.ledger.resent.value()), (1, 1));
    rig.send_and_settle(get()).await;
    assert_eq!(rig.ledger.resent.value(), 1);
    assert_eq!(rig.ledger.dropped.of(DropReason::ShadowClosed).value(), 2);
}
