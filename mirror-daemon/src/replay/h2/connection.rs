//! A connection task: one connection with all its streams, for as long as it is wanted.

use super::MAX_STREAMS;
use super::connect::{Opened, open};
use super::flood::Allowance;
use super::head;
use super::ready::{CONNECTION, Ready};
use super::seat::SharedSeat;
use super::settle::{Past, settle};
use super::stream::{Closed, Ending, Stream, Turn};
use super::ticket::Ticket;
use super::wire::{Meter, Wire};
use crate::drop_reason::DropReason;
use crate::replay::ShadowBody;
use crate::replay::breaker::Verdict;
use crate::replay::outgoing::check_length;
use ::h2::client::{Connection, SendRequest};
use bytes::Bytes;
use std::future::{Future as _, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

/// How often a turn goes round before it lets other tasks run.
const MAX_ROUNDS: usize = 4;
/// Time to say goodbye on a connection that is not wanted any more.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// Connects, then serves until the connection is closed, idle for too long, or not wanted any more.
pub(in crate::replay) async fn run(mut seat: SharedSeat) {
    let opened = match open(seat.shadow()).await {
        Ok(opened) => opened,
        Err(failure) => return seat.handle_connect_failed(failure.reason, &failure.why),
    };
    seat.handle_connected();
    let mut driver = Driver::new(seat, opened);
    let end = poll_fn(|cx| driver.poll(cx)).await;
    let Driver { seat, connection, requests, .. } = driver;
    drop(requests);
    if end == End::Unwanted {
        // Without requests and without anyone to make some, `h2` sends GOAWAY and closes.
        let _ = timeout(CLOSE_LIMIT, connection).await;
    }
    drop(seat);
}

/// Why a connection is at its end; no stream is left by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// On our side.
    Unwanted,
    /// It is closed, or has to be closed at once.
    Lost,
}

/// Everything of one connection. The streams go before the seat, so that the seat finds takers for what they
/// have put back.
struct Driver {
    /// By slot; as many as were ever open at once.
    streams: Vec<Option<Stream>>,
    /// The waker of each slot.
    wakers: Vec<Waker>,
    free_slots: Vec<usize>,
    /// Slots whose request waits for the socket to take its last byte.
    queued: Vec<usize>,
    taken: Vec<Ticket>,
    requests: SendRequest<Bytes>,
    connection: Connection<Wire, Bytes>,
    seat: SharedSeat,
    meter: Arc<Meter>,
    allowance: Allowance,
    ready: Arc<Ready>,
    connection_waker: Waker,
    past: Past,
    peer: SocketAddr,
    generation: u64,
    is_leaving: bool,
    now: Instant,
    /// Since when there is no stream.
    idle_since: Option<Instant>,
    /// Rings when a deadline may have passed, or earlier.
    timer: Pin<Box<Sleep>>,
}

impl Driver {
    fn new(seat: SharedSeat, opened: Opened) -> Self {
        let now = Instant::now();
        let ready = Arc::new(Ready::default());
        let connection_waker = ready.waker(CONNECTION);
        ready.mark(CONNECTION);
        Self {
            streams: Vec::new(),
            wakers: Vec::new(),
            free_slots: Vec::new(),
            queued: Vec::new(),
            taken: Vec::new(),
            requests: opened.requests,
            connection: opened.connection,
            seat,
            meter: opened.meter,
            allowance: Allowance::new(now),
            ready,
            connection_waker,
            past: Past::default(),
            peer: opened.peer,
            generation: opened.generation,
            is_leaving: false,
            now,
            idle_since: Some(now),
            timer: Box::pin(sleep_until(now)),
        }
    }

    /// One turn: looks at all that has something to be looked at.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.ready.disarm();
        self.now = Instant::now();
        self.meter.start_turn();
        if !self.seat.shadow().may_stay(self.peer, &mut self.generation, self.now) {
            self.leave();
        }
        for _ in 0..MAX_ROUNDS {
            for mark in self.ready.take() {
                self.poll_stream(mark);
            }
            self.take_requests();
            if self.poll_connection().is_ready() {
                self.end_all();
                return Poll::Ready(End::Lost);
            }
            if !self.ready.is_marked() {
                break;
            }
        }
        self.poll_deadlines(cx);
        if self.is_over() {
            self.leave();
            return Poll::Ready(End::Unwanted);
        }
        self.ready.arm(cx.waker());
        Poll::Pending
    }

    fn is_over(&self) -> bool {
        let limit = self.seat.shadow().config.idle_timeout;
        self.idle_since
            .is_some_and(|since| self.is_leaving || self.now.saturating_duration_since(since) >= limit)
    }

    /// Takes no more requests.
    fn leave(&mut self) {
        self.is_leaving = true;
        self.seat.leave();
    }

    fn open_streams(&self) -> usize {
        self.streams.len().saturating_sub(self.free_slots.len())
    }

    /// How many more streams the connection can carry now.
    fn room(&mut self) -> usize {
        if self.is_leaving {
            return 0;
        }
        let mut cx = Context::from_waker(&self.connection_waker);
        match self.requests.poll_ready(&mut cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Pending => return 0,
            // GOAWAY, or no number is left for a stream.
            Poll::Ready(Err(_)) => {
                self.leave();
                return 0;
            }
        }
        let most = self.connection.max_concurrent_send_streams().min(MAX_STREAMS);
        most.saturating_sub(self.open_streams())
    }

    fn take_requests(&mut self) {
        let room = self.room();
        let mut taken = std::mem::take(&mut self.taken);
        self.seat.take(room, &self.connection_waker, &mut taken);
        for ticket in taken.drain(..) {
            self.open(ticket);
        }
        self.taken = taken;
    }

    /// Sends the head, and what can be sent of the body.
    fn open(&mut self, mut ticket: Ticket) {
        let mut cx = Context::from_waker(Waker::noop());
        let Some(job) = ticket.job() else { return };
        let refused = match &mut job.request.body {
            ShadowBody::Buffered { bytes, .. } => {
                check_length(bytes.len() as u64, job.request.head.framing).err()
            }
            ShadowBody::Streaming(reader) => match reader.poll_abort(&mut cx) {
                Poll::Ready(abort) => Some(abort.0),
                Poll::Pending => None,
            },
        };
        let request = head::request(&job.request.head.wire).ok_or(DropReason::Malformed);
        let request = match (request, refused) {
            (Ok(request), None) => request,
            (Err(reason), None) | (_, Some(reason)) => return abort(ticket, reason),
        };
        let is_ended = matches!(&job.request.body, ShadowBody::Buffered { bytes, trailers } if bytes.is_empty() && trailers.is_empty());
        match self.requests.send_request(request, is_ended) {
            Ok(halves) => {
                job.accepted_bytes = job.request.head.wire.len() as u64;
                if job.is_resent {
                    ticket.shadow().ledger.resent.increment();
                }
                let stream = Stream::new(ticket, halves, is_ended, self.now);
                self.add(stream);
            }
            Err(error) if error.is_io() || error.is_go_away() || error.is_reset() => {
                self.leave();
                ticket.put_back_or_lose();
            }
            // It takes no such head.
            Err(_) => abort(ticket, DropReason::Malformed),
        }
    }

    fn add(&mut self, stream: Stream) {
        self.allowance.grant_stream();
        self.idle_since = None;
        let slot = self.free_slots.pop().unwrap_or_else(|| {
            self.streams.push(None);
            self.wakers.push(self.ready.waker(self.wakers.len()));
            self.streams.len().saturating_sub(1)
        });
        let is_queued = stream.is_queued();
        if let Some(place) = self.streams.get_mut(slot) {
            *place = Some(stream);
        }
        if is_queued {
            self.queued.push(slot);
        }
        self.poll_stream(slot);
    }

    fn poll_stream(&mut self, slot: usize) {
        let (Some(Some(stream)), Some(waker)) = (self.streams.get_mut(slot), self.wakers.get(slot)) else {
            return;
        };
        let was_queued = stream.is_queued();
        let mut turn = Turn { now: self.now, allowance: &mut self.allowance };
        if let Poll::Ready(ending) = stream.poll(&mut Context::from_waker(waker), &mut turn) {
            return self.end(slot, ending);
        }
        let deadline = stream.deadline();
        if stream.is_queued() && !was_queued {
            self.queued.push(slot);
        }
        self.ring_by(deadline);
    }

    fn end(&mut self, slot: usize, ending: Ending) {
        let Some(mut stream) = self.streams.get_mut(slot).and_then(Option::take) else { return };
        self.free_slots.push(slot);
        self.queued.retain(|queued| *queued != slot);
        match ending {
            Ending::Answered => self.past.has_answered = true,
            Ending::Closed(_) => {}
            Ending::Aborted(_) | Ending::OriginalCancelled | Ending::AnswerTimeout | Ending::WriteTimeout => {
                stream.reset();
            }
        }
        // A connection that went silent, or takes no more bytes, gets no more requests.
        let is_silent = ending == Ending::AnswerTimeout && stream.read_bytes_then == self.meter.read_bytes();
        if is_silent || (ending == Ending::WriteTimeout && self.meter.is_blocked()) {
            self.leave();
        }
        settle(stream, ending, &mut self.past);
        if self.open_streams() == 0 {
            self.idle_since = Some(self.now);
            let limit = self.seat.shadow().config.idle_timeout;
            self.ring_by(self.now.checked_add(limit));
        }
    }

    /// Ready when the connection has ended, or has to.
    fn poll_connection(&mut self) -> Poll<()> {
        let mut cx = Context::from_waker(&self.connection_waker);
        if let Poll::Ready(end) = Pin::new(&mut self.connection).poll(&mut cx) {
            if let Err(error) = end {
                let name = &self.seat.shadow().config.name;
                tracing::debug!(shadow = %name, %error, "http/2 connection lost");
            }
            return Poll::Ready(());
        }
        self.handle_written();
        let read_bytes = self.meter.read_bytes();
        if !self.allowance.is_exceeded(read_bytes, self.now) {
            return Poll::Pending;
        }
        let shadow = self.seat.shadow();
        tracing::debug!(shadow = %shadow.config.name, read_bytes, "http/2 connection closed: the shadow floods it");
        shadow.handle_verdict(Verdict::Failure("it floods the connection"), false);
        Poll::Ready(())
    }

    /// When the socket has taken all there was, the requests whose last byte was queued are written.
    fn handle_written(&mut self) {
        if self.queued.is_empty() || self.meter.is_blocked() {
            return;
        }
        let mut cx = Context::from_waker(&self.connection_waker);
        if self.requests.poll_ready(&mut cx).is_pending() {
            // The last stream waits for the peer to allow it.
            return;
        }
        let read_bytes = self.meter.read_bytes();
        for slot in self.queued.drain(..) {
            let Some(Some(stream)) = self.streams.get_mut(slot) else { continue };
            if stream.handle_written(self.now, read_bytes) {
                self.ready.mark(slot);
            }
        }
    }

    /// The connection is lost: each stream learns of it from `h2`, or at least from here.
    fn end_all(&mut self) {
        self.leave();
        for slot in 0..self.streams.len() {
            self.poll_stream(slot);
            self.end(slot, Ending::Closed(Closed::Connection));
        }
    }

    fn poll_deadlines(&mut self, cx: &mut Context<'_>) {
        while self.timer.as_mut().poll(cx).is_ready() {
            self.now = Instant::now();
            for slot in 0..self.streams.len() {
                let Some(Some(stream)) = self.streams.get(slot) else { continue };
                if stream.deadline().is_some_and(|deadline| deadline <= self.now) {
                    let ending = stream.handle_deadline();
                    self.end(slot, ending);
                    self.ready.mark(CONNECTION);
                }
            }
            let limit = self.seat.shadow().config.idle_timeout;
            let idle = self.idle_since.and_then(|since| since.checked_add(limit));
            let deadlines = self.streams.iter().flatten().filter_map(Stream::deadline).chain(idle);
            let Some(next) = deadlines.min().filter(|next| *next > self.now) else { return };
            self.timer.as_mut().reset(next);
        }
    }

    /// Sees that the timer rings in time. It is set anew only when it must ring earlier, or has rung.
    fn ring_by(&mut self, deadline: Option<Instant>) {
        if let Some(deadline) = deadline
            && (deadline < self.timer.deadline() || self.timer.is_elapsed())
        {
            self.timer.as_mut().reset(deadline);
        }
    }
}

fn abort(ticket: Ticket, reason: DropReason) {
    ticket.shadow().ledger.lost(reason);
    ticket.finish(Verdict::Undecided);
}
