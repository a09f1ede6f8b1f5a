//! Framing found again: what is released, and what must never be.

use super::*;

const UNPROVEN: Option<Result<(), DropReason>> = Some(Err(DropReason::UnprovenBoundary));
const EVIL: &str = "GET /evil HTTP/1.1\r\nHost: h\r\n\r\n";
const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";
const STREAMED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";

fn released(log: &Log) -> usize {
    log.requests.values().filter(|seen| seen.may_go()).count()
}

#[track_caller]
fn assert_nothing_released(wire: Wire) {
    let log = wire.close(CloseCause::Finished);
    assert_eq!(released(&log), 0, "{log:?}");
}

#[test]
fn joined_connection_is_trusted_after_two_proven_exchanges() {
    for answer in [OK, STREAMED, "HTTP/1.1 204 No\r\n\r\n"] {
        let mut wire = Wire::open(true);
        wire.answer("rest of an answer");
        wire.request(GET);
        wire.answer(answer);
        for _ in 0..3 {
            wire.request(GET);
            wire.answer(answer);
        }
        wire.request(format!("{GET}{GET}"));
        let log = wire.close(CloseCause::Finished);
        let ends: Vec<_> = log.requests.values().map(|seen| (seen.held, seen.end)).collect();
        let go = Some(Ok(()));
        assert_eq!(
            ends,
            [(true, UNPROVEN), (true, UNPROVEN), (true, go), (false, go), (false, go), (false, go)],
            "the first has nothing before it, the second is the first proof, the third the second"
        );
        assert!(log.requests[&2].released);
    }
}

#[test]
fn lost_framing_is_trusted_again_after_two_proven_exchanges() {
    let mut wire = Wire::open(false);
    wire.request(GET);
    wire.answer(OK);
    wire.gap(GET.len() as u32);
    for _ in 0..3 {
        wire.answer(OK);
        wire.request(post("/b", "body"));
    }
    let log = wire.close(CloseCause::Finished);
    let ends: Vec<_> = log.requests.values().map(|seen| seen.end).collect();
    assert_eq!(ends, [Some(Ok(())), UNPROVEN, Some(Ok(())), Some(Ok(()))]);
    assert_eq!(log.requests[&2].body, b"body");
}

#[test]
fn pipelined_candidates_prove_the_boundary_together() {
    let mut wire = Wire::open(true);
    for _ in 0..3 {
        wire.answer(OK);
        wire.answer(OK);
        wire.request(format!("{GET}{GET}"));
    }
    wire.answer(OK);
    wire.answer(OK);
    wire.request(GET);
    let log = wire.close(CloseCause::Finished);
    assert!(log.requests[&(log.requests.len() as u64 - 1)].may_go(), "{log:?}");
}

#[test]
fn candidate_in_pieces_and_with_an_expected_interim_answer_is_proven() {
    let mut wire = Wire::open(true);
    wire.answer(OK);
    wire.request(GET);
    wire.answer(OK);
    wire.request("POST /e HTTP/1.1\r\nExpect: 100-continue\r\nTransfer-");
    wire.request("Encoding: chunked\r\n\r\n");
    wire.answer(CONTINUE);
    wire.request("4\r\nbody\r\n0\r\n\r\n");
    wire.answer(OK);
    let log = wire.close(CloseCause::Finished);
    assert!(log.requests[&1].may_go() && log.requests[&1].body == b"body", "{log:?}");
}

#[test]
fn candidate_is_dropped_when_its_answer_does_not_come_in_time() {
    let mut wire = Wire::open(true);
    wire.answer(OK);
    wire.request(GET);
    let due = wire.flow.next_timeout().unwrap();
    let Wire { flow, log, .. } = &mut wire;
    flow.handle_timeout(due, &mut |event| log.note(event));
    assert_eq!((log.requests[&0].end, flow.next_timeout()), (UNPROVEN, None));
    wire.answer(OK);
    wire.request(GET);
    assert_nothing_released(wire);
}

#[test]
fn bytes_that_are_no_request_line_at_a_segment_start_are_not_counted() {
    let mut wire = Wire::open(true);
    for bytes in ["middle of an upload", "GET \x00", "5\r\nhello\r\n", "GET / HTTP/1.1\r\nbroken\r\n\r\n"] {
        wire.answer(OK);
        wire.request(bytes);
    }
    wire.piece(GET.as_bytes(), false);
    assert_eq!(wire.close(CloseCause::Finished).requests.len(), 0);
}

#[test]
fn upload_that_ends_in_embedded_requests_releases_none() {
    // The client may have been joined anywhere, so what the server sent last may be anything.
    for before in ["", OK, CONTINUE, "tail of an answer"] {
        for answer in [OK, STREAMED] {
            let mut wire = Wire::open(true);
            if !before.is_empty() {
                wire.answer(before);
            }
            wire.request("filler");
            wire.request(EVIL);
            wire.request(EVIL);
            wire.answer(answer);
            assert_nothing_released(wire);
        }
    }
}

#[test]
fn upload_behind_100_continue_releases_nothing() {
    for (joined, answer) in [(true, OK), (true, STREAMED), (false, OK)] {
        let mut wire = Wire::open(joined);
        if !joined {
            wire.request(GET);
            wire.answer(OK);
        }
        // The head of the upload was lost, or came before the join.
        wire.gap(100);
        wire.answer(CONTINUE);
        wire.request(EVIL);
        wire.answer(answer);
        let log = wire.close(CloseCause::Finished);
        assert!(log.requests.values().all(|seen| !seen.start.contains("evil") || !seen.may_go()), "{log:?}");
    }
}

#[test]
fn upload_pipelined_behind_a_request_releases_nothing() {
    let mut wire = Wire::open(true);
    // Before the join: a GET and the head of an upload. The GET is answered, then the body comes.
    wire.answer(OK);
    wire.request(EVIL);
    wire.answer(OK);
    assert_nothing_released(wire);
}

#[test]
fn upload_answered_early_releases_nothing() {
    let refused = "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n";
    for cut in [0, 10] {
        let mut wire = Wire::open(true);
        wire.request("filler");
        wire.answer(refused);
        for _ in 0..5 {
            wire.request(EVIL);
        }
        wire.request(&EVIL[..EVIL.len() - cut]);
        wire.request(GET);
        wire.answer(OK);
        assert_nothing_released(wire);
    }
}

#[test]
fn embedded_request_that_swallows_the_next_one_is_not_released() {
    let mut wire = Wire::open(true);
    wire.answer("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n");
    wire.request(post("/evil", GET).strip_suffix(GET).unwrap());
    wire.request(GET);
    wire.answer(OK);
    wire.request(GET);
    wire.answer(OK);
    let log = wire.close(CloseCause::Finished);
    assert!(log.requests.values().all(|seen| !seen.start.contains("evil") || !seen.may_go()), "{log:?}");
    assert!(log.requests.values().any(Seen::may_go), "the boundary behind it was a true one");
}

#[test]
fn answer_that_streams_while_the_upload_goes_on_proves_nothing() {
    let mut wire = Wire::open(true);
    wire.answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..5 {
        wire.request(EVIL);
        wire.answer("5\r\nhello\r\n");
        wire.request(EVIL);
        wire.answer("HTTP/9 of no sort");
    }
    wire.answer("0\r\n\r\n");
    assert_nothing_released(wire);
}

#[test]
fn proof_asks_for_exact_places() {
    for fault in 0..5 {
        let mut wire = Wire::open(true);
        for round in 0..4 {
            wire.answer(OK);
            if round > 0 && fault == 0 {
                // The client had not received all of the answer.
                wire.answer_seq = wire.answer_seq.sub(1);
                wire.request(GET);
                wire.answer_seq = wire.answer_seq.add(1);
                continue;
            }
            wire.request(GET);
            match fault {
                // The answer was sent when less, or more, than the candidate had been received.
                1 => wire.request_seq = wire.request_seq.sub(1),
                2 => wire.request_seq = wire.request_seq.add(1),
                // Answer bytes were missed; or came before the answer.
                3 => wire.answer_seq = wire.answer_seq.add(1),
                4 => wire.answer("x"),
                _ => {}
            }
            wire.answer(OK);
            match fault {
                1 => wire.request_seq = wire.request_seq.add(1),
                2 => wire.request_seq = wire.request_seq.sub(1),
                _ => {}
            }
        }
        assert_nothing_released(wire);
    }
}

#[test]
fn candidate_that_asks_for_an_upgrade_passes_the_connection_over() {
    let mut wire = Wire::open(true);
    wire.answer(OK);
    wire.request("GET /ws HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
    wire.answer("HTTP/1.1 101 Switching\r\n\r\n");
    let log = wire.close(CloseCause::Finished);
    assert_eq!(log.passed_over, [DropReason::Upgrade]);
    assert_eq!(log.requests[&0].end, Some(Err(DropReason::Upgrade)));
}
