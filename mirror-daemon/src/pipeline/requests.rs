//! What becomes of the decoded requests: rules, copies, and the entry of each.

use super::calls::{Call, Calls};
use super::exchange::{Copy, CopyState, Entry, Exchange};
use super::{Outlet, PipelineCounters, View};
use crate::config::Leg;
use crate::drop_reason::DropReason;
use crate::flow::{CloseCause, FlowEvent, FlowKey, Timestamp, Wakes};
use crate::http::h2::{H2Counters, Synchronisation};
use crate::http::{BodyLength, HttpEvent, HttpFlow, HttpOptions, RequestHead, RequestNumber};
use crate::rewrite::{self, HeadForm, HostSource};
use crate::rule::{self, Decision, Sender};
use crate::telemetry::{Ledger, ShadowLedger};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// What is remembered of one connection beside its assembler.
#[derive(Debug, Default)]
pub(super) struct Connection {
    /// Made at the first event.
    http: Option<HttpFlow>,
    under_way: UnderWay,
    /// How far it was synchronised at the last event, if it is one of HTTP/2.
    synchronisation: Option<Synchronisation>,
    /// Capture was asked to copy answers whole.
    has_whole_answers: bool,
    /// When the decoder is woken next; it may have found out since that it need not be.
    timeout: Option<Timestamp>,
    /// Its place among those with requests under way.
    turn: Option<u64>,
}

/// The requests of one connection.
#[derive(Debug, Default)]
struct UnderWay {
    /// Those that somebody waits for, by number; nearly always none or one, in HTTP/2 some, at most 1,024.
    exchanges: Vec<Exchange>,
    /// The client that a PROXY protocol header named.
    proxied_client: Option<IpAddr>,
    calls: Calls,
}

/// All of a pipeline but its flows, so that both can be borrowed at once.
#[derive(Debug)]
pub(super) struct Requests<O> {
    pub(super) view: Arc<View>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) outlet: O,
    pub(super) counters: PipelineCounters,
    /// What connections of HTTP/2 counted.
    pub(super) http2: H2Counters,
    /// The request that was just decoded is wanted by nobody: its body need not be copied.
    pub(super) is_unwanted: bool,
    /// A request that is streamed from its start may have begun, or may have been released.
    has_calls: bool,
    pub(super) http_options: HttpOptions,
    /// Flows that are to be forgotten when the segment is done with, or the time that passed: nearly always none.
    pub(super) ignored: Vec<FlowKey>,
    /// When held requests of a flow have waited for long enough.
    pub(super) held: Wakes,
    /// Connections with requests under way, by their turn to give them up: the one that has had some for longest first.
    turns: BTreeMap<u64, FlowKey>,
    next_turn: u64,
}

/// The part of the bound on all buffers that is kept free, as 1 in so many: once it is used, those give way that have
/// held something for longest. Beyond the bound it is who grows, at once: some bytes of heads make room for many of bodies.
const SPARE_SHARE: usize = 8;

/// What the decoder of an HTTP/2 connection may take beside the bound on all buffers: itself, a dynamic table of 4,096
/// bytes with its arena, and the buffers that it keeps.
const HTTP2_DECODER_BYTES: usize = 12 * 1024;

/// What a connection may hold without a request that waits, when others have no room.
const MAX_UNWANTED_BYTES: usize = 64 * 1024;

/// Room for requests under way that a connection keeps.
const KEPT_EXCHANGES: usize = 16;

/// Bodies with fewer bytes to come are not worth a verdict: the map write costs more than the copies.
const MIN_PASS_OVER_BYTES: u32 = 64 * 1024;

impl<O: Outlet> Requests<O> {
    pub(super) fn new(view: Arc<View>, ledger: Arc<Ledger>, outlet: O) -> Self {
        let capture = &view.config.capture;
        let proxy_protocol = capture.proxy_protocol && capture.leg == Leg::Downstream;
        Self {
            has_calls: false,
            http_options: HttpOptions { proxy_protocol, http2: capture.http2 },
            http2: H2Counters::default(),
            view,
            ledger,
            outlet,
            counters: PipelineCounters::default(),
            is_unwanted: false,
            ignored: Vec::new(),
            held: Wakes::default(),
            turns: BTreeMap::new(),
            next_turn: 0,
        }
    }

    pub(super) fn handle_flow(&mut self, key: &FlowKey, connection: &mut Connection, event: &FlowEvent<'_>) {
        let Connection { http, under_way, .. } = connection;
        let http = http.get_or_insert_with(|| HttpFlow::new(self.http_options));
        self.is_unwanted = false;
        let before = http.allocated_bytes();
        http.handle_event(event, &mut |http_event| self.handle_http(key, under_way, &http_event));
        self.charge(before, http.allocated_bytes());
        if http.allocated_bytes() > before && self.is_full() {
            let before = http.allocated_bytes();
            http.shed(&mut |event| self.handle_http(key, under_way, &event));
            self.charge(before, http.allocated_bytes());
        }
        if std::mem::take(&mut self.has_calls) {
            self.start_calls(under_way);
        }
        self.follow_http2(key, connection);
        match event {
            FlowEvent::Closed(cause) => self.handle_closed(key, connection, *cause),
            _ => self.handle_more(key, connection, event),
        }
        self.follow_turn(key, connection);
    }

    /// Gives a connection its turn when it begins to have requests under way, and takes it when it has none any more.
    fn follow_turn(&mut self, key: &FlowKey, connection: &mut Connection) {
        match (connection.turn, connection.under_way.exchanges.is_empty()) {
            (None, false) => {
                self.turns.insert(self.next_turn, *key);
                connection.turn = Some(self.next_turn);
                self.next_turn = self.next_turn.wrapping_add(1);
            }
            (Some(turn), true) => {
                self.turns.remove(&turn);
                connection.turn = None;
            }
            (None, true) | (Some(_), false) => {}
        }
    }

    /// Whose turn it is to make room, if there is little left.
    pub(super) fn next_to_make_room(&mut self) -> Option<FlowKey> {
        let most_bytes = self.most_bytes();
        let spare_bytes = most_bytes.checked_div(SPARE_SHARE).unwrap_or(0);
        if self.counters.buffered_bytes <= most_bytes.saturating_sub(spare_bytes) {
            return None;
        }
        self.turns.pop_first().map(|(_, key)| key)
    }

    /// Gives up the oldest request whose copies wait for the end of its body; streamed ones hold nothing here. For the
    /// next one the connection has another turn. One where nothing waits, and that holds much all the same, gives up
    /// all, unless something is streamed: it has hundreds of requests open that nobody wants.
    pub(super) fn make_room(&mut self, key: &FlowKey, connection: &mut Connection) {
        connection.turn = None;
        let mut waiting = connection.under_way.exchanges.iter_mut().filter(|exchange| exchange.is_waiting());
        let oldest = waiting.next();
        let has_more = waiting.next().is_some();
        match oldest {
            Some(exchange) => self.shed(exchange),
            None => self.shed_unwanted(key, connection),
        }
        if has_more {
            self.follow_turn(key, connection);
        }
    }

    fn shed_unwanted(&mut self, key: &FlowKey, connection: &mut Connection) {
        let Connection { http: Some(http), under_way, .. } = connection else { return };
        if under_way.exchanges.iter().any(Exchange::is_streaming) {
            return;
        }
        let exchanges_bytes = under_way.exchanges.iter().map(Exchange::held_bytes);
        let held_bytes = exchanges_bytes.fold(http.allocated_bytes(), usize::saturating_add);
        if held_bytes > MAX_UNWANTED_BYTES {
            let before = http.allocated_bytes();
            http.shed(&mut |event| self.handle_http(key, under_way, &event));
            self.charge(before, http.allocated_bytes());
        }
    }

    fn handle_closed(&mut self, key: &FlowKey, connection: &mut Connection, cause: CloseCause) {
        if cause == CloseCause::NotGateway {
            self.outlet.ignore(key);
        }
        // The next flow with this key is another one.
        self.ignored.retain(|ignored| ignored != key);
        let under_way = std::mem::take(&mut connection.under_way);
        under_way.calls.leave_all();
        self.forget_exchanges(under_way.exchanges);
    }

    /// Gives back what a connection holds that is of no interest any more.
    pub(super) fn forget_connection(&mut self, connection: Connection) {
        if let Some(http) = &connection.http {
            self.charge(http.allocated_bytes(), 0);
        }
        self.counters.move_http2_flow(connection.synchronisation, None);
        if let Some(turn) = connection.turn {
            self.turns.remove(&turn);
        }
        self.forget_exchanges(connection.under_way.exchanges);
    }

    /// The decoder has ended every open request by now; this is the belt to its braces.
    fn forget_exchanges(&mut self, exchanges: Vec<Exchange>) {
        for exchange in exchanges {
            self.forget(exchange, DropReason::Truncated);
        }
    }

    /// What an event that did not end the connection leaves to do.
    fn handle_more(&mut self, key: &FlowKey, connection: &mut Connection, event: &FlowEvent<'_>) {
        let Connection { http: Some(http), timeout, .. } = connection else { return };
        if self.is_unwanted {
            self.pass_over_body(key, http, event);
        }
        if timeout.is_none() {
            *timeout = http.next_timeout();
            self.held.add(key, *timeout);
        }
    }

    /// Keeps the books of HTTP/2 connections, and has capture copy as much of their answers as they need.
    fn follow_http2(&mut self, key: &FlowKey, connection: &mut Connection) {
        let Connection { http: Some(http), synchronisation, has_whole_answers, .. } = connection else {
            return;
        };
        let now = http.synchronisation();
        if *synchronisation != now {
            self.counters.move_http2_flow(*synchronisation, now);
            *synchronisation = now;
        }
        if let Some(counts) = http.take_http2_counters() {
            self.http2.add(&counts);
        }
        // Also when it has ended, or turned out to be no HTTP/2: nobody else would take the verdict back.
        let wants = http.wants_whole_answers();
        if *has_whole_answers != wants {
            *has_whole_answers = wants;
            self.outlet.copy_answers(key, wants);
        }
    }

    /// Sends the heads of requests that are streamed from their start, and not yet whole, on their way.
    fn start_calls(&mut self, under_way: &mut UnderWay) {
        let Self { view, outlet, counters, .. } = self;
        for exchange in &mut under_way.exchanges {
            let before = exchange.held_bytes();
            exchange.start_call(view, outlet);
            counters.charge(before, exchange.held_bytes());
        }
    }

    pub(super) fn handle_http_timeout(&mut self, key: &FlowKey, connection: &mut Connection, now: Timestamp) {
        let Connection { http: Some(http), under_way, timeout, .. } = connection else { return };
        let before = http.allocated_bytes();
        http.handle_timeout(now, &mut |event| self.handle_http(key, under_way, &event));
        self.charge(before, http.allocated_bytes());
        *timeout = http.next_timeout();
        self.held.add(key, *timeout);
        self.follow_turn(key, connection);
    }

    fn handle_http(&mut self, key: &FlowKey, under_way: &mut UnderWay, event: &HttpEvent<'_>) {
        let UnderWay { exchanges, proxied_client, calls } = under_way;
        match event {
            HttpEvent::Client { ip } => *proxied_client = Some(*ip),
            HttpEvent::Request { number, head, held } => {
                let peer = proxied_client.unwrap_or_else(|| rule::ip_of(&key.remote_addr));
                let client_ip = rule::client_ip(head, self.view.config.trusted_proxies, peer);
                let gateways = self.view.gateways_at(key.capture_point);
                let sender = Sender { client_ip, flow: *key, number: *number, gateways };
                self.start(exchanges, head, &sender, *held);
            }
            HttpEvent::Body { number, bytes } => self.change(exchanges, *number, |exchange, view, outlet| {
                exchange.push_body(bytes, view, outlet);
                false
            }),
            HttpEvent::Trailers { number, fields } => self.change(exchanges, *number, |exchange, _, _| {
                exchange.push_trailers(fields);
                false
            }),
            HttpEvent::Released { number } => self.release(exchanges, *number),
            HttpEvent::Complete { number } => {
                Self::watch(exchanges, calls, *number);
                self.change(exchanges, *number, Exchange::complete);
            }
            HttpEvent::Answered { number } => calls.end(*number),
            HttpEvent::Cancelled { number } => calls.cancel(*number),
            HttpEvent::Dropped { number, reason } => {
                match place_of(exchanges, *number) {
                    Some(place) => {
                        let exchange = take_at(exchanges, place);
                        self.forget(exchange, *reason);
                    }
                    // Every request has an exchange to its end, so this is a head that was refused.
                    None => self.ledger.dropped.of(*reason).increment(),
                }
            }
            HttpEvent::PassOver { reason } => {
                self.counters.pass_over(*reason);
                self.ignored.push(*key);
            }
        }
    }

    /// A head is whole: asks the rules, and makes the copies that are owed.
    fn start(&mut self, exchanges: &mut Vec<Exchange>, head: &RequestHead<'_>, sender: &Sender, held: bool) {
        let view = Arc::clone(&self.view);
        let (entry, copies, sampled_out) = self.decide(&view, head, sender);
        let held_entry = held.then_some(entry);
        self.is_unwanted = copies.is_empty() && !held;
        let mut exchange = Exchange::new(sender.number, held_entry, copies, sampled_out);
        if !held {
            self.book(entry);
            exchange.book_mirrors();
        }
        exchange.call = Call::of(head);
        self.has_calls |= exchange.call.is_streamed;
        exchange.start(head.body, &view, &mut self.outlet);
        self.charge(0, exchange.held_bytes());
        // One without a body is offered before anything else happens.
        if self.is_full() && (held || head.body != BodyLength::None) {
            self.shed(&mut exchange);
        }
        let place = exchanges.partition_point(|other| other.number < exchange.number);
        exchanges.insert(place, exchange);
    }

    fn decide(
        &mut self,
        view: &View,
        head: &RequestHead<'_>,
        sender: &Sender,
    ) -> (Entry, Vec<Copy>, Vec<Arc<ShadowLedger>>) {
        let (mut copies, mut sampled_out) = (Vec::new(), Vec::new());
        if rule::is_mirrored(head, &view.config.loop_mark) {
            return (Entry::Dropped(DropReason::Loop), copies, sampled_out);
        }
        let Decision::Matched { mirrors, .. } = view.config.rules.decide(head, sender) else {
            return (Entry::Unmatched, copies, sampled_out);
        };
        for verdict in mirrors.iter() {
            let id = verdict.shadow;
            let Some((shadow, books)) = view.shadow(id) else { continue };
            if !verdict.picked {
                sampled_out.push(Arc::clone(books));
                continue;
            }
            let (shadow, books) = (Arc::clone(shadow), Arc::clone(books));
            let form = HeadForm::of(shadow.protocol, head.version);
            let rewritten = rewrite::shadow_head(head, &shadow.rewrite, &view.config.loop_mark, form);
            if rewritten.host == HostSource::OwnAuthority {
                self.counters.without_host = self.counters.without_host.saturating_add(1);
            }
            let state = CopyState::Waiting { head: rewritten.head, trailers: Bytes::new() };
            copies.push(Copy { id, generation: view.generation, shadow, form, books, state, original: None });
        }
        (Entry::Matched, copies, sampled_out)
    }

    fn book(&self, entry: Entry) {
        match entry {
            Entry::Unmatched => self.ledger.unmatched.increment(),
            Entry::Matched => self.ledger.matched.increment(),
            Entry::Dropped(reason) => self.ledger.dropped.of(reason).increment(),
        }
    }

    /// Changes the exchange of `number`, keeps the count of held bytes right, and forgets the exchange when
    /// `change` says that it is over, or when it holds more than the bound on all of them allows.
    fn change(
        &mut self,
        exchanges: &mut Vec<Exchange>,
        number: RequestNumber,
        change: impl FnOnce(&mut Exchange, &View, &mut O) -> bool,
    ) {
        let Some(place) = place_of(exchanges, number) else { return };
        let Some(exchange) = exchanges.get_mut(place) else { return };
        let before = exchange.held_bytes();
        let is_over = change(exchange, &self.view, &mut self.outlet);
        let after = if is_over { 0 } else { exchange.held_bytes() };
        self.charge(before, after);
        if is_over {
            take_at(exchanges, place);
        } else if after > before && self.is_full() {
            self.shed(exchange);
        }
    }

    /// Gives up what an exchange holds, for all of them together hold too much. The exchange itself stays, so
    /// that the request still gets its entry when it ends.
    fn shed(&mut self, exchange: &mut Exchange) {
        let before = exchange.held_bytes();
        exchange.refuse(DropReason::BufferFull);
        self.charge(before, exchange.held_bytes());
    }

    /// From its last byte on, the shadows of a call are told how its original goes on.
    fn watch(exchanges: &mut [Exchange], calls: &mut Calls, number: RequestNumber) {
        let exchange = place_of(exchanges, number).and_then(|place| exchanges.get_mut(place));
        if let Some(exchange) = exchange {
            calls.add(number, exchange.take_cancellers());
        }
    }

    fn release(&mut self, exchanges: &mut Vec<Exchange>, number: RequestNumber) {
        let exchange = place_of(exchanges, number).and_then(|place| exchanges.get(place));
        let entry = exchange.and_then(|exchange| exchange.held);
        let Some(entry) = entry else { return };
        self.book(entry);
        self.has_calls = true;
        self.change(exchanges, number, Exchange::release);
    }

    /// The request ends here, unreplayed.
    fn forget(&mut self, mut exchange: Exchange, reason: DropReason) {
        self.charge(exchange.held_bytes(), 0);
        match exchange.held {
            Some(_) => self.book(Entry::Dropped(reason)),
            None => exchange.lose(reason),
        }
    }

    /// Heads in pieces, and growing and held requests, take more than all of them together may.
    fn is_full(&self) -> bool {
        self.counters.buffered_bytes > self.most_bytes()
    }

    /// The bound on what is buffered. What a connection of HTTP/2 needs for as long as it lives is no part of
    /// `max_total_bytes`: else some of them would leave no room for anything.
    fn most_bytes(&self) -> usize {
        let decoders_bytes = self.counters.http2_flows().saturating_mul(HTTP2_DECODER_BYTES);
        self.view.config.capture.limits.max_total_bytes.saturating_add(decoders_bytes)
    }

    fn charge(&mut self, before: usize, after: usize) {
        self.counters.charge(before, after);
    }

    /// Asks capture to leave out the rest of a body that nobody wants.
    fn pass_over_body(&mut self, key: &FlowKey, http: &mut HttpFlow, event: &FlowEvent<'_>) {
        let FlowEvent::Chunk(chunk) = event else { return };
        let Some(body_end) = http.body_end() else { return };
        if body_end.bytes_since(chunk.start) >= MIN_PASS_OVER_BYTES {
            http.ignore_body();
            self.outlet.pass_over(key, body_end);
        }
    }
}

/// Where the exchange of this number is: they come in the order of their numbers.
fn place_of(exchanges: &[Exchange], number: RequestNumber) -> Option<usize> {
    exchanges.binary_search_by_key(&number, |exchange| exchange.number).ok()
}

/// Takes the exchange at `place` out. Memory that many at a time took is not kept for as long as the connection lives.
fn take_at(exchanges: &mut Vec<Exchange>, place: usize) -> Exchange {
    let exchange = exchanges.remove(place);
    if exchanges.capacity() > KEPT_EXCHANGES && exchanges.len() < exchanges.capacity() / 4 {
        exchanges.shrink_to(exchanges.len().saturating_mul(2).max(KEPT_EXCHANGES));
    }
    exchange
}
