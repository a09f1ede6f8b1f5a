//! Random true connections, and the packets that a capture beside the server sees of them.
//!
//! The network between client and server may cut, reorder, repeat and overlap what the client sends; the server
//! acknowledges what it has without a hole, and answers a request only when it has all of it.

use mirror_tests::pcap::{ACK, FIN, PcapWriter, SYN};
use proptest::collection::vec;
use proptest::prelude::*;
use std::net::SocketAddr;

const CLIENT: &str = "10.77.0.1:40000";
const SERVER: &str = "10.77.0.2:8080";
/// Near the wrap, so that every connection of some length passes it.
const CLIENT_ISN: u32 = u32::MAX - 700;
const SERVER_ISN: u32 = u32::MAX - 300;

/// Servers write the head of an answer in one piece; more is not asked of them.
const LEAST_ANSWER_BYTES: usize = 100;

/// How a request's body travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Bodiless,
    Head,
    Length,
    /// The client waits for `100 Continue`.
    Expected,
    Chunked,
    ChunkedWithTrailers,
    /// Asks for an upgrade that the server does not grant.
    Upgrade,
}

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) framing: Framing,
    pub(crate) content: Vec<u8>,
    pub(crate) chunk_bytes: usize,
    pub(crate) answer: Answer,
}

/// How the server answers it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    Empty,
    Length(usize),
    Chunked(usize),
}

/// Requests that are sent together, before the first of them is answered.
pub(crate) type Turn = Vec<Message>;

impl Message {
    pub(crate) fn target(number: usize) -> String {
        format!("/true?id={number}")
    }

    pub(crate) fn body(&self) -> &[u8] {
        match self.framing {
            Framing::Bodiless | Framing::Head | Framing::Upgrade => &[],
            _ => &self.content,
        }
    }

    pub(crate) fn trailers(&self) -> &'static str {
        if self.framing == Framing::ChunkedWithTrailers { "X-Sum: 7\r\n" } else { "" }
    }

    fn head(&self, number: usize) -> Vec<u8> {
        let (method, fields) = match self.framing {
            Framing::Bodiless => ("GET", String::new()),
            Framing::Head => ("HEAD", String::new()),
            Framing::Length => ("POST", format!("Content-Length: {}\r\n", self.content.len())),
            Framing::Expected => {
                ("PUT", format!("Expect: 100-continue\r\nContent-Length: {}\r\n", self.content.len()))
            }
            Framing::Chunked | Framing::ChunkedWithTrailers => {
                ("POST", "Transfer-Encoding: chunked\r\n".to_owned())
            }
            Framing::Upgrade => ("GET", "Connection: Upgrade\r\nUpgrade: websocket\r\n".to_owned()),
        };
        let target = Self::target(number);
        format!("{method} {target} HTTP/1.1\r\nHost: shadowing.example\r\n{fields}\r\n").into_bytes()
    }

    fn framed_body(&self) -> Vec<u8> {
        if !matches!(self.framing, Framing::Chunked | Framing::ChunkedWithTrailers) {
            return self.body().to_vec();
        }
        let mut bytes = Vec::new();
        for chunk in self.content.chunks(self.chunk_bytes) {
            bytes.extend(format!("{:x}\r\n", chunk.len()).bytes());
            bytes.extend(chunk);
            bytes.extend(b"\r\n");
        }
        bytes.extend(format!("0\r\n{}\r\n", self.trailers()).bytes());
        bytes
    }

    fn answer(&self) -> Vec<u8> {
        let content = |bytes| vec![b'a'; bytes];
        match self.answer {
            Answer::Empty => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
            Answer::Length(bytes) => {
                let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n").into_bytes();
                if self.framing != Framing::Head {
                    answer.extend(content(bytes));
                }
                answer
            }
            Answer::Chunked(bytes) => {
                let mut answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
                if self.framing != Framing::Head {
                    answer.extend(format!("{bytes:x}\r\n").bytes());
                    answer.extend(content(bytes));
                    answer.extend(b"\r\n0\r\n\r\n");
                }
                answer
            }
        }
    }
}

/// What looks like requests, chunk heads and answers, and is none.
fn trap() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        5 => Just(b"GET /embedded HTTP/1.1\r\nHost: shadowing.example\r\n\r\n".to_vec()),
        2 => Just(b"POST /embedded HTTP/1.1\r\nHost: shadowing.example\r\nContent-Length: 4\r\n\r\nbody".to_vec()),
        1 => Just(b"POST /embedded HTTP/1.1\r\nHost: shadowing.example\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec()),
        2 => Just(b"5\r\nhello\r\n0\r\n\r\n".to_vec()),
        1 => Just(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec()),
        2 => vec(any::<u8>(), 1..40),
        1 => vec(any::<u8>(), 500..3000),
    ]
}

fn message() -> impl Strategy<Value = Message> {
    let framing = prop_oneof![
        4 => Just(Framing::Bodiless),
        1 => Just(Framing::Head),
        4 => Just(Framing::Length),
        1 => Just(Framing::Expected),
        2 => Just(Framing::Chunked),
        1 => Just(Framing::ChunkedWithTrailers),
        1 => Just(Framing::Upgrade),
    ];
    let content = vec(trap(), 0..5).prop_map(|parts| parts.concat());
    let answer = prop_oneof![
        1 => Just(Answer::Empty),
        3 => (0_usize..40).prop_map(Answer::Length),
        1 => (2000_usize..5000).prop_map(Answer::Length),
        1 => (1_usize..900).prop_map(Answer::Chunked),
    ];
    (framing, content, 1_usize..200, answer).prop_map(|(framing, content, chunk_bytes, answer)| Message {
        framing,
        content,
        chunk_bytes,
        answer,
    })
}

/// A connection of some turns, most of one request.
pub(crate) fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let turn = prop_oneof![3 => vec(message(), 1..=1), 1 => vec(message(), 2..5)];
    vec(turn, 1..9).prop_map(|mut turns| {
        keep_upgrades_decidable(&mut turns);
        turns
    })
}

/// Once requests were pipelined, it can't always be told which answer is that of a request for an upgrade, and it is
/// dropped: only those before are kept here.
fn keep_upgrades_decidable(turns: &mut [Turn]) {
    let pipelined = turns.iter().position(|turn| turn.len() > 1).unwrap_or(turns.len());
    for message in
        turns.iter_mut().skip(pipelined).flatten().filter(|message| message.framing == Framing::Upgrade)
    {
        message.framing = Framing::Bodiless;
    }
}

/// One packet as captured.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) from_client: bool,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    pub(crate) payload: Vec<u8>,
    /// Time since the packet before.
    pub(crate) after_ms: u64,
}

/// Chance, from one number.
#[derive(Clone, Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound.max(1) as u64) as usize
    }

    pub(crate) fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

/// What the network does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Network {
    /// Segments of at most so many bytes, cut anywhere; `None`: each write is one segment.
    pub(crate) cut_bytes: Option<usize>,
    /// Whether segments are reordered, repeated and sent again with other cuts.
    pub(crate) is_rough: bool,
}

impl Network {
    pub(crate) const PLAIN: Self = Self { cut_bytes: None, is_rough: false };
}

/// The packets of `turns` through `network`.
pub(crate) fn packets(turns: &[Turn], network: Network, dice: Dice) -> Vec<Packet> {
    let mut wire =
        Wire { network, dice, sent: Vec::new(), received: Vec::new(), answered: 0, packets: Vec::new() };
    wire.push(true, (CLIENT_ISN, 0), SYN, &[]);
    wire.push(false, (SERVER_ISN, CLIENT_ISN.wrapping_add(1)), SYN | ACK, &[]);
    wire.push(true, (wire.client_seq(0), wire.server_seq()), ACK, &[]);
    let mut number = 0;
    for turn in turns {
        let mut together = Vec::new();
        let mut answers = Vec::new();
        for message in turn {
            together.extend(message.head(number));
            if message.framing == Framing::Expected {
                wire.send(&std::mem::take(&mut together));
                answers.extend(b"HTTP/1.1 100 Continue\r\n\r\n");
                wire.answer(&std::mem::take(&mut answers));
            }
            together.extend(message.framed_body());
            answers.extend(message.answer());
            number += 1;
        }
        wire.send(&together);
        wire.answer(&answers);
    }
    let (end, server_end) = (wire.client_seq(wire.sent.len()), wire.server_seq());
    wire.push(true, (end, server_end), FIN | ACK, &[]);
    wire.push(false, (server_end, end.wrapping_add(1)), FIN | ACK, &[]);
    wire.packets
}

/// Writes `packets` into a capture file.
pub(crate) fn write(pcap: &mut PcapWriter<Vec<u8>>, packets: &[Packet]) {
    let client: SocketAddr = CLIENT.parse().expect("an address");
    let server: SocketAddr = SERVER.parse().expect("an address");
    for packet in packets {
        let ends = if packet.from_client { (client, server) } else { (server, client) };
        pcap.advance_ms(packet.after_ms);
        pcap.packet(ends, (packet.seq, packet.ack), packet.flags, &packet.payload).expect("a Vec takes all");
    }
}

struct Wire {
    network: Network,
    dice: Dice,
    /// All that the client sent so far.
    sent: Vec<u8>,
    /// Which of it the server has.
    received: Vec<bool>,
    answered: usize,
    packets: Vec<Packet>,
}

impl Wire {
    fn push(&mut self, from_client: bool, (seq, ack): (u32, u32), flags: u8, payload: &[u8]) {
        let after_ms = if self.dice.one_in(4) { 1 } else { 0 };
        self.packets.push(Packet { from_client, seq, ack, flags, payload: payload.to_vec(), after_ms });
    }

    fn client_seq(&self, offset: usize) -> u32 {
        CLIENT_ISN.wrapping_add(1).wrapping_add(offset as u32)
    }

    fn server_seq(&self) -> u32 {
        SERVER_ISN.wrapping_add(1).wrapping_add(self.answered as u32)
    }

    /// What the server acknowledges.
    fn contiguous(&self) -> usize {
        self.received.iter().position(|received| !received).unwrap_or(self.received.len())
    }

    /// The client writes; returns when all of it has arrived.
    fn send(&mut self, bytes: &[u8]) {
        let begin = self.sent.len();
        self.sent.extend_from_slice(bytes);
        self.received.resize(self.sent.len(), false);
        for (from, to) in self.arrivals(begin) {
            let payload = self.sent[from..to].to_vec();
            self.push(true, (self.client_seq(from), self.server_seq()), ACK, &payload);
            self.received[from..to].fill(true);
            if self.dice.one_in(3) {
                let ack = self.client_seq(self.contiguous());
                self.push(false, (self.server_seq(), ack), ACK, &[]);
            }
        }
        assert_eq!(self.contiguous(), self.sent.len());
    }

    /// Ranges of what was sent since `begin`, as they come in.
    fn arrivals(&mut self, begin: usize) -> Vec<(usize, usize)> {
        let end = self.sent.len();
        let cuts = self.cuts(begin, end, 1);
        if !self.network.is_rough {
            return cuts;
        }
        let mut arrivals = Vec::new();
        for cut in cuts {
            if self.dice.one_in(6) {
                arrivals.push(cut);
            }
            if self.dice.one_in(4) {
                // Sent again, cut otherwise, perhaps with bytes of before.
                let from = self.dice.below(end - begin) + begin;
                let to = from + 1 + self.dice.below(end - from);
                arrivals.push((from.saturating_sub(self.dice.below(50)), to.min(end)));
            }
            let back = self.dice.below(4);
            let at = if self.dice.one_in(3) { arrivals.len().saturating_sub(back) } else { arrivals.len() };
            arrivals.insert(at, cut);
        }
        if self.dice.one_in(5) {
            for index in (1..arrivals.len()).rev() {
                let other = self.dice.below(index + 1);
                arrivals.swap(index, other);
            }
        }
        arrivals
    }

    /// `[begin, end)` in pieces of at least `least` bytes.
    fn cuts(&mut self, begin: usize, end: usize, least: usize) -> Vec<(usize, usize)> {
        let mut cuts = Vec::new();
        let mut from = begin;
        while from < end {
            let bytes = self.network.cut_bytes.map_or(60_000, |most| least + self.dice.below(most));
            let to = (from + bytes).min(end);
            cuts.push((from, to));
            from = to;
        }
        cuts
    }

    fn answer(&mut self, bytes: &[u8]) {
        let begin = self.answered;
        let ack = self.client_seq(self.sent.len());
        for (from, to) in self.cuts(begin, begin + bytes.len(), LEAST_ANSWER_BYTES) {
            let seq = self.server_seq();
            let repeats = self.network.is_rough && self.dice.one_in(6);
            for _ in 0..=usize::from(repeats) {
                self.push(false, (seq, ack), ACK, &bytes[from - begin..to - begin]);
            }
            self.answered = to;
            if self.dice.one_in(4) {
                self.push(true, (ack, self.server_seq()), ACK, &[]);
            }
        }
    }
}
