//! Requests that are cut off, ambiguous or broken: never replayed as whole, always counted.

use mirror_tests::client::{Connection, Step};
use mirror_tests::netns::Role;
use mirror_tests::privilege::root_or_skip;
use mirror_tests::server::answer::pattern;
use mirror_tests::wait;

use super::corpus::Sent;
use super::expected::assert_same;
use super::rig::{GATEWAY_PORT, LIMIT, World, dropped};

/// What a smuggler hopes will be taken for a request of its own.
const EVIL: &str = "GET /evil?id=999 HTTP/1.1\r\nHost: shadowing.example\r\n\r\n";

#[test]
fn ambiguous_and_broken_requests_are_counted_and_never_arrive() {
    if !root_or_skip("ambiguous_and_broken_requests_are_counted_and_never_arrive") {
        return;
    }
    let world = World::new();
    let (_nginx, watch) = (world.nginx(|_| {}), world.mirror_downstream());
    let head = "POST /x?id=998 HTTP/1.1\r\nHost: shadowing.example\r\n";
    let long = "v".repeat(140_000);
    let cases = [
        (
            "smuggling",
            format!("{head}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{EVIL}"),
        ),
        (
            "smuggling",
            format!("{head}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{EVIL}"),
        ),
        ("smuggling", format!("{head}Content-Length: 0\r\nContent-Length: 60\r\n\r\n{EVIL}")),
        ("smuggling", format!("{head}Content-Length: 3, 4\r\n\r\nabcd{EVIL}")),
        ("smuggling", format!("{head}Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n{EVIL}")),
        ("smuggling", format!("{head}Content-Length: -1\r\n\r\n{EVIL}")),
        ("smuggling", format!("{head}X : spaced\r\n\r\n{EVIL}")),
        ("smuggling", format!("{head}Transfer-Encoding: chunked\r\n\r\nxyz\r\nabc\r\n0\r\n\r\n{EVIL}")),
        ("malformed", format!("{head}X-Nul: a\0b\r\n\r\n{EVIL}")),
        ("head_too_large", format!("{head}X-Long: {long}\r\n\r\n{EVIL}")),
    ];
    for (_, bytes) in &cases {
        let mut connection = Connection::open(&world.lab.client, Role::Gateway.at(GATEWAY_PORT)).unwrap();
        // nginx may close before all of it is written.
        let _ = connection.send(bytes.as_bytes());
        let _ = connection.read_answer();
    }
    let request = Sent::get(1);
    request.exchange(&mut Connection::open(&world.lab.client, Role::Gateway.at(GATEWAY_PORT)).unwrap());
    let got = world.shadow.wait_for_requests(1, LIMIT).unwrap();
    assert_same(&[request], &got);
    let books = watch.books(cases.len() as u64 + 1);
    // One that breaks in its body had been matched by then: it is the mirror's loss.
    let of = |reason: &str| {
        let lost = &books["shadows"]["v2"]["dropped_by_reason"][reason];
        dropped(&books, reason) + lost.as_u64().unwrap()
    };
    for reason in ["smuggling", "malformed", "head_too_large"] {
        let wanted = cases.iter().filter(|(wanted, _)| *wanted == reason).count() as u64;
        assert_eq!(of(reason), wanted, "{reason}: {books:#}");
    }
    assert_eq!(world.shadow.requests().len(), 1);
    watch.end();
}

#[test]
fn request_that_is_cut_off_is_not_replayed_as_whole() {
    if !root_or_skip("request_that_is_cut_off_is_not_replayed_as_whole") {
        return;
    }
    let world = World::new();
    let (_nginx, watch) = (world.nginx(|_| {}), world.mirror_downstream());
    let open = || Connection::open(&world.lab.client, Role::Gateway.at(GATEWAY_PORT)).unwrap();
    let small = Sent::post(1, 5000);
    let chunked = "POST /x?id={id} HTTP/1.1\r\nHost: shadowing.example\r\nTransfer-Encoding: chunked\r\n";
    let chunked = Sent::new(2, chunked, b"1000\r\nonly a part");
    let half_head = b"GET /half?id=3 HTTP/1.1\r\nHost: shadow".to_vec();
    for bytes in [small.wire[..3000].to_vec(), chunked.wire, half_head] {
        let mut connection = open();
        connection.play(&[Step::Send(bytes), Step::Finish]).unwrap();
        let _ = connection.read_answer();
    }
    // Large enough to be streamed: the shadow has begun to read it when the client goes.
    let large = Sent::new(
        4,
        "POST /x?id={id} HTTP/1.1\r\nHost: shadowing.example\r\nContent-Length: {length}\r\n",
        &pattern(3 << 20),
    );
    let mut connection = open();
    connection.send(&large.wire[..2 << 20]).unwrap();
    wait::until_true("the shadow is connected to", LIMIT, || world.shadow.accepted() > 0).unwrap();
    drop(connection);
    let broken = || world.shadow.log().summary().broken == 1;
    wait::until_true("the shadow's request is broken off", LIMIT, broken).unwrap();

    let request = Sent::get(5);
    request.exchange(&mut open());
    assert_same(&[request], &world.shadow.wait_for_requests(1, LIMIT).unwrap());
    let books = watch.books(5);
    // The half head never was a request that a rule could look at.
    assert_eq!(dropped(&books, "truncated"), 1, "{books:#}");
    let lost = &books["shadows"]["v2"]["dropped_by_reason"];
    let cut = ["truncated", "reset"].iter().map(|reason| lost[*reason].as_u64().unwrap()).sum::<u64>();
    assert_eq!(cut, 3, "{books:#}");
    watch.end();
}
