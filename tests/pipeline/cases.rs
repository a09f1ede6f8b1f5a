//! What goes in and what comes out, one claim a test.

use crate::world::{joined, opened, run};
use mirror_daemon::drop_reason::DropReason;

const CONFIG: &str = r#"
[capture]
interfaces = ["unused"]
ports = [8080]

[[shadow]]
name = "new"
url = "http://127.0.0.1:9"
buffer_body = "64KiB"

[[route]]
hosts = ["shadowing.example"]
  [[route.rule]]
  mirror = [{ shadow = "new" }]
"#;

const GET: &[u8] = b"GET /a?b=c HTTP/1.1\r\nHost: shadowing.example\r\nX-Odd:  kept \r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn request_reaches_the_shadow_with_its_suffixed_host_and_else_as_captured() {
    let outcome = run(CONFIG, |pcap| {
        let mut talk = opened(pcap);
        talk.request(pcap, GET).unwrap();
        talk.answer(pcap, OK).unwrap();
        talk.close(pcap).unwrap();
    });
    let [sent] = outcome.sent.as_slice() else { panic!("one request, not {:?}", outcome.sent) };
    assert!(
        sent.head.starts_with("GET /a?b=c HTTP/1.1\r\nHost: shadowing.example-shadow\r\nX-Odd:  kept \r\n"),
        "{sent:?}"
    );
    assert!(sent.head.to_ascii_lowercase().contains("x-mirrored-by:"), "{sent:?}");
    assert_eq!((outcome.ledger.matched.value(), outcome.ledger.seen()), (1, 1));
}

#[test]
fn other_host_is_unmatched_and_booked() {
    let outcome = run(CONFIG, |pcap| {
        let mut talk = opened(pcap);
        talk.request(pcap, b"GET / HTTP/1.1\r\nHost: other.example\r\n\r\n").unwrap();
        talk.answer(pcap, OK).unwrap();
    });
    assert!(outcome.sent.is_empty());
    assert_eq!((outcome.ledger.unmatched.value(), outcome.ledger.seen()), (1, 1));
}

#[test]
fn own_mirror_is_never_mirrored_again() {
    let outcome = run(CONFIG, |pcap| {
        let mut talk = opened(pcap);
        talk.request(pcap, b"GET / HTTP/1.1\r\nHost: shadowing.example\r\nX-Mirrored-By: me\r\n\r\n")
            .unwrap();
    });
    assert!(outcome.sent.is_empty());
    assert_eq!(outcome.ledger.dropped.of(DropReason::Loop).value(), 1);
}

#[test]
fn joined_connection_is_mirrored_from_its_first_proven_boundary() {
    let outcome = run(CONFIG, |pcap| {
        let mut talk = joined();
        for _ in 0..5 {
            talk.request(pcap, GET).unwrap();
            talk.answer(pcap, OK).unwrap();
        }
    });
    assert_eq!(outcome.sent.len(), 3, "all but the one before the first answer, and the first proof");
    assert_eq!(outcome.ledger.dropped.of(DropReason::UnprovenBoundary).value(), 2);
}

#[test]
fn request_embedded_in_an_upload_is_never_mirrored() {
    let outcome = run(CONFIG, |pcap| {
        let mut talk = joined();
        // The tail of an upload whose head was before the capture: whole requests, each in a segment of its own.
        for _ in 0..4 {
            talk.request(pcap, GET).unwrap();
        }
        talk.answer(pcap, OK).unwrap();
        for target in ["first-proof", "true"] {
            let head = format!("GET /{target} HTTP/1.1\r\nHost: shadowing.example\r\n\r\n");
            talk.request(pcap, head.as_bytes()).unwrap();
            talk.answer(pcap, OK).unwrap();
        }
    });
    let targets: Vec<_> = outcome.sent.iter().map(|sent| sent.head.lines().next().unwrap()).collect();
    assert_eq!(targets, ["GET /true HTTP/1.1"]);
}

#[test]
fn body_over_the_buffer_is_streamed_whole() {
    let body = vec![b'x'; 200_000];
    let outcome = run(CONFIG, |pcap| {
        let mut talk = opened(pcap);
        talk.request(pcap, b"POST / HTTP/1.1\r\nHost: shadowing.example\r\nContent-Length: 200000\r\n\r\n")
            .unwrap();
        for piece in body.chunks(50_000) {
            talk.request(pcap, piece).unwrap();
        }
        talk.answer(pcap, OK).unwrap();
    });
    assert_eq!((outcome.sent.len(), outcome.aborted), (1, 0));
    assert_eq!(outcome.sent[0].body, body);
}

#[test]
fn body_with_a_hole_is_never_whole_and_costs_only_itself() {
    let outcome = run(CONFIG, |pcap| {
        let mut talk = opened(pcap);
        talk.request(pcap, b"POST / HTTP/1.1\r\nHost: shadowing.example\r\nContent-Length: 200000\r\n\r\n")
            .unwrap();
        talk.request(pcap, &[b'x'; 50_000]).unwrap();
        talk.skip_request(100_000);
        talk.request(pcap, &[b'x'; 50_000]).unwrap();
        talk.answer(pcap, OK).unwrap();
        talk.request(pcap, GET).unwrap();
        talk.answer(pcap, OK).unwrap();
    });
    assert_eq!((outcome.sent.len(), outcome.aborted), (1, 1));
    assert!(outcome.sent[0].head.starts_with("GET /a"));
    assert_eq!(outcome.ledger.matched.value(), 2);
}

#[test]
fn chunked_body_keeps_its_trailers() {
    let outcome = run(CONFIG, |pcap| {
        let mut talk = opened(pcap);
        let head = b"POST / HTTP/1.1\r\nHost: shadowing.example\r\nTransfer-Encoding: chunked\r\n\r\n";
        talk.request(pcap, head).unwrap();
        talk.request(pcap, b"3;ext=1\r\nabc\r\n4\r\ndefg\r\n0\r\nX-Sum: 7\r\n\r\n").unwrap();
        talk.answer(pcap, OK).unwrap();
    });
    assert_eq!(outcome.sent.len(), 1);
    assert_eq!(
        (outcome.sent[0].body.as_slice(), outcome.sent[0].trailers.as_str()),
        (&b"abcdefg"[..], "X-Sum: 7\r\n")
    );
}

#[test]
fn successful_upgrade_is_never_replayed_and_its_bytes_are_passed_over() {
    let outcome = run(CONFIG, |pcap| {
        let mut talk = opened(pcap);
        let head = b"GET /ws HTTP/1.1\r\nHost: shadowing.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        talk.request(pcap, head).unwrap();
        talk.answer(pcap, b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n").unwrap();
        talk.request(pcap, GET).unwrap();
    });
    assert!(outcome.sent.is_empty());
    assert_eq!((outcome.ledger.dropped.of(DropReason::Upgrade).value(), outcome.ignored_flows), (1, 1));
}

#[test]
fn tls_is_ignored_for_good() {
    let outcome = run(CONFIG, |pcap| {
        let mut talk = opened(pcap);
        talk.request(pcap, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").unwrap();
    });
    assert_eq!((outcome.sent.len(), outcome.ignored_flows, outcome.ledger.seen()), (0, 1, 0));
}
