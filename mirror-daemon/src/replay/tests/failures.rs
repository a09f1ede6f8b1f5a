use super::support::*;
use crate::config::EndpointHost;
use crate::drop_reason::DropReason;
use crate::replay::resolve::{FixedNames, Resolver};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;

#[tokio::test]
async fn refused_connection_is_booked_for_each_request() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut rig = Rig::new(config(listener.local_addr().unwrap()));
    drop(listener);
    for _ in 0..20 {
        rig.offer(get());
    }
    rig.handle.flush();
    rig.settled().await;
    assert_eq!(rig.ledger.dropped.of(DropReason::Connect).value(), 20);
    assert_eq!((rig.status().open_connections, rig.status().connecting), (0, 0));
}

#[tokio::test]
async fn shadow_that_never_answers_costs_the_time_limit_and_counts_as_replayed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = config(listener.local_addr().unwrap());
    config.timeout = Duration::from_millis(100);
    let mut rig = Rig::new(config);
    for _ in 0..4 {
        rig.offer(get());
    }
    rig.handle.flush();
    rig.settled().await;
    assert_eq!((rig.ledger.replayed.value(), rig.ledger.answer_timeouts.value()), (4, 4));
    assert_eq!(rig.status().open_connections, 0);
}

#[tokio::test]
async fn shadow_that_takes_no_bytes_is_a_write_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = config(listener.local_addr().unwrap());
    config.timeout = Duration::from_millis(100);
    let mut rig = Rig::new(config);
    rig.send_and_settle(post(&vec![b'x'; 32 * 1024 * 1024])).await;
    assert_eq!(rig.ledger.dropped.of(DropReason::WriteTimeout).value(), 1);
    assert_eq!(rig.ledger.replayed.value(), 0);
}

#[tokio::test]
async fn answer_cut_in_the_middle_counts_as_replayed_and_cut() {
    let address = shadow(|_, mut peer| async move {
        peer.request().await;
        peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
    })
    .await;
    let mut rig = Rig::new(config(address));
    rig.send_and_settle(get()).await;
    assert_eq!((rig.ledger.replayed.value(), rig.ledger.answers_cut.value()), (1, 1));
}

#[tokio::test]
async fn answer_that_is_no_http_counts_as_cut_and_its_connection_goes() {
    let address = shadow(|_, mut peer| async move {
        while peer.request().await.is_some() {
            peer.say(b"220 mail.example ESMTP\r\n\r\n").await;
        }
    })
    .await;
    let mut rig = Rig::new(config(address));
    rig.send_and_settle(get()).await;
    rig.send_and_settle(get()).await;
    assert_eq!((rig.ledger.replayed.value(), rig.ledger.answers_cut.value()), (2, 2));
    assert_eq!(rig.ledger.connections_opened.value(), 2);
}

#[tokio::test]
async fn connection_with_bytes_behind_the_answer_is_not_used_again() {
    let address = shadow(|_, mut peer| async move {
        while peer.request().await.is_some() {
            peer.say(b"HTTP/1.1 204 No Content\r\n\r\njunk").await;
        }
    })
    .await;
    let mut rig = Rig::new(config(address));
    rig.send_and_settle(get()).await;
    rig.send_and_settle(get()).await;
    assert_eq!((rig.ledger.replayed.value(), rig.ledger.connections_opened.value()), (2, 2));
}

#[tokio::test]
async fn early_answer_with_a_close_does_not_block_and_is_not_replayed() {
    let address = shadow(|_, mut peer| async move {
        peer.say(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
    })
    .await;
    let mut rig = Rig::new(config(address));
    rig.send_and_settle(post(&vec![b'x'; 32 * 1024 * 1024])).await;
    assert_eq!(rig.ledger.dropped.of(DropReason::ShadowClosed).value(), 1);
}

#[tokio::test]
async fn large_body_and_large_early_answer_pass_each_other() {
    const LENGTH: usize = 24 * 1024 * 1024;
    let address = shadow(|_, mut peer| async move {
        // Answers in full before it reads the body: a writer that does not read would never end.
        peer.say(format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n").as_bytes()).await;
        peer.say(&vec![b'x'; LENGTH]).await;
        peer.request().await;
        peer.serve().await;
    })
    .await;
    let mut rig = Rig::new(config(address));
    rig.send_and_settle(post(&vec![b'y'; LENGTH])).await;
    rig.send_and_settle(get()).await;
    assert_eq!((rig.ledger.replayed.value(), rig.ledger.answered[1].value()), (2, 2));
    assert_eq!(rig.ledger.connections_opened.value(), 1);
}

#[tokio::test]
async fn head_that_does_not_describe_its_body_is_never_written() {
    let mut rig = Rig::new(config(good_shadow().await));
    let mut short = post(b"abc");
    short.body = buffered(b"ab", "");
    let mut long = post(b"abc");
    long.body = buffered(b"abcd", "");
    for request in [get(), short, long, get()] {
        rig.send_and_settle(request).await;
    }
    assert_eq!(rig.ledger.dropped.of(DropReason::Truncated).value(), 1);
    assert_eq!(rig.ledger.dropped.of(DropReason::Malformed).value(), 1);
    assert_eq!((rig.ledger.replayed.value(), rig.ledger.connections_opened.value()), (2, 1));
}

pub(super) fn fixed(last: u8) -> Arc<Mutex<FixedNames>> {
    let addresses = Some(vec![IpAddr::from([127, 0, 0, last])]);
    Arc::new(Mutex::new(FixedNames { addresses, ttl: Duration::from_secs(1), look_ups: 0 }))
}

#[tokio::test]
async fn name_is_resolved_again_and_connections_to_a_vanished_address_go() {
    let first = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = first.local_addr().unwrap();
    let second = TcpListener::bind(("127.0.0.2", address.port())).await.unwrap();
    let mut config = config(address);
    config.endpoint.host = EndpointHost::Name("shadow.test".to_owned());
    config.max_connections = 1;
    let names = fixed(1);
    let mut rig = Rig::with_resolver(config, Resolver::Fixed(Arc::clone(&names)));
    let served_first = tokio::spawn(async move {
        let (stream, _) = first.accept().await.unwrap();
        Peer::new(stream).serve().await
    });
    tokio::spawn(async move {
        let (stream, _) = second.accept().await.unwrap();
        Peer::new(stream).serve().await
    });
    rig.send_and_settle(get()).await;
    names.lock().unwrap().addresses = Some(vec![IpAddr::from([127, 0, 0, 2])]);
    until(|| {
        rig.send(get());
        rig.ledger.connections_opened.value() == 2
    })
    .await;
    rig.settled().await;
    assert!(served_first.await.unwrap() > 0, "closed by the replayer");
    assert_eq!(rig.ledger.dropped.total(), 0, "no request paid for the move");
}

#[tokio::test]
async fn name_without_address_is_a_resolve_loss() {
    let mut config = config("127.0.0.1:1".parse().unwrap());
    config.endpoint.host = EndpointHost::Name("shadow.test".to_owned());
    let mut rig = Rig::with_resolver(config, Resolver::Fixed(Arc::default()));
    rig.send_and_settle(get()).await;
    assert_eq!(rig.ledger.dropped.of(DropReason::Resolve).value(), 1);
}

#[tokio::test]
async fn next_address_is_tried_when_one_refuses() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = config(listener.local_addr().unwrap());
    config.endpoint.host = EndpointHost::Name("shadow.test".to_owned());
    let addresses = Some(vec![IpAddr::from([127, 0, 0, 3]), IpAddr::from([127, 0, 0, 1])]);
    let names = FixedNames { addresses, ttl: Duration::from_secs(60), look_ups: 0 };
    let mut rig = Rig::with_resolver(config, Resolver::Fixed(Arc::new(Mutex::new(names))));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            Peer::new(stream).request().await;
        }
    });
    rig.send(get());
    until(|| rig.ledger.connections_opened.value() == 1).await;
}

#[tokio::test]
async fn panic_while_connecting_costs_one_request_and_not_the_shadow() {
    let address = good_shadow().await;
    let mut config = config(address);
    config.endpoint.host = EndpointHost::Name("shadow.test".to_owned());
    let names = fixed(1);
    let mut rig = Rig::with_resolver(config, Resolver::Fixed(Arc::clone(&names)));
    // A look-up finds its lock poisoned and panics.
    let poisoner = Arc::clone(&names);
    let _ = std::thread::spawn(move || {
        let _held = poisoner.lock().unwrap();
        panic!("on purpose");
    })
    .join();
    rig.send_and_settle(get()).await;
    assert_eq!(rig.ledger.dropped.of(DropReason::Connect).value(), 1);
    assert_eq!((rig.status().open_connections, rig.status().connecting), (0, 0));
    names.clear_poison();
    rig.send_and_settle(get()).await;
    assert_eq!((rig.ledger.replayed.value(), rig.ledger.dropped.total()), (1, 1));
}

#[tokio::test]
async fn log_says_why_the_breaker_opened() {
    for (answer, why) in [
        (&b""[..], "it closes connections without an answer"),
        (b"garbage\r\n\r\n", "its answers are cut off, or no HTTP/1"),
    ] {
        let (log, _guard) = Log::of_this_thread();
        let address = shadow(move |_, mut peer| async move {
            peer.request().await;
            peer.say(answer).await;
        })
        .await;
        let mut config = config(address);
        config.breaker.failures = 1;
        let mut rig = Rig::new(config);
        rig.send_and_settle(get()).await;
        until(|| log.text().contains("circuit breaker opened")).await;
        assert!(log.text().contains(why), "{}", log.text());
    }
}
