//! Random connections: whatever way they are cut, joined, holed or damaged, what is mirrored is true.

use super::super::hpack::tests::Random;
use super::super::hpack::tests::encoder::{Encoder, Pair};
use super::harness::*;
use crate::flow::Direction;
use std::collections::BTreeMap;

/// What a client sent.
struct Truth {
    fields: Vec<Pair>,
    body: Vec<u8>,
    trailers: Vec<Pair>,
    whole: bool,
}

/// One flight of bytes by either side, in the order of time.
struct Flight {
    direction: Direction,
    bytes: Vec<u8>,
}

/// A connection, and what was sent by path.
struct Connection {
    flights: Vec<Flight>,
    truth: BTreeMap<String, Truth>,
}

/// A stream that a client has opened and not ended.
struct Sending {
    stream: u32,
    path: String,
    body: Vec<u8>,
    sent: usize,
    trailers: bool,
}

/// Writes a random connection. Bodies hold whole frames that look like requests on streams to come, so that
/// `:path` begins with `/evil` in all of these.
struct Writer {
    random: Random,
    encoder: Encoder,
    connection: Connection,
    sending: Vec<Sending>,
    unanswered: Vec<u32>,
    next_stream: u32,
}

impl Writer {
    fn write(seed: u64, requests: u32) -> Connection {
        let mut random = Random::new(seed);
        let resize_percent = [0, 2][random.below(2) as usize];
        let mut writer = Self {
            random,
            encoder: Encoder::new(4096, resize_percent),
            connection: Connection { flights: Vec::new(), truth: BTreeMap::new() },
            sending: Vec::new(),
            unanswered: Vec::new(),
            next_stream: 1,
        };
        writer.push(Direction::Request, hello());
        writer.push(Direction::Answer, settings());
        while writer.next_stream < 2 * requests {
            writer.step();
        }
        writer.connection
    }

    fn step(&mut self) {
        match self.random.below(20) {
            0..6 => self.open(),
            6..13 => self.send(),
            13 => self.push(Direction::Request, frame(8, 0, 0, &[0, 0, 1, 0])),
            14 => self.push(Direction::Request, frame(6, 0, 0, &[7; 8])),
            15 => self.push(Direction::Request, frame(0x10, 0, 0, b"\0\0\0\x01u=1")),
            16 => self.cancel(),
            _ => self.answer(),
        }
    }

    fn open(&mut self) {
        let stream = self.next_stream;
        self.next_stream += 2;
        let path = format!("/true/{stream}");
        let mut fields: Vec<Pair> =
            get(&path).iter().map(|(n, v)| (n.as_bytes().to_vec(), v.as_bytes().to_vec())).collect();
        for _ in 0..self.random.below(4) {
            let name = ["x-a", "x-b", "cookie"][self.random.below(3) as usize];
            fields.push((name.into(), format!("{}", self.random.below(6)).into()));
        }
        let body = if self.random.percent(50) { Vec::new() } else { self.body(stream) };
        let end = if body.is_empty() { END_STREAM } else { 0 };
        let block = self.encoder.encode(&fields, &mut self.random);
        let bytes = self.header_frames(stream, end, &block);
        self.push(Direction::Request, bytes);
        let whole = body.is_empty();
        let trailers = !whole && self.random.percent(20);
        self.connection
            .truth
            .insert(path.clone(), Truth { fields, body: body.clone(), trailers: vec![], whole });
        self.unanswered.push(stream);
        if !whole {
            self.sending.push(Sending { stream, path, body, sent: 0, trailers });
        }
    }

    fn header_frames(&mut self, stream: u32, flags: u8, block: &[u8]) -> Vec<u8> {
        if self.random.percent(80) {
            return frame(1, flags | END_HEADERS, stream, block);
        }
        let (first, rest) = block.split_at(self.random.below(block.len() as u32 + 1) as usize);
        let (second, third) = rest.split_at(self.random.below(rest.len() as u32 + 1) as usize);
        let padded = [&[1], first, &[0]].concat();
        [
            frame(1, flags | PADDED, stream, &padded),
            frame(9, 0, stream, second),
            frame(9, END_HEADERS, stream, third),
        ]
        .concat()
    }

    fn body(&mut self, stream: u32) -> Vec<u8> {
        match self.random.below(4) {
            0 => (0..self.random.below(3000)).map(|_| self.random.below(256) as u8).collect(),
            1 => vec![0; self.random.below(3000) as usize],
            _ => {
                let frames = self.random.below(400);
                (0..frames).flat_map(|n| get_frame(stream + 2 * (n % 50), &format!("/evil/{n}"))).collect()
            }
        }
    }

    fn send(&mut self) {
        if self.sending.is_empty() {
            return;
        }
        let place = self.random.below(self.sending.len() as u32) as usize;
        let most = [10, 1000, 16_384][self.random.below(3) as usize];
        let sending = &mut self.sending[place];
        let bytes = &sending.body[sending.sent..];
        let bytes = &bytes[..bytes.len().min(most)];
        sending.sent += bytes.len();
        let ended = sending.sent == sending.body.len();
        let stream = sending.stream;
        let end = if ended && !sending.trailers { END_STREAM } else { 0 };
        let payload = if most == 1000 { [&[3], bytes, &[0; 3]].concat() } else { bytes.to_vec() };
        let data = frame(0, end | if most == 1000 { PADDED } else { 0 }, stream, &payload);
        self.push(Direction::Request, data);
        if !ended {
            return;
        }
        let sending = self.sending.swap_remove(place);
        if sending.trailers {
            let trailers: Vec<Pair> = vec![("x-sum".into(), format!("{stream}").into())];
            let block = self.encoder.encode(&trailers, &mut self.random);
            let bytes = self.header_frames(stream, END_STREAM, &block);
            self.push(Direction::Request, bytes);
            self.connection.truth.get_mut(&sending.path).expect("opened").trailers = trailers;
        }
        self.connection.truth.get_mut(&sending.path).expect("opened").whole = true;
    }

    fn cancel(&mut self) {
        if self.sending.len() > 3 {
            let sending = self.sending.swap_remove(0);
            self.push(Direction::Request, frame(3, 0, sending.stream, &[0, 0, 0, 8]));
        }
    }

    fn answer(&mut self) {
        if !self.unanswered.is_empty() {
            let place = self.random.below(self.unanswered.len() as u32) as usize;
            let stream = self.unanswered.remove(place);
            let bytes =
                [answer_frame(stream), frame(0, 0, stream, &vec![b'x'; self.random.below(4000) as usize])];
            self.push(Direction::Answer, bytes.concat());
        }
    }

    fn push(&mut self, direction: Direction, bytes: Vec<u8>) {
        self.connection.flights.push(Flight { direction, bytes });
    }
}

impl Connection {
    /// Checks all that is mirrored against what was sent, and returns how many there are.
    fn check(&self, probe: &Probe, seed: u64) -> usize {
        let mirrored = probe.mirrored();
        for seen in &mirrored {
            let truth = self.truth.get(&seen.target);
            let truth = truth.unwrap_or_else(|| panic!("seed {seed}: {} was never sent", seen.target));
            assert!(truth.whole, "seed {seed}: {} was never ended", seen.target);
            assert_eq!(seen.body, truth.body, "seed {seed}: {}", seen.target);
            let pairs = |fields: &[(String, Vec<u8>)]| -> Vec<Pair> {
                fields.iter().map(|(name, value)| (name.clone().into_bytes(), value.clone())).collect()
            };
            let sent: Vec<_> = truth
                .fields
                .iter()
                .filter(|(name, _)| name != b":method" && name != b":path")
                .cloned()
                .collect();
            assert_eq!(pairs(&seen.fields), sent, "seed {seed}: {}", seen.target);
            assert_eq!(pairs(&seen.trailers), truth.trailers, "seed {seed}: {}", seen.target);
        }
        let mut targets: Vec<_> = mirrored.iter().map(|seen| &seen.target).collect();
        targets.sort();
        targets.dedup();
        assert_eq!(targets.len(), mirrored.len(), "seed {seed}: mirrored twice");
        mirrored.len()
    }

    fn whole(&self) -> usize {
        self.truth.values().filter(|truth| truth.whole).count()
    }
}

/// How many connections to try: `ordinary`, times `H2_RANDOM_FACTOR`.
fn cases(ordinary: u64) -> u64 {
    let factor = std::env::var("H2_RANDOM_FACTOR").ok().and_then(|text| text.parse().ok());
    ordinary * factor.unwrap_or(1)
}

/// Gives a flight in random pieces, of which some start a segment.
fn give(probe: &mut Probe, flight: &Flight, random: &mut Random) {
    let mut rest = flight.bytes.as_slice();
    let mut at_segment_start = true;
    while !rest.is_empty() {
        let most = [1, 9, 1448, 65_536][random.below(4) as usize];
        let (piece, tail) = rest.split_at(rest.len().min(1 + random.below(most) as usize));
        probe.chunk(flight.direction, piece, at_segment_start);
        at_segment_start = random.percent(50);
        rest = tail;
    }
}

#[test]
fn any_chunking_gives_the_same_requests_and_all_of_them() {
    for seed in 0..cases(60) {
        let connection = Writer::write(seed, 30);
        let mut random = Random::new(seed + 1000);
        let mut whole = Probe::at_start();
        let mut pieces = Probe::at_start();
        for flight in &connection.flights {
            whole.chunk(flight.direction, &flight.bytes, true);
            give(&mut pieces, flight, &mut random);
        }
        assert_eq!(connection.check(&whole, seed), connection.whole(), "seed {seed}");
        assert_eq!(whole.flow.take_counters(), pieces.flow.take_counters());
        whole.close();
        pieces.close();
        assert_eq!(whole.seen, pieces.seen, "seed {seed}");
        let violations: u64 =
            whole.flow.take_counters().unwrap_or_default().violations().map(|(_, count)| count).sum();
        assert_eq!(violations, 0);
    }
}

#[test]
fn joined_at_any_byte_only_true_requests_are_mirrored() {
    let (mut mirrored, mut whole) = (0, 0);
    for seed in 0..cases(150) {
        let connection = Writer::write(seed, 150);
        let mut random = Random::new(seed + 2000);
        let first = random.below(connection.flights.len() as u32 / 2) as usize;
        let mut probe = Probe::joined();
        for (number, flight) in connection.flights.iter().enumerate().skip(first) {
            let cut = if number == first { random.below(flight.bytes.len() as u32 + 1) as usize } else { 0 };
            let rest = Flight { direction: flight.direction, bytes: flight.bytes[cut..].to_vec() };
            give(&mut probe, &rest, &mut random);
        }
        probe.close();
        mirrored += connection.check(&probe, seed);
        whole += connection.whole();
    }
    assert!(mirrored * 20 > whole, "{mirrored} of {whole} mirrored");
}

#[test]
fn with_gaps_anywhere_only_true_requests_are_mirrored() {
    let (mut mirrored, mut whole) = (0, 0);
    for seed in 0..cases(150) {
        let connection = Writer::write(seed, 120);
        let mut random = Random::new(seed + 3000);
        let mut probe = Probe::at_start();
        for flight in &connection.flights {
            if !random.percent(2) {
                give(&mut probe, flight, &mut random);
                continue;
            }
            let start = random.below(flight.bytes.len() as u32) as usize;
            let length = 1 + random.below((flight.bytes.len() - start) as u32) as usize;
            let piece = |bytes: &[u8]| Flight { direction: flight.direction, bytes: bytes.to_vec() };
            give(&mut probe, &piece(&flight.bytes[..start]), &mut random);
            probe.gap(flight.direction, length);
            give(&mut probe, &piece(&flight.bytes[start + length..]), &mut random);
        }
        probe.close();
        mirrored += connection.check(&probe, seed);
        whole += connection.whole();
    }
    assert!(mirrored * 10 > whole, "{mirrored} of {whole} mirrored");
}

#[test]
fn damaged_connections_and_noise_never_panic_and_every_request_ends_once() {
    for seed in 0..cases(400) {
        let connection = Writer::write(seed, 12);
        let mut random = Random::new(seed + 4000);
        let mut probe = if seed % 2 == 0 { Probe::at_start() } else { Probe::joined() };
        for flight in &connection.flights {
            let mut bytes = flight.bytes.clone();
            for _ in 0..random.below(4) {
                let place = random.below(bytes.len() as u32) as usize;
                bytes[place] = random.next() as u8;
            }
            if random.percent(5) {
                bytes = (0..random.below(200)).map(|_| random.next() as u8).collect();
            }
            give(&mut probe, &Flight { direction: flight.direction, bytes }, &mut random);
            assert!(probe.flow.allocated_bytes() < 400_000);
        }
        probe.close();
    }
}
