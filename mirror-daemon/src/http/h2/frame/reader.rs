//! Cuts the bytes of one direction into frames, whatever pieces they come in.
//!
//! ```text
//! Preface ─▶ Head ─▶ Data | Collect | Skip ─▶ Head ...        any ─▶ Lost ─▶ (resume) Head
//! ```
//!
//! DATA payloads go on as they come, without their padding. All other known frames are handed on whole:
//! from the captured bytes when these hold all of it, else from a buffer of at most [`MAX_FRAME_BYTES`].
//! Unknown frames are read over. After an error or a gap across a frame header the reader is `Lost` and
//! reads nothing until it is told of a frame header.

use super::{FRAME_HEAD_BYTES, FrameError, FrameHead, FrameKind, MAX_FRAME_BYTES, flag};
use crate::flow::Direction;

/// What a client sends first (RFC 9113, 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Buffer that is kept between frames.
const KEPT_BUFFER_BYTES: usize = 4096;

/// Reads one direction of a connection.
#[derive(Debug)]
pub struct FrameReader {
    direction: Direction,
    state: State,
    /// Beginning of a payload that came in pieces.
    buffer: Vec<u8>,
    /// Longest frame that is right (SETTINGS_MAX_FRAME_SIZE of the receiver), at most [`MAX_FRAME_BYTES`].
    limit_bytes: u32,
    /// Bytes of earlier calls' frames are to be dropped from `buffer` at the next call.
    buffer_is_spent: bool,
}

/// What the reader found.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// The client's preface was seen.
    Preface,
    /// A DATA frame begins.
    DataStart(FrameHead),
    /// Bytes of the DATA frame that began last; never empty.
    Data(FrameHead, &'a [u8]),
    /// The DATA frame that began last is over.
    DataEnd(FrameHead),
    /// A whole frame of another known type, for [`super::Frame::parse`].
    Whole(FrameHead, &'a [u8]),
    /// A frame of an unknown type begins; its payload is read over.
    Ignored(FrameHead),
    /// A rule was broken and the reader is lost.
    Broken(FrameError),
}

/// What a gap hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapOutcome {
    /// It lies wholly inside the payload of this frame; the frames behind it are found without doubt.
    Inside(FrameHead),
    /// Frame headers may be gone: the reader is lost.
    Lost,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// So many octets of the preface were seen.
    Preface(usize),
    /// So many octets of a header were seen; they are in `octets`.
    Head { octets: [u8; FRAME_HEAD_BYTES], len: usize },
    /// Inside a DATA payload.
    Data(DataState),
    /// Collecting the payload of a frame.
    Collect(FrameHead),
    /// Reading over what is left of a payload.
    Skip { head: FrameHead, left: u32 },
    /// No frame boundary is known.
    Lost,
}

#[derive(Clone, Copy, Debug)]
struct DataState {
    head: FrameHead,
    /// `None`: the pad length octet is still to come.
    data_left: Option<u32>,
    /// Octets of the payload that were not read yet, padding included.
    left: u32,
}

impl FrameReader {
    /// A reader at the start of a connection: before the preface for requests.
    #[must_use]
    pub fn at_start(direction: Direction) -> Self {
        let state = match direction {
            Direction::Request => State::Preface(0),
            Direction::Answer => State::HEAD,
        };
        Self { state, ..Self::lost(direction) }
    }

    /// A reader that knows no frame boundary.
    #[must_use]
    pub fn lost(direction: Direction) -> Self {
        Self {
            direction,
            state: State::Lost,
            buffer: Vec::new(),
            limit_bytes: MAX_FRAME_BYTES,
            buffer_is_spent: false,
        }
    }

    /// Sets the longest frame that is right.
    pub fn limit_frames(&mut self, limit_bytes: u32) {
        self.limit_bytes = limit_bytes.min(MAX_FRAME_BYTES);
    }

    /// True when no frame boundary is known.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        matches!(self.state, State::Lost)
    }

    /// The frame whose payload is being collected.
    #[must_use]
    pub fn half_frame(&self) -> Option<FrameHead> {
        match self.state {
            State::Collect(head) => Some(head),
            _ => None,
        }
    }

    /// Gives up the frame boundary.
    pub fn lose(&mut self) {
        self.state = State::Lost;
        self.buffer = Vec::new();
        self.buffer_is_spent = false;
    }

    /// Goes on behind the frame header `head`. The next piece tells of it.
    pub fn resume(&mut self, octets: &[u8; FRAME_HEAD_BYTES]) {
        self.lose();
        self.state = State::Head { octets: *octets, len: FRAME_HEAD_BYTES };
    }

    /// Bytes that are allocated, for the books.
    #[must_use]
    pub fn allocated_bytes(&self) -> usize {
        self.buffer.capacity()
    }

    /// The next piece of `input`, which moves on behind it. `None`: all of `input` is used up.
    pub fn next<'b, 'i: 'b>(&'b mut self, input: &mut &'i [u8]) -> Option<Piece<'b>> {
        if self.buffer_is_spent {
            self.buffer.clear();
            self.buffer.shrink_to(KEPT_BUFFER_BYTES);
            self.buffer_is_spent = false;
        }
        loop {
            match self.state {
                State::Preface(seen) => match self.read_preface(seen, input)? {
                    Ok(()) => return Some(Piece::Preface),
                    Err(error) => return Some(self.broken(error)),
                },
                State::Head { octets, len } => {
                    let head = self.read_head((octets, len), input)?;
                    if let Some(piece) = self.begin(head) {
                        return Some(piece);
                    }
                }
                State::Data(data) => return self.read_data(data, input),
                State::Collect(head) => return self.collect(head, input),
                State::Skip { head, left } => self.skip(head, left, input)?,
                State::Lost => {
                    *input = &[];
                    return None;
                }
            }
        }
    }

    /// Tells that `bytes` bytes of the stream are missing here.
    pub fn handle_gap(&mut self, bytes: u32) -> GapOutcome {
        let (head, left) = match self.state {
            State::Data(data) => (data.head, data.left),
            State::Skip { head, left } => (head, left),
            State::Collect(head) => {
                let have = u32::try_from(self.buffer.len()).unwrap_or(u32::MAX);
                (head, if self.buffer_is_spent { head.length } else { head.length.saturating_sub(have) })
            }
            State::Head { .. } | State::Preface(_) | State::Lost => (FrameHead::parse(&[0; 9]), 0),
        };
        let Some(left) = left.checked_sub(bytes) else {
            self.lose();
            return GapOutcome::Lost;
        };
        self.buffer.clear();
        // What is left of a DATA payload may be data or padding; nobody needs to know, for the stream is
        // lost, but its end is still told.
        self.state = match self.state {
            State::Data(_) => State::Data(DataState { head, data_left: Some(0), left }),
            _ => State::Skip { head, left },
        };
        GapOutcome::Inside(head)
    }

    fn broken(&mut self, error: FrameError) -> Piece<'static> {
        self.lose();
        Piece::Broken(error)
    }

    fn read_preface(&mut self, seen: usize, input: &mut &[u8]) -> Option<Result<(), FrameError>> {
        let wanted = PREFACE.get(seen..).unwrap_or_default();
        let (part, rest) = input.split_at(wanted.len().min(input.len()));
        if !wanted.starts_with(part) {
            return Some(Err(FrameError::BadPreface));
        }
        *input = rest;
        if part.len() == wanted.len() {
            self.state = State::HEAD;
            return Some(Ok(()));
        }
        self.state = State::Preface(seen.saturating_add(part.len()));
        None
    }

    fn read_head(
        &mut self,
        (mut octets, len): ([u8; FRAME_HEAD_BYTES], usize),
        input: &mut &[u8],
    ) -> Option<FrameHead> {
        if len == 0
            && let Some((octets, rest)) = input.split_first_chunk()
        {
            *input = rest;
            return Some(FrameHead::parse(octets));
        }
        let place = octets.get_mut(len..).unwrap_or_default();
        let taken = place.len().min(input.len());
        let (part, rest) = input.split_at(taken);
        place.iter_mut().zip(part).for_each(|(to, from)| *to = *from);
        *input = rest;
        let len = len.saturating_add(taken);
        if len == FRAME_HEAD_BYTES {
            return Some(FrameHead::parse(&octets));
        }
        self.state = State::Head { octets, len };
        None
    }

    /// Decides how the payload behind `head` is read.
    fn begin(&mut self, head: FrameHead) -> Option<Piece<'static>> {
        let fits = head.length <= self.limit_bytes;
        let checked = if fits { head.check(self.direction) } else { Err(FrameError::FrameTooLarge) };
        if let Err(error) = checked {
            return Some(self.broken(error));
        }
        match head.kind {
            FrameKind::Data => {
                let data_left = (!head.has(flag::PADDED)).then_some(head.length);
                self.state = State::Data(DataState { head, data_left, left: head.length });
                Some(Piece::DataStart(head))
            }
            FrameKind::Unknown(_) => {
                self.state = State::Skip { head, left: head.length };
                Some(Piece::Ignored(head))
            }
            _ => {
                self.state = State::Collect(head);
                None
            }
        }
    }

    fn read_data<'b>(&mut self, mut data: DataState, input: &mut &'b [u8]) -> Option<Piece<'b>> {
        let mut data_left = match data.data_left {
            Some(data_left) => data_left,
            None => {
                let (&padding, rest) = input.split_first()?;
                *input = rest;
                data.left = data.left.saturating_sub(1);
                let Some(data_left) = data.left.checked_sub(u32::from(padding)) else {
                    return Some(self.broken(FrameError::PaddingTooLong));
                };
                data_left
            }
        };
        let bytes = take(data_left, input);
        let taken = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        data_left = data_left.saturating_sub(taken);
        data.left = data.left.saturating_sub(taken);
        if data_left == 0 && bytes.is_empty() {
            let padding = take(data.left, input);
            data.left = data.left.saturating_sub(u32::try_from(padding.len()).unwrap_or(u32::MAX));
            if data.left == 0 {
                self.state = State::HEAD;
                return Some(Piece::DataEnd(data.head));
            }
        }
        data.data_left = Some(data_left);
        self.state = State::Data(data);
        (!bytes.is_empty()).then_some(Piece::Data(data.head, bytes))
    }

    fn collect<'b, 'i: 'b>(&'b mut self, head: FrameHead, input: &mut &'i [u8]) -> Option<Piece<'b>> {
        let length = head.length as usize;
        if self.buffer.is_empty() && input.len() >= length {
            self.state = State::HEAD;
            return Some(Piece::Whole(head, take(head.length, input)));
        }
        let missing = length.saturating_sub(self.buffer.len());
        self.buffer.extend_from_slice(take(u32::try_from(missing).unwrap_or(u32::MAX), input));
        if self.buffer.len() < length {
            return None;
        }
        self.state = State::HEAD;
        self.buffer_is_spent = true;
        Some(Piece::Whole(head, &self.buffer))
    }

    fn skip(&mut self, head: FrameHead, left: u32, input: &mut &[u8]) -> Option<()> {
        let skipped = u32::try_from(take(left, input).len()).unwrap_or(u32::MAX);
        match left.saturating_sub(skipped) {
            0 => self.state = State::HEAD,
            left => {
                self.state = State::Skip { head, left };
                return None;
            }
        }
        Some(())
    }
}

impl State {
    const HEAD: Self = Self::Head { octets: [0; FRAME_HEAD_BYTES], len: 0 };
}

/// Up to `most` bytes from the front of `input`, which moves on.
fn take<'b>(most: u32, input: &mut &'b [u8]) -> &'b [u8] {
    let (part, rest) = input.split_at(input.len().min(most as usize));
    *input = rest;
    part
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request direction: preface, SETTINGS, HEADERS, padded DATA, an unknown frame, DATA without bytes.
    fn stream() -> Vec<u8> {
        let frames: [&[u8]; 5] = [
            b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64",
            b"\0\0\x01\x01\x04\0\0\0\x01\x82",
            b"\0\0\x06\0\x08\0\0\0\x01\x02abc\0\0",
            b"\0\0\x03\x63\0\0\0\0\x01xyz",
            b"\0\0\0\0\x01\0\0\0\x01",
        ];
        [PREFACE.as_slice(), &frames.concat()].concat()
    }

    fn read(bytes: &[u8], piece_bytes: usize) -> Vec<String> {
        let mut reader = FrameReader::at_start(Direction::Request);
        let (mut told, mut body) = (Vec::new(), Vec::new());
        for mut rest in bytes.chunks(piece_bytes) {
            while let Some(piece) = reader.next(&mut rest) {
                match piece {
                    Piece::Data(_, bytes) => body.extend_from_slice(bytes),
                    Piece::Whole(head, payload) => told.push(format!("{:?} {payload:?}", head.kind)),
                    Piece::DataEnd(_) => told.push(format!("end of {body:?}")),
                    Piece::DataStart(head) => told.push(format!("{} bytes of DATA", head.length)),
                    Piece::Ignored(head) => told.push(format!("{:?}", head.kind)),
                    Piece::Preface => told.push("preface".into()),
                    Piece::Broken(error) => told.push(error.to_string()),
                }
            }
            assert!(rest.is_empty());
        }
        told
    }

    #[test]
    fn pieces_of_any_size_give_the_same_frames() {
        let whole = read(&stream(), 1000);
        let expected = [
            "preface",
            "Settings [0, 3, 0, 0, 0, 100]",
            "Headers [130]",
            "6 bytes of DATA",
            "end of [97, 98, 99]",
            "Unknown(99)",
            "0 bytes of DATA",
            "end of [97, 98, 99]",
        ];
        assert_eq!(whole, expected);
        for piece_bytes in 1..60 {
            assert_eq!(read(&stream(), piece_bytes), whole, "{piece_bytes}");
        }
    }

    #[test]
    fn frame_limit_is_exact() {
        for (length, right) in [(16_384_u32, true), (16_385, false)] {
            let mut reader = FrameReader::at_start(Direction::Answer);
            reader.limit_frames(16_384);
            let octets = [&length.to_be_bytes()[1..], &[0, 0, 0, 0, 0, 1]].concat();
            let piece = reader.next(&mut octets.as_slice()).expect("a header");
            assert_eq!(matches!(piece, Piece::DataStart(_)), right);
            assert_eq!(piece == Piece::Broken(FrameError::FrameTooLarge), !right);
        }
    }

    #[test]
    fn gap_is_inside_only_up_to_the_end_of_the_payload() {
        for (seen, bytes, inside) in
            [(10, 1, true), (10, 6, true), (10, 7, false), (8, 1, false), (16, 1, false)]
        {
            let mut reader = FrameReader::at_start(Direction::Answer);
            let frame = b"\0\0\x07\x01\x04\0\0\0\x01abcdefg";
            let _ = reader.next(&mut &frame[..seen]);
            let outcome = reader.handle_gap(bytes);
            assert_eq!(matches!(outcome, GapOutcome::Inside(_)), inside, "{seen} {bytes}");
            assert_eq!(reader.is_lost(), !inside);
        }
    }
}
