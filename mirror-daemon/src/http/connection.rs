//! One connection: finds out what it carries, and hands it to the decoder for that.
//!
//! ```text
//! Detecting ─┬▶ Http1
//!            ├▶ (Http2: passed over by this build)
//!            └▶ PassedOver
//! ```

use super::HttpEvent;
use super::detect::{Detect, Found, Protocol, Rest};
use super::h1::{Emit, Http1};
use crate::drop_reason::DropReason;
use crate::flow::{Chunk, Direction, FlowEvent, Glimpse, SeqNumber, Timestamp};

/// What a decoder has to be told of its connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HttpOptions {
    /// A PROXY protocol header may come first (downstream connections behind a load balancer).
    pub proxy_protocol: bool,
}

/// The passive decoder of one connection.
///
/// Feed it every [`FlowEvent`] of the connection, in order. It never panics, whatever the bytes. An idle one
/// takes a few hundred bytes and no allocation. A busy one takes at most
/// [`MAX_HEAD_BYTES`](super::MAX_HEAD_BYTES) for a head in pieces, or [`MAX_HELD_BYTES`](super::MAX_HELD_BYTES)
/// behind an undecided upgrade.
#[derive(Debug)]
pub struct HttpFlow {
    options: HttpOptions,
    decoder: Decoder,
}

/// Here the HTTP/2 decoder will have its place.
#[derive(Debug)]
enum Decoder {
    Detecting(Detect),
    Http1(Http1),
    PassedOver,
}

impl HttpFlow {
    /// A connection of which nothing is known yet.
    #[must_use]
    pub fn new(options: HttpOptions) -> Self {
        Self { options, decoder: Decoder::Detecting(Detect::new(options.proxy_protocol)) }
    }

    /// Takes one event of the connection.
    pub fn handle_event(&mut self, event: &FlowEvent<'_>, on_event: &mut impl FnMut(HttpEvent<'_>)) {
        match event {
            FlowEvent::Opened { direction: Direction::Request, joined } => {
                self.decoder = if *joined {
                    Decoder::Http1(Http1::joined())
                } else {
                    Decoder::Detecting(Detect::new(self.options.proxy_protocol))
                };
            }
            FlowEvent::Chunk(chunk) if chunk.direction == Direction::Request => {
                self.handle_request_bytes(chunk, on_event);
            }
            FlowEvent::Chunk(chunk) => {
                if let (Ok(segment_bytes), Decoder::Http1(h1)) =
                    (u32::try_from(chunk.bytes.len()), &mut self.decoder)
                {
                    let Chunk { start, ack, at, bytes, .. } = *chunk;
                    h1.handle_glimpse(&Glimpse { start, ack, at, segment_bytes, head: bytes }, on_event);
                }
            }
            FlowEvent::Glimpse(glimpse) => {
                if let Decoder::Http1(h1) = &mut self.decoder {
                    h1.handle_glimpse(glimpse, on_event);
                }
            }
            FlowEvent::Gap { direction: Direction::Request, start, bytes, .. } => {
                self.handle_gap(*start, *bytes, on_event);
            }
            FlowEvent::Finished { direction: Direction::Request } => {
                if let Decoder::Http1(h1) = &mut self.decoder {
                    h1.handle_finished(on_event);
                }
            }
            FlowEvent::Closed(cause) => {
                if let Decoder::Http1(h1) = &mut self.decoder {
                    h1.handle_closed(*cause, on_event);
                }
                self.decoder = Decoder::PassedOver;
            }
            FlowEvent::Opened { .. } | FlowEvent::Gap { .. } | FlowEvent::Finished { .. } => {}
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout); `None`: not before more events.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Timestamp> {
        match &self.decoder {
            Decoder::Http1(h1) => h1.next_timeout(),
            Decoder::Detecting(_) | Decoder::PassedOver => None,
        }
    }

    /// Drops what has been held for too long.
    pub fn handle_timeout(&mut self, now: Timestamp, on_event: &mut impl FnMut(HttpEvent<'_>)) {
        if let Decoder::Http1(h1) = &mut self.decoder {
            h1.handle_timeout(now, on_event);
        }
    }

    /// Up to where, at least, the bytes to come are the rest of one request's body of known length: what capture may
    /// pass over when no rule wants it, after [`ignore_body`](Self::ignore_body). At most 1 GiB ahead.
    #[must_use]
    pub fn body_end(&self) -> Option<SeqNumber> {
        match &self.decoder {
            Decoder::Http1(h1) => h1.body_end(),
            Decoder::Detecting(_) | Decoder::PassedOver => None,
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
        if let Decoder::Http1(h1) = &mut self.decoder {
            h1.shed(on_event);
        }
    }

    /// Bytes allocated behind this value, for the caller's total bound: what is kept of a head or trailer section in
    /// pieces, or behind an undecided upgrade.
    #[must_use]
    pub fn allocated_bytes(&self) -> usize {
        match &self.decoder {
            Decoder::Detecting(detect) => detect.allocated_bytes(),
            Decoder::Http1(h1) => h1.allocated_bytes(),
            Decoder::PassedOver => 0,
        }
    }

    fn handle_request_bytes(&mut self, chunk: &Chunk<'_>, on_event: &mut impl FnMut(HttpEvent<'_>)) {
        match &mut self.decoder {
            Decoder::Http1(h1) => h1.handle_chunk(chunk, on_event),
            Decoder::PassedOver => {}
            Decoder::Detecting(detect) => {
                let found = detect.handle_chunk(chunk, |ip| on_event(HttpEvent::Client { ip }));
                if let Some(found) = found {
                    self.begin(&found, chunk, on_event);
                }
            }
        }
    }

    /// Starts the decoder for what was found, with the bytes that have been seen of it.
    fn begin(&mut self, found: &Found, chunk: &Chunk<'_>, emit: &mut Emit<'_>) {
        let reason = match found.protocol {
            Protocol::Http1 => {
                let mut h1 = Http1::from_start();
                h1.handle_chunk(&rest_of(chunk, &found.bytes), emit);
                self.decoder = Decoder::Http1(h1);
                return;
            }
            Protocol::Http2 => DropReason::UnsupportedProtocol,
            Protocol::Other(reason) => reason,
        };
        self.decoder = Decoder::PassedOver;
        emit(HttpEvent::PassOver { reason });
    }

    fn handle_gap(&mut self, start: SeqNumber, bytes: u32, on_event: &mut impl FnMut(HttpEvent<'_>)) {
        match &mut self.decoder {
            Decoder::Http1(h1) => h1.handle_gap(start, bytes, on_event),
            // The beginning is lost: like a join.
            Decoder::Detecting(_) => self.decoder = Decoder::Http1(Http1::joined()),
            Decoder::PassedOver => {}
        }
    }
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
