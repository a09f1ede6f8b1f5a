use super::support::*;
use crate::config::{BreakerConfig, EndpointHost};
use crate::drop_reason::DropReason;
use crate::replay::resolve::Resolver;
use crate::replay::tests::failures::fixed;
use crate::replay::tests::support::*;
use crate::replay::{BreakerState, ShadowBody, body_channel};
use ::h2::{Reason, server};
use bytes::Bytes;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;

fn goaway(last_stream: u32) -> Vec<u8> {
    let mut payload = last_stream.to_be_bytes().to_vec();
    payload.extend(0_u32.to_be_bytes());
    frame(GOAWAY, 0, 0, &payload)
}

#[tokio::test]
async fn requests_that_a_goaway_leaves_out_are_sent_once_more_and_the_others_are_finished() {
    let streams = Arc::new(Mutex::new(Vec::new()));
    let script = {
        let streams = Arc::clone(&streams);
        move |mut peer: RawPeer| {
            let streams = Arc::clone(&streams);
            async move {
                let mut open = Vec::new();
                while let Some(stream) = peer.next_stream().await {
                    streams.lock().unwrap().push((peer.number, stream));
                    if peer.number > 0 {
                        peer.answer(stream).await;
                        continue;
                    }
                    open.push(stream);
                    if open.len() == 4 {
                        peer.say(&goaway(3)).await;
                        peer.answer(1).await;
                        peer.answer(3).await;
                    }
                }
            }
        }
    };
    let mut rig = Rig::new(config(raw_shadow(&[], script).await));
    (0..4).for_each(|_| rig.offer(h2_post(b"unsafe")));
    rig.handle.flush();
    rig.settled().await;
    assert_eq!((rig.ledger.replayed.value(), rig.ledger.resent.value()), (4, 2));
    let seen = streams.lock().unwrap().clone();
    assert_eq!(seen, [(0, 1), (0, 3), (0, 5), (0, 7), (1, 1), (1, 3)]);
    until(|| rig.status().open_connections == 1).await;
}

#[tokio::test]
async fn goaways_in_the_middle_of_load_lose_nothing_and_repeat_nothing() {
    const REQUESTS: usize = 600;
    let served = Arc::new(Mutex::new(Vec::new()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let all = Arc::clone(&served);
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else { return };
            stream.set_nodelay(true).unwrap();
            let served = Arc::clone(&all);
            tokio::spawn(async move {
                let mut server = server::Builder::new().handshake::<_, Bytes>(stream).await.unwrap();
                let mut accepted = 0;
                while let Some(Ok((mut request, mut respond))) = server.accept().await {
                    accepted += 1;
                    if accepted == 50 {
                        server.graceful_shutdown();
                    }
                    let served = Arc::clone(&served);
                    tokio::spawn(async move {
                        let Some(Ok(body)) = request.body_mut().data().await else { return };
                        served.lock().unwrap().push(body);
                        let _ = respond.send_response(::http::Response::new(()), true);
                    });
                }
            });
        }
    });
    let mut rig = Rig::new(config(address));
    for number in 0..REQUESTS {
        rig.offer(h2_post(number.to_string().as_bytes()));
        if number % 10 == 9 {
            rig.handle.flush();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    rig.settled().await;
    let mut served = served.lock().unwrap().clone();
    let count = served.len();
    served.sort();
    served.dedup();
    assert_eq!((served.len(), count), (REQUESTS, REQUESTS));
    assert_eq!((rig.ledger.replayed.value(), rig.ledger.dropped.total()), (REQUESTS as u64, 0));
    assert!(rig.ledger.connections_opened.value() > 5);
}

#[tokio::test]
async fn refused_stream_is_sent_once_more_and_not_twice() {
    let left = Arc::new(AtomicUsize::new(1));
    let script = {
        let left = Arc::clone(&left);
        move |mut call: Call| {
            let is_refused =
                left.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            async move {
                match is_refused {
                    Ok(_) => call.reset(Reason::REFUSED_STREAM),
                    Err(_) => call.serve().await,
                }
            }
        }
    };
    let mut rig = Rig::new(config(h2_shadow(server::Builder::new(), script).await));
    rig.send_and_settle(h2_post(b"x")).await;
    assert_eq!((rig.ledger.replayed.value(), rig.ledger.resent.value()), (1, 1));
    left.store(2, Ordering::Relaxed);
    rig.send_and_settle(h2_post(b"x")).await;
    assert_eq!(rig.ledger.dropped.of(DropReason::ShadowClosed).value(), 1);
    left.store(1, Ordering::Relaxed);
    let (writer, reader) = body_channel(1024, u64::MAX, &Arc::default());
    writer.push(Bytes::from_static(b"gone")).unwrap();
    rig.send_and_settle(call(ShadowBody::Streaming(reader))).await;
    assert_eq!(rig.ledger.dropped.of(DropReason::ShadowClosed).value(), 2, "its body had begun");
    assert!(!writer.is_wanted());
}

#[tokio::test]
async fn lost_connection_costs_the_unsafe_requests_and_the_safe_ones_are_sent_once_more() {
    let script = |mut peer: RawPeer| async move {
        let mut streams = 0;
        while let Some(stream) = peer.next_stream().await {
            streams += 1;
            // The first connection carries one exchange, and dies with the next five.
            if peer.number > 0 || streams == 1 {
                peer.answer(stream).await;
            } else if streams == 6 {
                return;
            }
        }
    };
    let mut rig = Rig::new(config(raw_shadow(&[], script).await));
    rig.send_and_settle(h2_get()).await;
    (0..3).for_each(|_| rig.offer(h2_get()));
    (0..2).for_each(|_| rig.offer(h2_post(b"x")));
    rig.handle.flush();
    rig.settled().await;
    assert_eq!((rig.ledger.replayed.value(), rig.ledger.resent.value()), (4, 3));
    assert_eq!(rig.ledger.dropped.of(DropReason::ShadowClosed).value(), 2);
}

#[tokio::test]
async fn answer_that_is_reset_or_cut_is_booked_as_cut() {
    let script = |mut peer: RawPeer| async move {
        while let Some(stream) = peer.next_stream().await {
            peer.say(&frame(HEADERS, END_HEADERS, stream, STATUS_200)).await;
            peer.say(&frame(DATA, 0, stream, b"half")).await;
            if stream > 1 {
                return;
            }
            peer.say(&frame(RST_STREAM, 0, stream, &2_u32.to_be_bytes())).await;
        }
    };
    let mut rig = Rig::new(config(raw_shadow(&[], script).await));
    rig.send_and_settle(h2_get()).await;
    rig.send_and_settle(h2_get()).await;
    assert_eq!((rig.ledger.replayed.value(), rig.ledger.answers_cut.value()), (2, 2));
    assert_eq!(rig.ledger.answered[1].value(), 0);
}

#[tokio::test]
async fn early_answer_counts_although_the_rest_of_the_request_is_not_wanted() {
    let script = |mut peer: RawPeer| async move {
        while let Some(stream) = peer.next_stream().await {
            peer.answer(stream).await;
            peer.say(&frame(RST_STREAM, 0, stream, &0_u32.to_be_bytes())).await;
        }
    };
    // SETTINGS_INITIAL_WINDOW_SIZE 10.
    let mut config = config(raw_shadow(&[0, 4, 0, 0, 0, 10], script).await);
    config.breaker = BreakerConfig { failures: 1, open_for: Duration::from_secs(60) };
    let mut rig = Rig::new(config);
    rig.send_and_settle(h2_post(&[b'x'; 1000])).await;
    assert_eq!(rig.ledger.answered[1].value(), 1);
    assert_eq!(rig.ledger.dropped.of(DropReason::ShadowClosed).value(), 1);
    assert_eq!(rig.status().breaker, BreakerState::Closed);
}

#[tokio::test]
async fn silent_shadow_costs_answer_timeouts_and_its_connection() {
    let script = |mut peer: RawPeer| async move {
        if peer.number > 0 {
            while let Some(stream) = peer.next_stream().await {
                peer.answer(stream).await;
            }
        }
        peer.rest().await;
    };
    let mut config = config(raw_shadow(&[], script).await);
    config.timeout = Duration::from_millis(200);
    let mut rig = Rig::new(config);
    (0..5).for_each(|_| rig.offer(h2_get()));
    rig.handle.flush();
    rig.settled().await;
    assert_eq!((rig.ledger.replayed.value(), rig.ledger.answer_timeouts.value()), (5, 5));
    rig.send_and_settle(h2_get()).await;
    assert_eq!(
        (rig.ledger.replayed.value(), rig.ledger.answered[1].value()),
        (6, 1),
        "on another connection"
    );
}

#[tokio::test]
async fn slow_answer_costs_its_stream_alone() {
    let (reset_tx, mut reset_rx) = tokio::sync::mpsc::unbounded_channel();
    let script = move |mut call: Call| {
        let reset_tx = reset_tx.clone();
        async move {
            if call.head.method() == "GET" {
                return call.serve().await;
            }
            let _ = reset_tx.send(call.reset_reason().await);
        }
    };
    let mut config = config(h2_shadow(server::Builder::new(), script).await);
    config.timeout = Duration::from_secs(2);
    let mut rig = Rig::new(config);
    rig.send(h2_post(b"x"));
    while rig.ledger.open() > 0 {
        rig.send(h2_get());
        tokio::time::sleep(Duration::from_millis(20)).await;
        until(|| rig.ledger.open() < 2).await;
    }
    assert_eq!(reset_rx.recv().await, Some(Reason::CANCEL));
    assert_eq!((rig.ledger.answer_timeouts.value(), rig.ledger.connections_opened.value()), (1, 1));
}

#[tokio::test]
async fn shadow_that_gives_no_window_costs_a_write_timeout() {
    // SETTINGS_INITIAL_WINDOW_SIZE 0.
    let script = |mut peer: RawPeer| async move {
        while let Some((kind, _, stream, _)) = peer.frame().await {
            if kind == HEADERS && stream == 3 {
                peer.answer(stream).await;
            }
        }
    };
    let mut config = config(raw_shadow(&[0, 4, 0, 0, 0, 0], script).await);
    config.timeout = Duration::from_millis(200);
    let mut rig = Rig::new(config);
    rig.offer(h2_post(b"x"));
    rig.send(h2_get());
    rig.settled().await;
    assert_eq!(rig.ledger.dropped.of(DropReason::WriteTimeout).value(), 1);
    assert_eq!((rig.ledger.replayed.value(), rig.ledger.answered[1].value()), (1, 1));
}

#[tokio::test]
async fn shadow_that_speaks_no_http2_cannot_be_connected_to() {
    let http1 = shadow(|_, mut peer| async move {
        let mut preface = [0; 24];
        let _ = tokio::io::AsyncReadExt::read_exact(&mut peer.stream, &mut preface).await;
        peer.say(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await;
    })
    .await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let why = ["it does not speak HTTP/2 (see protocol)", "no settings that allow a stream, in time"];
    for (address, why) in [http1, silent.local_addr().unwrap()].into_iter().zip(why) {
        let (log, _guard) = Log::of_this_thread();
        let mut config = config(address);
        config.connect_timeout = Duration::from_millis(500);
        config.breaker.failures = 1;
        let mut rig = Rig::new(config);
        rig.send_and_settle(h2_get()).await;
        assert_eq!(rig.ledger.dropped.of(DropReason::Connect).value(), 1);
        until(|| log.text().contains("circuit breaker opened")).await;
        assert!(log.text().contains(why), "{}", log.text());
    }
}

#[tokio::test]
async fn head_that_cannot_be_said_costs_nothing_else() {
    let mut rig = Rig::new(config(good_h2_shadow().await));
    let mut bad = h2_get();
    bad.head.wire = Bytes::from_static(b":method: GET\r\n:scheme: http\r\n:authority: h\r\n:path: /a#b\r\n");
    rig.offer(bad);
    let connection =
        h2_request("GET", crate::rewrite::Framing::None, "connection: close\r\n", buffered(b"", ""));
    rig.offer(connection);
    rig.send_and_settle(h2_get()).await;
    assert_eq!((rig.ledger.dropped.of(DropReason::Malformed).value(), rig.ledger.replayed.value()), (2, 1));
    assert_eq!(rig.ledger.connections_opened.value(), 1);
}

#[tokio::test]
async fn lost_connection_is_one_failure_however_many_streams_it_had() {
    let script = |mut peer: RawPeer| async move {
        for _ in 0..10 {
            peer.next_stream().await;
        }
    };
    let mut config = config(raw_shadow(&[], script).await);
    config.breaker = BreakerConfig { failures: 2, open_for: Duration::from_secs(60) };
    let mut rig = Rig::new(config);
    for breaker in [BreakerState::Closed, BreakerState::Open] {
        (0..10).for_each(|_| rig.offer(h2_post(b"x")));
        rig.handle.flush();
        rig.settled().await;
        assert_eq!(rig.status().breaker, breaker);
    }
    assert_eq!(rig.ledger.dropped.of(DropReason::ShadowClosed).value(), 20);
}

#[tokio::test]
async fn connection_to_a_vanished_address_finishes_its_streams_and_takes_no_more() {
    let first = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = first.local_addr().unwrap();
    let second = TcpListener::bind(("127.0.0.2", address.port())).await.unwrap();
    for (number, listener) in [first, second].into_iter().enumerate() {
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            serve_h2(server::Builder::new(), stream, number, Call::serve).await;
        });
    }
    let mut config = config(address);
    config.endpoint.host = EndpointHost::Name("shadow.test".to_owned());
    config.max_connections = 1;
    let names = fixed(1);
    let mut rig = Rig::with_resolver(config, Resolver::Fixed(Arc::clone(&names)));
    let (writer, reader) = body_channel(1024, u64::MAX, &Arc::default());
    rig.send(call(ShadowBody::Streaming(reader)));
    until(|| rig.status().in_flight == 1).await;
    names.lock().unwrap().addresses = Some(vec![IpAddr::from([127, 0, 0, 2])]);
    until(|| {
        rig.send(h2_get());
        rig.ledger.connections_opened.value() == 2
    })
    .await;
    until(|| rig.ledger.open() == 1).await;
    assert_eq!(rig.status().open_connections, 2, "the older one still has its call");
    writer.finish(Bytes::new());
    rig.settled().await;
    until(|| rig.status().open_connections == 1).await;
    assert_eq!(rig.ledger.dropped.total(), 0, "no request paid for the move");
}
