//! The frame reader and the payloads: never panic, and say the same however the bytes are cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mirror_daemon::flow::Direction;
use mirror_daemon::http::h2::frame::{Frame, FrameReader, Piece};

fuzz_target!(|input: (bool, u8, &[u8])| {
    let (is_request, piece_bytes, bytes) = input;
    let direction = if is_request { Direction::Request } else { Direction::Answer };
    let whole = read(direction, bytes, bytes.len().max(1));
    let pieces = read(direction, bytes, usize::from(piece_bytes).max(1));
    assert_eq!(whole, pieces);
});

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
