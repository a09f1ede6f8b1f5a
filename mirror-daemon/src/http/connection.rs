//! One connection: finds out what it carries, and hands it to the decoder for that.
//!
//! ```text
//!             ┌▶ Http1 ──(Upgrade: h2c, accepted)──▶ Http2
//! Detecting ──┼▶ Http2
//!             └▶ PassedOver
//!
//! joined: Http1, seeking ◀──(looks like frames, like a request line)──▶ Http2, searching
//! ```

use super::HttpEvent;
use super::detect::{Detect, Found, Protocol, Rest};
use super::h1::{Http1, Plausible, request_line};
use super::h2::{H2Counters, H2Flow, H2Options, Synchronisation, looks_like_frames};
use crate::flow::{Chunk, Direction, FlowEvent, Glimpse, SeqNumber, Timestamp};

/// What a decoder has to be told of its connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HttpOptions {
    /// A PROXY protocol header may come first (downstream connections behind a load balancer).
    pub proxy_protocol: bool,
    /// How HTTP/2 is decoded.
    pub http2: H2Options,
}

/// The passive decoder of one connection.
///
/// Feed it every [`FlowEvent`] of the connection, in order. It never panics, whatever the bytes. An idle one
/// takes a few hundred bytes and no allocation. A busy one takes at most
/// [`MAX_HEAD_BYTES`](super::MAX_HEAD_BYTES) for a head in pieces, or [`MAX_HELD_BYTES`](super::MAX_HELD_BYTES)
/// behind an undecided upgrade; one of HTTP/2 what [`H2Flow`] says.
#[derive(Debug)]
pub struct HttpFlow {
    options: HttpOptions,
    decoder: Decoder,
    /// The protocol was seen from its first byte, or proven to be HTTP/2 by an answer.
    is_certain: bool,
}

#[derive(Debug)]
enum Decoder {
    Detecting(Detect),
    Http1(Http1),
    Http2(Box<H2Flow>),
    PassedOver,
}

impl HttpFlow {
    /// A connection of which nothing is known yet.
    #[must_use]
    pub fn new(options: HttpOptions) -> Self {
        let decoder = Decoder::Detecting(Detect::new(options.proxy_protocol));
        Self { options, decoder, is_certain: false }
    }

    /// Takes one event of the connection.
    pub fn handle_event(&mut self, event: &FlowEvent<'_>, on_event: &mut impl FnMut(HttpEvent<'_>)) {
        match event {
            FlowEvent::Opened { direction: Direction::Request, joined } => {
                self.is_certain = false;
                self.decoder = if *joined {
                    Decoder::Http1(Http1::joined())
                } else {
                    Decoder::Detecting(Detect::new(self.options.proxy_protocol))
                };
            }
            FlowEvent::Chunk(chunk) if chunk.direction == Direction::Request => {
                self.handle_request_bytes(chunk, on_event);
            }
            FlowEvent::Closed(_) => {
                self.hand_on(event, on_event);
                self.decoder = Decoder::PassedOver;
            }
            FlowEvent::Gap { direction: Direction::Request, .. }
                if matches!(self.decoder, Decoder::Detecting(_)) =>
            {
                // The beginning is lost: like a join.
                self.decoder = Decoder::Http1(Http1::joined());
            }
            _ => self.hand_on(event, on_event),
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout); `None`: not before more events.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Timestamp> {
        match &self.decoder {
            Decoder::Http1(h1) => h1.next_timeout(),
            Decoder::Http2(h2) => h2.next_timeout(),
            Decoder::Detecting(_) | Decoder::PassedOver => None,
        }
    }

    /// Drops what has been held for too long.
    pub fn handle_timeout(&mut self, now: Timestamp, on_event: &mut impl FnMut(HttpEvent<'_>)) {
        match &mut self.decoder {
            Decoder::Http1(h1) => h1.handle_timeout(now, on_event),
            Decoder::Http2(h2) => h2.handle_timeout(now, on_event),
            Decoder::Detecting(_) | Decoder::PassedOver => {}
        }
    }

    /// Up to where, at least, the bytes to come are the rest of one request's body of known length: what capture may
    /// pass over when no rule wants it, after [`ignore_body`](Self::ignore_body). At most 1 GiB ahead. Never so in
    /// HTTP/2, whose bodies are interleaved.
    #[must_use]
    pub fn body_end(&self) -> Option<SeqNumber> {
        match &self.decoder {
            Decoder::Http1(h1) => h1.body_end(),
            Decoder::Detecting(_) | Decoder::Http2(_) | Decoder::PassedOver => None,
        }
    }

    /// Says that the rest of the body being read is of no interest: it is told no more, and bytes missing in
    /// it (if its length is known) are no loss. The request still ends in `Complete` or `Dropped`.
    pub fn ignore_body(&mut self) {
        if let Decoder::Http1(h1) = &mut self.decoder {
            h1.ignore_body();
        }
    }

    /// There is no room for what [`allocated_bytes`](Self::allocated_bytes) counts: gives it up. What was kept
    /// of a request drops it, and framing has to be found again.
    pub fn shed(&mut self, on_event: &mut impl FnMut(HttpEvent<'_>)) {
        match &mut self.decoder {
            Decoder::Http1(h1) => h1.shed(on_event),
            Decoder::Http2(h2) => h2.shed(on_event),
            Decoder::Detecting(_) | Decoder::PassedOver => {}
        }
    }

    /// Bytes allocated behind this value, for the caller's total bound: what is kept of a head or trailer section in
    /// pieces, or behind an undecided upgrade; all that an HTTP/2 connection needs.
    #[must_use]
    pub fn allocated_bytes(&self) -> usize {
        match &self.decoder {
            Decoder::Detecting(detect) => detect.allocated_bytes(),
            Decoder::Http1(h1) => h1.allocated_bytes(),
            Decoder::Http2(h2) => size_of::<H2Flow>().saturating_add(h2.allocated_bytes()),
            Decoder::PassedOver => 0,
        }
    }

    /// How far an HTTP/2 connection can be trusted; `None` for others.
    #[must_use]
    pub fn synchronisation(&self) -> Option<Synchronisation> {
        match &self.decoder {
            Decoder::Http2(h2) => Some(h2.synchronisation()),
            Decoder::Detecting(_) | Decoder::Http1(_) | Decoder::PassedOver => None,
        }
    }

    /// Whether capture should copy answers whole: while HTTP/2 requests are to be proven by them.
    #[must_use]
    pub fn wants_whole_answers(&self) -> bool {
        matches!(&self.decoder, Decoder::Http2(h2) if h2.wants_whole_answers())
    }

    /// What an HTTP/2 connection counted since the last call; `None` when that is nothing.
    pub fn take_http2_counters(&mut self) -> Option<H2Counters> {
        match &mut self.decoder {
            Decoder::Http2(h2) => h2.take_counters(),
            Decoder::Detecting(_) | Decoder::Http1(_) | Decoder::PassedOver => None,
        }
    }

    /// Gives an event that is none of the requests' bytes to the decoder.
    fn hand_on(&mut self, event: &FlowEvent<'_>, on_event: &mut impl FnMut(HttpEvent<'_>)) {
        let h1 = match &mut self.decoder {
            Decoder::Http1(h1) => h1,
            Decoder::Http2(h2) => return h2.handle_event(event, on_event),
            Decoder::Detecting(_) | Decoder::PassedOver => return,
        };
        match event {
            FlowEvent::Chunk(chunk) => {
                let Ok(segment_bytes) = u32::try_from(chunk.bytes.len()) else { return };
                let Chunk { start, ack, at, bytes: head, .. } = *chunk;
                self.handle_glimpse(
                    &Glimpse { start, offset_bytes: 0, ack, at, segment_bytes, head },
                    on_event,
                );
            }
            FlowEvent::Glimpse(glimpse) => self.handle_glimpse(glimpse, on_event),
            FlowEvent::Gap { direction: Direction::Request, start, bytes, .. } => {
                h1.handle_gap(*start, *bytes, on_event);
            }
            FlowEvent::Finished { direction: Direction::Request } => h1.handle_finished(on_event),
            FlowEvent::Closed(cause) => h1.handle_closed(*cause, on_event),
            FlowEvent::Opened { .. } | FlowEvent::Gap { .. } | FlowEvent::Finished { .. } => {}
        }
    }

    fn handle_request_bytes(&mut self, chunk: &Chunk<'_>, on_event: &mut impl FnMut(HttpEvent<'_>)) {
        self.reconsider(chunk, on_event);
        match &mut self.decoder {
            Decoder::Http1(h1) => h1.handle_chunk(chunk, on_event),
            Decoder::Http2(h2) => h2.handle_event(&FlowEvent::Chunk(*chunk), on_event),
            Decoder::PassedOver => {}
            Decoder::Detecting(detect) => {
                let found = detect.handle_chunk(chunk, |ip| on_event(HttpEvent::Client { ip }));
                if let Some(found) = found {
                    self.begin(&found, chunk, on_event);
                }
            }
        }
    }

    /// A connection that was joined is what it looks like, for as long as nothing of it is certain. A body can look
    /// like the other protocol too; what comes of that is proven by answers like all else, or never told of.
    fn reconsider(&mut self, chunk: &Chunk<'_>, on_event: &mut impl FnMut(HttpEvent<'_>)) {
        // What answers have proven is as good as the first byte.
        self.is_certain |= self.synchronisation() == Some(Synchronisation::Synchronised);
        if self.is_certain || !chunk.at_segment_start {
            return;
        }
        match &mut self.decoder {
            Decoder::Http1(h1) if h1.is_seeking() && looks_like_frames(chunk.bytes, Direction::Request) => {
                let h2 = H2Flow::joined(self.options.http2).numbered_from(h1.next_number());
                self.decoder = Decoder::Http2(Box::new(h2));
            }
            Decoder::Http2(h2)
                if h2.synchronisation() == Synchronisation::Searching
                    && request_line(chunk.bytes) == Plausible::Yes =>
            {
                h2.shed(on_event);
                self.decoder = Decoder::Http1(Http1::joined().numbered_from(h2.next_number()));
            }
            _ => {}
        }
    }

    /// Starts the decoder for what was found, with the bytes that have been seen of it.
    fn begin(&mut self, found: &Found, chunk: &Chunk<'_>, on_event: &mut impl FnMut(HttpEvent<'_>)) {
        self.is_certain = true;
        let first = rest_of(chunk, &found.bytes);
        match found.protocol {
            Protocol::Http1 => {
                let mut h1 = Http1::from_start();
                h1.handle_chunk(&first, on_event);
                self.decoder = Decoder::Http1(h1);
            }
            Protocol::Http2 => {
                let mut h2 = Box::new(H2Flow::at_start(self.options.http2));
                h2.handle_event(&FlowEvent::Chunk(first), on_event);
                self.decoder = Decoder::Http2(h2);
            }
            Protocol::Other(reason) => {
                self.decoder = Decoder::PassedOver;
                on_event(HttpEvent::PassOver { reason });
            }
        }
    }

    /// A segment of answers on a connection of HTTP/1, which may be where it turns to HTTP/2.
    fn handle_glimpse(&mut self, glimpse: &Glimpse<'_>, on_event: &mut impl FnMut(HttpEvent<'_>)) {
        let Decoder::Http1(h1) = &mut self.decoder else { return };
        let used_bytes = h1.handle_glimpse(glimpse, on_event);
        let Some(start) = h1.take_http2() else { return };
        let mut h2 = Box::new(H2Flow::after_upgrade(self.options.http2, start.next_number));
        if let Some(chunk) = start.held_chunk() {
            h2.handle_event(&FlowEvent::Chunk(chunk), on_event);
        }
        if let Some((offset_bytes, head)) = rest_of_glimpse(glimpse, used_bytes) {
            h2.handle_event(&FlowEvent::Glimpse(Glimpse { offset_bytes, head, ..*glimpse }), on_event);
        }
        self.decoder = Decoder::Http2(h2);
    }
}

/// What follows the answer that ended HTTP/1: offset and bytes.
fn rest_of_glimpse<'a>(glimpse: &Glimpse<'a>, used_bytes: Option<usize>) -> Option<(u32, &'a [u8])> {
    let used_bytes = used_bytes?;
    Some((u32::try_from(used_bytes).ok()?, glimpse.head.get(used_bytes..)?))
}

/// The part of the first bytes that belongs to the protocol found, as a chunk.
fn rest_of<'a>(chunk: &Chunk<'a>, rest: &'a Rest) -> Chunk<'a> {
    match rest {
        Rest::InChunk(0) => *chunk,
        Rest::InChunk(offset) => Chunk {
            start: chunk.start.add(u32::try_from(*offset).unwrap_or(u32::MAX)),
            at_segment_start: false,
            bytes: chunk.bytes.get(*offset..).unwrap_or_default(),
            ..*chunk
        },
        Rest::Buffered(bytes, start) => Chunk { start: *start, at_segment_start: false, bytes, ..*chunk },
    }
}
