//! What ends a request before its last byte: resets, gaps, the end of the connection.

use super::super::*;
use super::harness::*;
use crate::drop_reason::DropReason;
use crate::flow::{CloseCause, Direction, FlowEvent};

#[test]
fn reset_by_either_side_and_goaway_cancel_what_has_not_ended() {
    let mut probe = Probe::at_start();
    probe.request(&hello());
    for stream in [1, 3, 5] {
        probe.request(&headers(stream, END_HEADERS, &get("/")));
    }
    probe.request(&get_frame(7, "/whole"));
    probe.request(&frame(3, 0, 1, &8_u32.to_be_bytes()));
    probe.answer(&[settings(), frame(3, 0, 3, &7_u32.to_be_bytes())].concat());
    probe.answer(&frame(7, 0, 0, &[0, 0, 0, 3, 0, 0, 0, 0]));
    assert_eq!(probe.drops(), [DropReason::Cancelled; 3]);
    assert_eq!(probe.mirrored().len(), 1);
}

#[test]
fn request_behind_a_goaway_that_does_not_allow_it_is_cancelled() {
    let mut probe = Probe::at_start();
    probe.request(&hello());
    probe.answer(&frame(7, 0, 0, &[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]));
    probe.request(&get_frame(1, "/still"));
    probe.answer(&frame(7, 0, 0, &[0, 0, 0, 3, 0, 0, 0, 0]));
    probe.request(&[get_frame(3, "/last"), get_frame(5, "/again-elsewhere")].concat());
    assert_eq!(probe.mirrored().len(), 2);
    assert_eq!(probe.drops(), [DropReason::Cancelled]);
}

#[test]
fn answers_that_do_not_begin_with_settings_are_no_frames() {
    let mut probe = Probe::new(H2Flow::at_start(H2Options::default()));
    probe.request(&hello());
    // The first segment was missed; this is the body of some answer.
    probe.answer(&[frame(7, 0, 0, &[0; 8]), settings()].concat());
    probe.request(&get_frame(1, "/"));
    assert_eq!(probe.mirrored().len(), 1);
}

#[test]
fn gap_inside_data_costs_that_stream_only() {
    let mut probe = Probe::at_start();
    probe.request(
        &[hello(), headers(1, END_HEADERS, &get("/1")), headers(3, END_HEADERS, &get("/3"))].concat(),
    );
    let data = frame(0, END_STREAM, 1, &[7; 1000]);
    probe.request(&data[..400]);
    probe.gap(Direction::Request, 600);
    probe.request(&[&data[1000..], &frame(0, END_STREAM, 3, b"x"), &get_frame(5, "/5")].concat());
    assert_eq!(probe.drops(), [DropReason::Gap]);
    let targets: Vec<_> = probe.mirrored().iter().map(|seen| seen.target.as_str()).collect();
    assert_eq!(targets, ["/3", "/5"]);
    assert_eq!(probe.flow.synchronisation(), Synchronisation::Synchronised);
}

#[test]
fn gap_up_to_the_last_byte_of_data_is_inside_and_one_more_is_not() {
    for (bytes, inside) in [(599, true), (600, true), (609, true), (610, false)] {
        let mut probe = Probe::at_start();
        probe.request(&[hello(), headers(1, END_HEADERS, &get("/1"))].concat());
        probe.request(&frame(0, END_STREAM, 1, &[7; 1000])[..400]);
        probe.gap(Direction::Request, bytes);
        assert_eq!(probe.drops(), [DropReason::Gap]);
        let synchronised = probe.flow.synchronisation() == Synchronisation::Synchronised;
        assert_eq!(synchronised, inside, "{bytes}");
    }
}

#[test]
fn gap_inside_a_header_block_costs_its_request_and_the_table() {
    let mut probe = Probe::at_start();
    let indexed = [block(&get("/")), b"\x40\x01a\x01b".to_vec()].concat();
    probe.request(&[hello(), frame(1, END_STREAM | END_HEADERS, 1, &indexed)].concat());
    let lost = get_frame(3, "/lost");
    probe.request(&lost[..12]);
    probe.gap(Direction::Request, lost.len() - 14);
    probe.request(&lost[lost.len() - 2..]);
    probe.request(&frame(1, END_STREAM | END_HEADERS, 5, &[block(&get("/")), vec![0xbe]].concat()));
    probe.request(&get_frame(7, "/right"));
    assert_eq!(probe.drops(), [DropReason::Gap, DropReason::Undecodable]);
    assert_eq!(probe.mirrored().len(), 2);
}

#[test]
fn end_of_the_connection_ends_every_request() {
    for (cause, reason) in
        [(CloseCause::Finished, DropReason::Truncated), (CloseCause::Reset, DropReason::Reset)]
    {
        let mut probe = Probe::at_start();
        probe.request(&[hello(), headers(1, END_HEADERS, &get("/"))].concat());
        probe.event(&FlowEvent::Closed(cause));
        assert_eq!(probe.drops(), [reason]);
    }
}

#[test]
fn half_a_head_is_a_request_that_is_dropped_once() {
    let begun = headers(1, END_STREAM, &get("/"));
    for cut in [9, 12, begun.len()] {
        for reason in [DropReason::Truncated, DropReason::Gap] {
            let mut probe = Probe::at_start();
            probe.request(&[&hello(), &begun[..cut]].concat());
            match reason {
                DropReason::Gap => probe.gap(Direction::Request, 100),
                _ => probe.event(&FlowEvent::Finished { direction: Direction::Request }),
            }
            assert_eq!(probe.drops(), [reason], "{cut} octets");
            probe.event(&FlowEvent::Closed(CloseCause::Finished));
            assert_eq!(probe.drops(), [reason], "{cut} octets");
        }
    }
    let mut probe = Probe::at_start();
    probe.request(&[hello(), begun, get_frame(3, "/")].concat());
    assert_eq!(probe.drops(), [DropReason::Malformed], "a block is not interrupted");
}
