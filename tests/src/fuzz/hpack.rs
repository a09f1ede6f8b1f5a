//! One byte: how many blocks pass before the second decoder joins, and whether it forgets later. Then header blocks,
//! each with two bytes of length before it.

use super::input::Input;
use mirror_daemon::http::h2::hpack::{DecodedField, FieldBlock, FieldLimits, HpackDecoder, MAX_TABLE_BYTES};

const LIMITS: FieldLimits = FieldLimits { list_bytes: 16 * 1024, count: 64 };
/// What a table may take: entries, and what is kept of each beside its octets.
const MAX_ALLOCATED_BYTES: usize = 16 * MAX_TABLE_BYTES as usize;

pub(super) fn run(input: &[u8]) {
    let mut input = Input(input);
    let Some(options) = input.byte() else { return };
    let (joins_at, forgets_at) = (options & 7, options >> 3);
    let mut whole = HpackDecoder::new(LIMITS);
    let mut joined = HpackDecoder::joined(LIMITS);
    let (mut truth, mut partial) = (FieldBlock::default(), FieldBlock::default());
    for number in 0_u8..=255 {
        let Some(length) = input.array() else { return };
        let block = input.bytes(u16::from_be_bytes(length).into());
        let outcome = whole.decode(block, &mut truth);
        assert!(truth.len() <= LIMITS.count);
        assert!(whole.allocated_bytes() <= MAX_ALLOCATED_BYTES, "{}", whole.allocated_bytes());
        if outcome.is_err() {
            // Both have forgotten all, and go on.
            joined.forget();
            continue;
        }
        if number == forgets_at {
            joined.forget();
        }
        if number >= joins_at {
            // What the whole table accepts, a part of it accepts too.
            joined.decode(block, &mut partial).expect("a right block");
            compare(&truth, &partial);
        }
    }
}

fn compare(truth: &FieldBlock, partial: &FieldBlock) {
    assert_eq!(truth.len(), partial.len());
    for (truth, partial) in truth.iter().zip(partial.iter()) {
        // What the first decoder lost, the second one lost too.
        if matches!(partial, DecodedField::Known { .. }) {
            assert_eq!(truth, partial);
        }
    }
}
