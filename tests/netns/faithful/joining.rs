//! Connections that are older than the daemon, and bytes in uploads that look like requests.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mirror_tests::client::Connection;
use mirror_tests::netns::Role;
use mirror_tests::privilege::root_or_skip;

use super::corpus::{Chunking, Ids, Sent};
use super::expected::{assert_same, assert_subset};
use super::rig::{DOWNSTREAM, GATEWAY_PORT, LIMIT, World, all_to, dropped};

/// Exchanges of a joined connection that are spent until its framing is trusted: the first has nothing before it
/// that would prove where it starts, the second is the first proof. The third is the second proof, and goes.
const SPENT_EXCHANGES: usize = 2;

/// How long a client waits between two segments, so that each is a segment of its own on the wire.
const SEGMENT_PAUSE: Duration = Duration::from_millis(1);

#[test]
fn connection_used_before_the_daemon_is_mirrored_from_the_third_exchange_on() {
    if !root_or_skip("connection_used_before_the_daemon_is_mirrored_from_the_third_exchange_on") {
        return;
    }
    let world = World::new();
    let _nginx = world.nginx(|_| {});
    let mut ids = Ids::default();
    let mut connections: Vec<Connection> =
        [Role::Gateway.at(GATEWAY_PORT), Role::Gateway.at_v6(GATEWAY_PORT)]
            .into_iter()
            .cycle()
            .take(8)
            .map(|to| Connection::open(&world.lab.client, to).unwrap())
            .collect();
    for connection in &mut connections {
        assert_eq!(Sent::get(ids.next()).exchange(connection).status, 200);
        assert_eq!(Sent::post(ids.next(), 5000).exchange(connection).status, 200);
    }
    let watch = world.mirror_downstream();
    let (mut sure, mut count) = (Vec::new(), 0);
    for connection in &mut connections {
        for round in 0..10 {
            let request = if round % 3 == 0 { Sent::post(ids.next(), 3000) } else { Sent::get(ids.next()) };
            assert_eq!(request.exchange(connection).status, 200);
            count += 1;
            if round >= SPENT_EXCHANGES {
                sure.push(request);
            }
        }
    }
    world.shadow.wait_for_requests(sure.len(), LIMIT).unwrap();
    let books = watch.books(count);
    assert_eq!(
        dropped(&books, "unproven_boundary"),
        (connections.len() * SPENT_EXCHANGES) as u64,
        "{books:#}"
    );
    assert_same(&sure, &world.shadow.requests());
    watch.end();
}

#[test]
fn connection_joined_in_the_middle_of_an_upload_gives_whole_requests_only() {
    if !root_or_skip("connection_joined_in_the_middle_of_an_upload_gives_whole_requests_only") {
        return;
    }
    let world = World::new();
    let _nginx = world.nginx(|_| {});
    let mut ids = Ids::default();
    let mut connection = Connection::open(&world.lab.client, Role::Gateway.at(GATEWAY_PORT)).unwrap();
    let pieces = upload(ids.next(), Shape::Length, 60);
    let (before, after) = pieces.1.split_at(30);
    send_paced(&mut connection, before);
    let watch = world.mirror_downstream();
    send_paced(&mut connection, after);
    assert_eq!(connection.read_answer().unwrap().status, 200);
    let mut sent = Vec::new();
    for _ in 0..6 {
        let request = Sent::post(ids.next(), 2000);
        assert_eq!(request.exchange(&mut connection).status, 200);
        sent.push(request);
    }
    let sure = sent.split_off(SPENT_EXCHANGES);
    let got = world.shadow.wait_for_requests(sure.len(), LIMIT).unwrap();
    assert_subset(&[sent, sure.clone()].concat(), &got);
    assert!(got.len() >= sure.len());
    watch.end();
}

#[test]
fn request_embedded_in_an_upload_never_arrives_whenever_it_is_joined() {
    if !root_or_skip("request_embedded_in_an_upload_never_arrives_whenever_it_is_joined") {
        return;
    }
    const CLIENTS: u64 = 4;
    const JOINS: usize = 8;
    let world = World::new();
    let _nginx = world.nginx(|_| {});
    let (ended, sent) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (world, ended, sent) = (&world, &ended, &sent);
            scope.spawn(move || upload_until(world, ended, sent, client));
        }
        for _ in 0..JOINS {
            let watch = world.watch(&world.lab.gateway, &all_to(world.shadow.address(), DOWNSTREAM));
            // So many true requests have come after this join that every connection has been trusted.
            let goal = sent.lock().unwrap().len() + 24;
            mirror_tests::wait::until_true("clients go on", LIMIT, || sent.lock().unwrap().len() >= goal)
                .unwrap();
            watch.end();
        }
        ended.store(true, Ordering::Relaxed);
    });
    let got = world.shadow.requests();
    assert!(got.len() > JOINS * 4, "only {} requests were mirrored", got.len());
    assert_subset(&sent.into_inner().unwrap(), &got);
    assert_eq!(world.shadow.log().faults(), Vec::<String>::new());
}

/// How an upload is framed.
#[derive(Clone, Copy)]
enum Shape {
    /// By Content-Length; its segments start with a request.
    Length,
    /// In chunks; segments start with the size of a chunk, with a request, or with what looks like a last chunk.
    Chunked,
}

/// True requests and uploads in turn, on connections that last a while, until told to end. What is noted was sent
/// whole and answered.
fn upload_until(world: &World, ended: &AtomicBool, sent: &Mutex<Vec<Sent>>, client: u64) {
    let mut number = client * 1_000_000;
    let mut next = || {
        number += 1;
        number
    };
    while !ended.load(Ordering::Relaxed) {
        let mut connection = Connection::open(&world.lab.client, Role::Gateway.at(GATEWAY_PORT)).unwrap();
        for round in 0..12 {
            let shape = if round % 2 == 0 { Shape::Length } else { Shape::Chunked };
            let (request, pieces) = upload(next(), shape, 12);
            // Noted before it is sent: the shadow may get it before the client has its answer.
            sent.lock().unwrap().push(request);
            send_paced(&mut connection, &pieces);
            assert_eq!(connection.read_answer().unwrap().status, 200);
            for _ in 0..round % 4 {
                let request = Sent::get(next());
                sent.lock().unwrap().push(request.clone());
                assert_eq!(request.exchange(&mut connection).status, 200);
            }
        }
    }
}

fn send_paced(connection: &mut Connection, pieces: &[Vec<u8>]) {
    for piece in pieces {
        connection.send(piece).unwrap();
        std::thread::sleep(SEGMENT_PAUSE);
    }
}

/// An upload full of requests, and the segments in which it is to be sent. The numbers in it are above all others.
fn upload(id: u64, shape: Shape, embedded: usize) -> (Sent, Vec<Vec<u8>>) {
    let evil = |n: usize| {
        let n = 900_000_000 + n;
        format!("GET /evil?id={n} HTTP/1.1\r\nHost: shadowing.example\r\n\r\n").into_bytes()
    };
    let evils: Vec<Vec<u8>> = (0..embedded).map(evil).collect();
    let head = "POST /upload?id={id} HTTP/1.1\r\nHost: shadowing.example\r\n";
    match shape {
        Shape::Length => {
            let request = Sent::new(id, &format!("{head}Content-Length: {{length}}\r\n"), &evils.concat());
            let pieces = [vec![request.head.clone()], evils].concat();
            (request, pieces)
        }
        Shape::Chunked => {
            let fake: Vec<Vec<u8>> = evils
                .iter()
                .map(|evil| [b"0\r\n\r\n".as_slice(), evil, b"5\r\nhello\r\n"].concat())
                .collect();
            let body = fake.concat();
            let how = Chunking { sizes: &[fake[0].len()], extension: "", trailers: "" };
            let request = Sent::chunked(id, &format!("{head}Transfer-Encoding: chunked\r\n"), &body, &how);
            // Cut before each size line, before each embedded request and before each false chunk.
            let mut pieces = vec![request.head.clone()];
            let mut rest = request.wire[request.head.len()..].to_vec();
            while let Some(at) = next_cut(&rest) {
                let after = rest.split_off(at);
                pieces.push(std::mem::replace(&mut rest, after));
            }
            pieces.push(rest);
            (request, pieces)
        }
    }
}

/// Where the next segment is to start.
fn next_cut(bytes: &[u8]) -> Option<usize> {
    let starts: [&[u8]; 3] = [b"GET /evil", b"5\r\nhello", b"0\r\n\r\n"];
    (1..bytes.len()).find(|at| starts.iter().any(|start| bytes[*at..].starts_with(start)))
}
