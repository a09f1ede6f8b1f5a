//! HTTP/2 that means harm: production's good clients notice nothing, the daemon stays small, its books balance.

use std::time::Duration;

use mirror_tests::loadtool::H2Load;
use mirror_tests::netns::Role;
use mirror_tests::privilege::root_or_skip;
use mirror_tests::server::LogMode;

use super::rig::HOST;
use crate::harmless::hostile::{ECHO_PORT, assert_still_sound, random, start_echo, through};
use crate::stage::{PORT, Stage, Wish, gateway, one_at_a_time, quiet_books};

/// Requests of the good client, and its rate.
const GOOD: u64 = 3000;
const RATE: u32 = 300;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

/// GET / of `a`, by the static table: `:method`, `:scheme`, `:path`, and an `:authority` that is inserted.
const GET: [u8; 6] = [0x82, 0x86, 0x84, 0x41, 0x01, b'a'];

#[test]
fn hostile_http2_harms_neither_production_nor_the_daemon() {
    if !root_or_skip("hostile_http2_harms_neither_production_nor_the_daemon") {
        return;
    }
    let _alone = one_at_a_time();
    let stage = Stage::with_nginx(&LogMode::Count, |nginx| nginx.http2 = true);
    let echo = start_echo(&stage.lab.gateway);
    assert_eq!(echo, Role::Gateway.at(ECHO_PORT));
    let wish = Wish {
        ports: vec![PORT, ECHO_PORT],
        limits: "idle_timeout = \"2s\"\nhole_timeout = \"1s\"",
        ..Wish::default()
    };
    let mut daemon = stage.daemon_with(&wish);
    let client = &stage.lab.client;
    std::thread::scope(|scope| {
        let good = H2Load { connections: 2, rate: Some(RATE), ..H2Load::new(gateway(), HOST, GOOD) };
        let loading = scope.spawn(move || good.run(client).unwrap());
        for (name, bytes) in attacks() {
            // All of it reaches the daemon through the echo, which never closes early.
            assert_eq!(through(client, echo, &bytes).len(), bytes.len(), "{name} through the echo");
            drop(through(client, gateway(), &bytes));
            assert!(daemon.is_running(), "{name}: {}", daemon.output());
        }
        let report = loading.join().unwrap();
        assert_eq!((report.answers, report.bad, report.errors), (GOOD, 0, 0));
    });
    // A good client after all that is mirrored to the last request.
    let before = stage.shadow.log().summary().requests;
    let load = H2Load::new(gateway(), HOST, 2000);
    assert_eq!(load.run(client).unwrap().answers, 2000);
    let arrived = || stage.shadow.log().summary().requests >= before + 2000;
    mirror_tests::wait::until_true("what is good is mirrored", Duration::from_secs(60), arrived).unwrap();
    let books = quiet_books(&daemon, GOOD + 2000);
    books.assert_balanced();
    assert_still_sound(&mut daemon, &books);
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A connection that begins well.
fn connection(frames: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut bytes = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    frames.into_iter().for_each(|frame| bytes.extend(frame));
    bytes
}

/// `count` streams, each with the frames that `of` makes for it.
fn streams(count: u32, of: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    connection((0..count).map(|index| of(2 * index + 1)))
}

/// A literal with incremental indexing, neither name nor value Huffman-coded, each shorter than 127 bytes.
fn insert(name: &[u8], value_bytes: usize) -> Vec<u8> {
    let mut block = vec![0x40, name.len() as u8];
    block.extend(name);
    // 7-bit prefix integer (RFC 7541, 5.1).
    block.push(127);
    let mut rest = value_bytes - 127;
    while rest >= 128 {
        block.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    block.push(rest as u8);
    block.resize(block.len() + value_bytes, b'v');
    block
}

/// Every kind of harm, by name.
fn attacks() -> Vec<(&'static str, Vec<u8>)> {
    let damaged = (20..26).map(|seed| ("damaged frames", damaged(seed)));
    [beginnings(), floods(), resets(), blocks(), violations()].into_iter().flatten().chain(damaged).collect()
}

fn beginnings() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("a preface and noise", [PREFACE, &random(1, 60_000)].concat()),
        ("half a preface", PREFACE[..20].to_vec()),
        ("prefaces", PREFACE.repeat(2000)),
    ]
}

/// So many frames of one kind behind an open head.
fn behind_head(flags: u8, count: usize, frame_of: impl Fn() -> Vec<u8>) -> Vec<u8> {
    let head = frame(HEADERS, flags, 1, &GET);
    connection([head].into_iter().chain((0..count).map(|_| frame_of())))
}

fn floods() -> Vec<(&'static str, Vec<u8>)> {
    let chatter = |kind: u8, flags: u8, payload: &'static [u8], count: usize| {
        connection((0..count).map(move |_| frame(kind, flags, 0, payload)))
    };
    vec![
        ("a flood of CONTINUATION", behind_head(END_STREAM, 60_000, || frame(CONTINUATION, 0, 1, b"\x82"))),
        ("a flood of empty CONTINUATION", behind_head(END_STREAM, 60_000, || frame(CONTINUATION, 0, 1, b""))),
        ("a flood of empty DATA", behind_head(END_HEADERS, 60_000, || frame(DATA, 0, 1, b""))),
        ("a flood of SETTINGS", chatter(SETTINGS, 0, b"\x00\x01\x00\x00\x10\x00", 50_000)),
        ("a flood of PING", chatter(PING, 0, b"12345678", 50_000)),
        ("a flood of WINDOW_UPDATE", chatter(WINDOW_UPDATE, 0, b"\x00\x00\x00\x01", 50_000)),
        ("a flood of GOAWAY", chatter(GOAWAY, 0, &[0; 8], 20_000)),
        ("a flood of the unknown", chatter(0xaa, 0xff, b"abc", 50_000)),
    ]
}

fn resets() -> Vec<(&'static str, Vec<u8>)> {
    let reset = |stream: u32| frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]);
    let begin = |stream: u32| frame(HEADERS, END_HEADERS, stream, &GET);
    vec![
        ("rapid reset", streams(10_000, |stream| [get(stream), reset(stream)].concat())),
        (
            "rapid reset of uploads",
            streams(10_000, |stream| [begin(stream), frame(DATA, 0, stream, b"x"), reset(stream)].concat()),
        ),
        ("streams that never end", streams(10_000, begin)),
    ]
}

fn blocks() -> Vec<(&'static str, Vec<u8>)> {
    // One big entry, then thousands of references to it in each block: 16 KiB become 60 MB.
    let bomb = [GET.to_vec(), insert(b"x", 3900), vec![0xbe; 12_000]].concat();
    let references = [vec![0x82, 0x86, 0x84], vec![0xbe; 16_000]].concat();
    let updates = [0x3f, 0xe1, 0x1f, 0x20].repeat(3000);
    let endless = [[0x7f].as_slice(), &[0xff; 4000]].concat();
    let many_names = |stream: u32| {
        let fields = (0..100).map(|n| insert(format!("x-{stream}-{n}").as_bytes(), 128));
        [GET.to_vec(), fields.collect::<Vec<_>>().concat()].concat()
    };
    let whole = |stream: u32, block: &[u8]| frame(HEADERS, END_HEADERS | END_STREAM, stream, block);
    vec![
        ("an HPACK bomb", streams(40, |stream| whole(stream, if stream == 1 { &bomb } else { &references }))),
        ("size updates", streams(200, |stream| whole(stream, &updates))),
        ("a lying integer", streams(1, |stream| whole(stream, &endless))),
        ("blocks that are noise", streams(500, |stream| whole(stream, &random(u64::from(stream), 300)))),
        ("many names", streams(300, |stream| whole(stream, &many_names(stream)))),
    ]
}

fn violations() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("DATA of nobody", streams(5000, |stream| frame(DATA, 0, stream, b"nobody's"))),
        (
            "padding beyond the frame",
            streams(500, |stream| frame(HEADERS, END_HEADERS | PADDED, stream, &[255])),
        ),
        ("heads on stream 0", connection((0..500).map(|_| get(0)))),
        ("PUSH_PROMISE by a client", streams(500, |stream| frame(PUSH_PROMISE, END_HEADERS, stream, &GET))),
        (
            "a frame beyond all sizes",
            connection([vec![0xff, 0xff, 0xff, DATA, 0, 0, 0, 0, 1], vec![0; 500_000]]),
        ),
    ]
}

fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &GET)
}

/// A run of good streams with some bytes changed.
fn damaged(seed: u64) -> Vec<u8> {
    let mut good = streams(400, |stream| {
        let head = frame(HEADERS, END_HEADERS, stream, &GET);
        [head, frame(DATA, END_STREAM, stream, b"0123456789")].concat()
    });
    let noise = random(seed, 200);
    for place in noise.chunks_exact(4) {
        let at = PREFACE.len()
            + usize::from(u16::from_le_bytes([place[0], place[1]])) % (good.len() - PREFACE.len());
        good[at] = place[2];
    }
    good
}
