//! What makes a request, one claim a test.

use super::super::*;
use super::harness::*;
use crate::drop_reason::DropReason;
use crate::flow::Direction;
use crate::http::{BodyLength, RequestNumber};

#[test]
fn request_without_body_is_whole_at_once() {
    let mut probe = Probe::at_start();
    probe.request(&[hello(), get_frame(1, "/a?b")].concat());
    let seen = &probe.seen[&0];
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("GET", "/a?b"));
    assert_eq!(seen.body_length, Some(BodyLength::None));
    let fields = [(":scheme".to_owned(), b"http".to_vec()), (":authority".to_owned(), b"h".to_vec())];
    assert_eq!(seen.fields, fields);
    assert!(seen.is_mirrored() && !seen.held);
    assert_eq!(probe.flow.synchronisation(), Synchronisation::Synchronised);
}

#[test]
fn body_comes_without_padding_and_trailers_end_it() {
    let mut probe = Probe::at_start();
    probe.request(&[hello(), headers(1, END_HEADERS, &get("/"))].concat());
    probe.request(&frame(0, PADDED, 1, b"\x03abc\0\0\0"));
    probe.request(&frame(0, 0, 1, b"def"));
    probe.request(&frame(0, 0, 1, b""));
    probe.request(&headers(1, END_STREAM | END_HEADERS, &[("x-sum", "6")]));
    let seen = &probe.seen[&0];
    assert_eq!((seen.body.as_slice(), seen.body_length), (&b"abcdef"[..], Some(BodyLength::Chunked)));
    assert_eq!(seen.trailers, [("x-sum".to_owned(), b"6".to_vec())]);
    assert!(seen.is_mirrored());
}

#[test]
fn streams_are_interleaved() {
    let mut probe = Probe::at_start();
    probe.request(
        &[hello(), headers(1, END_HEADERS, &get("/1")), headers(3, END_HEADERS, &get("/3"))].concat(),
    );
    for (stream, flags, bytes) in [(3, 0, "a"), (1, 0, "b"), (3, END_STREAM, "c"), (1, END_STREAM, "d")] {
        probe.request(&frame(0, flags, stream, bytes.as_bytes()));
    }
    assert_eq!((&probe.seen[&0].body[..], &probe.seen[&1].body[..]), (&b"bd"[..], &b"ac"[..]));
    assert_eq!(probe.mirrored().len(), 2);
}

#[test]
fn header_block_may_come_in_continuations_with_priority_and_padding() {
    let block = block(&get("/"));
    let (first, rest) = block.split_at(5);
    let (second, third) = rest.split_at(7);
    let padded = [&[2, 0, 0, 0, 0, 9][..], first, &[0, 0]].concat();
    let mut probe = Probe::at_start();
    probe.request(&hello());
    probe.request(&frame(1, END_STREAM | PADDED | 0x20, 1, &padded));
    probe.request(&frame(9, 0, 1, second));
    probe.request(&frame(9, END_HEADERS, 1, third));
    assert_eq!(probe.mirrored().len(), 1);
}

#[test]
fn content_length_must_fit_the_body() {
    for (declared, body, fits) in [("3", "abc", true), ("2", "abc", false), ("4", "abc", false)] {
        let mut fields = get("/");
        fields.push(("content-length", declared));
        let mut probe = Probe::at_start();
        probe.request(&[hello(), headers(1, END_HEADERS, &fields)].concat());
        probe.request(&frame(0, END_STREAM, 1, body.as_bytes()));
        assert_eq!(probe.mirrored().len(), usize::from(fits), "{declared}");
        let expected = if fits { vec![] } else { vec![DropReason::Malformed] };
        assert_eq!(probe.drops(), expected);
    }
}

#[test]
fn malformed_requests_name_their_rule() {
    use HeadError::*;
    let cases: [(HeadError, Vec<(&str, &str)>); 20] = [
        (FieldName, [get("/"), vec![("X-A", "1")]].concat()),
        (FieldName, [get("/"), vec![("", "1")]].concat()),
        (FieldName, [get("/"), vec![("x a", "1")]].concat()),
        (FieldValue, [get("/"), vec![("x", "a\r\nb")]].concat()),
        (FieldValue, [get("/"), vec![("x", " a")]].concat()),
        (ConnectionSpecific, [get("/"), vec![("connection", "x")]].concat()),
        (ConnectionSpecific, [get("/"), vec![("transfer-encoding", "chunked")]].concat()),
        (ConnectionSpecific, [get("/"), vec![("te", "gzip")]].concat()),
        (PseudoOrder, [vec![("x", "y")], get("/")].concat()),
        (PseudoDuplicate, [get("/"), vec![(":path", "/b")]].concat()),
        (PseudoUnknown, [get("/"), vec![(":status", "200")]].concat()),
        (PseudoMissing, vec![(":method", "GET"), (":scheme", "http")]),
        (PseudoMissing, vec![(":scheme", "http"), (":path", "/")]),
        (PseudoValue, get("")),
        (PseudoValue, get("a")),
        (PseudoValue, get("/a b")),
        (PseudoValue, get("*")),
        (ContentLength, [get("/"), vec![("content-length", "+1")]].concat()),
        (ContentLength, [get("/"), vec![("content-length", "1"), ("content-length", "2")]].concat()),
        (ContentLengthMismatch, [get("/"), vec![("content-length", "1")]].concat()),
    ];
    for (kind, fields) in cases {
        let mut probe = Probe::at_start();
        probe.request(&[hello(), headers(1, END_STREAM | END_HEADERS, &fields)].concat());
        probe.request(&get_frame(3, "/next"));
        assert_eq!(probe.flow.take_counters().unwrap_or_default().head(kind), 1, "{kind:?} {fields:?}");
        assert_eq!(probe.drops(), [kind.drop_reason()]);
        assert_eq!(probe.mirrored()[0].target, "/next", "{kind:?}: the connection goes on");
    }
}

#[test]
fn connect_is_passed_over_and_counted() {
    let extended = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":authority", "h"),
        (":path", "/"),
    ];
    let mut probe = Probe::at_start();
    probe.request(
        &[hello(), headers(1, END_HEADERS, &[(":method", "CONNECT"), (":authority", "h:1")])].concat(),
    );
    probe.request(&headers(3, END_HEADERS, &extended));
    probe.request(&frame(0, 0, 3, b"tunnelled"));
    assert_eq!(probe.drops(), [DropReason::Upgrade; 2]);
    assert_eq!(probe.flow.take_counters().unwrap_or_default().head(HeadError::Connect), 2);
}

#[test]
fn unknown_ordinary_fields_are_left_out_only_when_tolerated() {
    for tolerate_unknown_fields in [false, true] {
        let mut probe =
            Probe::new(H2Flow::at_start(H2Options { tolerate_unknown_fields, ..H2Options::default() }));
        let lost = get_frame(1, "/lost");
        probe.request(&[&hello(), &lost[..12]].concat());
        probe.gap(Direction::Request, lost.len() - 12);
        probe.request(&frame(1, END_STREAM | END_HEADERS, 3, &[block(&get("/")), vec![0xbe]].concat()));
        // Here the unknown field may be the path.
        probe.request(&frame(1, END_STREAM | END_HEADERS, 5, &[block(&get("/")[..3]), vec![0xbe]].concat()));
        assert_eq!(probe.mirrored().len(), usize::from(tolerate_unknown_fields));
        assert_eq!(probe.drops().len(), if tolerate_unknown_fields { 2 } else { 3 });
    }
}

#[test]
fn upgrade_to_h2c_leaves_stream_1_to_http_1() {
    let mut probe = Probe::new(H2Flow::after_upgrade(H2Options::default(), RequestNumber(1)));
    probe.request(&[hello(), frame(8, 0, 1, &9_u32.to_be_bytes()), get_frame(3, "/second")].concat());
    assert_eq!(probe.seen[&1].target, "/second");
    assert_eq!(probe.drops(), []);
}
