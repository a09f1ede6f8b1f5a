//! Joins the pure stages: segments in, shadow requests out, and one ledger entry for each request.
//!
//! One [`Pipeline`] per capture thread, with the flows of one ring shard. It has no sockets and no clock:
//! it is given segments and `now`, and hands what it made to an [`Outlet`]. So the same code runs behind the
//! kernel's rings, behind a pcap file and in tests.

mod exchange;

use crate::config::{Config, Leg, ShadowConfig, ShadowId};
use crate::drop_reason::DropReason;
use crate::flow::{
    Answers, CloseCause, FlowCounters, FlowEvent, FlowKey, FlowTable, HashSeed, Lifecycle, Segment,
    SeqNumber, Timestamp,
};
use crate::http::{HttpEvent, HttpFlow, HttpOptions, RequestHead, RequestNumber};
use crate::replay::ShadowRequest;
use crate::rewrite::{self, HostSource};
use crate::rule::{self, Decision, Sender};
use crate::telemetry::{Ledger, ShadowLedger};
use bytes::Bytes;
use exchange::{Copy, CopyState, Entry, Exchange};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::IpAddr;
use std::sync::Arc;

/// Where a pipeline's results go. Nothing here may wait.
pub trait Outlet {
    /// Takes one copy for `shadow`, and with it the duty to close its ledger entry.
    fn offer(&mut self, shadow: ShadowId, request: ShadowRequest);
    /// The flow is of no interest any more, for good.
    fn ignore(&mut self, flow: &FlowKey);
    /// The request bytes of the flow before `up_to` are of no interest.
    fn pass_over(&mut self, flow: &FlowKey, up_to: SeqNumber);
}

/// One generation of the configuration, with the books of its shadows.
#[derive(Debug)]
pub struct View {
    /// Counts up with each reload.
    pub generation: u64,
    /// The configuration.
    pub config: Arc<Config>,
    /// The books, by [`ShadowId`].
    pub books: Vec<Arc<ShadowLedger>>,
}

impl View {
    /// Opens the books of every shadow of `config`.
    #[must_use]
    pub fn new(generation: u64, config: Arc<Config>, ledger: &Ledger) -> Self {
        let books = config.shadows.iter().map(|shadow| ledger.shadow(&shadow.name)).collect();
        Self { generation, config, books }
    }

    /// Every shadow with its books, in the order of [`ShadowId`].
    #[must_use]
    pub fn shadows(&self) -> Vec<(Arc<ShadowConfig>, Arc<ShadowLedger>)> {
        self.config.shadows.iter().cloned().zip(self.books.iter().cloned()).collect()
    }

    /// The shadow and its books; `None` for an id of another generation.
    #[must_use]
    pub fn shadow(&self, id: ShadowId) -> Option<(&Arc<ShadowConfig>, &Arc<ShadowLedger>)> {
        let index = usize::from(id.0);
        self.config.shadows.get(index).zip(self.books.get(index))
    }

    fn shadow_named(&self, name: &str) -> Option<ShadowId> {
        let index = self.config.shadows.iter().position(|shadow| shadow.name == name)?;
        u16::try_from(index).ok().map(ShadowId)
    }
}

/// See the module.
#[derive(Debug)]
pub struct Pipeline<O> {
    flows: FlowTable<Connection>,
    core: Core<O>,
}

/// Counters of the pipeline that belong to no request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PipelineCounters {
    /// Bytes held for growing and held requests, now.
    pub buffered_bytes: usize,
    /// Requests replayed with the shadow's own authority, for they had none to suffix.
    pub without_host: u64,
    /// Flows passed over for good, by what they turned out to be.
    pub flows_passed_over: u64,
}

/// What is remembered of one connection beside its assembler.
#[derive(Debug, Default)]
struct Connection {
    /// Made at the first event.
    http: Option<HttpFlow>,
    /// Requests under way that somebody waits for; nearly always none or one.
    exchanges: Vec<Exchange>,
    /// The client that a PROXY protocol header named.
    proxied_client: Option<IpAddr>,
    /// When the decoder is woken next; it may have found out since that it need not be.
    timeout: Option<Timestamp>,
}

/// All of a pipeline but its flows, so that both can be borrowed at once.
#[derive(Debug)]
struct Core<O> {
    view: Arc<View>,
    ledger: Arc<Ledger>,
    outlet: O,
    counters: PipelineCounters,
    /// The request that was just decoded is wanted by nobody: its body need not be copied.
    is_unwanted: bool,
    http_options: HttpOptions,
    /// Flows that are to be forgotten when the segment is done with: their number is at most one.
    ignored: Option<FlowKey>,
    /// When held requests of a flow have waited for long enough. Entries of flows that have gone, or whose
    /// request was released, are found to be stale when they are due.
    held: BinaryHeap<Reverse<(Timestamp, FlowKey)>>,
}

/// Most flows with held requests that are woken for them; in others a held request ends with its flow.
const MAX_TIMEOUTS: usize = 65_536;

/// Bodies with fewer bytes to come are not worth a verdict: the map write costs more than the copies.
const MIN_PASS_OVER_BYTES: u32 = 64 * 1024;

impl<O: Outlet> Pipeline<O> {
    /// A pipeline without flows. `seed` must be random and secret where the traffic is not one's own.
    #[must_use]
    pub fn new(view: Arc<View>, ledger: Arc<Ledger>, seed: HashSeed, outlet: O) -> Self {
        let capture = &view.config.capture;
        let http_options =
            HttpOptions { proxy_protocol: capture.proxy_protocol && capture.leg == Leg::Downstream };
        let flows = FlowTable::new(capture.limits.clone(), Answers::Glimpsed, seed);
        let counters = PipelineCounters::default();
        let core = Core {
            view,
            ledger,
            outlet,
            counters,
            is_unwanted: false,
            http_options,
            ignored: None,
            held: BinaryHeap::new(),
        };
        Self { flows, core }
    }

    /// Works with another generation of the configuration from now on. Requests under way keep the rules
    /// they started with.
    pub fn set_view(&mut self, view: Arc<View>) {
        self.core.view = view;
    }

    /// Takes one captured segment.
    pub fn handle_segment(&mut self, segment: &Segment<'_>) {
        let core = &mut self.core;
        self.flows
            .handle_segment(segment, &mut |key, connection, event| core.handle_flow(key, connection, &event));
        self.forget_ignored();
    }

    /// Takes what the lifecycle hook saw of a connection.
    pub fn handle_lifecycle(&mut self, key: &FlowKey, lifecycle: Lifecycle, at: Timestamp) {
        let core = &mut self.core;
        self.flows.handle_lifecycle(key, lifecycle, at, &mut |key, connection, event| {
            core.handle_flow(key, connection, &event);
        });
        self.forget_ignored();
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Timestamp> {
        let held = self.core.held.peek().map(|Reverse((due, _))| *due);
        self.flows.next_timeout().into_iter().chain(held).min()
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        let core = &mut self.core;
        self.flows
            .handle_timeout(now, &mut |key, connection, event| core.handle_flow(key, connection, &event));
        while let Some(key) = self.core.next_due(now) {
            if let Some(connection) = self.flows.state_mut(&key) {
                self.core.handle_http_timeout(&key, connection, now);
            }
            self.forget_ignored();
        }
    }

    /// Ends every flow, so that every request under way gets its entry: at the end of a file, or of a drain.
    pub fn handle_end(&mut self) {
        let core = &mut self.core;
        self.flows.handle_end(&mut |key, connection, event| core.handle_flow(key, connection, &event));
    }

    fn forget_ignored(&mut self) {
        if let Some(key) = self.core.ignored.take() {
            self.flows.ignore(&key);
            self.core.outlet.ignore(&key);
        }
    }

    /// Where results go.
    pub fn outlet_mut(&mut self) -> &mut O {
        &mut self.core.outlet
    }

    /// What the flow table counted.
    #[must_use]
    pub fn flow_counters(&self) -> &FlowCounters {
        self.flows.counters()
    }

    /// Connections that are known now.
    #[must_use]
    pub fn flows_open(&self) -> usize {
        self.flows.len()
    }

    /// Bytes that flows and requests under way hold on to now, as allocated.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.flows.allocated_bytes().saturating_add(self.core.counters.buffered_bytes)
    }

    /// What the pipeline counted.
    #[must_use]
    pub fn counters(&self) -> PipelineCounters {
        self.core.counters
    }
}

impl<O: Outlet> Core<O> {
    fn handle_flow(&mut self, key: &FlowKey, connection: &mut Connection, event: &FlowEvent<'_>) {
        let Connection { http, exchanges, proxied_client, timeout } = connection;
        let http = http.get_or_insert_with(|| HttpFlow::new(self.http_options));
        self.is_unwanted = false;
        http.handle_event(event, &mut |http_event| {
            self.handle_http(key, exchanges, proxied_client, &http_event)
        });
        if let FlowEvent::Closed(cause) = event {
            if *cause == CloseCause::NotGateway {
                self.outlet.ignore(key);
            }
            // The decoder has ended every open request by now; this is the belt to its braces.
            for exchange in std::mem::take(exchanges) {
                self.forget(exchange, DropReason::Truncated);
            }
            return;
        }
        if self.is_unwanted {
            self.pass_over_body(key, http, event);
        }
        if timeout.is_none() {
            *timeout = http.next_timeout();
            self.note_timeout(key, *timeout);
        }
    }

    /// A flow has at most one entry, so that a flood of held requests is no flood of entries.
    fn note_timeout(&mut self, key: &FlowKey, due: Option<Timestamp>) {
        if let Some(due) = due
            && self.held.len() < MAX_TIMEOUTS
        {
            self.held.push(Reverse((due, *key)));
        }
    }

    fn next_due(&mut self, now: Timestamp) -> Option<FlowKey> {
        let Reverse((due, key)) = *self.held.peek()?;
        (due <= now).then(|| {
            self.held.pop();
            key
        })
    }

    fn handle_http_timeout(&mut self, key: &FlowKey, connection: &mut Connection, now: Timestamp) {
        let Connection { http: Some(http), exchanges, proxied_client, timeout } = connection else { return };
        http.handle_timeout(now, &mut |event| self.handle_http(key, exchanges, proxied_client, &event));
        *timeout = http.next_timeout();
        self.note_timeout(key, *timeout);
    }

    fn handle_http(
        &mut self,
        key: &FlowKey,
        exchanges: &mut Vec<Exchange>,
        proxied_client: &mut Option<IpAddr>,
        event: &HttpEvent<'_>,
    ) {
        match event {
            HttpEvent::Client { ip } => *proxied_client = Some(*ip),
            HttpEvent::Request { number, head, held } => {
                let peer = proxied_client.unwrap_or_else(|| rule::ip_of(&key.remote_addr));
                let client_ip = rule::client_ip(head, self.view.config.trusted_proxies, peer);
                let sender = Sender { client_ip, flow: *key, number: *number };
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
            HttpEvent::Complete { number } => self.change(exchanges, *number, Exchange::complete),
            HttpEvent::Dropped { number, reason } => {
                match exchanges.iter().position(|exchange| exchange.number == *number) {
                    Some(index) => {
                        let exchange = exchanges.swap_remove(index);
                        self.forget(exchange, *reason);
                    }
                    // Every request has an exchange to its end, so this is a head that was refused.
                    None => self.ledger.dropped.of(*reason).increment(),
                }
            }
            HttpEvent::PassOver { .. } => {
                self.counters.flows_passed_over = self.counters.flows_passed_over.saturating_add(1);
                self.ignored = Some(*key);
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
        exchange.start(head.body, &view, &mut self.outlet);
        self.charge(0, exchange.held_bytes());
        exchanges.push(exchange);
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
            let rewritten = rewrite::shadow_head(head, &shadow.rewrite, &view.config.loop_mark);
            if rewritten.host == HostSource::OwnAuthority {
                self.counters.without_host = self.counters.without_host.saturating_add(1);
            }
            let state = CopyState::Waiting { head: rewritten.head, trailers: Bytes::new() };
            copies.push(Copy { id, generation: view.generation, shadow, books, state });
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
        let Some(index) = exchanges.iter().position(|exchange| exchange.number == number) else { return };
        let Some(exchange) = exchanges.get_mut(index) else { return };
        let before = exchange.held_bytes();
        let is_over = change(exchange, &self.view, &mut self.outlet);
        let after = if is_over { 0 } else { exchange.held_bytes() };
        self.charge(before, after);
        if is_over {
            exchanges.swap_remove(index);
        } else if after > before
            && self.counters.buffered_bytes > self.view.config.capture.limits.max_total_bytes
        {
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

    fn release(&mut self, exchanges: &mut Vec<Exchange>, number: RequestNumber) {
        let entry =
            exchanges.iter().find(|exchange| exchange.number == number).and_then(|exchange| exchange.held);
        let Some(entry) = entry else { return };
        self.book(entry);
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

    fn charge(&mut self, before: usize, after: usize) {
        let counters = &mut self.counters;
        counters.buffered_bytes = counters.buffered_bytes.saturating_sub(before).saturating_add(after);
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
