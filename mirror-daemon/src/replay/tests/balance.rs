use super::support::*;
use crate::config::BreakerConfig;
use crate::drop_reason::DropReason;
use crate::replay::{BodyWriter, ShadowBody, body_channel};
use bytes::Bytes;
use proptest::prelude::*;
use std::sync::Arc;
use std::time::Duration;

/// What a flaky shadow does with one request.
#[derive(Clone, Copy, Debug)]
enum Mood {
    Answer,
    AnswerAndClose,
    CloseUnanswered,
    CutAnswer,
    Silence,
    Garbage,
    CloseUnread,
}

#[derive(Clone, Copy, Debug)]
enum Offer {
    Get,
    Post,
    Chunked,
    StreamWhole,
    StreamAborted,
    StreamForgotten,
    Pause,
}

fn mood() -> impl Strategy<Value = Mood> {
    prop_oneof![
        12 => Just(Mood::Answer),
        1 => Just(Mood::AnswerAndClose),
        1 => Just(Mood::CloseUnanswered),
        1 => Just(Mood::CutAnswer),
        1 => Just(Mood::Silence),
        1 => Just(Mood::Garbage),
        1 => Just(Mood::CloseUnread),
    ]
}

fn offer() -> impl Strategy<Value = Offer> {
    prop_oneof![
        6 => Just(Offer::Get),
        3 => Just(Offer::Post),
        2 => Just(Offer::Chunked),
        1 => Just(Offer::StreamWhole),
        1 => Just(Offer::StreamAborted),
        1 => Just(Offer::StreamForgotten),
        2 => Just(Offer::Pause),
    ]
}

/// The flaky shadow's way with one connection; true: go on.
async fn indulge(peer: &mut Peer, mood: Mood) -> bool {
    if matches!(mood, Mood::CloseUnread) || peer.request().await.is_none() {
        return false;
    }
    match mood {
        Mood::Answer => peer.say(OK).await,
        Mood::AnswerAndClose => {
            peer.say(b"HTTP/1.1 503 No\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").await;
        }
        Mood::CutAnswer => peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").await,
        Mood::Silence => tokio::time::sleep(Duration::from_millis(60)).await,
        Mood::Garbage => peer.say(b"\0\0\0garbage\r\n\r\n").await,
        Mood::CloseUnanswered | Mood::CloseUnread => {}
    }
    matches!(mood, Mood::Answer)
}

fn make(rig: &mut Rig, offer: Offer, writers: &mut Vec<BodyWriter>) {
    let (writer, reader) = body_channel(1024, u64::MAX, &Arc::default());
    let streaming = ShadowBody::Streaming(reader);
    match offer {
        Offer::Get => rig.offer(get()),
        Offer::Post => rig.offer(post(b"some bytes")),
        Offer::Chunked => rig.offer(chunked(buffered(b"chunk", ""))),
        Offer::StreamWhole | Offer::StreamAborted | Offer::StreamForgotten => {
            rig.offer(chunked(streaming));
            rig.handle.flush();
            let _ = writer.push(Bytes::from_static(b"piece"));
            match offer {
                Offer::StreamWhole => writer.finish(Bytes::new()),
                Offer::StreamAborted => writer.abort(DropReason::Gap),
                _ => writers.push(writer),
            }
        }
        Offer::Pause => rig.handle.flush(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn every_request_ends_in_exactly_one_entry(
        moods in prop::collection::vec(mood(), 1..40),
        offers in prop::collection::vec(offer(), 1..120),
        failures in 0_u32..6,
        max_connections in 1_u32..6,
        queue_items in 1_u32..80,
        max_rps in prop::option::of(20.0..2_000.0_f64),
        drain_ms in 0_u64..80,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let address = shadow(move |number, mut peer| {
                let moods: Vec<_> = moods.iter().copied().cycle().skip(number * 3).take(200).collect();
                async move {
                    for mood in moods {
                        if !indulge(&mut peer, mood).await {
                            return;
                        }
                    }
                }
            })
            .await;
            let mut config = config(address);
            config.breaker = BreakerConfig { failures, open_for: Duration::from_millis(5) };
            config.max_connections = max_connections;
            config.queue_items = queue_items;
            config.max_rps = max_rps;
            config.timeout = Duration::from_millis(20);
            config.idle_timeout = Duration::from_millis(10);
            let mut rig = Rig::new(config);
            let mut writers = Vec::new();
            for offer in offers {
                make(&mut rig, offer, &mut writers);
                if matches!(offer, Offer::Pause) {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            }
            rig.drain_and_assert_balanced(Duration::from_millis(drain_ms)).await;
        });
    }
}
