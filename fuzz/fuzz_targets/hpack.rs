//! HPACK: never panics, never keeps more than its bounds, and joined late it never contradicts the decoder
//! that saw all.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mirror_daemon::http::h2::hpack::{DecodedField, FieldBlock, FieldLimits, HpackDecoder};

const LIMITS: FieldLimits = FieldLimits { list_bytes: 16 * 1024, count: 64 };

fuzz_target!(|input: (u8, Vec<&[u8]>)| {
    let (join, blocks) = input;
    let mut whole = HpackDecoder::new(LIMITS);
    let mut joined = HpackDecoder::joined(LIMITS);
    let (mut truth, mut partial) = (FieldBlock::default(), FieldBlock::default());
    for (number, block) in blocks.iter().enumerate() {
        let outcome = whole.decode(block, &mut truth);
        assert!(truth.len() <= LIMITS.count);
        assert!(whole.allocated_bytes() < 1 << 20);
        if outcome.is_err() {
            return;
        }
        if number >= usize::from(join % 8) {
            // What the whole table accepts, a part of it accepts too.
            joined.decode(block, &mut partial).expect("a right block");
            assert_eq!(truth.len(), partial.len());
            for (truth, partial) in truth.iter().zip(partial.iter()) {
                if matches!(partial, DecodedField::Known { .. }) {
                    assert_eq!(truth, partial);
                }
            }
        }
    }
});
