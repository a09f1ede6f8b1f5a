//! Connections by the thousand, the same port again and again, and resets at any moment.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use mirror_tests::netns::{Netns, Role};
use mirror_tests::privilege::root_or_skip;
use mirror_tests::server::LogMode;
use rustix::net::{AddressFamily, SocketType, bind, connect, socket, sockopt};

use super::bounds::{MEMORY_BOUND_BYTES, memory_bytes};
use super::{head, production_answers, wait_until_mirrored};
use crate::stage::{Stage, Wish, gateway, one_at_a_time, quiet_books};

/// A captured port behind which a server holds any number of connections.
const MANY_PORT: u16 = 8083;
const MANY: u64 = 5000;

#[test]
fn five_thousand_connections_are_followed_within_the_bounds() {
    if !root_or_skip("five_thousand_connections_are_followed_within_the_bounds") {
        return;
    }
    let _alone = one_at_a_time();
    let stage = Stage::new(&LogMode::Count);
    let wish = Wish { ports: vec![crate::stage::PORT, MANY_PORT], ..Wish::default() };
    let daemon = stage.daemon_with(&wish);
    let held = hold_connections(&stage.lab.client, &stage.lab.gateway);
    let books = quiet_books(&daemon, MANY);
    assert!(stage.shadow.log().missing(MANY).is_empty(), "{}", books.page());
    let bytes = memory_bytes(&daemon);
    eprintln!("{MANY} connections: peak RssAnon and maps {} KiB", bytes / 1024);
    assert!(bytes < MEMORY_BOUND_BYTES, "{bytes}");
    assert_eq!(daemon.metrics().unwrap().sum("mirror_flows", &[]), MANY as f64);
    drop(held);
    let books = quiet_books(&daemon, MANY);
    books.assert_balanced();
    assert_eq!(books.shadow("app", "replayed"), MANY);
}

#[test]
fn flows_beyond_the_bound_push_out_others_and_are_counted() {
    if !root_or_skip("flows_beyond_the_bound_push_out_others_and_are_counted") {
        return;
    }
    let _alone = one_at_a_time();
    let stage = Stage::new(&LogMode::Count);
    let wish =
        Wish { ports: vec![crate::stage::PORT, MANY_PORT], limits: "max_flows = 1000", ..Wish::default() };
    let daemon = stage.daemon_with(&wish);
    let held = hold_connections(&stage.lab.client, &stage.lab.gateway);
    let books = quiet_books(&daemon, MANY);
    assert_eq!(daemon.metrics().unwrap().sum("mirror_flows", &[]), 1000.0);
    assert_eq!(books.flow("closed_evicted"), MANY - 1000, "{}", books.page());
    // They had had their answers when they were pushed out.
    assert!(stage.shadow.log().missing(MANY).is_empty(), "{}", books.page());
    drop(held);
    wait_until_mirrored(&stage, MANY);
    quiet_books(&daemon, MANY).assert_balanced();
}

/// Opens them one by one, with one request and its answer on each; both ends stay open.
fn hold_connections(client: &Netns, gateway: &Netns) -> Vec<TcpStream> {
    let listener = gateway.run(|| TcpListener::bind(Role::Gateway.at(MANY_PORT))).unwrap().unwrap();
    let address = listener.local_addr().unwrap();
    let connect_all = || -> Vec<TcpStream> {
        let mut held = Vec::new();
        for id in 0..MANY {
            let mut near = TcpStream::connect(address).unwrap();
            let (mut far, _) = listener.accept().unwrap();
            let request = head("GET", &format!("/?id={id}"), "\r\n");
            near.write_all(&request).unwrap();
            far.read_exact(&mut vec![0; request.len()]).unwrap();
            far.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
            near.read_exact(&mut [0; 27]).unwrap();
            held.extend([near, far]);
        }
        held
    };
    client.run(connect_all).unwrap()
}

#[test]
fn port_used_again_and_again_is_a_new_connection_each_time() {
    if !root_or_skip("port_used_again_and_again_is_a_new_connection_each_time") {
        return;
    }
    let stage = Stage::new(&LogMode::Count);
    let daemon = stage.daemon();
    let times = 500;
    for id in 0..times {
        let mut stream = from_port(&stage.lab.client, 40_000, gateway());
        stream.write_all(&head("GET", &format!("/bytes/0?id={id}"), "\r\n")).unwrap();
        let mut answer = [0; 15];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
        // Dropped with unread bytes: the connection ends with a reset, and its port is free at once.
    }
    let books = quiet_books(&daemon, times);
    assert!(stage.shadow.log().missing(times).is_empty(), "{}", books.page());
    assert_eq!(stage.shadow.log().summary().duplicates, 0);
    assert_eq!(books.shadow("app", "replayed"), times, "{}", books.page());
    books.assert_balanced();
}

#[test]
fn resets_at_any_moment_leave_the_books_balanced() {
    if !root_or_skip("resets_at_any_moment_leave_the_books_balanced") {
        return;
    }
    let _alone = one_at_a_time();
    let stage = Stage::new(&LogMode::Count);
    let absent = production_answers(&stage);
    let daemon = stage.daemon();
    let request = head("POST", "/?id=0", "Content-Length: 3000\r\n\r\n");
    let request = [request, vec![b'r'; 3000]].concat();
    for round in 0..3000 {
        let mut stream = stage.lab.client.run(|| TcpStream::connect(gateway())).unwrap().unwrap();
        stream.write_all(&request[..round * 7 % (request.len() + 1)]).unwrap();
        sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    }
    assert_eq!(production_answers(&stage), absent);
    wait_until_mirrored(&stage, 100);
    let books = quiet_books(&daemon, 0);
    books.assert_balanced();
    assert!(books.kernel_complete(), "{}", books.page());
    let bytes = memory_bytes(&daemon);
    eprintln!("resets: {} KiB, {:?}", bytes / 1024, books.like("flow", "closed_"));
    assert!(bytes < MEMORY_BOUND_BYTES, "{bytes}");
    assert_eq!(stage.shadow.log().summary().broken, 0);
}

fn from_port(netns: &Netns, port: u16, to: SocketAddr) -> TcpStream {
    let open = || -> rustix::io::Result<TcpStream> {
        let fd = socket(AddressFamily::INET, SocketType::STREAM, None)?;
        sockopt::set_socket_reuseaddr(&fd, true)?;
        sockopt::set_socket_linger(&fd, Some(Duration::ZERO))?;
        bind(&fd, &Role::Client.at(port))?;
        connect(&fd, &to)?;
        Ok(TcpStream::from(fd))
    };
    netns.run(open).unwrap().unwrap()
}
