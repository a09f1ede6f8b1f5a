//! Streaming calls over HTTP/2: when their copies start, and when they are cancelled.

use super::*;
use crate::replay::{BodyPiece, BodyReader, Original, OriginalEnd, ShadowBody};
use std::task::{Context, Poll, Waker};

const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// `POST /` for `h.example` with a gRPC content type; literals without indexing.
fn call(stream: u32) -> Vec<u8> {
    let mut block = b"\x83\x86\x84\x01\x09h.example".to_vec();
    block.extend([0x0f, 0x10, 16]);
    block.extend_from_slice(b"application/grpc");
    frame(1, END_HEADERS, stream, &block)
}

fn data(flags: u8, stream: u32, bytes: &[u8]) -> Vec<u8> {
    frame(0, flags, stream, bytes)
}

fn reset(stream: u32) -> Vec<u8> {
    frame(3, 0, stream, &[0, 0, 0, 8])
}

#[derive(Debug, Default)]
struct Kept(Vec<ShadowRequest>);

impl Outlet for Kept {
    fn offer(&mut self, _shadow: ShadowId, request: ShadowRequest) {
        self.0.push(request);
    }
    fn ignore(&mut self, _flow: &FlowKey) {}
    fn pass_over(&mut self, _flow: &FlowKey, _up_to: SeqNumber) {}
    fn copy_answers(&mut self, _flow: &FlowKey, _whole: bool) {}
}

/// One connection from its start.
struct Rig {
    pipeline: Pipeline<Kept>,
    books: Arc<crate::telemetry::ShadowLedger>,
    seq: SeqNumber,
    answer_seq: SeqNumber,
}

impl Rig {
    fn new() -> Self {
        let ledger = Arc::new(Ledger::default());
        let config = Config::from_toml(CONFIG, "test.toml").unwrap();
        let view = Arc::new(View::new(1, Arc::new(config), &ledger));
        let books = ledger.shadow("new");
        let pipeline = Pipeline::new(view, ledger, HashSeed([1, 2]), Kept::default());
        let mut rig = Self { pipeline, books, seq: SeqNumber(0), answer_seq: SeqNumber(1) };
        rig.segment(TcpFlags::SYN, b"");
        rig.seq = SeqNumber(1);
        rig.send(HELLO);
        rig
    }

    fn send(&mut self, payload: &[u8]) {
        self.segment(TcpFlags::ACK, payload);
        self.seq = self.seq.add(u32::try_from(payload.len()).unwrap());
    }

    fn answer(&mut self, payload: &[u8]) {
        let (direction, seq) = (Direction::Answer, self.answer_seq);
        self.answer_seq = seq.add(u32::try_from(payload.len()).unwrap());
        self.captured(direction, seq, TcpFlags::ACK, payload);
    }

    fn segment(&mut self, flags: TcpFlags, payload: &[u8]) {
        self.captured(Direction::Request, self.seq, flags, payload);
    }

    fn captured(&mut self, direction: Direction, seq: SeqNumber, flags: TcpFlags, payload: &[u8]) {
        self.pipeline.handle_segment(&Segment { direction, seq, ..segment(KEY, flags, payload) });
    }

    /// The copy offered last, which is streamed.
    fn streamed(&mut self) -> (BodyReader, Original) {
        let request = self.pipeline.outlet_mut().0.pop().expect("offered");
        match (request.body, request.original) {
            (ShadowBody::Streaming(reader), Some(original)) => (reader, original),
            other => panic!("{other:?}"),
        }
    }
}

fn next(reader: &mut BodyReader) -> Poll<Result<BodyPiece, crate::replay::BodyAbort>> {
    reader.poll_piece(&mut Context::from_waker(Waker::noop()))
}

fn end_of(original: &mut Original) -> Poll<OriginalEnd> {
    original.poll_end(&mut Context::from_waker(Waker::noop()))
}

fn bytes(text: &'static [u8]) -> Poll<Result<BodyPiece, crate::replay::BodyAbort>> {
    Poll::Ready(Ok(BodyPiece::Bytes(bytes::Bytes::from_static(text))))
}

#[test]
fn open_call_starts_at_the_shadow_at_once_and_its_messages_follow() {
    let mut rig = Rig::new();
    rig.send(&call(1));
    let (mut reader, mut original) = rig.streamed();
    assert_eq!(next(&mut reader), Poll::Pending);
    rig.send(&data(0, 1, b"first"));
    assert_eq!(next(&mut reader), bytes(b"first"));
    rig.send(&data(END_STREAM, 1, b"last"));
    assert_eq!(next(&mut reader), bytes(b"last"));
    assert!(matches!(next(&mut reader), Poll::Ready(Ok(BodyPiece::End { .. }))));
    assert_eq!(end_of(&mut original), Poll::Pending);
    assert_eq!(rig.books.owed.value(), 1);
    assert_eq!(rig.pipeline.counters().buffered_bytes, rig.pipeline.held_bytes());
}

#[test]
fn call_that_is_whole_in_one_segment_is_sent_whole() {
    let mut rig = Rig::new();
    rig.send(&[call(1), data(END_STREAM, 1, b"all")].concat());
    let request = rig.pipeline.outlet_mut().0.pop().expect("offered");
    assert!(matches!(request.body, ShadowBody::Buffered { bytes, .. } if bytes == "all"[..]));
    let mut original = request.original.expect("watched");
    assert_eq!(end_of(&mut original), Poll::Pending);
    rig.send(&reset(1));
    assert_eq!(end_of(&mut original), Poll::Ready(OriginalEnd::Cancelled));
}

#[test]
fn answer_at_its_end_is_told_to_the_shadow() {
    let mut rig = Rig::new();
    rig.send(&[call(1), data(END_STREAM, 1, b"all")].concat());
    let mut original =
        rig.pipeline.outlet_mut().0.pop().and_then(|request| request.original).expect("watched");
    rig.answer(&[frame(1, END_HEADERS, 1, b"\x88"), data(0, 1, b"more")].concat());
    assert_eq!(end_of(&mut original), Poll::Pending);
    rig.answer(&frame(1, END_HEADERS | END_STREAM, 1, b"\x88"));
    assert_eq!(end_of(&mut original), Poll::Ready(OriginalEnd::Over));
}

#[test]
fn call_cancelled_before_its_end_is_aborted() {
    let mut rig = Rig::new();
    rig.send(&call(1));
    rig.send(&reset(1));
    let (mut reader, _original) = rig.streamed();
    let aborted = crate::replay::BodyAbort(DropReason::Cancelled);
    assert_eq!(next(&mut reader), Poll::Ready(Err(aborted)));
}

#[test]
fn call_that_ends_during_its_answer_is_told_to_the_shadow() {
    for (how, end) in [("reset", OriginalEnd::Cancelled), ("close", OriginalEnd::Gone)] {
        let mut rig = Rig::new();
        rig.send(&call(1));
        rig.send(&data(END_STREAM, 1, b"ask"));
        let (mut reader, mut original) = rig.streamed();
        assert_eq!(end_of(&mut original), Poll::Pending);
        match how {
            "reset" => rig.send(&reset(1)),
            _ => rig.pipeline.handle_end(),
        }
        assert_eq!(end_of(&mut original), Poll::Ready(end), "{how}");
        assert_eq!(next(&mut reader), bytes(b"ask"), "what was whole stays whole");
    }
}

#[test]
fn calls_of_one_connection_do_not_meet() {
    let mut rig = Rig::new();
    rig.send(&[call(1), call(3)].concat());
    let (mut third, _) = rig.streamed();
    let (mut first, _) = rig.streamed();
    rig.send(&[data(0, 3, b"3"), data(END_STREAM, 1, b"1"), reset(3)].concat());
    assert_eq!(next(&mut first), bytes(b"1"));
    assert!(matches!(next(&mut first), Poll::Ready(Ok(BodyPiece::End { .. }))));
    assert!(matches!(next(&mut third), Poll::Ready(Err(_))));
}
