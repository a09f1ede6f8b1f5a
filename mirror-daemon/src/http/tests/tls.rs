//! Joined connections that carry TLS are left alone, and uploads never are.

use super::*;

const RECORDS: usize = 8;
const ANSWERS: usize = 2;

/// A record of `bytes` bytes of content.
fn record(bytes: u16) -> Vec<u8> {
    let mut record = vec![0x17, 3, 3];
    record.extend_from_slice(&bytes.to_be_bytes());
    record.resize(5 + usize::from(bytes), 0xa5);
    record
}

fn answers(wire: &mut Wire, count: usize) {
    for _ in 0..count {
        wire.answer(record(700));
    }
}

#[test]
fn joined_tls_connection_is_passed_over() {
    let mut wire = Wire::open(true);
    for exchange in 1..=RECORDS {
        assert_eq!(wire.log.passed_over, [], "before exchange {exchange}");
        wire.request(record(300));
        wire.answer(record(700));
    }
    assert_eq!(wire.log.passed_over, [DropReason::NotHttp]);
    wire.request(GET);
    wire.answer(OK);
    let log = wire.close(CloseCause::Finished);
    assert_eq!((log.requests.len(), log.passed_over.len()), (0, 1));
}

#[test]
fn records_are_followed_however_segments_cut_them() {
    // No byte is a letter: a segment that starts with one could be the first of a request line.
    let stream: Vec<u8> = (1..=RECORDS as u16).flat_map(|number| record(0x80 + number)).collect();
    for segment_bytes in [1, 2, 3, 4, 5, 6, 40, 333, stream.len()] {
        let mut wire = Wire::open(true);
        for segment in stream.chunks(segment_bytes) {
            wire.request(segment);
        }
        answers(&mut wire, ANSWERS - 1);
        assert_eq!(wire.log.passed_over, []);
        answers(&mut wire, 1);
        assert_eq!(wire.log.passed_over, [DropReason::NotHttp], "segments of {segment_bytes} bytes");
    }
}

#[test]
fn upload_of_tls_records_is_not_taken_for_tls() {
    let mut wire = Wire::open(true);
    for _ in 0..10 {
        for _ in 0..RECORDS {
            wire.request(record(1400));
        }
        // Interim or final, with or without a look alike behind it.
        wire.answer("HTTP/1.1 200 OK\r\nContent-Length: 705\r\n\r\n");
        answers(&mut wire, ANSWERS);
    }
    assert_eq!(wire.log.passed_over, []);
}

#[test]
fn hole_or_other_bytes_between_records_start_the_count_again() {
    for hole in [true, false] {
        let mut wire = Wire::open(true);
        for _ in 0..3 {
            for _ in 0..RECORDS - 1 {
                wire.request(record(100));
            }
            answers(&mut wire, ANSWERS);
            if hole {
                wire.gap(9);
            } else {
                wire.request("\x17\x03\x03\0\0");
            }
        }
        assert_eq!(wire.log.passed_over, [], "hole: {hole}");
    }
}

#[test]
fn requests_after_records_are_still_found() {
    let mut wire = Wire::open(true);
    for _ in 0..RECORDS - 1 {
        wire.request(record(100));
        wire.answer(record(100));
    }
    for _ in 0..4 {
        wire.request(GET);
        wire.answer(OK);
    }
    let log = wire.close(CloseCause::Finished);
    assert!(log.requests.values().any(Seen::may_go), "{log:?}");
}
