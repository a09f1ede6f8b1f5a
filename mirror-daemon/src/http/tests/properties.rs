//! Random connections against what was truly sent on them.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

/// A request that a model client sends.
#[derive(Clone, Debug)]
struct Message {
    framing: ModelFraming,
    content: Vec<u8>,
    /// Pseudo-random numbers for cuts.
    cuts: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ModelFraming {
    Bodiless,
    Length,
    Chunked { trailers: bool },
}

impl Message {
    fn target(number: usize) -> String {
        format!("/t/{number}")
    }

    /// Content, or none where there is no body.
    fn body(&self) -> &[u8] {
        if self.framing == ModelFraming::Bodiless { &[] } else { &self.content }
    }

    fn head(&self, number: usize, more: &str) -> Vec<u8> {
        let framing = match self.framing {
            ModelFraming::Bodiless => String::new(),
            ModelFraming::Length => format!("Content-Length: {}\r\n", self.content.len()),
            ModelFraming::Chunked { .. } => "Transfer-Encoding: chunked\r\n".to_owned(),
        };
        let target = Self::target(number);
        format!("POST {target} HTTP/1.1\r\nHost: h\r\nX-Number: {number}\r\n{more}{framing}\r\n").into_bytes()
    }

    /// The body as framed, in the segments that the client writes.
    fn body_segments(&self) -> Vec<Vec<u8>> {
        let mut segments = Vec::new();
        let (mut rest, mut cuts) = (self.body(), self.cuts.iter().cycle());
        while !rest.is_empty() {
            // Embedded requests begin at segment starts as often as not.
            let embedded = (1..rest.len()).find(|at| rest[*at..].starts_with(b"GET /evil"));
            let cut = usize::from(*cuts.next().unwrap());
            let bytes = match embedded {
                Some(at) if cut % 2 == 0 => at,
                _ => (cut + 1).min(rest.len()),
            };
            let (now, later) = rest.split_at(bytes);
            rest = later;
            match self.framing {
                ModelFraming::Chunked { .. } => {
                    segments.push(format!("{:x};n=v\r\n", now.len()).into_bytes());
                    segments.push(now.to_vec());
                    segments.push(b"\r\n".to_vec());
                }
                _ => segments.push(now.to_vec()),
            }
        }
        match self.framing {
            ModelFraming::Chunked { trailers: true } => segments.push(b"0\r\nT: 1\r\n\r\n".to_vec()),
            ModelFraming::Chunked { trailers: false } => segments.push(b"0\r\n\r\n".to_vec()),
            _ => {}
        }
        segments
    }

    fn wire(&self, number: usize) -> Vec<u8> {
        let mut bytes = self.head(number, "");
        bytes.extend(self.body_segments().concat());
        bytes
    }
}

fn content() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        6 => Just(b"GET /evil HTTP/1.1\r\nHost: h\r\n\r\n".to_vec()),
        2 => Just(b"POST /evil HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody".to_vec()),
        1 => Just(b"POST /evil HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec()),
        2 => Just(b"5\r\nhello\r\n0\r\n\r\n".to_vec()),
        1 => Just(b"HTTP/1.1 200 OK\r\n\r\n".to_vec()),
        2 => vec(any::<u8>(), 1..20),
    ];
    vec(part, 0..6).prop_map(|parts| parts.concat())
}

fn message() -> impl Strategy<Value = Message> {
    let framing = prop_oneof![
        1 => Just(ModelFraming::Bodiless),
        3 => Just(ModelFraming::Length),
        1 => any::<bool>().prop_map(|trailers| ModelFraming::Chunked { trailers }),
    ];
    let parts = (framing, content(), vec(any::<u8>(), 1..8));
    parts.prop_map(|(framing, content, cuts)| Message { framing, content, cuts })
}

/// How an exchange goes.
#[derive(Clone, Copy, Debug)]
enum Manner {
    Plain,
    Expect,
    /// The final answer comes behind so many body segments; the upload goes on all the same.
    Early(usize),
    /// The answer streams between the body segments.
    Streaming,
    /// The head comes with the message before, whose answer comes behind so many body segments.
    Pipelined(usize),
}

fn manner() -> impl Strategy<Value = Manner> {
    prop_oneof![
        3 => Just(Manner::Plain),
        2 => Just(Manner::Expect),
        1 => (0..4_usize).prop_map(Manner::Early),
        1 => Just(Manner::Streaming),
        2 => (0..4_usize).prop_map(Manner::Pipelined),
    ]
}

#[derive(Clone, Debug)]
enum Step {
    Request(Vec<u8>),
    Answer(&'static [u8]),
}

const ANSWERS: [&[&[u8]]; 5] = [
    &[OK.as_bytes()],
    &[b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"],
    &[b"HTTP/1.1 404 No\r\nContent-Length: 4\r\n\r\n", b"ab", b"cd"],
    &[b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"2\r\nok\r\n", b"0\r\n\r\n"],
    &[b"HTTP/1.1 204 No\r\n\r\n"],
];

/// The segments of a connection in the order in which the gateway saw them.
fn timeline(exchanges: &[(Message, Manner)]) -> Vec<Step> {
    let mut steps = Vec::new();
    let answer = |number: usize, steps: &mut Vec<Step>| {
        steps.extend(ANSWERS[number % ANSWERS.len()].iter().map(|bytes| Step::Answer(bytes)));
    };
    // The answer to the message before, where the next one's head did not wait for it.
    let mut owed = None;
    for (number, (message, manner)) in exchanges.iter().enumerate() {
        let expect = if matches!(manner, Manner::Expect) { "Expect: 100-continue\r\n" } else { "" };
        if let Some(earlier) = owed.take_if(|_| !matches!(manner, Manner::Pipelined(_))) {
            answer(earlier, &mut steps);
        }
        steps.push(Step::Request(message.head(number, expect)));
        match manner {
            Manner::Expect => steps.push(Step::Answer(b"HTTP/1.1 100 Continue\r\n\r\n")),
            Manner::Streaming => {
                steps.push(Step::Answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"));
            }
            _ => {}
        }
        let mut is_answered = false;
        for (index, segment) in message.body_segments().into_iter().enumerate() {
            match manner {
                Manner::Early(behind) if *behind == index => {
                    answer(number, &mut steps);
                    is_answered = true;
                }
                Manner::Pipelined(behind) if *behind == index => {
                    owed.take().into_iter().for_each(|earlier| answer(earlier, &mut steps));
                }
                Manner::Streaming => steps.push(Step::Answer(b"5\r\nhello\r\n")),
                _ => {}
            }
            steps.push(Step::Request(segment));
        }
        owed.take().into_iter().for_each(|earlier| answer(earlier, &mut steps));
        match manner {
            Manner::Streaming => steps.push(Step::Answer(b"0\r\n\r\n")),
            _ if !is_answered => owed = Some(number),
            _ => {}
        }
    }
    owed.into_iter().for_each(|earlier| answer(earlier, &mut steps));
    steps
}

/// What the capture makes of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Luck {
    Seen,
    Lost,
    SeenTwice,
}

fn luck() -> impl Strategy<Value = Luck> {
    prop_oneof![8 => Just(Luck::Seen), 1 => Just(Luck::Lost), 1 => Just(Luck::SeenTwice)]
}

fn play(wire: &mut Wire, step: &Step, luck: Luck) {
    match (step, luck) {
        (Step::Request(bytes), Luck::Lost) => wire.gap(bytes.len() as u32),
        // The flow stage leaves out repeated requests.
        (Step::Request(bytes), _) => wire.request(bytes),
        (Step::Answer(bytes), Luck::Lost) => wire.answer_seq = wire.answer_seq.add(bytes.len() as u32),
        (Step::Answer(bytes), Luck::Seen) => wire.answer(bytes),
        (Step::Answer(bytes), Luck::SeenTwice) => {
            let start = wire.answer_seq;
            wire.answer(bytes);
            wire.answer_seq = start;
            wire.answer(bytes);
        }
    }
}

/// Whatever may be replayed is one of `exchanges`, to the byte; gives how many are.
fn check(log: &Log, exchanges: &[(Message, Manner)]) -> Result<usize, TestCaseError> {
    let mut count = 0;
    for seen in log.requests.values().filter(|seen| seen.may_go()) {
        let is_true = exchanges.iter().enumerate().any(|(number, (message, _))| {
            seen.start.starts_with(&format!("POST {} ", Message::target(number)))
                && seen.lines.contains(&format!("X-Number: {number}\r\n"))
                && seen.body == message.body()
        });
        prop_assert!(is_true, "{:?}", seen);
        count += 1;
    }
    Ok(count)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_cut_gives_the_same_requests(
        messages in vec(message(), 1..5),
        cuts in vec(0_usize..2000, 0..12),
    ) {
        let stream: Vec<u8> = messages.iter().enumerate().flat_map(|(n, m)| m.wire(n)).collect();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % stream.len()).collect();
        cuts.sort_unstable();
        let ends = cuts.iter().copied().chain([stream.len()]);
        let starts = [0].into_iter().chain(cuts.iter().copied());
        let pieces: Vec<&[u8]> = starts.zip(ends).map(|(start, end)| &stream[start..end]).collect();
        let log = decode_pieces(&pieces);
        prop_assert_eq!(&log, &decode(&stream));
        prop_assert_eq!(log.requests.len(), messages.len());
        for (seen, message) in log.requests.values().zip(&messages) {
            prop_assert!(seen.may_go());
            prop_assert_eq!(&seen.body, message.body());
            let has_trailers = message.framing == ModelFraming::Chunked { trailers: true };
            prop_assert_eq!(seen.trailers == "T: 1\r\n", has_trailers);
        }
    }

    #[test]
    fn every_request_is_told_when_nothing_is_lost(exchanges in vec((message(), manner()), 1..6)) {
        let mut wire = Wire::open(false);
        timeline(&exchanges).iter().for_each(|step| play(&mut wire, step, Luck::Seen));
        prop_assert_eq!(check(&wire.close(CloseCause::Finished), &exchanges)?, exchanges.len());
    }

    #[test]
    fn joining_at_any_byte_gives_a_subset(
        exchanges in vec((message(), manner()), 2..9),
        skipped in any::<prop::sample::Index>(),
        offset in 0_usize..60,
    ) {
        let steps = timeline(&exchanges);
        let skipped = skipped.index(steps.len());
        let mut wire = Wire::open(true);
        if let (Step::Request(bytes), Some(offset)) = (&steps[skipped], offset.checked_sub(1))
            && let Some(rest) = bytes.get(offset + 1..).filter(|rest| !rest.is_empty())
        {
            wire.piece(rest, false);
        } else {
            play(&mut wire, &steps[skipped], Luck::Seen);
        }
        steps.iter().skip(skipped + 1).for_each(|step| play(&mut wire, step, Luck::Seen));
        check(&wire.close(CloseCause::Finished), &exchanges)?;
    }

    #[test]
    fn sequential_client_is_found_again_within_three_exchanges(
        contents in vec((vec(any::<u8>(), 0..50), any::<bool>(), 0_usize..5), 4..9),
        skipped in any::<prop::sample::Index>(),
    ) {
        let exchanges: Vec<_> = contents
            .into_iter()
            .map(|(content, expect, cut)| {
                let cuts = vec![cut as u8 * 20];
                let message = Message { framing: ModelFraming::Length, content, cuts };
                (message, if expect { Manner::Expect } else { Manner::Plain })
            })
            .collect();
        let steps = timeline(&exchanges);
        let skipped = skipped.index(steps.len());
        let is_head = |step: &&Step| matches!(step, Step::Request(bytes) if bytes.starts_with(b"POST /t/"));
        let heads_to_come = steps[skipped..].iter().filter(is_head).count();
        let mut wire = Wire::open(true);
        steps[skipped..].iter().for_each(|step| play(&mut wire, step, Luck::Seen));
        let released = check(&wire.close(CloseCause::Finished), &exchanges)?;
        prop_assert!(released + 2 >= heads_to_come, "{} of {}", released, heads_to_come);
    }

    #[test]
    fn whatever_is_lost_only_whole_true_requests_come_through(
        exchanges in vec((message(), manner()), 1..9),
        lucks in vec(luck(), 200),
        joined: bool,
    ) {
        let mut wire = Wire::open(joined);
        for (step, luck) in timeline(&exchanges).iter().zip(lucks.iter().cycle()) {
            play(&mut wire, step, *luck);
        }
        check(&wire.close(CloseCause::Finished), &exchanges)?;
    }

    #[test]
    fn hostile_events_never_panic_and_memory_is_bounded(
        events in vec((0_u8..12, vec(hostile_part(), 0..4), any::<u16>()), 0..40),
        joined: bool,
        proxy_protocol: bool,
    ) {
        let mut wire = Wire::with(HttpOptions { proxy_protocol, ..HttpOptions::default() }, joined);
        for (kind, parts, number) in events {
            let bytes = parts.concat();
            match kind {
                _ if bytes.is_empty() => wire.gap(number.into()),
                0 => wire.answer_seq = wire.answer_seq.sub(number.into()),
                1 => wire.request_seq = wire.request_seq.add(number.into()),
                2 => wire.flow.ignore_body(),
                3 => {
                    let Wire { flow, log, .. } = &mut wire;
                    flow.handle_timeout(Timestamp(u64::from(number) << 24), &mut |event| log.note(event));
                }
                4..=6 => wire.answer(&bytes),
                7 => wire.piece(&bytes, false),
                _ => wire.request(&bytes),
            }
            prop_assert!(wire.flow.allocated_bytes() <= 2 * MAX_HEAD_BYTES + 1024);
        }
        wire.close(CloseCause::Evicted);
    }
}

fn hostile_part() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(any::<u8>(), 0..30),
        Just(GET.as_bytes().to_vec()),
        Just(OK.as_bytes().to_vec()),
        Just(b"POST / HTTP/1.1\r\nContent-Length: 18446744073709551615\r\n\r\n".to_vec()),
        Just(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec()),
        Just(b"GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: x\r\nContent-Length: 9\r\n\r\n".to_vec()),
        Just(b"CONNECT h HTTP/1.1\r\n\r\n".to_vec()),
        Just(b"ffffffffffffffff\r\n".to_vec()),
        Just(b"5\r\nhello\r\n0\r\n\r\n".to_vec()),
        Just(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec()),
        Just(b"HTTP/1.1 101 Switching\r\n\r\n".to_vec()),
        Just(vec![b'x'; 40_000]),
        Just(b"\r\n".to_vec()),
    ]
}
