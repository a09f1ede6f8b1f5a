//! Requests that ask to leave HTTP/1.

use super::*;

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
const CONNECT: &str = "CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n";
const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\n\r\n";
const DROPPED: Option<Result<(), DropReason>> = Some(Err(DropReason::Upgrade));

#[test]
fn upgraded_connection_is_passed_over() {
    for (request, answer) in [(UPGRADE, SWITCHING), (CONNECT, "HTTP/1.1 200 OK\r\n\r\n")] {
        let mut wire = Wire::open(false);
        wire.request(request);
        wire.answer("HTTP/1.1 102 Processing\r\n\r\n");
        assert_eq!(wire.log.requests[&0].end, None, "held until it is answered");
        wire.answer(answer);
        wire.request(GET);
        let log = wire.close(CloseCause::Finished);
        assert_eq!(log.requests.len(), 1);
        assert_eq!((log.requests[&0].end, log.passed_over), (DROPPED, vec![DropReason::Upgrade]));
    }
}

#[test]
fn refused_upgrade_is_a_request_like_any_other() {
    let mut wire = Wire::open(false);
    wire.request(format!("{UPGRADE}{GET}"));
    assert_eq!(wire.log.requests.len(), 1, "nothing is read behind it until it is answered");
    wire.answer(OK);
    wire.request(GET);
    let log = wire.close(CloseCause::Finished);
    assert_eq!(log.requests.len(), 3);
    assert!(log.requests.values().all(Seen::may_go), "{log:?}");
}

#[test]
fn refused_connect_is_dropped_and_http_goes_on() {
    let mut wire = Wire::open(false);
    wire.request(CONNECT);
    wire.answer("HTTP/1.1 405 No\r\nContent-Length: 0\r\n\r\n");
    wire.request(GET);
    let log = wire.close(CloseCause::Finished);
    assert_eq!((log.requests[&0].end, log.requests[&1].may_go()), (DROPPED, true));
    assert!(log.passed_over.is_empty());
}

#[test]
fn answers_to_earlier_requests_decide_nothing() {
    let mut wire = Wire::open(false);
    wire.request(format!("{GET}{GET}{UPGRADE}"));
    wire.answer(OK);
    wire.answer(OK);
    assert_eq!(wire.log.requests[&2].end, None);
    wire.answer(SWITCHING);
    assert_eq!(wire.close(CloseCause::Finished).requests[&2].end, DROPPED);

    let mut wire = Wire::open(false);
    wire.request(format!("{GET}{UPGRADE}"));
    wire.answer(format!("{OK}{OK}"));
    assert!(wire.log.requests[&1].may_go(), "two answers in one segment");
}

#[test]
fn repeated_segment_of_an_earlier_answer_decides_nothing() {
    let mut wire = Wire::open(false);
    wire.request(GET);
    let start = wire.answer_seq;
    wire.answer(OK);
    wire.request(UPGRADE);
    let end = std::mem::replace(&mut wire.answer_seq, start);
    wire.answer(OK);
    assert_eq!((wire.answer_seq, wire.log.requests[&1].end), (end, None));
    wire.answer(SWITCHING);
    assert_eq!(wire.close(CloseCause::Finished).passed_over, [DropReason::Upgrade]);
}

#[test]
fn upgrade_with_a_body_is_decided_during_or_after_it() {
    let head = "POST /ws HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 4\r\n\r\n";
    for early in [true, false] {
        let mut wire = Wire::open(false);
        wire.request(format!("{head}bo"));
        if early {
            wire.answer(OK);
        }
        wire.request("dy");
        if !early {
            wire.answer(OK);
        }
        wire.request(GET);
        let log = wire.close(CloseCause::Finished);
        assert!(log.requests.len() == 2 && log.requests.values().all(Seen::may_go), "{early} {log:?}");
    }
}

#[test]
fn too_many_bytes_behind_an_undecided_request_lose_framing() {
    for (extra, want) in [(0, 3), (1, 1)] {
        let mut wire = Wire::open(false);
        wire.request(UPGRADE);
        let body_bytes = MAX_HELD_BYTES + extra - post("/p", "").len() - GET.len() - 4;
        wire.request(post("/p", &"x".repeat(body_bytes)));
        wire.request(GET);
        wire.answer(OK);
        let log = wire.close(CloseCause::Finished);
        assert_eq!(log.requests.values().filter(|seen| seen.may_go()).count(), want, "{extra}");
    }
}

#[test]
fn undecided_request_is_dropped_in_time_and_its_answer_still_counts() {
    let mut wire = Wire::open(false);
    wire.request(UPGRADE);
    let due = wire.flow.next_timeout().unwrap();
    assert_eq!(due, Timestamp(0).after(HELD_TIMEOUT));
    let Wire { flow, log, .. } = &mut wire;
    flow.handle_timeout(Timestamp(due.0 - 1), &mut |event| log.note(event));
    assert_eq!(log.requests[&0].end, None);
    flow.handle_timeout(due, &mut |event| log.note(event));
    assert_eq!((log.requests[&0].end, flow.next_timeout()), (DROPPED, None));
    wire.answer(OK);
    wire.request(GET);
    assert!(wire.close(CloseCause::Finished).requests[&1].may_go());
}

#[test]
fn hole_behind_an_undecided_request_does_not_cost_it() {
    let mut wire = Wire::open(false);
    wire.request(UPGRADE);
    wire.gap(9);
    wire.answer(OK);
    wire.request(GET);
    let log = wire.close(CloseCause::Finished);
    assert!(log.requests[&0].may_go());
    assert_eq!(log.requests[&1].end, Some(Err(DropReason::UnprovenBoundary)));
}

#[test]
fn upgrade_field_alone_holds_the_request_for_gateways_that_ask_themselves() {
    let mut wire = Wire::open(false);
    wire.request("GET /ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\n");
    wire.request(GET);
    wire.answer(SWITCHING);
    let log = wire.close(CloseCause::Finished);
    assert_eq!((log.requests.len(), log.requests[&0].end), (1, DROPPED), "{log:?}");
}
