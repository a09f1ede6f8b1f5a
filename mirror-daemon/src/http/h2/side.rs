//! One direction of a connection: frames while the boundaries are known, the search for them while not.

use super::frame::{
    DEFAULT_FRAME_BYTES, FRAME_HEAD_BYTES, FrameHead, FrameKind, FrameReader, GapOutcome, MAX_FRAME_BYTES,
    Piece,
};
use super::resync::{Resync, looks_like_frames};
use crate::flow::Direction;

/// What a direction yields.
#[derive(Debug)]
pub(super) enum Sight<'a> {
    /// A piece of a frame.
    Piece(Piece<'a>),
    /// The boundaries were lost, and the next piece lies behind one that is certain.
    Found,
}

/// What the receiver of a [`Sight`] thinks of the boundaries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Boundary {
    /// They fit.
    Right,
    /// They cannot be right, or the connection is in error: find others.
    Wrong,
}

/// Reader or, while the boundaries are lost, the search for them.
#[derive(Debug)]
pub(super) struct Side {
    direction: Direction,
    reader: FrameReader,
    /// `None` while frames are read.
    resync: Option<Box<Resync>>,
    /// The boundaries were guessed and not proven.
    is_guessed: bool,
    /// The receiver's SETTINGS_MAX_FRAME_SIZE, the largest so far; `None`: not seen.
    frame_bytes: Option<u32>,
    /// Every byte was seen since the connection began, and so was every setting.
    is_whole: bool,
}

impl Side {
    /// `frame_bytes`: largest frame to expect while the receiver's SETTINGS were not seen; `None`: the default.
    pub(super) fn at_start(direction: Direction, frame_bytes: Option<u32>) -> Self {
        let reader = FrameReader::at_start(direction);
        Self { direction, reader, resync: None, is_guessed: false, frame_bytes, is_whole: true }
    }

    pub(super) fn joined(direction: Direction, frame_bytes: Option<u32>) -> Self {
        let reader = FrameReader::lost(direction);
        let mut side = Self { reader, is_whole: false, ..Self::at_start(direction, frame_bytes) };
        side.search();
        side
    }

    /// True while frames are read.
    pub(super) fn is_reading(&self) -> bool {
        self.resync.is_none()
    }

    /// True while every byte was seen: what no SETTINGS frame said so far has its initial value.
    pub(super) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// True while the boundaries are a guess: whatever is read is a hint at most.
    pub(super) fn is_guessed(&self) -> bool {
        self.is_guessed
    }

    /// Takes `bytes` for the beginning of frames when they look like it. Where the boundaries are to be certain,
    /// [`lose`](Self::lose) them later.
    pub(super) fn guess(&mut self, bytes: &[u8], see: &mut dyn FnMut(Sight<'_>) -> Boundary) {
        if let Some((octets, rest)) = bytes.split_first_chunk::<FRAME_HEAD_BYTES>()
            && looks_like_frames(bytes, self.direction)
        {
            self.reader.resume(octets);
            self.resync = None;
            self.is_guessed = true;
            self.handle_chunk(rest, see);
        }
    }

    /// The frame of headers whose payload has begun and is not over.
    pub(super) fn half_headers(&self) -> Option<FrameHead> {
        self.reader.half_frame().filter(|head| head.kind == FrameKind::Headers)
    }

    /// Gives up the boundaries and looks for others.
    pub(super) fn lose(&mut self) {
        self.search();
    }

    /// The receiver of this direction takes frames up to this size.
    pub(super) fn limit_frames(&mut self, setting_bytes: u32) {
        // Never lowered: it is not known when a lower value came into force.
        let bytes = setting_bytes.max(self.frame_bytes.unwrap_or(DEFAULT_FRAME_BYTES)).min(MAX_FRAME_BYTES);
        self.frame_bytes = Some(bytes);
        self.reader.limit_frames(bytes);
        if let Some(resync) = &mut self.resync {
            resync.limit_frames(bytes);
        }
    }

    pub(super) fn allocated_bytes(&self) -> usize {
        let search = self.resync.as_ref().map_or(0, |resync| resync.allocated_bytes());
        self.reader.allocated_bytes().saturating_add(search)
    }

    /// Reads a chunk. `see` is told what is found, and says whether it can be right.
    pub(super) fn handle_chunk(&mut self, bytes: &[u8], see: &mut dyn FnMut(Sight<'_>) -> Boundary) {
        let mut rest = bytes;
        loop {
            if let Some(resync) = &mut self.resync {
                let Some(proof) = resync.feed(rest) else { return };
                rest = rest.get(proof.consumed..).unwrap_or_default();
                self.reader.resume(&proof.octets);
                self.resync = None;
                see(Sight::Found);
            }
            self.read(&mut rest, see);
            if rest.is_empty() {
                return;
            }
        }
    }

    /// Tells that bytes are missing. `None`: boundaries are lost.
    pub(super) fn handle_gap(&mut self, bytes: u32) -> Option<FrameHead> {
        self.is_whole = false;
        if self.is_reading()
            && let GapOutcome::Inside(head) = self.reader.handle_gap(bytes)
        {
            return Some(head);
        }
        self.search();
        None
    }

    /// Reads frames until the bytes end or the boundaries are lost.
    fn read(&mut self, rest: &mut &[u8], see: &mut dyn FnMut(Sight<'_>) -> Boundary) {
        while let Some(piece) = self.reader.next(rest) {
            let broken = matches!(piece, Piece::Broken(_));
            if see(Sight::Piece(piece)) == Boundary::Wrong || broken {
                return self.search();
            }
        }
    }

    fn search(&mut self) {
        self.is_guessed = false;
        self.is_whole = false;
        self.reader.lose();
        match &mut self.resync {
            Some(resync) => resync.restart(),
            None => self.resync = Some(Box::new(Resync::new(self.direction, self.frame_bytes))),
        }
    }
}
