//! The same random and damaged header blocks through two published decoders.

use super::super::*;
use super::encoder::{Encoder, Pair};
use super::{LIMITS, Random, corpus, known_pairs, random_fields};
use std::panic::{AssertUnwindSafe, catch_unwind};

type Answer = Option<Vec<Pair>>;

/// Blocks that all three decode; more by `H2_DIFFERENTIAL_BLOCKS`.
const DEFAULT_BLOCKS: u64 = 4_000;

/// The three decoders of one connection; each is left out from its first error on, for after it their
/// tables need not agree.
struct Trio {
    ours: HpackDecoder,
    httlib: Option<httlib_hpack::Decoder<'static>>,
    loona: Option<loona_hpack::Decoder<'static>>,
}

impl Trio {
    fn new() -> Self {
        let mut ours = HpackDecoder::new(LIMITS);
        ours.bound_size_updates(4096);
        Self {
            ours,
            httlib: Some(httlib_hpack::Decoder::default()),
            loona: Some(loona_hpack::Decoder::new()),
        }
    }

    /// Decodes one block; false once ours refused it.
    fn decode(&mut self, block: &[u8], seed: u64) -> bool {
        let mut out = FieldBlock::default();
        let ours: Answer = match self.ours.decode(block, &mut out) {
            Ok(()) => known_pairs(&out),
            Err(_) => None,
        };
        let httlib = self.httlib.as_mut().and_then(|decoder| by_httlib(decoder, block));
        let loona = self.loona.as_mut().and_then(|decoder| by_loona(decoder, block));
        for (name, theirs) in [("httlib", &httlib), ("loona", &loona)] {
            if let (Some(ours), Some(theirs)) = (&ours, theirs) {
                assert_eq!(ours, theirs, "{name}, seed {seed}, block {block:02x?}");
            }
        }
        self.httlib = self.httlib.take().filter(|_| httlib.is_some());
        self.loona = self.loona.take().filter(|_| loona.is_some());
        ours.is_some()
    }
}

fn by_httlib(decoder: &mut httlib_hpack::Decoder<'static>, block: &[u8]) -> Answer {
    let mut block = block.to_vec();
    let mut fields = Vec::new();
    let outcome = catch_unwind(AssertUnwindSafe(|| decoder.decode(&mut block, &mut fields).is_ok()));
    matches!(outcome, Ok(true)).then(|| fields.into_iter().map(|(name, value, _)| (name, value)).collect())
}

fn by_loona(decoder: &mut loona_hpack::Decoder<'static>, block: &[u8]) -> Answer {
    catch_unwind(AssertUnwindSafe(|| decoder.decode(block).ok())).ok().flatten()
}

fn damage(block: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(3) {
        let place = random.below(block.len() as u32 + 1) as usize;
        match random.below(5) {
            0 => block.truncate(place),
            1 => block.insert(place, random.below(256) as u8),
            2 if place < block.len() => {
                block.remove(place);
            }
            _ if place < block.len() => block[place] ^= 1 << random.below(8),
            _ => block.push(random.below(256) as u8),
        }
    }
}

/// From here on panics of the oracles, which are caught, print nothing; all others do.
fn silence_oracles() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let file = panic.location().map_or("", |location| location.file());
            if !["httlib", "loona"].iter().any(|oracle| file.contains(oracle)) {
                print(panic);
            }
        }));
    });
}

#[test]
fn random_and_damaged_blocks_never_get_another_answer_than_the_oracles_give() {
    let wanted = std::env::var("H2_DIFFERENTIAL_BLOCKS").ok().and_then(|text| text.parse().ok());
    let wanted = wanted.unwrap_or(DEFAULT_BLOCKS);
    let (mut blocks, mut accepted, mut seed) = (0_u64, 0_u64, 0_u64);
    silence_oracles();
    while blocks < wanted {
        seed += 1;
        let mut random = Random::new(seed);
        let mut encoder = Encoder::new(4096, 5);
        let mut trio = Trio::new();
        for _ in 0..12 {
            let mut block = encoder.encode(&random_fields(&mut random), &mut random);
            if random.percent(15) {
                damage(&mut block, &mut random);
            }
            if random.percent(3) {
                block = (0..random.below(60)).map(|_| random.below(256) as u8).collect();
            }
            blocks += 1;
            if !trio.decode(&block, seed) {
                break;
            }
            accepted += 1;
        }
    }
    assert!(accepted * 2 > blocks, "{accepted} of {blocks} accepted");
}

#[test]
fn damaged_corpus_blocks_never_get_another_answer_than_the_oracles_give() {
    silence_oracles();
    for (number, (_, cases)) in corpus::stories().iter().enumerate() {
        let mut random = Random::new(number as u64);
        let mut trio = Trio::new();
        for case in cases.iter().take_while(|case| case.setting.is_none()).take(12) {
            let mut block = case.wire.clone();
            if random.percent(20) {
                damage(&mut block, &mut random);
            }
            if !trio.decode(&block, number as u64) {
                break;
            }
        }
    }
}
