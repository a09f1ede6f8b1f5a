use super::h2::support::h2_get;
use super::support::{config, get};
use crate::config::ShadowConfig;
use crate::drop_reason::DropReason;
use crate::replay::state::Lane::{Http1, Http2};
use crate::replay::state::{Action, Actions, State};
use std::task::Waker;
use std::time::Duration;
use tokio::time::Instant;

fn with_waiting(count: usize) -> (ShadowConfig, State, Instant) {
    let config = config("127.0.0.1:1".parse().unwrap());
    let now = Instant::now();
    let mut state = State::new(&config, now);
    for _ in 0..count {
        state.admit(get(), &config, now).unwrap();
    }
    (config, state, now)
}

fn http1(actions: Actions) -> Action {
    let [http1, http2] = actions.0;
    assert!(matches!(http2, Action::Nothing));
    http1
}

fn http2(actions: Actions) -> Action {
    let [http1, http2] = actions.0;
    assert!(matches!(http1, Action::Nothing));
    http2
}

/// Opens as many as may be opened at once; returns their seats.
fn open_all(config: &ShadowConfig, state: &mut State, now: Instant) -> Vec<u64> {
    let mut opened = Vec::new();
    while let Action::Open(Http1, seat) = http1(state.dispatch(config, now)) {
        opened.push(seat);
    }
    opened
}

#[test]
fn burst_doubles_the_connections_step_by_step() {
    let (config, mut state, now) = with_waiting(1_000);
    let mut steps = Vec::new();
    for _ in 0..6 {
        let opened = open_all(&config, &mut state, now).len();
        for _ in 0..opened {
            state.handle_connected(Http1);
            state.take(Http1, &config).unwrap();
        }
        steps.push(opened);
    }
    assert_eq!(steps, [1, 1, 2, 4, 8, 8]);
}

#[test]
fn no_more_connections_are_opened_than_requests_wait() {
    let (config, mut state, now) = with_waiting(3);
    for _ in 0..2 {
        assert_eq!(open_all(&config, &mut state, now).len(), 1);
        state.handle_connected(Http1);
        state.take(Http1, &config).unwrap();
    }
    assert_eq!(open_all(&config, &mut state, now).len(), 1);
}

#[test]
fn idle_connection_takes_a_request_although_another_is_being_opened() {
    let (config, mut state, now) = with_waiting(2);
    let first = open_all(&config, &mut state, now)[0];
    state.handle_connected(Http1);
    state.take(Http1, &config).unwrap();
    assert_eq!(open_all(&config, &mut state, now).len(), 1, "for the second, and it hangs");
    state.handle_free(0);
    state.take(Http1, &config).unwrap();
    state.handle_free(0);
    state.sit_down(Http1, first, Waker::noop().clone());
    state.admit(get(), &config, now).unwrap();
    assert!(matches!(http1(state.dispatch(&config, now)), Action::Wake(_)));
    assert!(matches!(http1(state.dispatch(&config, now)), Action::Nothing), "it has its taker");
}

#[test]
fn failed_connection_costs_no_request_while_others_work_and_pauses_opening() {
    let (config, mut state, now) = with_waiting(3);
    open_all(&config, &mut state, now);
    state.handle_connected(Http1);
    state.take(Http1, &config).unwrap();
    let second = open_all(&config, &mut state, now)[0];
    let (lost, _) = state.handle_connect_failed(Http1, second, DropReason::Connect, now);
    assert!(lost.is_empty());
    assert!(open_all(&config, &mut state, now).is_empty());
    assert_eq!(open_all(&config, &mut state, now + Duration::from_secs(1)).len(), 1);
}

#[test]
fn one_connection_of_http2_is_opened_for_all_that_wait_and_another_when_it_is_full() {
    let (config, mut state, now) = with_waiting(0);
    (0..50).for_each(|_| state.admit(h2_get(), &config, now).unwrap());
    assert!(matches!(http2(state.dispatch(&config, now)), Action::Open(Http2, _)));
    assert!(matches!(http2(state.dispatch(&config, now)), Action::Nothing), "it will take them");
    state.handle_connected(Http2);
    (0..20).for_each(|_| drop(state.take(Http2, &config).unwrap()));
    assert!(matches!(http2(state.dispatch(&config, now)), Action::Open(Http2, _)), "the first one is full");
    state.handle_connected(Http2);
    state.sit_down(Http2, 0, Waker::noop().clone());
    assert!(matches!(http2(state.dispatch(&config, now)), Action::Wake(_)));
    assert!(matches!(http2(state.dispatch(&config, now)), Action::Nothing), "it will take all it can");
}

#[test]
fn last_place_in_flight_goes_to_the_lane_that_has_waited_longer() {
    let (mut config, mut state, now) = with_waiting(0);
    config.max_in_flight = 2;
    for request in [get(), h2_get(), get(), h2_get()] {
        state.admit(request, &config, now).unwrap();
    }
    state.take(Http1, &config).unwrap();
    assert!(state.take(Http1, &config).is_some(), "nobody there to take the older one");
    state.handle_free(0);
    state.sit_down(Http2, 7, Waker::noop().clone());
    state.admit(get(), &config, now).unwrap();
    assert!(state.take(Http1, &config).is_none());
    assert!(matches!(http2(state.dispatch(&config, now)), Action::Wake(_)));
    assert!(state.take(Http1, &config).is_none(), "it is kept for whoever was woken");
    state.handle_woken(Http2);
    state.take(Http2, &config).unwrap();
    assert!(state.take(Http2, &config).is_none(), "two are in flight");
}

#[test]
fn lane_without_a_connection_may_open_one_beyond_the_bound() {
    let (mut config, mut state, now) = with_waiting(2);
    config.max_connections = 1;
    open_all(&config, &mut state, now);
    state.handle_connected(Http1);
    state.admit(h2_get(), &config, now).unwrap();
    let [http1, http2] = state.dispatch(&config, now).0;
    assert!(matches!((http1, http2), (Action::Nothing, Action::Open(Http2, _))));
    state.admit(h2_get(), &config, now).unwrap();
    state.handle_connected(Http2);
    let [http1, http2] = state.dispatch(&config, now).0;
    assert!(matches!((http1, http2), (Action::Nothing, Action::Nothing)));
    state.handle_leaving(Http2);
    assert!(matches!(state.dispatch(&config, now).0, [Action::Nothing, Action::Open(Http2, _)]));
}
