//! Joining and gaps: whatever is called known is true.

use super::super::*;
use super::{LIMITS, Random, encoder::Encoder, random_fields};

/// Runs one random stream with blocks that the decoder never sees, and returns known and unknown fields.
fn run(seed: u64, joined: bool) -> (usize, usize) {
    let mut random = Random::new(seed);
    let setting = [256, 4096, 16 * 1024, 100_000][random.below(4) as usize];
    let resize_percent = [0, 1, 10][random.below(3) as usize];
    let mut encoder = Encoder::new(setting, resize_percent);
    let mut decoder = if joined { HpackDecoder::joined(LIMITS) } else { HpackDecoder::new(LIMITS) };
    let mut out = FieldBlock::default();
    let first_seen = if joined { random.below(40) } else { 0 };
    let (mut known, mut unknown) = (0, 0);
    for number in 0..first_seen + 40 {
        let fields = random_fields(&mut random);
        let block = encoder.encode(&fields, &mut random);
        if number < first_seen {
            continue;
        }
        if random.percent(3) {
            decoder.forget();
            continue;
        }
        assert_eq!(decoder.decode(&block, &mut out), Ok(()), "seed {seed} block {number}");
        assert_eq!(out.len(), fields.len());
        for (field, truth) in out.iter().zip(&fields) {
            match field {
                DecodedField::Known { name, value, .. } => {
                    assert_eq!((name, value), (&truth.0[..], &truth.1[..]), "seed {seed} block {number}");
                    known += 1;
                }
                DecodedField::Unknown { value } => {
                    assert!(value.is_none_or(|value| value == truth.1), "seed {seed} block {number}");
                    unknown += 1;
                }
            }
        }
    }
    (known, unknown)
}

#[test]
fn after_a_join_or_lost_blocks_every_known_field_is_true() {
    let (mut known, mut unknown) = (0, 0);
    let factor: u64 = std::env::var("H2_RANDOM_FACTOR").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    for seed in 0..2_000 * factor {
        let (k, u) = run(seed, seed % 2 == 0);
        known += k;
        unknown += u;
    }
    assert!(known > unknown && unknown > 500, "{known} known, {unknown} unknown");
}

#[test]
fn after_a_size_update_to_zero_everything_is_known_again() {
    for seed in 0..200 {
        let mut random = Random::new(seed);
        let mut encoder = Encoder::new(4096, 0);
        for _ in 0..10 {
            let fields = random_fields(&mut random);
            encoder.encode(&fields, &mut random);
        }
        let mut decoder = HpackDecoder::joined(LIMITS);
        let mut out = FieldBlock::default();
        encoder.flush();
        for number in 0..20 {
            let fields = random_fields(&mut random);
            let mut block = encoder.encode(&fields, &mut random);
            if number == 0 {
                block = [b"\x20\x3f\xe1\x1f".as_slice(), &block].concat();
            }
            assert_eq!(decoder.decode(&block, &mut out), Ok(()));
            assert!(decoder.is_whole());
            assert_eq!(super::known_pairs(&out), Some(fields));
        }
    }
}
