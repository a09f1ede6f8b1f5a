use super::support::*;
use crate::config::BreakerConfig;
use crate::drop_reason::DropReason;
use crate::replay::tests::support::*;
use crate::replay::{BodyWriter, BreakerState, ShadowBody, body_channel, original};
use crate::rewrite::Framing;
use ::h2::{Reason, server};
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// What a shadow saw of one stream.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Begun(String),
    Piece(Bytes),
    End,
    Reset(Reason),
}

/// A shadow that tells what it sees, and answers at the end of each request.
async fn telling_shadow(builder: server::Builder) -> (SocketAddr, mpsc::UnboundedReceiver<Seen>) {
    let (seen_tx, seen_rx) = mpsc::unbounded_channel();
    let script = move |mut call: Call| {
        let seen_tx = seen_tx.clone();
        async move {
            let _ = seen_tx.send(Seen::Begun(call.head.method().to_string()));
            loop {
                match call.piece().await {
                    Ok(Some(piece)) if piece.is_empty() => {}
                    Ok(Some(piece)) => drop(seen_tx.send(Seen::Piece(piece))),
                    Ok(None) => break drop(seen_tx.send(Seen::End)),
                    Err(error) => return drop(seen_tx.send(Seen::Reset(error.reason().unwrap()))),
                }
            }
            call.answer(200, true);
        }
    };
    (h2_shadow(builder, script).await, seen_rx)
}

fn channel() -> (BodyWriter, ShadowBody) {
    let (writer, reader) = body_channel(64 * 1024, u64::MAX, &Arc::default());
    (writer, ShadowBody::Streaming(reader))
}

fn piece(text: &'static str) -> Seen {
    Seen::Piece(Bytes::from_static(text.as_bytes()))
}

#[tokio::test]
async fn streamed_call_starts_at_once_and_its_messages_come_as_they_go() {
    let (address, mut seen) = telling_shadow(server::Builder::new()).await;
    let mut rig = Rig::new(config(address));
    let (writer, body) = channel();
    rig.send(call(body));
    assert_eq!(seen.recv().await, Some(Seen::Begun("POST".to_owned())));
    for message in ["first", "second", "third"] {
        writer.push(Bytes::from_static(message.as_bytes())).unwrap();
        assert_eq!(seen.recv().await, Some(piece(message)));
    }
    assert_eq!((rig.status().in_flight, rig.ledger.replayed.value()), (1, 0));
    writer.finish(Bytes::from_static(b"X: y\r\n"));
    assert_eq!(seen.recv().await, Some(Seen::End));
    rig.settled().await;
    assert_eq!((rig.ledger.replayed.value(), rig.ledger.answered[1].value()), (1, 1));
}

#[tokio::test]
async fn aborted_body_resets_its_stream_alone() {
    let (address, mut seen) = telling_shadow(server::Builder::new()).await;
    let mut rig = Rig::new(config(address));
    let (aborted, body) = channel();
    rig.send(call(body));
    assert_eq!(seen.recv().await, Some(Seen::Begun("POST".to_owned())));
    let (going_on, body) = channel();
    rig.send(h2_request("PUT", Framing::Chunked, "", body));
    assert_eq!(seen.recv().await, Some(Seen::Begun("PUT".to_owned())));
    aborted.push(Bytes::from_static(b"half")).unwrap();
    assert_eq!(seen.recv().await, Some(piece("half")));
    aborted.abort(DropReason::Gap);
    assert_eq!(seen.recv().await, Some(Seen::Reset(Reason::CANCEL)));
    going_on.push(Bytes::from_static(b"whole")).unwrap();
    assert_eq!(seen.recv().await, Some(piece("whole")));
    going_on.finish(Bytes::new());
    assert_eq!(seen.recv().await, Some(Seen::End));
    rig.settled().await;
    assert_eq!((rig.ledger.replayed.value(), rig.ledger.dropped.of(DropReason::Gap).value()), (1, 1));
    assert_eq!(rig.ledger.connections_opened.value(), 1);
}

#[tokio::test]
async fn body_aborted_before_it_began_is_never_seen() {
    let (address, mut seen) = telling_shadow(server::Builder::new()).await;
    let mut rig = Rig::new(config(address));
    let (writer, body) = channel();
    rig.offer(call(body));
    writer.abort(DropReason::Cancelled);
    rig.handle.flush();
    rig.settled().await;
    rig.send_and_settle(h2_get()).await;
    assert_eq!(seen.recv().await, Some(Seen::Begun("GET".to_owned())));
    assert_eq!(rig.ledger.dropped.of(DropReason::Cancelled).value(), 1);
}

#[tokio::test]
async fn body_that_is_not_as_long_as_its_head_says_never_looks_whole() {
    let (address, mut seen) = telling_shadow(server::Builder::new()).await;
    let mut rig = Rig::new(config(address));
    for (promised, reason) in [(6, DropReason::Truncated), (4, DropReason::Malformed)] {
        let (writer, body) = channel();
        let fields = format!("content-length: {promised}\r\n");
        rig.send(h2_request("POST", Framing::Length(promised), &fields, body));
        assert_eq!(seen.recv().await, Some(Seen::Begun("POST".to_owned())));
        writer.push(Bytes::from_static(b"hel")).unwrap();
        assert_eq!(seen.recv().await, Some(piece("hel")));
        writer.push(Bytes::from_static(b"lo")).unwrap();
        writer.finish(Bytes::new());
        rig.settled().await;
        assert_eq!(rig.ledger.dropped.of(reason).value(), 1);
        while let Some(seen) = seen.recv().await {
            assert_ne!(seen, Seen::End);
            if seen == Seen::Reset(Reason::CANCEL) {
                break;
            }
        }
    }
}

#[tokio::test]
async fn overrun_behind_a_shadow_without_window_is_booked_at_once() {
    let mut builder = server::Builder::new();
    builder.initial_window_size(1000);
    let script = |mut call: Call| async move {
        let _ = call.reset_reason().await;
    };
    let mut rig = Rig::new(config(h2_shadow(builder, script).await));
    let (writer, body) = channel();
    rig.send(call(body));
    let mut overrun = Ok(());
    until(|| {
        overrun = writer.push(Bytes::from(vec![b'x'; 16 * 1024]));
        overrun.is_err()
    })
    .await;
    assert_eq!(overrun, Err(DropReason::StreamOverrun));
    writer.abort(DropReason::StreamOverrun);
    rig.settled().await;
    assert_eq!(rig.ledger.dropped.of(DropReason::StreamOverrun).value(), 1);
    assert_eq!(rig.ledger.streaming_bytes.value(), 0);
}

#[tokio::test]
async fn cancelled_original_cancels_its_shadow_which_counts_as_replayed() {
    let (reason_tx, mut reason_rx) = mpsc::unbounded_channel();
    let script = move |mut call: Call| {
        let reason_tx = reason_tx.clone();
        async move {
            call.whole().await.unwrap();
            let mut half = call.answer(200, false);
            let _ = reason_tx.send(None);
            let _ = reason_tx.send(Some(reset_reason(&mut half).await));
        }
    };
    let mut rig = Rig::new(config(h2_shadow(server::Builder::new(), script).await));
    let mut request = h2_post(b"body");
    let (canceller, told) = original();
    request.original = Some(told);
    rig.send(request);
    assert_eq!(reason_rx.recv().await, Some(None));
    assert!(!canceller.is_over());
    canceller.cancel();
    assert_eq!(reason_rx.recv().await, Some(Some(Reason::CANCEL)));
    rig.settled().await;
    assert_eq!((rig.ledger.replayed.value(), rig.ledger.answers_cut.value()), (1, 0));

    let mut request = h2_post(b"body");
    let (canceller, told) = original();
    request.original = Some(told);
    canceller.cancel();
    rig.send_and_settle(request).await;
    assert_eq!(rig.ledger.replayed.value(), 2, "also when it was cancelled before it was sent");
}

#[tokio::test]
async fn call_has_no_time_limit_until_it_is_whole_and_then_one_from_byte_to_byte() {
    let script = |mut call: Call| async move {
        let mut answer = call.answer(200, false);
        while let Ok(Some(piece)) = call.piece().await {
            answer.send_data(piece, false).unwrap();
        }
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_millis(600)).await;
            answer.send_data(Bytes::from_static(b"more"), false).unwrap();
        }
        reset_reason(&mut answer).await;
    };
    let mut config = config(h2_shadow(server::Builder::new(), script).await);
    config.timeout = Duration::from_secs(2);
    config.breaker = BreakerConfig { failures: 1, open_for: Duration::from_secs(60) };
    let mut rig = Rig::new(config);
    let (writer, body) = channel();
    rig.send(call(body));
    writer.push(Bytes::from_static(b"a")).unwrap();
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(rig.ledger.open(), 1, "still being captured");
    writer.finish(Bytes::new());
    let whole = tokio::time::Instant::now();
    rig.settled().await;
    assert!(whole.elapsed() > Duration::from_secs(4), "something came all the time");
    assert_eq!((rig.ledger.replayed.value(), rig.ledger.answer_timeouts.value()), (1, 1));
    assert_eq!(rig.status().breaker, BreakerState::Closed);
}

#[tokio::test]
async fn quiet_answer_of_a_call_has_no_time_limit_while_its_original_goes_on() {
    let script = |mut call: Call| async move {
        call.whole().await.unwrap();
        let mut half = call.answer(200, false);
        reset_reason(&mut half).await;
    };
    let mut config = config(h2_shadow(server::Builder::new(), script).await);
    config.timeout = Duration::from_millis(200);
    let mut rig = Rig::new(config);
    let mut request = h2_post(b"body");
    let (canceller, told) = original();
    request.original = Some(told);
    rig.send(request);
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert!(rig.ledger.open() == 1 && !canceller.is_over(), "its original goes on");
    drop(canceller);
    rig.settled().await;
    assert_eq!((rig.ledger.replayed.value(), rig.ledger.answer_timeouts.value()), (1, 1));
}

#[tokio::test]
async fn endless_answer_of_a_call_ends_in_time_once_the_connection_of_its_original_is_closed() {
    let (reason_tx, mut reason_rx) = mpsc::unbounded_channel();
    let script = move |mut call: Call| {
        let reason_tx = reason_tx.clone();
        async move {
            call.whole().await.unwrap();
            let mut endless = call.answer(200, false);
            loop {
                let pause = Duration::from_millis(20);
                if let Ok(reason) = tokio::time::timeout(pause, reset_reason(&mut endless)).await {
                    let _ = reason_tx.send(reason);
                    return;
                }
                let _ = endless.send_data(Bytes::from_static(b"more"), false);
            }
        }
    };
    let mut config = config(h2_shadow(server::Builder::new(), script).await);
    config.timeout = Duration::from_millis(300);
    let mut rig = Rig::new(config);
    let (writer, body) = channel();
    let mut request = call(body);
    let (canceller, told) = original();
    request.original = Some(told);
    rig.send(request);
    writer.push(Bytes::from_static(b"ask")).unwrap();
    writer.finish(Bytes::new());
    tokio::time::sleep(Duration::from_millis(1000)).await;
    assert_eq!((rig.ledger.open(), rig.ledger.answer_timeouts.value()), (1, 0), "its original goes on");
    canceller.leave();
    let gone = tokio::time::Instant::now();
    rig.settled().await;
    assert!(gone.elapsed() >= Duration::from_millis(290), "it has the time for an answer");
    assert_eq!((rig.ledger.replayed.value(), rig.ledger.answer_timeouts.value()), (1, 1));
    assert_eq!(reason_rx.recv().await, Some(Reason::CANCEL));
}
