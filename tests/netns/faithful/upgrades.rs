//! Connections that leave HTTP/1, or never spoke it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

use mirror_tests::client::{Connection, Step};
use mirror_tests::haproxy::{Haproxy, Sides};
use mirror_tests::netns::{Netns, Role};
use mirror_tests::privilege::root_or_skip;

use super::corpus::{Ids, Sent};
use super::expected::{assert_mirrored, assert_same};
use super::rig::{GATEWAY_PORT, LIMIT, World, dropped};

const TUNNEL_PORT: u16 = 8001;
/// What is sent once HTTP/1 was left.
const EVIL: &[u8] = b"GET /evil?id=999 HTTP/1.1\r\nHost: shadowing.example\r\n\r\n";

/// Answers every head with `answer` and sends back all that follows, as long as the test lives.
fn start_echo(netns: &Netns, address: SocketAddr, answer: &'static [u8]) {
    let listener = netns.run(|| TcpListener::bind(address)).unwrap().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || echo(stream, answer));
        }
    });
}

fn echo(mut stream: TcpStream, answer: &[u8]) -> std::io::Result<()> {
    let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
    let head_end = loop {
        let got = stream.read(&mut buffer)?;
        seen.extend_from_slice(&buffer[..got]);
        match seen.windows(4).position(|window| window == b"\r\n\r\n") {
            Some(at) => break at + 4,
            None if got == 0 => return Ok(()),
            None => {}
        }
    };
    stream.write_all(answer)?;
    stream.write_all(&seen[head_end..])?;
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            got => stream.write_all(&buffer[..got])?,
        }
    }
}

/// Sends `EVIL` a few times and reads each echo.
#[track_caller]
fn talk_through(connection: &mut Connection) {
    for _ in 0..5 {
        connection.send(EVIL).unwrap();
        assert_eq!(connection.read_bytes(EVIL.len()).unwrap(), EVIL);
    }
}

fn websocket(id: u64, path: &str) -> Sent {
    let head = format!(
        "GET {path}?id={{id}} HTTP/1.1\r\nHost: shadowing.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    );
    Sent::new(id, &head, b"")
}

#[test]
fn websocket_through_nginx_is_counted_and_nothing_of_it_is_replayed() {
    if !root_or_skip("websocket_through_nginx_is_counted_and_nothing_of_it_is_replayed") {
        return;
    }
    let world = World::new();
    let sockets = Role::Production.at(TUNNEL_PORT);
    let answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
    start_echo(&world.lab.production, sockets, answer);
    let _nginx = world.nginx(|config| {
        config.extra = format!(
            "location /ws {{ proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; \
             proxy_set_header Connection upgrade; proxy_pass http://{sockets}; }}"
        );
    });
    let watch = world.mirror_downstream();
    let mut ids = Ids::default();
    let mut connection = Connection::open(&world.lab.client, Role::Gateway.at(GATEWAY_PORT)).unwrap();
    let before = Sent::get(ids.next());
    before.exchange(&mut connection);
    assert_eq!(websocket(ids.next(), "/ws").exchange(&mut connection).status, 101);
    talk_through(&mut connection);
    // What is sent with the request itself, before its answer, is no request either.
    let mut eager = Connection::open(&world.lab.client, Role::Gateway.at(GATEWAY_PORT)).unwrap();
    eager.send(&[websocket(ids.next(), "/ws").wire, EVIL.to_vec()].concat()).unwrap();
    assert_eq!(eager.read_answer().unwrap().status, 101);
    assert_eq!(eager.read_bytes(EVIL.len()).unwrap(), EVIL);
    talk_through(&mut eager);
    // A refused upgrade is a request like any other, and so is what follows it.
    let mut refused = Connection::open(&world.lab.client, Role::Gateway.at(GATEWAY_PORT)).unwrap();
    let (asked, after) = (websocket(ids.next(), "/no"), Sent::post(ids.next(), 300));
    assert_eq!(asked.exchange(&mut refused).status, 200);
    assert_eq!(after.exchange(&mut refused).status, 200);
    let pipelined = [websocket(ids.next(), "/no"), Sent::get(ids.next()), Sent::post(ids.next(), 10)];
    let script = [Step::Send(pipelined.iter().flat_map(|sent| sent.wire.clone()).collect()), Step::Read(3)];
    refused.play(&script).unwrap();

    let sent = [vec![before, asked, after], pipelined.to_vec()].concat();
    let books = watch.books(sent.len() as u64 + 2);
    assert_eq!(dropped(&books, "upgrade"), 2, "{books:#}");
    assert_same(&sent, &world.shadow.wait_for_requests(sent.len(), LIMIT).unwrap());
    watch.end();
}

#[test]
fn tunnel_of_connect_through_haproxy_is_counted_and_nothing_of_it_is_replayed() {
    if !root_or_skip("tunnel_of_connect_through_haproxy_is_counted_and_nothing_of_it_is_replayed") {
        return;
    }
    let world = World::new();
    let tunnel = Role::Production.at(TUNNEL_PORT);
    start_echo(&world.lab.production, tunnel, b"HTTP/1.1 200 Connected\r\n\r\n");
    let listen = Role::Gateway.at(GATEWAY_PORT);
    let _haproxy = Haproxy::start(&world.lab.gateway, listen, tunnel, Sides::default()).unwrap();
    let watch = world.mirror_downstream();
    let mut connection = Connection::open(&world.lab.client, listen).unwrap();
    connection
        .send(b"CONNECT shadowing.example:443 HTTP/1.1\r\nHost: shadowing.example:443\r\n\r\n")
        .unwrap();
    assert!(connection.read_head().unwrap().starts_with(b"HTTP/1.1 200"));
    talk_through(&mut connection);
    let books = watch.books(1);
    assert_eq!(dropped(&books, "upgrade"), 1, "{books:#}");
    assert_eq!(world.shadow.requests(), []);
    watch.end();
}

#[test]
fn connect_that_nginx_refuses_is_counted_and_what_else_comes_is_mirrored() {
    if !root_or_skip("connect_that_nginx_refuses_is_counted_and_what_else_comes_is_mirrored") {
        return;
    }
    let world = World::new();
    let (_nginx, watch) = (world.nginx(|_| {}), world.mirror_downstream());
    let mut refused = Connection::open(&world.lab.client, Role::Gateway.at(GATEWAY_PORT)).unwrap();
    let connect = b"CONNECT shadowing.example:443 HTTP/1.1\r\nHost: shadowing.example:443\r\n\r\n";
    assert!(refused.exchange(connect).unwrap().status >= 400);
    let request = Sent::get(1);
    request.exchange(&mut Connection::open(&world.lab.client, Role::Gateway.at(GATEWAY_PORT)).unwrap());
    let books = watch.books(2);
    assert_eq!(dropped(&books, "upgrade"), 1, "{books:#}");
    assert_same(&[request], &world.shadow.wait_for_requests(1, LIMIT).unwrap());
    watch.end();
}

#[test]
fn tls_and_other_bytes_on_the_port_are_passed_over_and_counted() {
    if !root_or_skip("tls_and_other_bytes_on_the_port_are_passed_over_and_counted") {
        return;
    }
    let world = World::new();
    let (_nginx, watch) = (world.nginx(|_| {}), world.mirror_downstream());
    let client_hello = [b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03".as_slice(), &[7; 160]].concat();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    for bytes in [client_hello, b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), preface] {
        let mut connection = Connection::open(&world.lab.client, Role::Gateway.at(GATEWAY_PORT)).unwrap();
        connection.send(&bytes).unwrap();
        // nginx answers 400 to what it can't read, and closes.
        let _ = connection.read_bytes(1);
    }
    let request = Sent::get(1);
    request.exchange(&mut Connection::open(&world.lab.client, Role::Gateway.at(GATEWAY_PORT)).unwrap());
    assert_mirrored(&world, &watch, &[request]);
    let flows = |books: &serde_json::Value, key: &str| books["flow"][key].as_u64().unwrap_or_default();
    let books = watch.books(1);
    assert_eq!(flows(&books, "passed_over_not_http"), 2, "{books:#}");
    // HTTP/2 is followed, and no request came in it.
    assert_eq!(flows(&books, "passed_over_unsupported_protocol"), 0, "{books:#}");
    watch.end();
}
