//! One request on its way from its head to its last byte, with a copy for each shadow that is owed one.

use super::calls::Call;
use super::{Outlet, View};
use crate::config::{ShadowConfig, ShadowId};
use crate::drop_reason::DropReason;
use crate::http::{BodyLength, Field, RequestNumber};
use crate::replay::{BodyWriter, Canceller, Original, ShadowBody, ShadowRequest, body_channel, original};
use crate::rewrite::{self, HeadForm, ShadowHead};
use crate::telemetry::ShadowLedger;
use bytes::{Bytes, BytesMut};
use std::sync::Arc;

/// Most bytes set aside for a body on the word of its Content-Length alone; beyond, it grows as it comes.
const TRUSTED_BODY_BYTES: u64 = 16 * 1024;

/// How many times as much as has come is set aside, at most, on the same word.
const BELIEVED_GROWTH: usize = 3;

/// What the rules said of a request, booked at once, or when it is released if it is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// No rule wants it.
    Unmatched,
    /// A rule wants it.
    Matched,
    /// It never came to the rules.
    Dropped(DropReason),
}

/// ```text
/// Held ──released──▶ Running ──complete──▶ (offered to the shadows, forgotten)
///   └────dropped───────┴─────dropped─────▶ (booked as lost, forgotten)
/// ```
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) number: RequestNumber,
    /// `Some`: held, and this is to be booked at its release. `None`: booked.
    pub(super) held: Option<Entry>,
    /// Complete while still held.
    is_complete: bool,
    copies: Vec<Copy>,
    /// Mirrors that the percentage left out; booked with the entry.
    sampled_out: Vec<Arc<ShadowLedger>>,
    /// The body so far, for copies that wait for its end.
    body: BytesMut,
    /// What its Content-Length said; 0 where there is none.
    promised_bytes: u64,
    pub(super) call: Call,
    /// For the shadows of a watched call.
    cancellers: Vec<Canceller>,
}

/// What one shadow is to get.
#[derive(Debug)]
pub(super) struct Copy {
    pub(super) id: ShadowId,
    /// The configuration that `id` belongs to.
    pub(super) generation: u64,
    pub(super) shadow: Arc<ShadowConfig>,
    /// The form of its head and trailers.
    pub(super) form: HeadForm,
    pub(super) books: Arc<ShadowLedger>,
    pub(super) state: CopyState,
    /// For a watched call.
    pub(super) original: Option<Original>,
}

#[derive(Debug)]
pub(super) enum CopyState {
    /// The head waits for the end of the body.
    Waiting { head: ShadowHead, trailers: Bytes },
    /// The head is with the replayer, and the body follows piece by piece.
    Streaming { writer: BodyWriter, trailers: Bytes },
    /// Given up while the request was held; the loss is booked when the copy is owed, at the release.
    Refused(DropReason),
    /// Given up; its loss is booked.
    Lost,
}

impl Exchange {
    pub(super) fn new(
        number: RequestNumber,
        held: Option<Entry>,
        copies: Vec<Copy>,
        sampled_out: Vec<Arc<ShadowLedger>>,
    ) -> Self {
        Self {
            number,
            held,
            is_complete: false,
            copies,
            sampled_out,
            body: BytesMut::new(),
            promised_bytes: 0,
            call: Call::default(),
            cancellers: Vec::new(),
        }
    }

    /// Bytes that this exchange holds on to, allocated and not only used.
    pub(super) fn held_bytes(&self) -> usize {
        let heads = self.copies.iter().map(|copy| match &copy.state {
            CopyState::Waiting { head, trailers } => head.wire.len().saturating_add(trailers.len()),
            CopyState::Streaming { trailers, .. } => trailers.len(),
            CopyState::Refused(_) | CopyState::Lost => 0,
        });
        let copies = self.copies.capacity().saturating_mul(size_of::<Copy>());
        heads
            .fold(size_of::<Self>().saturating_add(copies), usize::saturating_add)
            .saturating_add(self.body.capacity())
    }

    /// Sets room aside for the body, and starts streaming to those shadows whose limit it passes for sure.
    pub(super) fn start(&mut self, length: BodyLength, view: &View, outlet: &mut impl Outlet) {
        if let BodyLength::Known(bytes) = length {
            self.promised_bytes = bytes;
            self.body.reserve(usize::try_from(bytes.min(TRUSTED_BODY_BYTES)).unwrap_or(0));
            self.stream_where(view, outlet, |limit| bytes > limit);
        }
    }

    /// Sends the head on its way, with what there is of the body, if this is a call that is not held or under way.
    pub(super) fn start_call(&mut self, view: &View, outlet: &mut impl Outlet) {
        if self.call.is_streamed && self.held.is_none() {
            self.stream_where(view, outlet, |_| true);
        }
    }

    /// What tells the shadows of a watched call how its original goes on. Once.
    pub(super) fn take_cancellers(&mut self) -> Vec<Canceller> {
        self.watch();
        std::mem::take(&mut self.cancellers)
    }

    fn watch(&mut self) {
        let waiting = self.copies.iter_mut().filter(|copy| matches!(copy.state, CopyState::Waiting { .. }));
        for copy in waiting.filter(|copy| self.call.is_watched && copy.original.is_none()) {
            let (canceller, original) = original();
            self.cancellers.push(canceller);
            copy.original = Some(original);
        }
    }

    /// Books the mirrors' side of the entry: what is owed, and what the percentage left out.
    pub(super) fn book_mirrors(&mut self) {
        for books in self.sampled_out.drain(..) {
            books.owed.increment();
            books.sampled_out.increment();
        }
        for copy in &mut self.copies {
            copy.books.owed.increment();
            if let CopyState::Refused(reason) = copy.state {
                copy.lose(reason);
            }
        }
    }

    pub(super) fn push_body(&mut self, bytes: &[u8], view: &View, outlet: &mut impl Outlet) {
        let mut shared: Option<Bytes> = None;
        let mut anyone_waits = false;
        for copy in &mut self.copies {
            match &copy.state {
                CopyState::Waiting { .. } => anyone_waits = true,
                CopyState::Streaming { writer, .. } => {
                    let piece = shared.get_or_insert_with(|| Bytes::copy_from_slice(bytes));
                    if let Err(reason) = writer.push(piece.clone()) {
                        copy.lose(reason);
                    }
                }
                CopyState::Refused(_) | CopyState::Lost => {}
            }
        }
        if anyone_waits {
            self.make_room(bytes.len());
            self.body.extend_from_slice(bytes);
            let len = self.body.len() as u64;
            self.stream_where(view, outlet, |limit| len > limit);
        }
    }

    /// A body that has shown itself to be as large as was promised so far is believed some more, so
    /// that most are moved once at most while they grow.
    fn make_room(&mut self, bytes: usize) {
        let len = self.body.len();
        if self.body.capacity().saturating_sub(len) >= bytes {
            return;
        }
        let promised = usize::try_from(self.promised_bytes).unwrap_or(usize::MAX).saturating_sub(len);
        self.body.reserve(promised.min(len.saturating_mul(BELIEVED_GROWTH)).max(bytes));
    }

    pub(super) fn push_trailers(&mut self, fields: &[Field<'_>]) {
        for copy in &mut self.copies {
            if let CopyState::Waiting { trailers, .. } | CopyState::Streaming { trailers, .. } =
                &mut copy.state
            {
                *trailers = rewrite::shadow_trailers(fields, &copy.shadow.rewrite, copy.form);
            }
        }
    }

    /// The request may go. True when it was complete already, and is gone now.
    pub(super) fn release(&mut self, view: &View, outlet: &mut impl Outlet) -> bool {
        self.held = None;
        self.book_mirrors();
        if self.is_complete {
            self.complete(view, outlet);
        }
        self.is_complete
    }

    /// Every byte was seen. True when the request is gone to its shadows now; false while it is held.
    pub(super) fn complete(&mut self, view: &View, outlet: &mut impl Outlet) -> bool {
        if self.held.is_some() {
            self.is_complete = true;
            return false;
        }
        let body = std::mem::take(&mut self.body).freeze();
        for mut copy in self.copies.drain(..) {
            match std::mem::replace(&mut copy.state, CopyState::Lost) {
                CopyState::Waiting { head, trailers } => {
                    let body = ShadowBody::Buffered { bytes: body.clone(), trailers };
                    let original = copy.original.take();
                    copy.offer(ShadowRequest { head, body, original }, view, outlet);
                }
                CopyState::Streaming { writer, trailers } => writer.finish(trailers),
                CopyState::Refused(_) | CopyState::Lost => {}
            }
        }
        true
    }

    /// A request that was not held must not be replayed to its end.
    pub(super) fn lose(&mut self, reason: DropReason) {
        for copy in &mut self.copies {
            copy.lose(reason);
        }
        self.body = BytesMut::new();
    }

    /// Whether some copy waits for the end of the body.
    pub(super) fn is_waiting(&self) -> bool {
        self.copies.iter().any(|copy| matches!(copy.state, CopyState::Waiting { .. }))
    }

    /// Whether some copy is being sent while the request still comes.
    pub(super) fn is_streaming(&self) -> bool {
        self.copies.iter().any(|copy| matches!(copy.state, CopyState::Streaming { .. }))
    }

    /// Gives up what the copies hold, whether held or not.
    pub(super) fn refuse(&mut self, reason: DropReason) {
        match self.held {
            Some(_) => self.copies.iter_mut().for_each(|copy| copy.state = CopyState::Refused(reason)),
            None => self.lose(reason),
        }
        self.body = BytesMut::new();
    }

    /// Turns waiting copies into streaming ones where `is_over` says so of their limit. A held request can't
    /// be streamed: the copy is refused instead, for its boundary was not proven within the buffer.
    fn stream_where(&mut self, view: &View, outlet: &mut impl Outlet, is_over: impl Fn(u64) -> bool) {
        self.watch();
        let is_held = self.held.is_some();
        let mut so_far: Option<Bytes> = None;
        for copy in &mut self.copies {
            if !is_over(copy.shadow.buffer_body_bytes) || !matches!(copy.state, CopyState::Waiting { .. }) {
                continue;
            }
            if is_held {
                copy.state = CopyState::Refused(DropReason::BufferFull);
                continue;
            }
            let bytes = so_far.get_or_insert_with(|| Bytes::copy_from_slice(&self.body));
            copy.start_streaming(bytes.clone(), view, outlet);
        }
        if !self.copies.iter().any(|copy| matches!(copy.state, CopyState::Waiting { .. })) {
            self.body = BytesMut::new();
        }
    }
}

impl Copy {
    fn start_streaming(&mut self, so_far: Bytes, view: &View, outlet: &mut impl Outlet) {
        let CopyState::Waiting { head, trailers } = std::mem::replace(&mut self.state, CopyState::Lost)
        else {
            return;
        };
        // The window must at least take what was buffered before it was known that the body is large.
        let window_bytes =
            self.shadow.stream_window_bytes.max(u32::try_from(so_far.len()).unwrap_or(u32::MAX));
        let (writer, reader) =
            body_channel(window_bytes, self.shadow.queue_bytes, &self.books.streaming_bytes);
        if !so_far.is_empty() && writer.push(so_far).is_err() {
            self.books.lost(DropReason::StreamOverrun);
            return;
        }
        self.state = CopyState::Streaming { writer, trailers };
        let original = self.original.take();
        self.offer(ShadowRequest { head, body: ShadowBody::Streaming(reader), original }, view, outlet);
    }

    /// Hands the copy over; from here on the replayer closes its entry.
    fn offer(&self, request: ShadowRequest, view: &View, outlet: &mut impl Outlet) {
        let id = match self.generation == view.generation {
            true => Some(self.id),
            false => view.shadow_named(&self.shadow.name),
        };
        match id {
            Some(id) => outlet.offer(id, request),
            None => self.books.lost(DropReason::ConfigChanged),
        }
    }

    fn lose(&mut self, reason: DropReason) {
        match std::mem::replace(&mut self.state, CopyState::Lost) {
            CopyState::Waiting { .. } | CopyState::Refused(_) => self.books.lost(reason),
            // The replayer has the request, and books what the abort tells it.
            CopyState::Streaming { writer, .. } => writer.abort(reason),
            CopyState::Lost => {}
        }
    }
}
