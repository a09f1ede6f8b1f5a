//! The Huffman code of header strings (RFC 7541, 5.2 and appendix B).
//!
//! The code is canonical: sorted by length and then by symbol, codes are consecutive. So the lengths alone
//! define it, and everything else is computed from them at compile time: a table of 4,096 entries (16 KiB)
//! that turns the next 12 bits into one or two symbols, and for the rare longer codes the first code of
//! each length.

use super::HpackError;

/// Bits that one look into [`STEPS`] takes.
const STEP_BITS: u32 = 12;
const STEP_COUNT: usize = 1 << STEP_BITS;
/// The symbol that must not appear in a string.
const EOS: u16 = 256;
const SYMBOL_COUNT: usize = 257;
const MAX_CODE_BITS: usize = 30;
/// The shortest length of which a step may not hold a code.
const LONG_CODE_BITS: usize = STEP_BITS as usize + 1;

/// Code length in bits by symbol; the last is EOS.
#[rustfmt::skip]
const CODE_BITS: [u8; SYMBOL_COUNT] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

/// What the next 12 bits say.
#[derive(Clone, Copy)]
struct Step {
    /// One or two symbols; the second is meaningless when `bits` equals `first_bits`.
    symbols: [u8; 2],
    /// Bits of the first symbol; 0 when its code is longer than a step.
    first_bits: u8,
    /// Bits of all symbols in this step.
    bits: u8,
}

/// The canonical code, by length.
struct Canonical {
    /// First code of each length, right-aligned.
    first_code: [u32; MAX_CODE_BITS + 1],
    /// How many codes have this length.
    count: [u32; MAX_CODE_BITS + 1],
    /// Where the symbols of this length start in `symbols`.
    offset: [u32; MAX_CODE_BITS + 1],
    /// Symbols by length, then by value.
    symbols: [u16; SYMBOL_COUNT],
}

static CANONICAL: Canonical = canonical();
static STEPS: [Step; STEP_COUNT] = steps();

/// Appends the decoded `coded` to `decoded`. On an error `decoded` may have grown by a part.
///
/// # Errors
/// [`HpackError::HuffmanEos`] when EOS is coded in full, [`HpackError::HuffmanPadding`] when the bits after
/// the last symbol are more than 7 or not all ones.
pub(super) fn decode(coded: &[u8], decoded: &mut Vec<u8>) -> Result<(), HpackError> {
    // The shortest code has 5 bits, and a step writes two bytes whether it needs both or not.
    let start = decoded.len();
    let most = coded.len().saturating_mul(8).checked_div(5).unwrap_or(0).saturating_add(2);
    decoded.resize(start.saturating_add(most), 0);
    let mut out = Output { bytes: decoded.get_mut(start..).unwrap_or_default(), len: 0 };
    let mut input = BitReader { rest: coded, window: 0, bits: 0 };
    let outcome = decode_all(&mut input, &mut out);
    let written = out.len;
    decoded.truncate(start.saturating_add(written));
    outcome
}

#[inline]
fn decode_all(input: &mut BitReader<'_>, out: &mut Output<'_>) -> Result<(), HpackError> {
    loop {
        input.refill();
        if input.bits < 2 * STEP_BITS {
            return decode_tail(input, out);
        }
        while input.bits >= STEP_BITS {
            let step = step_at(input.window);
            if step.first_bits == 0 {
                // At least 30 bits are needed to be sure of a long code.
                input.refill();
                decode_one(input, out)?;
                break;
            }
            out.push_step(step);
            input.consume(u32::from(step.bits));
        }
    }
}

/// The last bits, of which fewer than two steps are left.
fn decode_tail(input: &mut BitReader<'_>, out: &mut Output<'_>) -> Result<(), HpackError> {
    while !input.is_padding() {
        decode_one(input, out)?;
    }
    Ok(())
}

/// Decodes one symbol of any length.
fn decode_one(input: &mut BitReader<'_>, out: &mut Output<'_>) -> Result<(), HpackError> {
    let step = step_at(input.window);
    let (symbol, bits) = if step.first_bits == 0 {
        long_symbol(input.window).ok_or(HpackError::HuffmanPadding)?
    } else {
        let [first, _] = step.symbols;
        (u16::from(first), u32::from(step.first_bits))
    };
    if bits > input.bits {
        return Err(HpackError::HuffmanPadding);
    }
    // EOS is the only symbol that is no octet.
    let octet = u8::try_from(symbol).map_err(|_| HpackError::HuffmanEos)?;
    out.push(octet);
    input.consume(bits);
    Ok(())
}

#[inline]
fn step_at(window: u64) -> Step {
    let index = usize::try_from(window >> (u64::BITS - STEP_BITS)).unwrap_or(0);
    // The index has 12 bits, so the default is never taken.
    STEPS.get(index).copied().unwrap_or(Step { symbols: [0; 2], first_bits: 0, bits: 0 })
}

/// The symbol at the top of `window` whose code is longer than a step.
fn long_symbol(window: u64) -> Option<(u16, u32)> {
    for length in LONG_CODE_BITS..=MAX_CODE_BITS {
        let bits = u32::from(u8::try_from(length).ok()?);
        let code = u32::try_from(window.checked_shr(u64::BITS.saturating_sub(bits))?).ok()?;
        let place = code.wrapping_sub(*CANONICAL.first_code.get(length)?);
        if place < *CANONICAL.count.get(length)? {
            let index = CANONICAL.offset.get(length)?.checked_add(place)?;
            return CANONICAL.symbols.get(usize::try_from(index).ok()?).map(|&symbol| (symbol, bits));
        }
    }
    None
}

/// The next bits at the top of `window`, with ones behind them: the padding that is allowed anyway.
struct BitReader<'a> {
    rest: &'a [u8],
    window: u64,
    bits: u32,
}

impl BitReader<'_> {
    /// Fills the window to more than 56 bits, or with all there is.
    #[inline]
    fn refill(&mut self) {
        if let Some((word, _)) = self.rest.split_first_chunk::<8>() {
            let taken_bytes = 64_u32.saturating_sub(self.bits) / 8;
            let fresh = u64::from_be_bytes(*word).checked_shr(self.bits).unwrap_or(0);
            let kept = self.window & !u64::MAX.checked_shr(self.bits).unwrap_or(0);
            // Bits of a byte that is only partly in the window are read again with the next refill.
            self.window = kept | fresh;
            self.bits = self.bits.saturating_add(taken_bytes.saturating_mul(8));
            self.rest = self.rest.get(taken_bytes as usize..).unwrap_or_default();
            return;
        }
        self.refill_by_byte();
    }

    fn refill_by_byte(&mut self) {
        self.window &= !u64::MAX.checked_shr(self.bits).unwrap_or(0);
        while self.bits <= 56 {
            let Some((&byte, rest)) = self.rest.split_first() else { break };
            self.window |= u64::from(byte) << 56_u32.saturating_sub(self.bits);
            self.bits = self.bits.saturating_add(8);
            self.rest = rest;
        }
        self.window |= u64::MAX.checked_shr(self.bits).unwrap_or(0);
    }

    #[inline]
    fn consume(&mut self, bits: u32) {
        // Ones come in from the right only where `window` says so already; the count is what is true.
        self.window = !(!self.window).checked_shl(bits).unwrap_or(0);
        self.bits = self.bits.saturating_sub(bits);
    }

    /// True when all that is left is right padding: at most 7 bits, all ones (RFC 7541, 5.2).
    fn is_padding(&self) -> bool {
        self.rest.is_empty() && self.bits <= 7 && self.window == u64::MAX
    }
}

/// Where symbols go; sized beforehand for the most there can be.
struct Output<'a> {
    bytes: &'a mut [u8],
    len: usize,
}

impl Output<'_> {
    #[inline]
    fn push_step(&mut self, step: Step) {
        if let Some(place) = self.bytes.get_mut(self.len..self.len.saturating_add(2)) {
            place.copy_from_slice(&step.symbols);
        }
        self.len = self.len.saturating_add(1).saturating_add(usize::from(step.bits != step.first_bits));
    }

    #[inline]
    fn push(&mut self, octet: u8) {
        if let Some(place) = self.bytes.get_mut(self.len) {
            *place = octet;
        }
        self.len = self.len.saturating_add(1);
    }
}

/// Computed at compile time: an index out of range would stop the build.
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]
const fn canonical() -> Canonical {
    let mut table = Canonical {
        first_code: [0; MAX_CODE_BITS + 1],
        count: [0; MAX_CODE_BITS + 1],
        offset: [0; MAX_CODE_BITS + 1],
        symbols: [0; SYMBOL_COUNT],
    };
    let (mut bits, mut code, mut place) = (1, 0_u32, 0);
    while bits <= MAX_CODE_BITS {
        code <<= 1;
        table.first_code[bits] = code;
        table.offset[bits] = place as u32;
        let mut symbol = 0;
        while symbol < SYMBOL_COUNT {
            if CODE_BITS[symbol] as usize == bits {
                table.symbols[place] = symbol as u16;
                place += 1;
                code += 1;
            }
            symbol += 1;
        }
        table.count[bits] = code - table.first_code[bits];
        bits += 1;
    }
    table
}

/// Computed at compile time: an index out of range would stop the build.
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]
const fn steps() -> [Step; STEP_COUNT] {
    let code = canonical();
    let mut steps = [Step { symbols: [0; 2], first_bits: 0, bits: 0 }; STEP_COUNT];
    let mut place = 0;
    while place < SYMBOL_COUNT {
        let symbol = code.symbols[place];
        let bits = CODE_BITS[symbol as usize] as u32;
        if bits > STEP_BITS {
            break;
        }
        let number = place as u32 - code.offset[bits as usize];
        let first = ((code.first_code[bits as usize] + number) << (STEP_BITS - bits)) as usize;
        let mut index = first;
        while index < first + (1 << (STEP_BITS - bits)) {
            steps[index] = Step { symbols: [symbol as u8, 0], first_bits: bits as u8, bits: bits as u8 };
            index += 1;
        }
        place += 1;
    }
    let mut index = 0;
    while index < STEP_COUNT {
        let first = steps[index];
        let second = steps[(index << first.first_bits) & (STEP_COUNT - 1)];
        if first.first_bits > 0 && second.first_bits > 0 && first.first_bits + second.first_bits <= 12 {
            steps[index].symbols[1] = second.symbols[0];
            steps[index].bits = first.first_bits + second.first_bits;
        }
        index += 1;
    }
    steps
}

const _: () = assert!(EOS as usize == SYMBOL_COUNT - 1);

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]
pub(in crate::http::h2) mod tests {
    use super::*;
    use std::sync::LazyLock;

    /// Encodes for tests.
    pub(in crate::http::h2) fn encode(text: &[u8]) -> Vec<u8> {
        let (mut coded, mut window, mut bits) = (Vec::new(), 0_u64, 0);
        for &octet in text {
            let (code, length) = code(usize::from(octet));
            window = window << length | code;
            bits += length;
            while bits >= 8 {
                bits -= 8;
                coded.push((window >> bits) as u8);
            }
        }
        if bits > 0 {
            coded.push((window << (8 - bits)) as u8 | (0xff >> bits));
        }
        coded
    }

    /// The code of `symbol` and its length in bits.
    fn code(symbol: usize) -> (u64, u32) {
        static CODES: LazyLock<Vec<(u64, u32)>> = LazyLock::new(|| (0..SYMBOL_COUNT).map(search).collect());
        CODES[symbol]
    }

    fn search(symbol: usize) -> (u64, u32) {
        let length = usize::from(CODE_BITS[symbol]);
        let offset = CANONICAL.offset[length] as usize;
        let place = (offset..SYMBOL_COUNT)
            .find(|&place| usize::from(CANONICAL.symbols[place]) == symbol)
            .expect("every symbol has a place");
        (u64::from(CANONICAL.first_code[length]) + (place - offset) as u64, length as u32)
    }

    fn decoded(coded: &[u8]) -> Result<Vec<u8>, HpackError> {
        let mut out = Vec::new();
        decode(coded, &mut out).map(|()| out)
    }

    #[test]
    fn examples_of_the_rfc_are_decoded() {
        let coded = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        assert_eq!(decoded(&coded).as_deref(), Ok(&b"www.example.com"[..]));
        assert_eq!(encode(b"www.example.com"), coded);
        assert_eq!(decoded(&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]).as_deref(), Ok(&b"no-cache"[..]));
        assert_eq!(decoded(&[]).as_deref(), Ok(&b""[..]));
    }

    #[test]
    fn every_octet_comes_back_alone_and_among_others() {
        for octet in 0..=255_u8 {
            for length in 1..=9 {
                let text = vec![octet; length];
                assert_eq!(decoded(&encode(&text)), Ok(text.clone()), "{octet} x {length}");
                let mixed = [b"e/".as_slice(), &text, b"0~a"].concat();
                assert_eq!(decoded(&encode(&mixed)), Ok(mixed.clone()), "{octet} x {length} mixed");
            }
        }
    }

    #[test]
    fn wrong_padding_and_eos_are_refused() {
        // 'a' is 00011: three bits of padding.
        assert_eq!(decoded(&[0b0001_1111]).as_deref(), Ok(&b"a"[..]));
        assert_eq!(decoded(&[0b0001_1110]), Err(HpackError::HuffmanPadding));
        assert_eq!(decoded(&[0b0001_1000]), Err(HpackError::HuffmanPadding));
        assert_eq!(decoded(&[0b0001_1111, 0xff]), Err(HpackError::HuffmanPadding));
        assert_eq!(decoded(&[0xff]), Err(HpackError::HuffmanPadding));
        assert_eq!(decoded(&[0xff; 3]), Err(HpackError::HuffmanPadding));
        assert_eq!(decoded(&[0xff; 4]), Err(HpackError::HuffmanEos));
        assert_eq!(code(usize::from(EOS)), (0x3fff_ffff, 30));
    }

    #[test]
    fn the_code_is_complete() {
        let kraft: u64 = CODE_BITS.iter().map(|&bits| 1_u64 << (30 - bits)).sum();
        assert_eq!(kraft, 1 << 30);
    }
}
