//! Bytes that mean harm: production gets them as they were sent, the daemon lives on, its books balance.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

use mirror_tests::client::{Answer, READ_TIMEOUT, Step};
use mirror_tests::daemon::Daemon;
use mirror_tests::netns::{Netns, Role};
use mirror_tests::privilege::root_or_skip;
use mirror_tests::server::LogMode;

use super::bounds::{MEMORY_BOUND_BYTES, memory_bytes};
use super::{head, production_answers, wait_until_mirrored};
use crate::stage::{Books, STOP_LIMIT, Stage, Wish, gateway, quiet_books};

/// A captured port behind which no HTTP is spoken: whatever comes goes back.
pub(crate) const ECHO_PORT: u16 = 8081;

#[test]
fn hostile_bytes_reach_production_unharmed_and_do_the_daemon_no_harm() {
    if !root_or_skip("hostile_bytes_reach_production_unharmed_and_do_the_daemon_no_harm") {
        return;
    }
    let stage = Stage::new(&LogMode::Count);
    let absent = production_answers(&stage);
    let echo = start_echo(&stage.lab.gateway);
    let wish = Wish { limits: "idle_timeout = \"2s\"\nhole_timeout = \"1s\"", ..wish_with_echo() };
    let mut daemon = stage.daemon_with(&wish);
    for (name, bytes) in hostile() {
        assert_eq!(through(&stage.lab.client, echo, &bytes), bytes, "{name} through the echo");
        // nginx may reset such a connection while its answer is on the way: what comes of it is no matter.
        drop(through(&stage.lab.client, gateway(), &bytes));
        assert!(daemon.is_running(), "{name}: {}", daemon.output());
    }
    assert_eq!(production_answers(&stage), absent);
    wait_until_mirrored(&stage, 1000);
    let books = quiet_books(&daemon, 0);
    books.assert_balanced();
    assert_still_sound(&mut daemon, &books);
}

#[test]
fn ten_thousand_pipelined_requests_are_answered_alike_and_all_arrive() {
    if !root_or_skip("ten_thousand_pipelined_requests_are_answered_alike_and_all_arrive") {
        return;
    }
    let stage = Stage::new(&LogMode::Count);
    let requests = 10_000;
    let absent = pipelined(&stage, requests);
    stage.production.log().clear();
    let mut daemon = stage.daemon_with(&Wish::shadow_at(crate::stage::APP_PORT, "queue_items = 20000"));
    assert_eq!(pipelined(&stage, requests), absent);
    let books = quiet_books(&daemon, requests);
    assert!(books.kernel_complete(), "{}", books.page());
    assert!(stage.shadow.log().missing(requests).is_empty(), "{}", books.page());
    assert_eq!(books.shadow("app", "replayed"), requests);
    books.assert_balanced();
    assert_still_sound(&mut daemon, &books);
}

fn wish_with_echo() -> Wish {
    Wish { ports: vec![crate::stage::PORT, ECHO_PORT], ..Wish::default() }
}

pub(crate) fn assert_still_sound(daemon: &mut Daemon, books: &Books) {
    assert!(!daemon.output().contains("panicked"), "{}", daemon.output());
    assert_eq!(daemon.page("/healthz").unwrap().0, 200);
    let bytes = memory_bytes(daemon);
    eprintln!("peak {} KiB; dropped: {:?}", bytes / 1024, books.0["requests"]["dropped_by_reason"]);
    assert!(bytes < MEMORY_BOUND_BYTES, "{bytes}");
    daemon.stop(STOP_LIMIT).unwrap();
}

/// All on one connection, written before the first answer is read as far as buffers allow.
fn pipelined(stage: &Stage, requests: u64) -> Vec<Vec<u8>> {
    let all: Vec<u8> =
        (0..requests).flat_map(|id| head("GET", &format!("/bytes/1?id={id}"), "\r\n")).collect();
    let mut connection = stage.connect();
    let mut answers = Vec::new();
    // Some at a time, or both sides would wait for the other to read.
    for part in all.split_inclusive(|byte| *byte == b'\n').collect::<Vec<_>>().chunks(3 * 500) {
        let script = [Step::Send(part.concat()), Step::Read(500)];
        answers.extend(connection.play(&script).unwrap().iter().map(Answer::without_date));
    }
    answers
}

/// Every kind of harm, by name.
fn hostile() -> Vec<(&'static str, Vec<u8>)> {
    let hello = [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice(), &random(1, 512)].concat();
    let with = |fields: &str, body: &[u8]| [head("POST", "/", fields).as_slice(), body].concat();
    let many_fields: String = (0..20_000).map(|n| format!("X-{n}: {n}\r\n")).collect();
    let tiny_chunks = b"1\r\nx\r\n".repeat(50_000);
    let chunked = "Transfer-Encoding: chunked\r\n\r\n";
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let mut cases = vec![
        ("nothing", Vec::new()),
        ("noughts", vec![0; 100_000]),
        ("one endless line", vec![b'a'; 1_000_000]),
        ("line ends", b"\r\n".repeat(100_000)),
        ("line feeds", vec![b'\n'; 100_000]),
        ("a TLS hello and noise", hello),
        (
            "HTTP/2 preface and noise",
            [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &random(2, 50_000)].concat(),
        ),
        (
            "PROXY v2 with a lying length",
            [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff".as_slice(), &random(3, 70_000)].concat(),
        ),
        ("a giant field", with(&format!("X: {}\r\n\r\n", "x".repeat(2_000_000)), b"")),
        ("a giant target", head("GET", &format!("/{}", "t".repeat(2_000_000)), "\r\n")),
        ("many fields", with(&format!("{many_fields}\r\n"), b"")),
        ("a chunk of 2^64 bytes", with(chunked, b"ffffffffffffffff\r\nx\r\n")),
        ("a chunk size beyond all numbers", with(chunked, &[&[b'f'; 200_000], b"\r\nx".as_slice()].concat())),
        (
            "a giant chunk extension",
            with(chunked, &[b"1;", vec![b'e'; 500_000].as_slice(), b"\r\nx\r\n0\r\n\r\n"].concat()),
        ),
        ("tiny chunks", with(chunked, &[tiny_chunks.as_slice(), b"0\r\n\r\n"].concat())),
        ("endless trailers", with(chunked, &[b"0\r\n".as_slice(), &b"T: t\r\n".repeat(100_000)].concat())),
        ("two lengths", with("Content-Length: 5\r\nContent-Length: 6\r\n\r\n", b"hello!")),
        (
            "a length and chunks",
            with(
                "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
                b"0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            ),
        ),
        ("a length beyond all numbers", with("Content-Length: 99999999999999999999999999\r\n\r\n", b"x")),
        ("a length below nought", with("Content-Length: -1\r\n\r\n", b"x")),
        ("a folded field", with("X: a\r\n b\r\n\r\n", b"")),
        ("an upgrade and noise", [head("GET", "/", upgrade), random(4, 100_000)].concat()),
        (
            "CONNECT and noise",
            [b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n".as_slice(), &random(5, 100_000)].concat(),
        ),
        ("answers instead of requests", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc".repeat(2000)),
        ("interim answers", b"HTTP/1.1 100 Continue\r\n\r\n".repeat(20_000)),
        ("half a head", b"GET / HTTP/1.1\r\nHost: ".to_vec()),
    ];
    for seed in 10..20 {
        cases.push(("noise", random(seed, 60_000)));
        cases.push(("damaged requests", damaged(seed)));
    }
    cases
}

/// A run of good requests with some bytes changed.
fn damaged(seed: u64) -> Vec<u8> {
    let mut good = head("POST", "/", "Content-Length: 10\r\nX-Y: z\r\n\r\n0123456789").repeat(50);
    good.extend(head("POST", "/", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n").repeat(50));
    let noise = random(seed, 400);
    for place in noise.chunks_exact(4) {
        let at = usize::from(u16::from_le_bytes([place[0], place[1]])) % good.len();
        good[at] = place[2];
    }
    good
}

/// The same for the same seed (xorshift).
pub(crate) fn random(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..bytes).map(|_| next()).collect()
}

/// Sends `bytes`, ends the sending side, and reads what comes until the end or a failure.
pub(crate) fn through(netns: &Netns, to: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = netns.run(|| TcpStream::connect(to)).unwrap().unwrap();
    stream.set_read_timeout(Some(READ_TIMEOUT)).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let mut got = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // The other side may have had enough.
            let _ = writer.write_all(bytes);
            let _ = writer.shutdown(Shutdown::Write);
        });
        let _ = stream.read_to_end(&mut got);
    });
    got
}

pub(crate) fn start_echo(netns: &Netns) -> SocketAddr {
    let address = Role::Gateway.at(ECHO_PORT);
    let listener = netns.run(|| TcpListener::bind(address)).unwrap().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut back = stream.try_clone()?;
                std::io::copy(&mut &stream, &mut back)?;
                back.shutdown(Shutdown::Write)
            });
        }
    });
    address
}
