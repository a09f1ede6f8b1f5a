use super::support::{config, get};
use crate::config::ShadowConfig;
use crate::drop_reason::DropReason;
use crate::replay::state::{Action, State};
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

/// Opens as many as may be opened at once; returns their seats.
fn open_all(config: &ShadowConfig, state: &mut State, now: Instant) -> Vec<u64> {
    let mut opened = Vec::new();
    while let Action::Open(seat) = state.dispatch(config, now) {
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
            state.handle_connected();
            state.take().unwrap();
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
        state.handle_connected();
        state.take().unwrap();
    }
    assert_eq!(open_all(&config, &mut state, now).len(), 1);
}

#[test]
fn idle_connection_takes_a_request_although_another_is_being_opened() {
    let (config, mut state, now) = with_waiting(2);
    let first = open_all(&config, &mut state, now)[0];
    state.handle_connected();
    state.take().unwrap();
    assert_eq!(open_all(&config, &mut state, now).len(), 1, "for the second, and it hangs");
    state.handle_free();
    state.take().unwrap();
    state.handle_free();
    state.sit_down(first, Waker::noop().clone());
    state.admit(get(), &config, now).unwrap();
    assert!(matches!(state.dispatch(&config, now), Action::Wake(_)));
    assert!(matches!(state.dispatch(&config, now), Action::Nothing), "it has its taker");
}

#[test]
fn failed_connection_costs_no_request_while_others_work_and_pauses_opening() {
    let (config, mut state, now) = with_waiting(3);
    open_all(&config, &mut state, now);
    state.handle_connected();
    state.take().unwrap();
    let second = open_all(&config, &mut state, now)[0];
    let (lost, _) = state.handle_connect_failed(second, DropReason::Connect, now);
    assert!(lost.is_empty());
    assert!(open_all(&config, &mut state, now).is_empty());
    assert_eq!(open_all(&config, &mut state, now + Duration::from_secs(1)).len(), 1);
}
