//! What a capture beside the server sees of one connection.
//!
//! The network between client and server may cut, reorder, repeat and overlap what the client sends; the server
//! acknowledges what it has without a hole, and answers a request only when it has all of it.

use mirror_tests::pcap::{ACK, FIN, PcapWriter, SYN};
use proptest::prelude::*;
use std::net::SocketAddr;

const CLIENT: &str = "10.77.0.1:40000";
const SERVER: &str = "10.77.0.2:8080";
/// Near the wrap, so that every connection of some length passes it.
const CLIENT_ISN: u32 = u32::MAX - 700;
const SERVER_ISN: u32 = u32::MAX - 300;

/// Servers write the head of an answer in one piece; more is not asked of them.
const LEAST_ANSWER_BYTES: usize = 100;

/// One packet as captured.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) from_client: bool,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    pub(crate) payload: Vec<u8>,
    /// How much of the payload was copied.
    pub(crate) shown_bytes: usize,
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

/// Any network.
pub(crate) fn network() -> impl Strategy<Value = Network> {
    let cut = prop_oneof![1 => 1_usize..20, 2 => 20_usize..400, 1 => 400_usize..3000];
    (proptest::option::of(cut), any::<bool>())
        .prop_map(|(cut_bytes, is_rough)| Network { cut_bytes, is_rough })
}

/// Writes `packets` into a capture file.
pub(crate) fn write(pcap: &mut PcapWriter<Vec<u8>>, packets: &[Packet]) {
    let client: SocketAddr = CLIENT.parse().expect("an address");
    let server: SocketAddr = SERVER.parse().expect("an address");
    for packet in packets {
        let ends = if packet.from_client { (client, server) } else { (server, client) };
        pcap.advance_ms(packet.after_ms);
        let Packet { seq, ack, flags, payload, shown_bytes, .. } = packet;
        pcap.snapped_packet(ends, (*seq, *ack), *flags, (payload, *shown_bytes)).expect("a Vec takes all");
    }
}

/// How much of every segment of answers is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Snap {
    Whole,
    /// The first 256 bytes, as live capture does.
    Beginning,
}

/// Either.
pub(crate) fn snap() -> impl Strategy<Value = Snap> {
    prop_oneof![Just(Snap::Whole), Just(Snap::Beginning)]
}

impl Snap {
    pub(crate) fn apply(self, packets: &mut [Packet]) {
        if self == Self::Whole {
            return;
        }
        for packet in packets.iter_mut().filter(|packet| !packet.from_client) {
            packet.shown_bytes = packet.payload.len().min(256);
        }
    }
}

/// Takes away what was captured before `bytes` of the client's stream had passed.
pub(crate) fn joined_at(packets: &mut Vec<Packet>, bytes: usize) {
    let mut passed = 0;
    let mut at = 0;
    while let Some(packet) = packets.get(at) {
        let payload = if packet.from_client { packet.payload.len() } else { 0 };
        if passed + payload > bytes {
            break;
        }
        passed += payload;
        at += 1;
    }
    packets.drain(..at);
    // A capture begins with a packet; that one begins anywhere only for a segment that was cut (GRO).
    if let Some(first) = packets.first_mut().filter(|first| first.from_client) {
        let cut = bytes.saturating_sub(passed);
        first.payload.drain(..cut);
        first.shown_bytes = first.payload.len();
        first.seq = first.seq.wrapping_add(cut as u32);
    }
}

/// What the client sent in all, repetitions included.
pub(crate) fn client_bytes(packets: &[Packet]) -> usize {
    packets.iter().filter(|packet| packet.from_client).map(|packet| packet.payload.len()).sum()
}

/// The connection while it is being written.
pub(crate) struct Wire {
    network: Network,
    pub(crate) dice: Dice,
    /// All that the client sent so far.
    sent: Vec<u8>,
    /// Which of it the server has.
    received: Vec<bool>,
    answered: usize,
    packets: Vec<Packet>,
}

impl Wire {
    /// A connection that has been opened.
    pub(crate) fn open(network: Network, dice: Dice) -> Self {
        let mut wire =
            Self { network, dice, sent: Vec::new(), received: Vec::new(), answered: 0, packets: Vec::new() };
        wire.push(true, (CLIENT_ISN, 0), SYN, &[]);
        wire.push(false, (SERVER_ISN, CLIENT_ISN.wrapping_add(1)), SYN | ACK, &[]);
        wire.push(true, (wire.client_seq(0), wire.server_seq()), ACK, &[]);
        wire
    }

    /// Both ends close it.
    pub(crate) fn close(mut self) -> Vec<Packet> {
        let (end, server_end) = (self.client_seq(self.sent.len()), self.server_seq());
        self.push(true, (end, server_end), FIN | ACK, &[]);
        self.push(false, (server_end, end.wrapping_add(1)), FIN | ACK, &[]);
        self.packets
    }

    fn push(&mut self, from_client: bool, (seq, ack): (u32, u32), flags: u8, payload: &[u8]) {
        let after_ms = if self.dice.one_in(4) { 1 } else { 0 };
        let (payload, shown_bytes) = (payload.to_vec(), payload.len());
        self.packets.push(Packet { from_client, seq, ack, flags, payload, shown_bytes, after_ms });
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
    pub(crate) fn send(&mut self, bytes: &[u8]) {
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

    /// The server writes.
    pub(crate) fn answer(&mut self, bytes: &[u8]) {
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
