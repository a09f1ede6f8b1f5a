use super::support::*;
use crate::config::BreakerConfig;
use crate::drop_reason::DropReason;
use crate::replay::tests::support::*;
use crate::replay::{BodyWriter, Canceller, ShadowBody, body_channel, original};
use bytes::Bytes;
use proptest::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// What a flaky shadow does with one stream.
#[derive(Clone, Copy, Debug)]
enum Mood {
    Answer,
    AnswerEarly,
    Refuse,
    Reset,
    CutAnswer,
    Silence,
    GoAway,
    GoAwayAndAnswer,
    Close,
    Garbage,
}

#[derive(Clone, Copy, Debug)]
enum Offer {
    Get,
    Post,
    Large,
    Trailers,
    StreamWhole,
    StreamAborted,
    StreamForgotten,
    OriginalCancelled,
    Http1,
    Pause,
}

fn mood() -> impl Strategy<Value = Mood> {
    prop_oneof![
        12 => Just(Mood::Answer),
        1 => Just(Mood::AnswerEarly),
        2 => Just(Mood::Refuse),
        1 => Just(Mood::Reset),
        1 => Just(Mood::CutAnswer),
        1 => Just(Mood::Silence),
        1 => Just(Mood::GoAway),
        1 => Just(Mood::GoAwayAndAnswer),
        1 => Just(Mood::Close),
        1 => Just(Mood::Garbage),
    ]
}

fn offer() -> impl Strategy<Value = Offer> {
    prop_oneof![
        6 => Just(Offer::Get),
        3 => Just(Offer::Post),
        1 => Just(Offer::Large),
        1 => Just(Offer::Trailers),
        1 => Just(Offer::StreamWhole),
        1 => Just(Offer::StreamAborted),
        1 => Just(Offer::StreamForgotten),
        1 => Just(Offer::OriginalCancelled),
        1 => Just(Offer::Http1),
        2 => Just(Offer::Pause),
    ]
}

/// The flaky shadow's way with one stream; false: the connection closes.
async fn indulge(peer: &mut RawPeer, stream: u32, mood: Mood) -> bool {
    let goaway = |last: u32| frame(GOAWAY, 0, 0, &[last.to_be_bytes(), 0_u32.to_be_bytes()].concat());
    let reset = |why: u32| frame(RST_STREAM, 0, stream, &why.to_be_bytes());
    let said = match mood {
        Mood::Answer => frame(HEADERS, END_STREAM | END_HEADERS, stream, STATUS_200),
        Mood::AnswerEarly => {
            [frame(HEADERS, END_STREAM | END_HEADERS, stream, STATUS_200), reset(0)].concat()
        }
        Mood::Refuse => reset(7),
        Mood::Reset => reset(2),
        Mood::CutAnswer => [frame(HEADERS, END_HEADERS, stream, STATUS_200), reset(2)].concat(),
        Mood::Silence => Vec::new(),
        Mood::GoAway => goaway(stream.saturating_sub(2)),
        Mood::GoAwayAndAnswer => {
            [goaway(stream), frame(HEADERS, END_STREAM | END_HEADERS, stream, STATUS_200)].concat()
        }
        Mood::Close => return false,
        Mood::Garbage => b"garbage garbage".to_vec(),
    };
    peer.say(&said).await
}

#[derive(Default)]
struct Ends {
    writers: Vec<BodyWriter>,
    cancellers: Vec<Canceller>,
}

fn make(rig: &mut Rig, offer: Offer, ends: &mut Ends) {
    let (writer, reader) = body_channel(1024, u64::MAX, &Arc::default());
    let streaming = ShadowBody::Streaming(reader);
    match offer {
        Offer::Get => rig.offer(h2_get()),
        Offer::Post => rig.offer(h2_post(b"some bytes")),
        Offer::Large => rig.offer(h2_post(&[b'x'; 200_000])),
        Offer::Trailers => rig.offer(call(buffered(b"chunk", "X: y\r\n"))),
        Offer::StreamWhole | Offer::StreamAborted | Offer::StreamForgotten => {
            rig.send(call(streaming));
            let _ = writer.push(Bytes::from_static(b"piece"));
            match offer {
                Offer::StreamWhole => writer.finish(Bytes::new()),
                Offer::StreamAborted => writer.abort(DropReason::Gap),
                _ => ends.writers.push(writer),
            }
        }
        Offer::OriginalCancelled => {
            let mut request = h2_post(b"cancelled");
            let (canceller, told) = original();
            request.original = Some(told);
            rig.send(request);
            ends.cancellers.push(canceller);
        }
        // To a shadow that speaks none.
        Offer::Http1 => rig.offer(get()),
        Offer::Pause => {
            rig.handle.flush();
            ends.cancellers.drain(..).for_each(Canceller::cancel);
        }
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
        max_in_flight in 1_u32..40,
        queue_items in 1_u32..80,
        drain_ms in 0_u64..80,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let turn = Arc::new(AtomicUsize::new(0));
            // At most five streams at a time.
            let address = raw_shadow(&[0, 3, 0, 0, 0, 5], move |mut peer| {
                let (moods, turn) = (moods.clone(), Arc::clone(&turn));
                async move {
                    while let Some(stream) = peer.next_stream().await {
                        let mood = moods[turn.fetch_add(1, Ordering::Relaxed) % moods.len()];
                        if !indulge(&mut peer, stream, mood).await {
                            return;
                        }
                    }
                }
            })
            .await;
            let mut config = config(address);
            config.breaker = BreakerConfig { failures, open_for: Duration::from_millis(5) };
            config.max_connections = max_connections;
            config.max_in_flight = max_in_flight;
            config.queue_items = queue_items;
            config.timeout = Duration::from_millis(20);
            config.connect_timeout = Duration::from_millis(50);
            config.idle_timeout = Duration::from_millis(10);
            let mut rig = Rig::new(config);
            let mut ends = Ends::default();
            for offer in offers {
                make(&mut rig, offer, &mut ends);
                if matches!(offer, Offer::Pause) {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            }
            rig.drain_and_assert_balanced(Duration::from_millis(drain_ms)).await;
        });
    }
}
