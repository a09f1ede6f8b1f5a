use super::support::*;
use crate::replay::tests::support::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// More than a flood may bring before it is over, on this side and in the buffers of two sockets.
const MOST_BYTES: u64 = 64 * 1024 * 1024;
const BATCH: usize = 256;

/// A shadow that answers its first request, if `greets`, with a flood of `what`, reading all the while, and
/// expects to be cut off.
async fn flood(what: Vec<u8>, begins: Vec<u8>) -> u64 {
    let said = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&said);
    let script = move |mut peer: RawPeer| {
        let (what, begins, count) = (what.repeat(BATCH), begins.clone(), Arc::clone(&count));
        async move {
            if peer.next_stream().await.is_none() || !peer.say(&begins).await {
                return;
            }
            let (mut from, mut to) = peer.stream.into_split();
            tokio::spawn(async move { tokio::io::copy(&mut from, &mut tokio::io::sink()).await });
            while tokio::io::AsyncWriteExt::write_all(&mut to, &what).await.is_ok() {
                count.fetch_add(what.len() as u64, Ordering::Relaxed);
            }
        }
    };
    let mut config = config(raw_shadow(&[], script).await);
    config.timeout = LIMIT;
    let mut rig = Rig::new(config);
    rig.send_and_settle(h2_post(b"x")).await;
    until(|| rig.status().open_connections == 0).await;
    let ledger = &rig.ledger;
    assert_eq!(ledger.dropped.total() + ledger.answers_cut.value(), 1, "{ledger:?}");
    assert_eq!(ledger.answer_timeouts.value(), 0, "cut off before");
    said.load(Ordering::Relaxed)
}

#[tokio::test]
async fn floods_of_control_frames_are_cut_off() {
    for what in [
        frame(PING, 0, 0, b"01234567"),
        frame(SETTINGS, 0, 0, &[]),
        frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 10, 0, 4, 0, 0, 0, 20]),
        frame(RST_STREAM, 0, 3, &0_u32.to_be_bytes()),
        frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 0]),
        frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]),
        frame(0xaa, 0, 0, b"unknown"),
        frame(2, 0, 1, &[0, 0, 0, 0, 7]),
    ] {
        let said = flood(what.clone(), Vec::new()).await;
        assert!(said < MOST_BYTES, "{said} bytes of {what:?}");
    }
}

#[tokio::test]
async fn floods_within_an_answer_are_cut_off() {
    let begun = frame(HEADERS, END_HEADERS, 1, STATUS_200);
    let filler = [&[0x40, 4][..], b"name", &[100], &[b'v'; 100]].concat();
    for (what, begins) in [
        // Continuations without an end.
        (frame(CONTINUATION, 0, 1, &filler), frame(HEADERS, 0, 1, STATUS_200)),
        (frame(CONTINUATION, 0, 1, &[]), frame(HEADERS, 0, 1, STATUS_200)),
        // A head beyond all bounds.
        (frame(CONTINUATION, 0, 1, &filler.repeat(100)), frame(HEADERS, 0, 1, STATUS_200)),
        // Empty frames of data.
        (frame(DATA, 0, 1, &[]), begun.clone()),
        // 103 Early Hints, for ever.
        (frame(HEADERS, END_HEADERS, 1, &[0x48, 3, b'1', b'0', b'3']), Vec::new()),
        // An answer to nothing.
        (frame(DATA, 0, 7, b"?"), begun.clone()),
        (b"\0\0\0garbage".to_vec(), begun.clone()),
        (frame(5, END_HEADERS, 1, &[0, 0, 0, 2, 0x82, 0x86, 0x84]), begun),
    ] {
        let said = flood(what.clone(), begins).await;
        assert!(said < MOST_BYTES, "{said} bytes of {what:?}");
    }
}

#[tokio::test]
async fn answer_with_padding_and_one_byte_frames_is_no_flood() {
    let script = |mut peer: RawPeer| async move {
        while let Some(stream) = peer.next_stream().await {
            let mut answer = frame(HEADERS, END_HEADERS, stream, STATUS_200);
            let padded = frame(DATA, 8, stream, &[10, b'x', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            answer.extend(padded.repeat(20_000));
            answer.extend(frame(DATA, END_STREAM, stream, b"."));
            peer.say(&answer).await;
        }
    };
    let mut rig = Rig::new(config(raw_shadow(&[], script).await));
    for _ in 0..3 {
        rig.send_and_settle(h2_get()).await;
    }
    assert_eq!(
        (rig.ledger.answered[1].value(), rig.ledger.connections_opened.value()),
        (3, 1),
        "{:?}",
        rig.ledger
    );
}
