//! The downstream leg: what the client sent is what the shadow gets, whatever the gateway makes of it.

use mirror_tests::client::{Connection, Step};
use mirror_tests::haproxy::{Haproxy, Sides};
use mirror_tests::netns::Role;
use mirror_tests::privilege::root_or_skip;
use mirror_tests::server::answer::pattern;

use super::corpus::{Chunking, Ids, Sent, chunked, keep_alive, pipelined, shapes, shapes_for_haproxy, sizes};
use super::expected::assert_mirrored;
use super::rig::{GATEWAY_PORT, World};

#[test]
fn requests_of_every_shape_through_nginx_arrive_byte_for_byte() {
    if !root_or_skip("requests_of_every_shape_through_nginx_arrive_byte_for_byte") {
        return;
    }
    let world = World::new();
    let (_nginx, watch) = (world.nginx(|_| {}), world.mirror_downstream());
    let (mut ids, mut sent) = (Ids::default(), Vec::new());
    for to in [Role::Gateway.at(GATEWAY_PORT), Role::Gateway.at_v6(GATEWAY_PORT)] {
        let mut batch = shapes(&mut ids);
        batch.extend(chunked(&mut ids));
        keep_alive(&world.lab.client, to, &batch);
        sent.extend(batch);
        let batch = [shapes(&mut ids), chunked(&mut ids)].concat();
        pipelined(&world.lab.client, to, &batch);
        sent.extend(batch);
    }
    assert_mirrored(&world, &watch, &sent);
    watch.end();
}

#[test]
fn requests_in_small_pieces_through_nginx_arrive_byte_for_byte() {
    if !root_or_skip("requests_in_small_pieces_through_nginx_arrive_byte_for_byte") {
        return;
    }
    let world = World::new();
    let (_nginx, watch) = (world.nginx(|_| {}), world.mirror_downstream());
    let (mut ids, mut sent) = (Ids::default(), Vec::new());
    for piece_bytes in [1, 7, 61] {
        let batch = [vec![Sent::get(ids.next()), Sent::post(ids.next(), 300)], chunked(&mut ids)].concat();
        let mut connection = Connection::open(&world.lab.client, Role::Gateway.at(GATEWAY_PORT)).unwrap();
        for request in batch.iter().filter(|request| request.wire.len() < 4000) {
            let script = [Step::SendInPieces(request.wire.clone(), piece_bytes), Step::Read(1)];
            assert_eq!(connection.play(&script).unwrap()[0].status, 200);
            sent.push(request.clone());
        }
    }
    assert_mirrored(&world, &watch, &sent);
    watch.end();
}

#[test]
fn bodies_of_every_size_through_nginx_arrive_byte_for_byte() {
    if !root_or_skip("bodies_of_every_size_through_nginx_arrive_byte_for_byte") {
        return;
    }
    let world = World::new();
    let (_nginx, watch) = (world.nginx(|_| {}), world.mirror_downstream());
    let (mut ids, mut sent) = (Ids::default(), Vec::new());
    for to in [Role::Gateway.at(GATEWAY_PORT), Role::Gateway.at_v6(GATEWAY_PORT)] {
        let mut batch = sizes(&mut ids);
        let head =
            "POST /chunked?id={id} HTTP/1.1\r\nHost: shadowing.example\r\nTransfer-Encoding: chunked\r\n";
        let how = Chunking { sizes: &[16_000, 1, 70_000], extension: ";a=1", trailers: "X-Sum: 1\r\n" };
        batch.push(Sent::chunked(ids.next(), head, &pattern(64 << 10), &how));
        batch.push(Sent::chunked(ids.next(), head, &pattern((1 << 20) + 1), &how));
        keep_alive(&world.lab.client, to, &batch);
        sent.extend(batch);
    }
    assert_mirrored(&world, &watch, &sent);
    watch.end();
}

#[test]
fn body_that_waits_for_100_continue_or_pauses_arrives_whole() {
    if !root_or_skip("body_that_waits_for_100_continue_or_pauses_arrives_whole") {
        return;
    }
    let world = World::new();
    let (_nginx, watch) = (world.nginx(|_| {}), world.mirror_downstream());
    let (mut ids, mut sent) = (Ids::default(), Vec::new());
    let mut connection = Connection::open(&world.lab.client, Role::Gateway.at(GATEWAY_PORT)).unwrap();
    let head = "PUT /expect?id={id} HTTP/1.1\r\nHost: shadowing.example\r\nExpect: 100-continue\r\n\
        Content-Length: {length}\r\n";
    for bytes in [1, 5000, 100_000] {
        let request = Sent::new(ids.next(), head, &pattern(bytes));
        let body = request.wire[request.head.len()..].to_vec();
        let script = [Step::Send(request.head.clone()), Step::ReadInterim, Step::Send(body), Step::Read(1)];
        assert_eq!(connection.play(&script).unwrap()[0].status, 200);
        sent.push(request);
    }
    let chunked = head.replace("Content-Length: {length}", "Transfer-Encoding: chunked");
    let how = Chunking { sizes: &[10], extension: "", trailers: "X-Sum: 1\r\n" };
    let request = Sent::chunked(ids.next(), &chunked, &pattern(25), &how);
    let body = request.wire[request.head.len()..].to_vec();
    let script = [Step::Send(request.head.clone()), Step::ReadInterim, Step::Send(body), Step::Read(1)];
    assert_eq!(connection.play(&script).unwrap()[0].status, 200);
    sent.push(request);
    // A body that does not wait, and one that pauses longer than any hole is waited for.
    let eager = Sent::new(ids.next(), head, b"eager");
    assert_eq!(eager.exchange(&mut connection).status, 200);
    let slow = Sent::post(ids.next(), 3000);
    let (first, rest) = slow.wire.split_at(slow.wire.len() - 1500);
    let pause = Step::Pause(std::time::Duration::from_secs(3));
    let script = [Step::Send(first.to_vec()), pause, Step::Send(rest.to_vec()), Step::Read(1)];
    assert_eq!(connection.play(&script).unwrap()[0].status, 200);
    sent.extend([eager, slow]);
    assert_mirrored(&world, &watch, &sent);
    watch.end();
}

#[test]
fn old_versions_and_closing_connections_through_nginx_arrive_byte_for_byte() {
    if !root_or_skip("old_versions_and_closing_connections_through_nginx_arrive_byte_for_byte") {
        return;
    }
    let world = World::new();
    let (_nginx, watch) = (world.nginx(|_| {}), world.mirror_downstream());
    let mut ids = Ids::default();
    let heads = [
        ("GET /close?id={id} HTTP/1.1\r\nHost: shadowing.example\r\nConnection: close\r\n", ""),
        ("GET /close?id={id} HTTP/1.1\r\nConnection:Close\r\nHost: shadowing.example\r\nX-A: 1\r\n", ""),
        ("GET /old?id={id} HTTP/1.0\r\n", ""),
        ("GET /old?id={id} HTTP/1.0\r\nX-A: 1\r\nx-b:2\r\n", ""),
        ("GET /old?id={id} HTTP/1.0\r\nHost: shadowing.example\r\n", ""),
        ("POST /old?id={id} HTTP/1.0\r\nHost: shadowing.example\r\nContent-Length: {length}\r\n", "old body"),
        ("GET /until-close/70000?id={id} HTTP/1.1\r\nHost: shadowing.example\r\nConnection: close\r\n", ""),
    ];
    let mut sent: Vec<Sent> =
        heads.into_iter().map(|(head, body)| Sent::new(ids.next(), head, body.as_bytes())).collect();
    for request in &sent {
        keep_alive(&world.lab.client, Role::Gateway.at(GATEWAY_PORT), std::slice::from_ref(request));
    }
    // Two requests and the client's FIN behind them: both were sent whole.
    let both = [Sent::get(ids.next()), Sent::post(ids.next(), 200)];
    let all: Vec<u8> = both.iter().flat_map(|request| request.wire.clone()).collect();
    let mut connection = Connection::open(&world.lab.client, Role::Gateway.at(GATEWAY_PORT)).unwrap();
    connection.send(&all).unwrap();
    drop(connection.play(&[Step::Finish, Step::Read(2)]));
    sent.extend(both);
    // HTTP/1.0 with keep-alive goes on; empty lines before a request line are nobody's (RFC 9112, 2.2).
    let kept = "GET /kept?id={id} HTTP/1.0\r\nHost: shadowing.example\r\nConnection: keep-alive\r\n";
    let mut kept = [kept; 3].map(|head| Sent::new(ids.next(), head, b""));
    kept[1].wire.splice(0..0, *b"\r\n\r\n");
    keep_alive(&world.lab.client, Role::Gateway.at(GATEWAY_PORT), &kept);
    sent.extend(kept);
    assert_mirrored(&world, &watch, &sent);
    watch.end();
}

#[test]
fn request_that_nginx_refuses_is_mirrored_too() {
    if !root_or_skip("request_that_nginx_refuses_is_mirrored_too") {
        return;
    }
    let world = World::new();
    let (_nginx, watch) = (
        world.nginx(|config| config.extra = "location /deny { deny all; }".into()),
        world.mirror_downstream(),
    );
    let denied = Sent::new(1, "GET /deny?id={id} HTTP/1.1\r\nHost: shadowing.example\r\n", b"");
    let too_large = Sent::new(
        2,
        "POST /deny?id={id} HTTP/1.1\r\nHost: shadowing.example\r\nContent-Length: {length}\r\n",
        &[b'x'; 2000],
    );
    for request in [&denied, &too_large] {
        let mut connection = Connection::open(&world.lab.client, Role::Gateway.at(GATEWAY_PORT)).unwrap();
        assert_eq!(request.exchange(&mut connection).status, 403);
    }
    assert_mirrored(&world, &watch, &[denied, too_large]);
    assert_eq!(world.production.requests(), []);
    watch.end();
}

#[test]
fn requests_through_haproxy_arrive_byte_for_byte() {
    if !root_or_skip("requests_through_haproxy_arrive_byte_for_byte") {
        return;
    }
    let world = World::new();
    let mut ids = Ids::default();
    for to in [Role::Gateway.at(GATEWAY_PORT), Role::Gateway.at_v6(GATEWAY_PORT)] {
        let production = world.production.address();
        let _haproxy = Haproxy::start(&world.lab.gateway, to, production, Sides::default()).unwrap();
        world.shadow.log().clear();
        let watch = world.mirror_downstream();
        let mut sent = shapes_for_haproxy(&mut ids);
        sent.extend(chunked(&mut ids));
        sent.extend(sizes(&mut ids).into_iter().take(5));
        keep_alive(&world.lab.client, to, &sent);
        let burst: Vec<Sent> = (0..10).map(|_| Sent::get(ids.next())).collect();
        pipelined(&world.lab.client, to, &burst);
        sent.extend(burst);
        assert_mirrored(&world, &watch, &sent);
        watch.end();
    }
}
