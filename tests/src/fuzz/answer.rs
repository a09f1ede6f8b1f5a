//! One bit: the answer to HEAD. One byte: the size of pieces. The rest: the answer.

use super::input::Input;
use mirror_daemon::http::{AnswerDecoder, AnswerError, AnswerSummary};

pub(super) fn run(input: &[u8]) {
    let mut input = Input(input);
    let Some([options, piece_bytes]) = input.array() else { return };
    let (is_head, bytes) = (options & 1 == 1, input.0);
    let whole = read(is_head, bytes, bytes.len().max(1));
    let pieces = read(is_head, bytes, usize::from(piece_bytes).max(1));
    assert_eq!(whole, pieces);
}

fn read(is_head: bool, bytes: &[u8], piece_bytes: usize) -> Result<(AnswerSummary, usize), AnswerError> {
    let mut decoder = AnswerDecoder::new(is_head);
    let mut total = 0;
    for piece in bytes.chunks(piece_bytes) {
        let progress = decoder.handle_bytes(piece)?;
        assert!(progress.consumed <= piece.len());
        total += progress.consumed;
        if let Some(summary) = progress.done {
            return Ok((summary, total));
        }
        assert_eq!(progress.consumed, piece.len());
    }
    decoder.handle_eof().map(|summary| (summary, total))
}
