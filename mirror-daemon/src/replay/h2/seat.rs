//! An HTTP/2 connection task's place in its shadow's state: given back whatever happens.

use super::ticket::Ticket;
use crate::drop_reason::DropReason;
use crate::replay::shadow::Shadow;
use crate::replay::state::{Lane, SeatId};
use std::sync::Arc;
use std::task::Waker;
use tokio::time::Instant;

/// Owned by one connection task. When that ends, by itself or from outside, the place is free again.
#[derive(Debug)]
pub(in crate::replay) struct SharedSeat {
    shadow: Arc<Shadow>,
    id: SeatId,
    place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Connecting,
    /// Not among the idle.
    Standing,
    /// Among the idle, or woken from there.
    Sitting,
    /// Takes no more requests.
    Leaving,
    Gone,
}

impl SharedSeat {
    /// The seat `id`, which the state has just opened.
    pub(in crate::replay) const fn new(shadow: Arc<Shadow>, id: SeatId) -> Self {
        Self { shadow, id, place: Place::Connecting }
    }

    pub(super) const fn shadow(&self) -> &Arc<Shadow> {
        &self.shadow
    }

    /// The connection stands.
    pub(super) fn handle_connected(&mut self) {
        self.shadow.lock().handle_connected(Lane::Http2);
        self.place = Place::Standing;
    }

    /// The connection could not be made.
    pub(super) fn handle_connect_failed(mut self, reason: DropReason, why: &str) {
        self.place = Place::Gone;
        self.shadow.handle_connect_failed(Lane::Http2, self.id, reason, why);
    }

    /// Takes what waits, while there is room for it, into `taken`; with room left over, sits down until `waker`
    /// is told of more.
    pub(super) fn take(&mut self, room: usize, waker: &Waker, taken: &mut Vec<Ticket>) {
        if matches!(self.place, Place::Leaving | Place::Gone) {
            return;
        }
        let shadow = &self.shadow;
        let mut state = shadow.lock();
        if self.place == Place::Sitting {
            let is_sitting = state.is_sitting(Lane::Http2, self.id, waker);
            if is_sitting && room > 0 && !state.has_waiting(Lane::Http2) {
                return;
            }
            state.leave_idle(Lane::Http2, self.id);
            self.place = Place::Standing;
        }
        while taken.len() < room {
            let Some(job) = state.take(Lane::Http2, &shadow.config) else { break };
            taken.push(Ticket::new(Arc::clone(shadow), job));
        }
        if taken.len() < room {
            state.sit_down(Lane::Http2, self.id, waker.clone());
            self.place = Place::Sitting;
        }
        let actions = state.dispatch(&shadow.config, Instant::now());
        drop(state);
        shadow.act(actions);
    }

    /// Takes no more requests from now on; others see to what waits.
    pub(super) fn leave(&mut self) {
        let shadow = &self.shadow;
        let mut state = shadow.lock();
        match self.place {
            Place::Leaving | Place::Gone => return,
            Place::Sitting => state.leave_idle(Lane::Http2, self.id),
            Place::Connecting | Place::Standing => {}
        }
        state.handle_leaving(Lane::Http2);
        self.place = Place::Leaving;
        let actions = state.dispatch(&shadow.config, Instant::now());
        drop(state);
        shadow.act(actions);
    }
}

impl Drop for SharedSeat {
    fn drop(&mut self) {
        if self.place == Place::Gone {
            return;
        }
        let (id, place) = (self.id, self.place);
        self.shadow.handle_task_ended((Lane::Http2, id), place == Place::Connecting, |state| match place {
            Place::Sitting => state.leave_idle(Lane::Http2, id),
            Place::Leaving => state.handle_left(Lane::Http2),
            Place::Connecting | Place::Standing | Place::Gone => {}
        });
    }
}
