use super::support::*;
use crate::replay::tests::support::*;
use crate::rewrite::Framing;
use ::h2::server;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{Semaphore, mpsc};

#[tokio::test]
async fn requests_one_after_the_other_share_a_connection() {
    let mut rig = Rig::new(config(good_h2_shadow().await));
    for _ in 0..50 {
        rig.send_and_settle(h2_get()).await;
    }
    assert_eq!(rig.ledger.replayed.value(), 50);
    assert_eq!(rig.ledger.answered[1].value(), 50);
    assert_eq!(rig.ledger.connections_opened.value(), 1);
    assert_eq!((rig.status().open_connections, rig.status().in_flight), (1, 0));
}

#[tokio::test]
async fn requests_at_once_share_a_connection() {
    let (gate, seen) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let script = {
        let (gate, seen) = (Arc::clone(&gate), Arc::clone(&seen));
        move |call: Call| {
            let (gate, seen) = (Arc::clone(&gate), Arc::clone(&seen));
            async move {
                seen.fetch_add(1, Ordering::Relaxed);
                gate.acquire().await.unwrap().forget();
                call.serve().await;
            }
        }
    };
    let mut rig = Rig::new(config(h2_shadow(server::Builder::new(), script).await));
    (0..60).for_each(|_| rig.offer(h2_get()));
    rig.handle.flush();
    until(|| seen.load(Ordering::Relaxed) == 60).await;
    assert_eq!((rig.status().in_flight, rig.status().open_connections), (60, 1));
    gate.add_permits(60);
    rig.settled().await;
    assert_eq!((rig.ledger.replayed.value(), rig.ledger.connections_opened.value()), (60, 1));
}

#[tokio::test]
async fn head_body_and_trailers_arrive_as_they_were_given() {
    let (seen_tx, mut seen_rx) = mpsc::unbounded_channel();
    let script = move |mut call: Call| {
        let seen_tx = seen_tx.clone();
        async move {
            let (body, trailers) = call.whole().await.unwrap();
            let _ = seen_tx.send((call.head.clone(), body, trailers));
            call.informational(103);
            let mut answer = call.answer(201, false);
            answer.send_data(Bytes::from_static(b"answer"), false).unwrap();
            let mut trailers = ::http::HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            answer.send_trailers(trailers).unwrap();
        }
    };
    let mut rig = Rig::new(config(h2_shadow(server::Builder::new(), script).await));
    for (sent, body, trailer) in [
        (h2_get(), &b""[..], None),
        (h2_post(b"abc"), b"abc", None),
        (call(buffered(b"", "")), b"", None),
        (call(buffered(b"0123456789", "")), b"0123456789", None),
        (call(buffered(b"a", "Grpc-Status: 7\r\n")), b"a", Some("7")),
        (call(buffered(b"", "Grpc-Status: 7\r\n")), b"", Some("7")),
        (
            h2_request(
                "POST",
                Framing::Length(3),
                "content-length: 3\r\ncookie: a\r\n",
                buffered(b"abc", ""),
            ),
            b"abc",
            None,
        ),
    ] {
        let fields = String::from_utf8(sent.head.wire.to_vec()).unwrap();
        rig.send_and_settle(sent).await;
        let (head, came, trailers) = seen_rx.recv().await.unwrap();
        let pseudo = format!(
            ":method: {}\r\n:scheme: http\r\n:authority: {}\r\n:path: {}\r\n",
            head.method(),
            head.uri().authority().unwrap(),
            head.uri().path()
        );
        let rest =
            head.headers().iter().map(|(name, value)| format!("{name}: {}\r\n", value.to_str().unwrap()));
        assert_eq!(pseudo + &rest.collect::<String>(), fields);
        assert_eq!(came, body);
        assert_eq!(
            trailers
                .map(|trailers| trailers["grpc-status"].clone())
                .as_ref()
                .map(|value| value.to_str().unwrap()),
            trailer
        );
    }
    assert_eq!((rig.ledger.replayed.value(), rig.ledger.answered[1].value()), (7, 7));
    assert_eq!(rig.ledger.connections_opened.value(), 1);
}

#[tokio::test]
async fn big_bodies_pass_small_windows_both_ways() {
    const BYTES: usize = 3 * 1024 * 1024;
    let mut builder = server::Builder::new();
    builder.initial_window_size(1000).initial_connection_window_size(65_535);
    let script = |mut call: Call| async move {
        let (body, _) = call.whole().await.unwrap();
        let mut answer = call.answer(200, false);
        send_all(&mut answer, body.into(), true).await;
    };
    let mut rig = Rig::new(config(h2_shadow(builder, script).await));
    let body: Vec<u8> = b"0123456789a".iter().copied().cycle().take(BYTES).collect();
    for _ in 0..3 {
        rig.offer(h2_post(&body));
    }
    rig.handle.flush();
    rig.settled().await;
    assert_eq!((rig.ledger.replayed.value(), rig.ledger.answered[1].value()), (3, 3));
}
