use super::support::*;
use crate::drop_reason::DropReason;
use crate::replay::{ShadowBody, body_channel};
use crate::rewrite::Framing;
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// A shadow that hands on whatever each connection brought until it closed.
async fn recording_shadow() -> (SocketAddr, mpsc::UnboundedReceiver<Vec<u8>>) {
    let (bytes_tx, bytes_rx) = mpsc::unbounded_channel();
    let address = shadow(move |_, mut peer| {
        let bytes_tx = bytes_tx.clone();
        async move {
            let mut all = Vec::new();
            let _ = peer.stream.read_to_end(&mut all).await;
            let _ = bytes_tx.send(all);
        }
    })
    .await;
    (address, bytes_rx)
}

fn length(body: ShadowBody, length: u64) -> crate::replay::ShadowRequest {
    request("POST", Framing::Length(length), &format!("Content-Length: {length}\r\n"), body)
}

#[tokio::test]
async fn streamed_bodies_arrive_whole_and_the_connection_is_kept() {
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
    let (writer, reader) = body_channel(1024, u64::MAX, &Arc::default());
    rig.send(chunked(ShadowBody::Streaming(reader)));
    writer.push(Bytes::from_static(b"hello")).unwrap();
    until(|| rig.status().in_flight == 1).await;
    writer.push(Bytes::from_static(b" world")).unwrap();
    writer.finish(Bytes::from_static(b"X: y\r\n"));
    let received = request_rx.recv().await.unwrap();
    assert!(received.ends_with("0\r\nX: y\r\n\r\n"), "{received}");
    assert!(received.contains("hello") && received.contains(" world"), "{received}");
    rig.settled().await;

    let (writer, reader) = body_channel(1024, u64::MAX, &Arc::default());
    rig.send(length(ShadowBody::Streaming(reader), 6));
    writer.push(Bytes::from_static(b"abc")).unwrap();
    writer.push(Bytes::from_static(b"def")).unwrap();
    writer.finish(Bytes::new());
    assert!(request_rx.recv().await.unwrap().ends_with("\r\n\r\nabcdef"));
    rig.settled().await;
    assert_eq!((rig.ledger.replayed.value(), rig.ledger.connections_opened.value()), (2, 1));
}

#[tokio::test]
async fn aborted_chunked_body_never_looks_whole() {
    let (address, mut bytes_rx) = recording_shadow().await;
    let mut rig = Rig::new(config(address));
    let (writer, reader) = body_channel(1024, u64::MAX, &Arc::default());
    rig.send(chunked(ShadowBody::Streaming(reader)));
    writer.push(Bytes::from_static(b"hello")).unwrap();
    until(|| rig.status().in_flight == 1).await;
    writer.abort(DropReason::Gap);
    rig.settled().await;
    assert_eq!(rig.ledger.dropped.of(DropReason::Gap).value(), 1);
    assert_eq!(request_len(&bytes_rx.recv().await.unwrap()), None);
}

#[tokio::test]
async fn aborted_counted_body_never_looks_whole_even_when_all_its_bytes_came() {
    let (address, mut bytes_rx) = recording_shadow().await;
    let mut rig = Rig::new(config(address));
    let (writer, reader) = body_channel(1024, u64::MAX, &Arc::default());
    rig.send(length(ShadowBody::Streaming(reader), 5));
    writer.push(Bytes::from_static(b"hel")).unwrap();
    writer.push(Bytes::from_static(b"lo")).unwrap();
    until(|| rig.status().in_flight == 1).await;
    drop(writer);
    rig.settled().await;
    assert_eq!(rig.ledger.dropped.of(DropReason::Truncated).value(), 1);
    assert_eq!(request_len(&bytes_rx.recv().await.unwrap()), None);
}

#[tokio::test]
async fn counted_body_that_ends_short_or_runs_long_is_aborted() {
    let (address, mut bytes_rx) = recording_shadow().await;
    let mut rig = Rig::new(config(address));
    for (promised, reason) in [(6, DropReason::Truncated), (4, DropReason::Malformed)] {
        let (writer, reader) = body_channel(1024, u64::MAX, &Arc::default());
        rig.send(length(ShadowBody::Streaming(reader), promised));
        writer.push(Bytes::from_static(b"hel")).unwrap();
        writer.push(Bytes::from_static(b"lo")).unwrap();
        writer.finish(Bytes::new());
        rig.settled().await;
        assert_eq!(rig.ledger.dropped.of(reason).value(), 1);
        assert_eq!(request_len(&bytes_rx.recv().await.unwrap()), None);
    }
}

#[tokio::test]
async fn body_aborted_before_it_began_costs_no_connection() {
    let mut rig = Rig::new(config(good_shadow().await));
    rig.send_and_settle(get()).await;
    let (writer, reader) = body_channel(1024, u64::MAX, &Arc::default());
    rig.offer(chunked(ShadowBody::Streaming(reader)));
    writer.abort(DropReason::Reset);
    rig.handle.flush();
    rig.settled().await;
    rig.send_and_settle(get()).await;
    assert_eq!(rig.ledger.dropped.of(DropReason::Reset).value(), 1);
    assert_eq!((rig.ledger.replayed.value(), rig.ledger.connections_opened.value()), (2, 1));
}

#[tokio::test]
async fn overrun_behind_a_slow_reader_is_booked_at_once_and_looks_broken() {
    // Accepts, and reads nothing before the abort.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut rig = Rig::new(config(listener.local_addr().unwrap()));
    let (writer, reader) = body_channel(64 * 1024, u64::MAX, &Arc::default());
    rig.send(chunked(ShadowBody::Streaming(reader)));
    let (mut stream, _) = listener.accept().await.unwrap();
    stream.readable().await.unwrap();
    let piece = Bytes::from(vec![b'x'; 16 * 1024]);
    let mut overrun = Ok(());
    until(|| {
        overrun = writer.push(piece.clone());
        overrun.is_err()
    })
    .await;
    assert_eq!(overrun, Err(DropReason::StreamOverrun));
    writer.abort(DropReason::StreamOverrun);
    rig.settled().await;
    assert_eq!(rig.ledger.dropped.of(DropReason::StreamOverrun).value(), 1);
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all).await;
    assert_eq!(request_len(&all), None);
}

#[tokio::test]
async fn pause_in_a_streamed_body_is_not_the_shadows_fault() {
    let mut config = config(good_shadow().await);
    config.timeout = Duration::from_millis(100);
    let mut rig = Rig::new(config);
    let (writer, reader) = body_channel(1024, u64::MAX, &Arc::default());
    rig.send(chunked(ShadowBody::Streaming(reader)));
    writer.push(Bytes::from_static(b"a")).unwrap();
    tokio::time::sleep(Duration::from_millis(250)).await;
    assert_eq!(rig.ledger.open(), 1);
    writer.finish(Bytes::new());
    rig.settled().await;
    assert_eq!(rig.ledger.replayed.value(), 1);
}
