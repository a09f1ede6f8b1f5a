//! The answer decoder: never panics, never claims bytes that it was not given, and says the same whatever the cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mirror_daemon::http::{AnswerDecoder, AnswerError, AnswerSummary};

fuzz_target!(|input: (bool, u8, &[u8])| {
    let (is_head, piece_bytes, bytes) = input;
    let whole = read(is_head, bytes, bytes.len().max(1));
    let pieces = read(is_head, bytes, usize::from(piece_bytes).max(1));
    assert_eq!(whole, pieces);
});

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
