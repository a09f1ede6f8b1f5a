//! One bit: the direction. One byte: the size of pieces. The rest: the frames.

use super::input::Input;
use mirror_daemon::flow::Direction;
use mirror_daemon::http::h2::frame::{Frame, FrameReader, Piece};

pub(super) fn run(input: &[u8]) {
    let mut input = Input(input);
    let Some([options, piece_bytes]) = input.array() else { return };
    let direction = if options & 1 == 1 { Direction::Request } else { Direction::Answer };
    let whole = read(direction, input.0, input.0.len().max(1));
    let pieces = read(direction, input.0, usize::from(piece_bytes).max(1));
    assert_eq!(whole, pieces);
}

/// What was read, with adjoining pieces of DATA as one.
fn read(direction: Direction, bytes: &[u8], piece_bytes: usize) -> Vec<String> {
    let mut reader = FrameReader::at_start(direction);
    let (mut told, mut body) = (Vec::new(), Vec::new());
    for mut rest in bytes.chunks(piece_bytes) {
        while let Some(piece) = reader.next(&mut rest) {
            match piece {
                Piece::Data(_, bytes) => body.extend_from_slice(bytes),
                Piece::Whole(head, payload) => {
                    told.push(format!("{head:?} {:?}", Frame::parse(head, payload)));
                }
                other => told.push(format!("{other:?} {:?}", std::mem::take(&mut body))),
            }
        }
        assert!(rest.is_empty() || reader.is_lost());
    }
    told.push(format!("{body:?}"));
    told
}
