//! Joins the pure stages: segments in, shadow requests out, and one ledger entry for each request.
//!
//! One [`Pipeline`] per capture thread, with the flows of one ring shard. It has no sockets and no clock:
//! it is given segments and `now`, and hands what it made to an [`Outlet`]. So the same code runs behind the
//! kernel's rings, behind a pcap file and in tests.

mod calls;
mod exchange;
mod requests;
#[cfg(test)]
mod tests;
mod view;

pub use view::View;

use crate::config::ShadowId;
use crate::drop_reason::DropReason;
use crate::flow::{
    Answers, FlowCounters, FlowKey, FlowTable, HashSeed, Lifecycle, Segment, SeqNumber, Timestamp,
};
use crate::http::h2::{H2Counters, Synchronisation};
use crate::replay::ShadowRequest;
use crate::telemetry::Ledger;
use requests::{Connection, Requests};
use std::sync::Arc;

/// Where a pipeline's results go. Nothing here may wait.
pub trait Outlet {
    /// Takes one copy for `shadow`, and with it the duty to close its ledger entry.
    fn offer(&mut self, shadow: ShadowId, request: ShadowRequest);
    /// The flow is of no interest any more, for good.
    fn ignore(&mut self, flow: &FlowKey);
    /// The request bytes of the flow before `up_to` are of no interest.
    fn pass_over(&mut self, flow: &FlowKey, up_to: SeqNumber);
    /// The answers of the flow are wanted whole, or only the beginning of each segment again.
    fn copy_answers(&mut self, flow: &FlowKey, whole: bool);
}

/// See the module.
#[derive(Debug)]
pub struct Pipeline<O> {
    flows: FlowTable<Connection>,
    requests: Requests<O>,
}

/// Counters of the pipeline that belong to no request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PipelineCounters {
    /// Bytes held for heads in pieces, and for growing and held requests, now.
    pub buffered_bytes: usize,
    /// Requests replayed with the shadow's own authority, for they had none to suffix.
    pub without_host: u64,
    /// Flows passed over for good: TLS, or another protocol.
    pub passed_over_not_http: u64,
    /// Flows passed over for good: they left HTTP/1.
    pub passed_over_upgrade: u64,
    /// Flows passed over for good: a version of HTTP that is not mirrored.
    pub passed_over_unsupported_protocol: u64,
    /// Connections of HTTP/2 of which no frame boundary is known, now.
    pub http2_searching: u64,
    /// Connections of HTTP/2 whose requests wait for an answer that proves them, now.
    pub http2_unproven: u64,
    /// Connections of HTTP/2 whose requests are mirrored, now.
    pub http2_synchronised: u64,
}

impl PipelineCounters {
    fn charge(&mut self, before: usize, after: usize) {
        self.buffered_bytes = self.buffered_bytes.saturating_sub(before).saturating_add(after);
    }

    fn move_http2_flow(&mut self, from: Option<Synchronisation>, to: Option<Synchronisation>) {
        if let Some(gauge) = self.http2_gauge(from) {
            *gauge = gauge.saturating_sub(1);
        }
        if let Some(gauge) = self.http2_gauge(to) {
            *gauge = gauge.saturating_add(1);
        }
    }

    /// Connections of HTTP/2, now.
    fn http2_flows(&self) -> usize {
        let all = [self.http2_searching, self.http2_unproven, self.http2_synchronised];
        usize::try_from(all.into_iter().fold(0, u64::saturating_add)).unwrap_or(usize::MAX)
    }

    fn http2_gauge(&mut self, state: Option<Synchronisation>) -> Option<&mut u64> {
        match state? {
            Synchronisation::Searching => Some(&mut self.http2_searching),
            Synchronisation::Unproven => Some(&mut self.http2_unproven),
            Synchronisation::Synchronised => Some(&mut self.http2_synchronised),
        }
    }

    fn pass_over(&mut self, reason: DropReason) {
        let counter = match reason {
            DropReason::Upgrade => &mut self.passed_over_upgrade,
            DropReason::UnsupportedProtocol => &mut self.passed_over_unsupported_protocol,
            _ => &mut self.passed_over_not_http,
        };
        *counter = counter.saturating_add(1);
    }
}

impl<O: Outlet> Pipeline<O> {
    /// A pipeline without flows. `seed` must be random and secret where the traffic is not one's own.
    #[must_use]
    pub fn new(view: Arc<View>, ledger: Arc<Ledger>, seed: HashSeed, outlet: O) -> Self {
        let flows = FlowTable::new(view.config.capture.limits.clone(), Answers::Glimpsed, seed);
        Self { flows, requests: Requests::new(view, ledger, outlet) }
    }

    /// Works with another generation of the configuration from now on. Requests under way keep the rules
    /// they started with.
    pub fn set_view(&mut self, view: Arc<View>) {
        self.requests.view = view;
    }

    /// Takes one captured segment.
    pub fn handle_segment(&mut self, segment: &Segment<'_>) {
        let requests = &mut self.requests;
        self.flows.handle_segment(segment, &mut |key, connection, event| {
            requests.handle_flow(key, connection, &event)
        });
        self.forget_ignored();
    }

    /// Takes what the lifecycle hook saw of a connection.
    pub fn handle_lifecycle(&mut self, key: &FlowKey, lifecycle: Lifecycle, at: Timestamp) {
        let requests = &mut self.requests;
        self.flows.handle_lifecycle(key, lifecycle, at, &mut |key, connection, event| {
            requests.handle_flow(key, connection, &event);
        });
        self.forget_ignored();
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Timestamp> {
        self.flows.next_timeout().into_iter().chain(self.requests.held.next_due()).min()
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        let requests = &mut self.requests;
        self.flows
            .handle_timeout(now, &mut |key, connection, event| requests.handle_flow(key, connection, &event));
        self.forget_ignored();
        while let Some(key) = self.requests.held.take_due(now) {
            if let Some(connection) = self.flows.state_mut(&key) {
                self.requests.handle_http_timeout(&key, connection, now);
            }
            self.forget_ignored();
        }
    }

    /// Ends every flow, so that every request under way gets its entry: at the end of a file, or of a drain.
    pub fn handle_end(&mut self) {
        let requests = &mut self.requests;
        self.flows.handle_end(&mut |key, connection, event| requests.handle_flow(key, connection, &event));
    }

    fn forget_ignored(&mut self) {
        while let Some(key) = self.requests.ignored.pop() {
            if let Some(connection) = self.flows.ignore(&key) {
                self.requests.forget_connection(connection);
            }
            self.requests.outlet.ignore(&key);
        }
    }

    /// Where results go.
    pub fn outlet_mut(&mut self) -> &mut O {
        &mut self.requests.outlet
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
        self.flows.allocated_bytes().saturating_add(self.requests.counters.buffered_bytes)
    }

    /// What connections of HTTP/2 counted.
    #[must_use]
    pub fn http2_counters(&self) -> &H2Counters {
        &self.requests.http2
    }

    /// What the pipeline counted.
    #[must_use]
    pub fn counters(&self) -> PipelineCounters {
        self.requests.counters
    }
}
