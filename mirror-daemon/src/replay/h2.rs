//! Replays over HTTP/2 (RFC 9113): prior knowledge for `http://`, ALPN for `https://`.
//!
//! One task for each connection drives it and all its streams; a request costs no task. A waker of its own
//! tells for each stream that it has to be looked at, so that a thousand quiet calls cost nothing.
//!
//! ```text
//!  Shadow ──Job──▶ SharedSeat ──Ticket──▶ Stream ──▶ h2 ──▶ Wire ──▶ shadow
//!                  takes what there is    body, answer,     counts bytes,
//!                  room for               time limits       reads so much a turn
//! ```
//!
//! - A connection takes requests once the peer's SETTINGS have come, up to its SETTINGS_MAX_CONCURRENT_STREAMS
//!   and [`MAX_STREAMS`]; another one is opened only when all are full.
//! - One that got a GOAWAY, whose address the shadow's name has lost, or that went silent while a request timed
//!   out, takes no more requests and ends when its streams have.
//! - Time limits. A write that makes no progress for `timeout`, for want of window or of socket buffer, ends
//!   the request. From the last byte written to the end of the answer it has `timeout`. A call may live for
//!   hours: no limit while it is still being captured; then `timeout` until the head of its answer; then none
//!   while its original goes on, and `timeout` since the last byte when that is over, or `timeout` in all when
//!   the original's connection was closed: whether it was answered to its end is not always seen.
//! - Bodies wait where they were captured until the shadow gives window; nothing pushes back on capture. Answers
//!   are read at once, thrown away, and their window given back.
//! - What a hostile shadow can cost is bounded: see [`connect`] for what we announce and [`flood`] for what is
//!   read beside answers.
//!
//! What becomes of a request, booked once, when its stream has ended:
//!
//! | ending | entry | breaker |
//! |---|---|---|
//! | written and answered | `replayed`, `answered` by class | success |
//! | written, no end of the answer in time | `replayed`, `answer_timeouts` | failure; none once the answer's head has come |
//! | written, reset, closed or garbled in the middle of the answer | `replayed`, `answers_cut` | failure |
//! | the original was cancelled after it was whole, and so was this | `replayed` | none |
//! | not processed, says the shadow (GOAWAY, REFUSED_STREAM) | sent once more, if no piece of a streamed body is gone; else `shadow_closed` | failure the second time |
//! | connection lost before any byte of the answer | sent once more as in HTTP/1; else `shadow_closed` | failure |
//! | reset before it was written, or before any byte of the answer | `shadow_closed` | failure; success if the answer was whole |
//! | the shadow took no more bytes in time | `write_timeout` | failure |
//! | its streamed body was aborted | that reason; RST_STREAM CANCEL on that stream alone | none |
//!
//! A lost connection is one failure, however many streams it had.
//! "Written" means that the socket accepted the last byte that the windows had room for when it was queued.

mod connect;
mod connection;
mod flood;
mod head;
mod outgoing;
mod ready;
mod seat;
mod settle;
mod stream;
mod ticket;
mod wire;

pub(super) use connection::run;
pub(super) use seat::SharedSeat;

/// Most streams on one connection at a time, whatever the peer allows.
const MAX_STREAMS: usize = 100;
