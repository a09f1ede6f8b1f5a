//! What HPACK decoding claims, against the public corpus, two published decoders and a random encoder.

mod corpus;
mod differential;
pub(in crate::http::h2) mod encoder;
mod tolerant;

use super::*;

pub(in crate::http::h2) const LIMITS: FieldLimits = FieldLimits { list_bytes: 1 << 20, count: 4096 };

/// A small generator with a seed (xorshift), so that every case can be repeated.
pub(in crate::http::h2) struct Random(pub u64);

impl Random {
    pub(in crate::http::h2) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(in crate::http::h2) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(in crate::http::h2) fn below(&mut self, bound: u32) -> u32 {
        (((self.next() >> 32) * u64::from(bound)) >> 32) as u32
    }

    pub(in crate::http::h2) fn percent(&mut self, percent: u32) -> bool {
        self.below(100) < percent
    }
}

/// Random fields with few distinct names and values, so that they meet again in the table.
pub(in crate::http::h2) fn random_fields(random: &mut Random) -> Vec<encoder::Pair> {
    let names =
        ["x-a", "x-request-id", "cookie", "accept", "authorization", ":path", "te", "x-long-name-of-a-field"];
    (0..random.below(12))
        .map(|_| {
            let name = names[random.below(names.len() as u32) as usize].as_bytes().to_vec();
            let value = match random.below(10) {
                0..6 => format!("v{}", random.below(12)).into_bytes(),
                6..9 => format!("{:x}", random.next()).into_bytes(),
                _ => (0..random.below(400)).map(|_| random.below(256) as u8).collect(),
            };
            (name, value)
        })
        .collect()
}

pub(super) fn known_pairs(block: &FieldBlock) -> Option<Vec<encoder::Pair>> {
    block
        .iter()
        .map(|field| match field {
            DecodedField::Known { name, value, .. } => Some((name.to_vec(), value.to_vec())),
            DecodedField::Unknown { .. } => None,
        })
        .collect()
}

fn decoded(blocks: &[&[u8]]) -> Result<Vec<encoder::Pair>, HpackError> {
    let mut decoder = HpackDecoder::new(LIMITS);
    let mut out = FieldBlock::default();
    for block in blocks {
        decoder.decode(block, &mut out)?;
    }
    Ok(known_pairs(&out).expect("all known"))
}

#[test]
fn example_c_2_1_of_the_rfc_is_decoded() {
    let block = b"\x40\x0acustom-key\x0dcustom-header";
    let field = (b"custom-key".to_vec(), b"custom-header".to_vec());
    assert_eq!(decoded(&[block]), Ok(vec![field.clone()]));
    assert_eq!(decoded(&[block, b"\xbe"]), Ok(vec![field]));
}

#[test]
fn broken_blocks_name_the_rule() {
    assert_eq!(decoded(&[b"\x80"]), Err(HpackError::InvalidIndex));
    assert_eq!(decoded(&[b"\xbe"]), Err(HpackError::InvalidIndex));
    assert_eq!(decoded(&[b"\x40"]), Err(HpackError::Truncated));
    assert_eq!(decoded(&[b"\x40\x05ab"]), Err(HpackError::Truncated));
    assert_eq!(decoded(&[b"\x82\x20"]), Err(HpackError::SizeUpdateMisplaced));
    assert_eq!(decoded(&[b"\xff\xff\xff\xff\xff\xff\x01"]), Err(HpackError::IntegerTooLarge));
    assert_eq!(decoded(&[b"\x3f\x61\x82"]), Ok(vec![(b":method".to_vec(), b"GET".to_vec())]));
}

#[test]
fn size_update_is_bounded_by_the_setting() {
    let mut out = FieldBlock::default();
    for (setting, right) in [(127, false), (128, true)] {
        let mut decoder = HpackDecoder::new(LIMITS);
        decoder.bound_size_updates(setting);
        let outcome = decoder.decode(b"\x3f\x61", &mut out);
        assert_eq!(outcome, if right { Ok(()) } else { Err(HpackError::SizeUpdateTooLarge) });
    }
}

#[test]
fn never_indexed_is_reported() {
    let mut out = FieldBlock::default();
    HpackDecoder::new(LIMITS).decode(b"\x10\x01a\x01b\x00\x01c\x01d", &mut out).expect("a right block");
    let flags: Vec<_> =
        out.iter().map(|field| matches!(field, DecodedField::Known { never_indexed: true, .. })).collect();
    assert_eq!(flags, [true, false]);
}

#[test]
fn fields_beyond_the_limit_are_left_out_and_the_table_stays_right() {
    let mut out = FieldBlock::default();
    for (list_bytes, count, fits) in [(68, 2, true), (67, 2, false), (68, 1, false)] {
        let mut decoder = HpackDecoder::new(FieldLimits { list_bytes, count });
        let outcome = decoder.decode(b"\x40\x01a\x01b\x40\x01c\x01d", &mut out);
        assert_eq!(outcome, if fits { Ok(()) } else { Err(HpackError::FieldsTooLarge) });
        assert_eq!(decoder.decode(b"\xbe", &mut out), Ok(()));
        assert_eq!(known_pairs(&out), Some(vec![(b"c".to_vec(), b"d".to_vec())]));
    }
}

#[test]
fn a_header_bomb_ends_early_and_forgets_the_table() {
    let limits = FieldLimits { list_bytes: 8192, count: 100 };
    let mut decoder = HpackDecoder::new(limits);
    let mut out = FieldBlock::default();
    let mut block = b"\x40\x01a".to_vec();
    encoder::integer(4000, 7, 0, &mut block);
    block.extend(vec![b'v'; 4000]);
    block.extend(vec![0xbe; 100_000]);
    assert_eq!(decoder.decode(&block, &mut out), Err(HpackError::FieldsTooLarge));
    assert!(!decoder.is_whole());
    // What does not fit is not copied first.
    assert!(out.allocated_bytes() < 16 * 1024, "{}", out.allocated_bytes());
}

#[test]
fn fields_up_to_four_times_the_limit_keep_the_table_and_one_byte_more_loses_it() {
    let limits = FieldLimits { list_bytes: 1024, count: 1000 };
    for (beyond, is_kept) in [(-1, true), (0, true), (1, false)] {
        let mut decoder = HpackDecoder::new(limits);
        let mut out = FieldBlock::default();
        // An entry of 64 bytes, which is named 62 times, and a field of 33 and its value's bytes that ends the block.
        let mut block = b"\x40\x01a".to_vec();
        encoder::integer(31, 7, 0, &mut block);
        block.extend([b'v'; 31]);
        block.extend([0xbe; 62]);
        block.extend(b"\x00\x01b");
        let value_bytes = usize::try_from(31 + beyond).expect("not below 0");
        encoder::integer(value_bytes, 7, 0, &mut block);
        block.extend(vec![b'w'; value_bytes]);
        assert_eq!(decoder.decode(&block, &mut out), Err(HpackError::FieldsTooLarge), "{beyond}");
        assert_eq!(decoder.is_whole(), is_kept, "{beyond}");
        let entry = (b"a".to_vec(), vec![b'v'; 31]);
        assert_eq!(decoder.decode(b"\xbe", &mut out), Ok(()), "{beyond}");
        assert_eq!(known_pairs(&out), is_kept.then(|| vec![entry]), "{beyond}");
    }
}

/// The most that [`crate::http::h2::connection`] lets a block be, made as a sound encoder would: all of it is decoded.
#[test]
fn largest_block_of_a_sound_encoder_is_no_bomb() {
    let limits = FieldLimits { list_bytes: 128 * 1024, count: 256 };
    let mut decoder = HpackDecoder::new(limits);
    let mut out = FieldBlock::default();
    // A table of 64 KiB, full of 64 entries.
    let mut fill = Vec::new();
    encoder::integer(64 * 1024, 5, 0x20, &mut fill);
    for _ in 0..64 {
        fill.extend(b"\x40\x01a");
        encoder::integer(1024 - 33, 7, 0, &mut fill);
        fill.extend([b'v'; 1024 - 33]);
    }
    assert_eq!(decoder.decode(&fill, &mut out), Ok(()));
    // Every entry once, and 128 KiB of literals in the shortest codes there are.
    let mut block: Vec<u8> = (0..64).map(|index| 0x80 | (62 + index)).collect();
    for _ in 0..8 {
        block.extend(b"\x00\x01b");
        encoder::integer(16_000, 7, 0x80, &mut block);
        // "0" is 00000: eight of them fill five octets.
        block.extend([0; 16_000]);
    }
    assert!(block.len() <= 128 * 1024);
    assert_eq!(decoder.decode(&block, &mut out), Err(HpackError::FieldsTooLarge));
    assert!(decoder.is_whole());
    assert_eq!(decoder.decode(b"\xbe", &mut out), Ok(()));
    assert_eq!(out.unknown_count(), 0);
}

#[test]
fn name_by_an_unknown_index_stays_unknown_and_its_value_is_known() {
    let mut decoder = HpackDecoder::joined(LIMITS);
    let mut out = FieldBlock::default();
    // A literal with the name of the fourth entry, inserted; then that new entry by index.
    decoder.decode(b"\x7f\x02\x01v\xbe\xbf", &mut out).expect("a right block");
    let fields: Vec<_> = out.iter().collect();
    let value_only = DecodedField::Unknown { value: Some(b"v") };
    assert_eq!(fields, [value_only, value_only, DecodedField::Unknown { value: None }]);
    assert_eq!(out.unknown_count(), 3);
    assert!(!decoder.is_whole());
}

#[test]
fn labels_are_listed_once_and_differ() {
    let labels: std::collections::BTreeSet<_> = HpackError::ALL.iter().map(|kind| kind.label()).collect();
    assert_eq!(labels.len(), HpackError::ALL.len());
    for (place, kind) in HpackError::ALL.iter().enumerate() {
        assert_eq!(usize::from(*kind as u8), place);
    }
}
