//! Trusted framing: heads, bodies, refusals, holes, ends.

use super::*;

const WHOLE: Option<Result<(), DropReason>> = Some(Ok(()));

fn dropped(reason: DropReason) -> Option<Result<(), DropReason>> {
    Some(Err(reason))
}

#[test]
fn pipelined_requests_are_told_one_by_one() {
    let chunked = "PUT /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;x=1\r\nhello\r\n1\r\n!\r\n0\r\nT: 1\r\nu:2\n\r\n";
    let text = format!("{GET}{}{chunked}\r\n\nHEAD / HTTP/1.0\n\n", post("/b", "body"));
    let log = decode(text.as_bytes());
    assert_eq!(
        log.ends(),
        [(GET_SEEN, WHOLE), ("POST /b Known(4)", WHOLE), ("PUT /c Chunked", WHOLE), ("HEAD / None", WHOLE)]
    );
    assert_eq!(log.requests[&0].lines, "Host: h\r\n");
    assert_eq!(log.requests[&1].body, b"body");
    assert_eq!(log.requests[&2].body, b"hello!");
    assert_eq!(log.requests[&2].trailers, "T: 1\r\nu:2\n");
    assert!(log.requests.values().all(|seen| !seen.held && seen.may_go()));
}

#[test]
fn refused_heads_are_counted_once_and_lose_framing() {
    let cases = [
        (
            "POST /x HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            DropReason::Smuggling,
        ),
        ("POST /x HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n", DropReason::Smuggling),
        ("POST /x HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", DropReason::Smuggling),
        ("POST /x HTTP/1.1\r\nTransfer-Encoding : chunked\r\n\r\n", DropReason::Smuggling),
        ("POST /x HTTP/1.1\r\nTransfer-Encoding:\r\n chunked\r\n\r\n", DropReason::Smuggling),
        ("POST /x HTTP/1.1\r\nTransfer-Encoding: br, chunked\r\n\r\n", DropReason::UnsupportedProtocol),
        ("GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", DropReason::Malformed),
        ("GET /x HTTP/1.1\r\nbroken\r\n\r\n", DropReason::Malformed),
        ("junk\r\n\r\n", DropReason::Malformed),
    ];
    for (text, reason) in cases {
        let log = decode(format!("{GET}{text}{GET}{GET}").as_bytes());
        assert_eq!(log.ends(), [(GET_SEEN, WHOLE), ("", dropped(reason))], "{text:?}");
    }
}

#[test]
fn broken_chunks_and_trailers_drop_the_request_and_lose_framing() {
    let cases = [
        ("5\nhello", DropReason::Smuggling),
        ("5\r\nhelloX", DropReason::Smuggling),
        ("fffffffffffffffff\r\n", DropReason::Smuggling),
        ("0\r\nno colon\r\n\r\n", DropReason::Malformed),
    ];
    for (body, reason) in cases {
        let text = format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{body}{GET}");
        assert_eq!(decode(text.as_bytes()).ends(), [("POST / Chunked", dropped(reason))], "{body:?}");
    }
}

#[test]
fn head_is_bounded_and_its_memory_given_back() {
    for (over, want) in [(0, WHOLE), (1, dropped(DropReason::HeadTooLarge))] {
        let start = "GET / HTTP/1.1\r\nX: ";
        let text = format!("{start}{}\r\n\r\n", "x".repeat(MAX_HEAD_BYTES - start.len() - 4 + over));
        let log = decode_pieces(&text.as_bytes().chunks(1000).collect::<Vec<_>>());
        assert_eq!(log.requests[&0].end, want);
    }
}

#[test]
fn hole_inside_a_body_of_known_length_costs_that_request_only() {
    for hole in [1, 3, 6] {
        let mut wire = Wire::open(false);
        let text = post("/p", "0123456789");
        let head_bytes = text.len() - 6;
        wire.request(&text[..head_bytes]);
        wire.gap(hole);
        wire.request(format!("{}{GET}", &text[head_bytes + hole as usize..]));
        let log = wire.close(CloseCause::Finished);
        assert_eq!(log.ends(), [("POST /p Known(10)", dropped(DropReason::Gap)), (GET_SEEN, WHOLE)]);
    }
}

#[test]
fn hole_elsewhere_loses_framing() {
    let chunked = "POST /p HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe";
    let known = post("/p", "0123456789");
    for (start, hole, seen) in [
        (chunked, 3, Some("POST /p Chunked")),
        (&known[..known.len() - 2], 3, Some("POST /p Known(10)")),
        ("GET /p HT", 4, Some("")),
        (GET, 5, None),
    ] {
        let mut wire = Wire::open(false);
        wire.request(start);
        wire.gap(hole);
        wire.request(GET);
        let log = wire.close(CloseCause::Finished);
        let first = seen.map_or((GET_SEEN, WHOLE), |seen| (seen, dropped(DropReason::Gap)));
        assert_eq!(log.ends(), [first, (GET_SEEN, dropped(DropReason::UnprovenBoundary))], "{start:?}");
    }
}

#[test]
fn unannounced_hole_is_a_hole() {
    let mut wire = Wire::open(false);
    wire.request("POST /p HTTP/1.1\r\nContent-Length: 5\r\n\r\n");
    wire.request_seq = wire.request_seq.add(2);
    wire.request(format!("345{GET}"));
    let log = wire.close(CloseCause::Finished);
    assert_eq!(log.ends(), [("POST /p Known(5)", dropped(DropReason::Gap)), (GET_SEEN, WHOLE)]);
}

#[test]
fn hole_in_an_ignored_body_is_no_loss() {
    let mut wire = Wire::open(false);
    let text = post("/p", "0123456789");
    wire.request(&text[..text.len() - 8]);
    assert_eq!(wire.flow.body_end(), Some(wire.request_seq.add(8)));
    wire.flow.ignore_body();
    wire.request("23");
    wire.gap(6);
    assert_eq!(wire.flow.body_end(), None);
    wire.request(GET);
    let log = wire.close(CloseCause::Finished);
    assert_eq!(log.ends(), [("POST /p Known(10)", WHOLE), (GET_SEEN, WHOLE)]);
    assert_eq!(log.requests[&0].body, b"01");
}

#[test]
fn body_end_is_at_most_1_gib_ahead() {
    let mut wire = Wire::open(false);
    wire.request("POST /p HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n");
    assert_eq!(wire.flow.body_end(), Some(wire.request_seq.add(1 << 30)));
}

#[test]
fn end_of_the_connection_inside_a_request_says_why() {
    let head = "POST /p HTTP/1.1\r\nContent-Length: 5\r\n\r\n";
    for (start, seen) in [(head, "POST /p Known(5)"), ("GET / HT", "")] {
        for (cause, reason) in [
            (CloseCause::Finished, DropReason::Truncated),
            (CloseCause::Idle, DropReason::Truncated),
            (CloseCause::Reused, DropReason::Truncated),
            (CloseCause::Reset, DropReason::Reset),
            (CloseCause::Evicted, DropReason::FlowEvicted),
        ] {
            let mut wire = Wire::open(false);
            wire.request(start);
            assert_eq!(wire.close(cause).ends(), [(seen, dropped(reason))]);
        }
        assert_eq!(decode(start.as_bytes()).ends(), [(seen, dropped(DropReason::Truncated))]);
    }
    assert_eq!(decode(GET.as_bytes()).ends(), [(GET_SEEN, WHOLE)]);
}

#[test]
fn expectation_changes_no_framing() {
    let head = "POST /e HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    let mut wire = Wire::open(false);
    wire.request(head);
    wire.answer("HTTP/1.1 100 Continue\r\n\r\n");
    wire.request("body");
    wire.answer(OK);
    wire.request(head);
    wire.answer("HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n");
    let log = wire.close(CloseCause::Finished);
    let seen = "POST /e Known(4)";
    assert_eq!(log.ends(), [(seen, WHOLE), (seen, dropped(DropReason::Truncated))]);
}

#[test]
fn other_protocols_are_passed_over() {
    let cases: [(&[u8], DropReason); 4] = [
        (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", DropReason::NotHttp),
        (b"SSH-2.0-OpenSSH_9.2\r\n\0\0", DropReason::NotHttp),
        (b"GET /\r\n", DropReason::NotHttp),
        (b"HELLO world and more\r\n\r\n", DropReason::NotHttp),
    ];
    for (bytes, reason) in cases {
        for cut in 0..bytes.len() {
            let log = decode_pieces(&[&bytes[..cut], &bytes[cut..], GET.as_bytes()]);
            assert_eq!(
                (log.passed_over.as_slice(), log.requests.len()),
                (&[reason][..], 0),
                "{bytes:?} {cut}"
            );
        }
    }
}

#[test]
fn proxy_header_names_the_client_whatever_the_cut() {
    let mut v2 =
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10\xc0\0\x02\x01\xc6\x33\x64\x01\x01\x02\0\x50\x04\0\x01\x09"
            .to_vec();
    let mut local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec();
    let mut v1 = b"PROXY TCP6 2001:db8::1 ::2 1 2\r\n".to_vec();
    for (bytes, ip) in [(&mut v2, Some("192.0.2.1")), (&mut local, None), (&mut v1, Some("2001:db8::1"))] {
        bytes.extend_from_slice(GET.as_bytes());
        for cut in 0..bytes.len() {
            let mut wire = Wire::with(HttpOptions { proxy_protocol: true, ..HttpOptions::default() }, false);
            for piece in [&bytes[..cut], &bytes[cut..]].into_iter().filter(|piece| !piece.is_empty()) {
                wire.request(piece);
            }
            let log = wire.close(CloseCause::Finished);
            assert_eq!(log.ends(), [(GET_SEEN, WHOLE)], "cut at {cut}");
            let want: Vec<IpAddr> = ip.iter().map(|ip| ip.parse().unwrap()).collect();
            assert_eq!(log.clients, want);
        }
    }
}

#[test]
fn proxy_header_is_optional_and_read_only_when_expected() {
    let mut wire = Wire::with(HttpOptions { proxy_protocol: true, ..HttpOptions::default() }, false);
    wire.request(GET);
    assert_eq!(wire.close(CloseCause::Finished).ends(), [(GET_SEEN, WHOLE)]);
    let log = decode(b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\nGET / HTTP/1.1\r\n\r\n");
    assert_eq!((log.passed_over, log.clients), (vec![DropReason::NotHttp], vec![]));
}

#[test]
fn idle_flow_is_small() {
    assert!(size_of::<HttpFlow>() <= 256, "{}", size_of::<HttpFlow>());
}

#[test]
fn nothing_behind_a_closing_request_is_replayed_unproven() {
    for closing in [
        "GET /last HTTP/1.1\r\nConnection: close\r\n\r\n",
        "POST /last HTTP/1.1\r\nConnection: keep-alive, Close\r\nContent-Length: 2\r\n\r\nhi",
        "POST /last HTTP/1.1\r\nconnection: close\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET /last HTTP/1.0\r\n\r\n",
        "GET /last HTTP/1.1\r\nConnection: close, upgrade\r\nUpgrade: h2c\r\n\r\n",
    ] {
        let mut wire = Wire::open(false);
        wire.request(format!("{closing}{GET}"));
        wire.answer(OK);
        let log = wire.close(CloseCause::Finished);
        assert!(log.requests[&0].may_go(), "{closing}: {log:?}");
        let unproven = Some(Err(DropReason::UnprovenBoundary));
        assert_eq!(log.requests.get(&1).map(|seen| seen.end), Some(unproven), "{closing}");
    }
}

#[test]
fn kept_alive_http_1_0_goes_on() {
    let mut wire = Wire::open(false);
    let kept = "GET /a HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n";
    wire.request(format!("{kept}{kept}"));
    let log = wire.close(CloseCause::Finished);
    assert!(log.requests.len() == 2 && log.requests.values().all(Seen::may_go), "{log:?}");
}

#[test]
fn half_head_that_is_shed_is_counted_and_its_memory_given_back() {
    let mut wire = Wire::open(false);
    wire.request("GET /a HTTP/1.1\r\nX: ");
    assert!(wire.flow.allocated_bytes() > 0);
    let Wire { flow, log, .. } = &mut wire;
    flow.shed(&mut |event| log.note(event));
    assert!(wire.flow.allocated_bytes() < 200, "what finding framing again takes");
    wire.request("y\r\n\r\n");
    let log = wire.close(CloseCause::Finished);
    assert_eq!(log.ends(), [("", Some(Err(DropReason::BufferFull)))]);
}
