//! Random true connections of HTTP/2.

use crate::network::{Dice, Network, Packet, Wire};
use httlib_hpack::Encoder;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::VecDeque;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const UPGRADE: &[u8] = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n";
const UPGRADED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
/// Largest frame that is written.
const FRAME_BYTES: usize = 16_384;

/// How a request's body travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    None,
    Length,
    Streamed,
    StreamedWithTrailers,
    /// A streaming call.
    Grpc,
    /// The client takes the request back before its end.
    Cancelled,
}

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    body: Body,
    content: Vec<u8>,
    frame_bytes: usize,
    /// Ordinary fields beside those that the body needs.
    fields: usize,
    /// The content of its answer.
    answer: Vec<u8>,
}

/// A connection: calls that are under way together, before the next ones.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    /// Begins as HTTP/1, with a request that asks for HTTP/2.
    is_upgraded: bool,
    /// The client's heads refer to what earlier heads said (RFC 7541, 2.3.2).
    uses_table: bool,
    rounds: Vec<Vec<Call>>,
    seed: u64,
}

/// What a shadow must get of a request.
#[derive(Debug)]
pub(crate) struct Expected<'a> {
    pub(crate) number: usize,
    pub(crate) body: &'a [u8],
    pub(crate) has_trailers: bool,
}

impl Connection {
    /// Requests, whole or not.
    pub(crate) fn requests(&self) -> usize {
        self.calls().count() + usize::from(self.is_upgraded)
    }

    /// Those that are whole.
    pub(crate) fn whole(&self) -> Vec<Expected<'_>> {
        let upgraded =
            self.is_upgraded.then_some(Expected { number: 0, body: &[], has_trailers: false }).into_iter();
        let calls = self.calls().zip(usize::from(self.is_upgraded)..);
        let whole = calls.filter(|(call, _)| call.body != Body::Cancelled);
        upgraded.chain(whole.map(|(call, number)| call.expected(number))).collect()
    }

    /// Another one behind this one, on the same connection.
    pub(crate) fn then(mut self, other: Self) -> Self {
        self.rounds.extend(other.rounds);
        self
    }

    /// The same, with heads that can be understood each for itself.
    pub(crate) fn without_table(mut self) -> Self {
        self.uses_table = false;
        self
    }

    /// The packets of this connection through `network`.
    pub(crate) fn packets(&self, network: Network, dice: Dice) -> Vec<Packet> {
        let mut peers = Peers {
            wire: Wire::open(network, dice),
            dice: Dice(self.seed),
            encoder: Encoder::with_dynamic_size(4096),
            uses_table: self.uses_table,
            waiting: Vec::new(),
            answers: Vec::new(),
        };
        peers.begin(self.is_upgraded);
        let first = usize::from(self.is_upgraded);
        let mut calls = 0;
        for round in &self.rounds {
            let numbered = round.iter().zip(calls..);
            let sending = numbered.map(|(call, index)| {
                let number = first + index;
                Sending { call, number, stream: 2 * number as u32 + 1, steps: call.steps() }
            });
            peers.exchange(sending.collect());
            calls += round.len();
        }
        peers.wire.close()
    }

    fn calls(&self) -> impl Iterator<Item = &Call> {
        self.rounds.iter().flatten()
    }
}

/// A part of a request, from its head to its end.
#[derive(Clone, Copy, Debug)]
enum Step {
    Head { is_end: bool },
    Data { from: usize, to: usize, is_end: bool },
    Trailers,
    Reset,
}

impl Call {
    fn expected(&self, number: usize) -> Expected<'_> {
        let body = if self.body == Body::None { &[][..] } else { &self.content };
        Expected { number, body, has_trailers: self.body == Body::StreamedWithTrailers }
    }

    fn steps(&self) -> VecDeque<Step> {
        if self.body == Body::None {
            return VecDeque::from([Step::Head { is_end: true }]);
        }
        let mut steps = VecDeque::from([Step::Head { is_end: false }]);
        let ends_in_data = !matches!(self.body, Body::StreamedWithTrailers | Body::Cancelled);
        let mut from = 0;
        loop {
            let to = (from + self.frame_bytes).min(self.content.len());
            let is_last = to == self.content.len();
            steps.push_back(Step::Data { from, to, is_end: is_last && ends_in_data });
            if is_last {
                break;
            }
            from = to;
        }
        match self.body {
            Body::StreamedWithTrailers => steps.push_back(Step::Trailers),
            Body::Cancelled => steps.push_back(Step::Reset),
            _ => {}
        }
        steps
    }

    fn fields(&self, number: usize) -> Vec<(String, String)> {
        let method = if self.body == Body::None { "GET" } else { "POST" };
        let path = format!("/true?id={number}");
        let pseudo =
            [(":method", method), (":scheme", "http"), (":authority", "shadowing.example"), (":path", &path)];
        let ordinary = [
            ("user-agent", "made-up"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
            ("te", "trailers"),
            ("x-a", ""),
        ];
        let length = self.content.len().to_string();
        let framing = match self.body {
            Body::Length => Some(("content-length", length.as_str())),
            Body::Grpc => Some(("content-type", "application/grpc")),
            _ => None,
        };
        let fields = pseudo.into_iter().chain(ordinary.into_iter().take(self.fields)).chain(framing);
        let mut fields: Vec<_> = fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        // Values that come again, and such that do not, so that the table is used.
        fields.push(("x-id".to_owned(), (number % 7).to_string()));
        fields
    }
}

/// A request that is being sent.
struct Sending<'a> {
    call: &'a Call,
    number: usize,
    stream: u32,
    steps: VecDeque<Step>,
}

impl Sending<'_> {
    fn is_open(&self) -> bool {
        !matches!(self.steps.front(), Some(Step::Head { .. }))
    }
}

/// Client and server.
struct Peers<'e> {
    wire: Wire,
    dice: Dice,
    encoder: Encoder<'e>,
    uses_table: bool,
    /// Written by the client, and not sent yet.
    waiting: Vec<u8>,
    /// Answers that the server has yet to give.
    answers: Vec<(u32, Vec<u8>)>,
}

impl Peers<'_> {
    fn begin(&mut self, is_upgraded: bool) {
        let settings = frame(4, 0, 0, &[]);
        if is_upgraded {
            let head = [b"GET /true?id=0 HTTP/1.1\r\nHost: shadowing.example\r\n", UPGRADE, b"\r\n"];
            self.wire.send(&head.concat());
            self.wire.answer(&[UPGRADED, &settings, &answer_frames(1, b"upgraded")].concat());
        }
        self.waiting.extend([PREFACE, &settings].concat());
    }

    /// The requests of one round, interleaved, and their answers.
    fn exchange(&mut self, mut sending: Vec<Sending<'_>>) {
        while !sending.is_empty() {
            let mut place = self.dice.below(sending.len());
            if !sending[place].is_open() {
                // Streams are opened in their order.
                place = sending.iter().position(|one| !one.is_open()).expect("this one");
            }
            let step = sending[place].steps.pop_front().expect("one that has not ended");
            self.write(&sending[place], step);
            if sending[place].steps.is_empty() {
                let done = sending.remove(place);
                if done.call.body != Body::Cancelled {
                    self.answers.push((done.stream, done.call.answer.clone()));
                }
            }
            if self.dice.one_in(6) {
                self.write_control();
            }
            if self.dice.one_in(5) {
                self.flush();
            }
        }
        self.flush();
    }

    /// The client sends what waits, and the server answers what is whole.
    fn flush(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        if !waiting.is_empty() {
            self.wire.send(&waiting);
        }
        while !self.answers.is_empty() {
            let (stream, content) = self.answers.remove(self.dice.below(self.answers.len()));
            self.wire.answer(&answer_frames(stream, &content));
        }
    }

    fn write(&mut self, sending: &Sending<'_>, step: Step) {
        let Sending { call, number, stream, .. } = *sending;
        match step {
            Step::Head { is_end } => {
                let fields = call.fields(number);
                self.write_fields(stream, is_end, &fields);
            }
            Step::Data { from, to, is_end } => {
                let end = if is_end { END_STREAM } else { 0 };
                let bytes = &call.content[from..to];
                let data = match self.dice.one_in(5) {
                    true => frame(0, end | PADDED, stream, &[&[3], bytes, &[0; 3]].concat()),
                    false => frame(0, end, stream, bytes),
                };
                self.waiting.extend(data);
            }
            Step::Trailers => self.write_fields(stream, true, &[("x-sum".to_owned(), "7".to_owned())]),
            Step::Reset => self.waiting.extend(frame(3, 0, stream, &[0, 0, 0, 8])),
        }
    }

    /// A header block, in one frame or several.
    fn write_fields(&mut self, stream: u32, is_end: bool, fields: &[(String, String)]) {
        let mut block = Vec::new();
        for (name, value) in fields {
            let index = Encoder::BEST_FORMAT | Encoder::WITH_INDEXING;
            let choices =
                [Encoder::NEVER_INDEXED, Encoder::HUFFMAN_NAME, index, index | Encoder::HUFFMAN_VALUE];
            let how = choices[self.dice.below(if self.uses_table { 4 } else { 2 })];
            let field = (name.clone().into_bytes(), value.clone().into_bytes(), how);
            self.encoder.encode(field, &mut block).expect("any field can be encoded");
        }
        let end = if is_end { END_STREAM } else { 0 };
        if !self.dice.one_in(5) {
            return self.waiting.extend(frame(1, end | END_HEADERS, stream, &block));
        }
        let (first, rest) = block.split_at(self.dice.below(block.len() + 1));
        let (second, third) = rest.split_at(self.dice.below(rest.len() + 1));
        self.waiting.extend(frame(1, end, stream, first));
        self.waiting.extend(frame(9, 0, stream, second));
        self.waiting.extend(frame(9, END_HEADERS, stream, third));
    }

    /// Frames that mean nothing to requests: WINDOW_UPDATE, PING, PRIORITY_UPDATE.
    fn write_control(&mut self) {
        let frame = match self.dice.below(3) {
            0 => frame(8, 0, 0, &[0, 0, 1, 0]),
            1 => frame(6, 0, 0, &[7; 8]),
            _ => frame(0x10, 0, 0, b"\0\0\0\x01u=1"),
        };
        self.waiting.extend(frame);
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn answer_frames(stream: u32, content: &[u8]) -> Vec<u8> {
    // `:status: 200`, from the static table.
    let mut frames = frame(1, END_HEADERS, stream, &[0x88]);
    for content in content.chunks(FRAME_BYTES) {
        frames.extend(frame(0, 0, stream, content));
    }
    frames.extend(frame(0, END_STREAM, stream, b""));
    frames
}

/// A request that is none, on a stream to come.
fn embedded(stream: u32) -> Vec<u8> {
    let mut block = b"\x82\x86\x04\x09/embedded\x01\x11shadowing.example".to_vec();
    block.extend(stream.is_multiple_of(3).then_some(0xbe));
    frame(1, END_STREAM | END_HEADERS, stream, &block)
}

/// What looks like frames, requests and answers, and is none.
fn trap() -> impl Strategy<Value = Vec<u8>> {
    let frames = |most: usize| {
        (0_u32..60, 1..most).prop_map(|(first, count)| {
            (first..).take(count).flat_map(|index| embedded(2 * index + 1)).collect::<Vec<u8>>()
        })
    };
    let answers = (0_u32..60).prop_map(|index| frame(1, END_STREAM | END_HEADERS, 2 * index + 1, &[0x88]));
    prop_oneof![
        3 => frames(20),
        1 => frames(400),
        2 => answers,
        1 => Just(b"GET /embedded HTTP/1.1\r\nHost: shadowing.example\r\n\r\n".to_vec()),
        2 => vec(any::<u8>(), 1..40),
        1 => vec(any::<u8>(), 500..3000),
        1 => (1_usize..20_000).prop_map(|bytes| vec![0; bytes]),
    ]
}

fn call() -> impl Strategy<Value = Call> {
    let body = prop_oneof![
        4 => Just(Body::None),
        3 => Just(Body::Length),
        2 => Just(Body::Streamed),
        1 => Just(Body::StreamedWithTrailers),
        2 => Just(Body::Grpc),
        1 => Just(Body::Cancelled),
    ];
    let content = || vec(trap(), 0..4).prop_map(|parts| parts.concat());
    let frame_bytes = prop_oneof![1 => 1_usize..300, 2 => 300_usize..2000, 1 => Just(FRAME_BYTES - 4)];
    let answer = prop_oneof![2 => vec(Just(b'a'), 0..600), 1 => content()];
    (body, content(), frame_bytes, 0_usize..6, answer).prop_map(
        |(body, content, frame_bytes, fields, answer)| {
            // A large body in tiny frames is slow and no other than a small one.
            let frame_bytes = frame_bytes.max(content.len() / 40).min(FRAME_BYTES - 4);
            Call { body, content, frame_bytes, fields, answer }
        },
    )
}

/// A connection of some rounds.
pub(crate) fn connections() -> impl Strategy<Value = Connection> {
    let round = prop_oneof![1 => vec(call(), 1..=1), 2 => vec(call(), 2..6)];
    let (is_upgraded, uses_table) = (proptest::bool::weighted(0.2), proptest::bool::weighted(0.7));
    (is_upgraded, uses_table, vec(round, 1..6), any::<u64>()).prop_map(
        |(is_upgraded, uses_table, rounds, seed)| Connection { is_upgraded, uses_table, rounds, seed },
    )
}
