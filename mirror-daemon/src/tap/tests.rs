//! Records, from events to lines.

use super::*;
use crate::http::{BodyLength, Field, HttpEvent};

fn flow() -> FlowKey {
    let mapped = |last| std::net::Ipv4Addr::new(10, 77, 0, last).to_ipv6_mapped().octets();
    FlowKey {
        gateway_addr: mapped(2),
        remote_addr: mapped(1),
        gateway_port: 8080,
        remote_port: 51_234,
        capture_point: 3,
    }
}

fn record(path: &str) -> TapRecord {
    TapRecord {
        at_unix_ns: 1_714_564_800_123_456_789,
        client_ip: "10.77.0.1".parse().unwrap(),
        flow: flow(),
        number: RequestNumber(4),
        head: Some(TapHead {
            method: "POST".to_owned(),
            authority: Some("shop.example:8080".to_owned()),
            path: path.to_owned(),
            version: Version::Http11,
            headers: Vec::new(),
        }),
        body_bytes: 11,
        trailers: 0,
        grpc: None,
        outcome: Outcome::Complete,
    }
}

fn written(format: TapFormat, record: &TapRecord) -> String {
    let mut out = Vec::new();
    let mut writer = TapWriter::new(&mut out, format);
    writer.write(record).unwrap();
    assert_eq!(writer.written(), 1);
    String::from_utf8(out).unwrap()
}

#[test]
fn line_tells_who_what_and_how_it_ended() {
    assert_eq!(
        written(TapFormat::Lines, &record("/cart?x=1")),
        "2024-05-01T12:00:00.123Z 10.77.0.1:51234 POST http://shop.example:8080/cart?x=1 HTTP/1.1 body=11 complete\n"
    );
    let lost =
        TapRecord { head: None, outcome: Outcome::Dropped(DropReason::Gap), trailers: 2, ..record("") };
    assert_eq!(
        written(TapFormat::Lines, &lost),
        "2024-05-01T12:00:00.123Z 10.77.0.1:51234 - - - body=11 trailers=2 dropped=gap (no head: it was refused, or never seen whole)\n"
    );
}

#[test]
fn terminal_escapes_in_path_host_and_headers_do_not_reach_the_terminal() {
    let mut hostile = record("/\u{1b}]0;owned\u{7}\r\nfake line \u{9b}2J");
    let head = hostile.head.as_mut().unwrap();
    head.authority = Some("a b\u{202e}".to_owned());
    head.headers = vec![("x".to_owned(), b"\x1b[31m red \xff".to_vec())];
    let line = written(TapFormat::Lines, &hostile);
    assert_eq!(line.lines().count(), 2, "{line}");
    assert!(
        line.contains("http://a\\x20b\\u{202e}/\\x1b]0;owned\\x07\\r\\nfake\\x20line\\x20\\u{9b}2J HTTP/1.1")
    );
    assert!(line.ends_with("    x: \\x1b[31m red \\xff\n"), "{line}");
    let json = written(TapFormat::Json, &hostile);
    for text in [&line, &json] {
        assert!(!text.trim_end().replace('\n', "").chars().any(char::is_control), "{text:?}");
        assert!(!text.contains('\u{202e}'));
    }
    let object: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(object["path"], "/\u{1b}]0;owned\u{7}\r\nfake line \u{9b}2J", "JSON reads back the same");
    assert_eq!(object["headers"][0][1], "\u{1b}[31m red \u{fffd}");
}

#[test]
fn json_is_one_object_a_line_with_every_part() {
    let text = written(TapFormat::Json, &record("/cart"));
    assert_eq!(text.matches('\n').count(), 1);
    let object: serde_json::Value = serde_json::from_str(&text).unwrap();
    let expected = serde_json::json!({
        "time": "2024-05-01T12:00:00.123Z", "time_unix_ns": 1_714_564_800_123_456_789_u64,
        "client_ip": "10.77.0.1", "remote": "10.77.0.1:51234", "gateway": "10.77.0.2:8080",
        "capture_point": 3, "number": 4, "method": "POST", "authority": "shop.example:8080",
        "path": "/cart", "version": "HTTP/1.1", "body_bytes": 11, "trailers": 0, "outcome": "complete",
    });
    assert_eq!(object, expected);
    let lost = TapRecord { head: None, outcome: Outcome::Dropped(DropReason::Loop), ..record("") };
    let object: serde_json::Value = serde_json::from_str(&written(TapFormat::Json, &lost)).unwrap();
    assert_eq!((&object["outcome"], &object["reason"]), (&"dropped".into(), &"loop".into()));
    assert!(object.get("method").is_none());
}

#[test]
fn book_gives_one_record_when_a_request_ends() {
    let fields = [Field { name: "Host", value: b"h", line: b"Host: h\r\n" }];
    let head = RequestHead {
        method: "PUT",
        target: "/a?b",
        version: Version::Http11,
        fields: &fields,
        body: BodyLength::Chunked,
    };
    let number = RequestNumber(0);
    let mut book = TapBook::new(true);
    let mut handle = |event| book.handle_event(&flow(), "10.77.0.1".parse().unwrap(), 7, &event);
    assert_eq!(handle(HttpEvent::Request { number, head, held: false }), None);
    assert_eq!(handle(HttpEvent::Body { number, bytes: b"abc" }), None);
    assert_eq!(handle(HttpEvent::Body { number, bytes: b"de" }), None);
    assert_eq!(handle(HttpEvent::Trailers { number, fields: &fields }), None);
    let record = handle(HttpEvent::Complete { number }).unwrap();
    assert_eq!((record.body_bytes, record.trailers, record.outcome), (5, 1, Outcome::Complete));
    let head = record.head.unwrap();
    assert_eq!((head.path.as_str(), head.authority.as_deref()), ("/a?b", Some("h")));
    assert_eq!(head.headers, [("Host".to_owned(), b"h".to_vec())]);
    assert_eq!(handle(HttpEvent::Complete { number }), None, "each request ends once");
    let refused = handle(HttpEvent::Dropped { number, reason: DropReason::Smuggling }).unwrap();
    assert_eq!((refused.head, refused.outcome), (None, Outcome::Dropped(DropReason::Smuggling)));
}

/// The records of one call whose body comes in `pieces`.
fn call(pieces: &[&[u8]], with_starts: bool) -> Vec<TapRecord> {
    let fields = [Field { name: "content-type", value: b"application/grpc+proto", line: b"" }];
    let head = RequestHead {
        method: "POST",
        target: "/shop.Cart/Add",
        version: Version::Http2,
        fields: &fields,
        body: BodyLength::Chunked,
    };
    let number = RequestNumber(2);
    let mut book = TapBook::new(false).with_starts(with_starts);
    let mut records = vec![];
    let mut handle = |event| {
        records.extend(book.handle_event(
            &flow(),
            "10.77.0.1".parse().unwrap(),
            1_714_564_800_123_456_789,
            &event,
        ));
    };
    handle(HttpEvent::Request { number, head, held: false });
    for bytes in pieces {
        handle(HttpEvent::Body { number, bytes });
    }
    handle(HttpEvent::Complete { number });
    records
}

const ONE_AND_A_HALF_MESSAGES: [&[u8]; 3] = [b"\x01\0\0", b"\0\x03abc\0\0\0\0", b"\x09de"];

#[test]
fn grpc_call_is_told_by_service_method_and_messages() {
    let line = |pieces: &[&[u8]]| written(TapFormat::Lines, &call(pieces, false)[0]);
    let start = "2024-05-01T12:00:00.123Z 10.77.0.1:51234 POST /shop.Cart/Add HTTP/2 ";
    assert_eq!(line(&[]), format!("{start}body=0 grpc=shop.Cart/Add messages=0 total_bytes=0 complete\n"));
    let many = b"\0\0\0\0\x02ab".repeat(17);
    let sizes = ["2"; 16].join(",");
    assert_eq!(
        line(&[&many]),
        format!(
            "{start}body=119 grpc=shop.Cart/Add messages=17 total_bytes=34 message_bytes={sizes},... complete\n"
        )
    );
    assert_eq!(
        line(&ONE_AND_A_HALF_MESSAGES),
        format!(
            "{start}body=15 grpc=shop.Cart/Add messages=1 total_bytes=3 message_bytes=3 compressed=1 truncated=2/9 complete\n"
        )
    );
    assert!(line(&[b"\0\0"]).ends_with(" messages=0 total_bytes=0 truncated=2/? complete\n"));
    assert!(line(&[b"PRI"]).ends_with(" messages=0 total_bytes=0 malformed_message complete\n"));
}

#[test]
fn grpc_call_is_an_object_in_json() {
    let object = |pieces: &[&[u8]]| -> serde_json::Value {
        serde_json::from_str(&written(TapFormat::Json, &call(pieces, false)[0])).unwrap()
    };
    assert_eq!(
        object(&ONE_AND_A_HALF_MESSAGES)["grpc"],
        serde_json::json!({
            "service": "shop.Cart", "method": "Add", "messages": 1, "total_bytes": 3, "message_bytes": [3],
            "compressed": 1, "truncated": { "seen_bytes": 2, "message_bytes": 9 },
        })
    );
    assert_eq!(object(&[b"\0"])["grpc"]["truncated"], serde_json::json!({ "seen_bytes": 1 }));
    assert_eq!(object(&[b"\x02"])["grpc"]["malformed"], true);
    let plain: serde_json::Value = serde_json::from_str(&written(TapFormat::Json, &record("/"))).unwrap();
    assert!(plain.get("grpc").is_none());
}

#[test]
fn live_tap_tells_of_a_stream_at_its_start_and_at_its_end() {
    let records = call(&[b"\0\0\0\0\x01a"], true);
    let outcomes: Vec<_> = records.iter().map(|record| record.outcome).collect();
    assert_eq!(outcomes, [Outcome::Started, Outcome::Complete]);
    assert!(written(TapFormat::Lines, &records[0]).ends_with(" HTTP/2 body=0 grpc=shop.Cart/Add started\n"));
    assert!(written(TapFormat::Json, &records[0]).contains("\"outcome\":\"started\""));
    assert!(
        written(TapFormat::Lines, &records[1]).contains(" messages=1 total_bytes=1 message_bytes=1 complete")
    );
}

#[test]
fn stream_that_can_not_be_decoded_is_marked() {
    let event = HttpEvent::Dropped { number: RequestNumber(0), reason: DropReason::Undecodable };
    let record = TapBook::new(true).handle_event(&flow(), "10.77.0.1".parse().unwrap(), 0, &event).unwrap();
    let line = written(TapFormat::Lines, &record);
    assert!(
        line.contains(" - - - body=0 dropped=undecodable (HTTP/2 stream that can't be decoded: "),
        "{line}"
    );
    let object: serde_json::Value = serde_json::from_str(&written(TapFormat::Json, &record)).unwrap();
    assert_eq!((&object["outcome"], &object["reason"]), (&"dropped".into(), &"undecodable".into()));
}

#[test]
fn book_is_bounded_and_counts_what_it_does_not_show() {
    let head = RequestHead {
        method: "GET",
        target: "/",
        version: Version::Http11,
        fields: &[],
        body: BodyLength::None,
    };
    let mut book = TapBook::new(false);
    for number in 0..=MAX_OPEN_REQUESTS as u64 {
        let event = HttpEvent::Request { number: RequestNumber(number), head, held: false };
        book.handle_event(&flow(), "::1".parse().unwrap(), 0, &event);
    }
    assert_eq!(book.not_shown(), 1);
}

#[test]
fn reader_that_has_seen_enough_is_an_error_of_its_own_kind() {
    struct Gone;
    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    for format in [TapFormat::Lines, TapFormat::Json] {
        let error = TapWriter::new(Gone, format).write(&record("/")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
