//! Integers with a prefix of 1 to 8 bits (RFC 7541, 5.1).

use super::HpackError;

/// Most octets after the prefix. Five carry 35 bits, more than any length or size that can be right here;
/// an encoder that pads with zero octets beyond that is refused.
const MAX_CONTINUATION_OCTETS: u32 = 5;

/// Reads the integer whose first octet is `first` and whose further octets are at the start of `rest`.
/// `rest` moves on behind it. `prefix_bits` is 1 to 8.
///
/// # Errors
/// [`HpackError::Truncated`] when the octets end, [`HpackError::IntegerTooLarge`] beyond `u32` or
/// [`MAX_CONTINUATION_OCTETS`].
#[inline]
pub(super) fn read(first: u8, prefix_bits: u32, rest: &mut &[u8]) -> Result<u32, HpackError> {
    let mask = u8::MAX.checked_shr(8_u32.saturating_sub(prefix_bits)).unwrap_or(u8::MAX);
    let prefix = first & mask;
    if prefix < mask {
        return Ok(u32::from(prefix));
    }
    read_continuation(u64::from(prefix), rest)
}

fn read_continuation(prefix: u64, rest: &mut &[u8]) -> Result<u32, HpackError> {
    let mut value = prefix;
    for octet_number in 0..MAX_CONTINUATION_OCTETS {
        let (&octet, tail) = rest.split_first().ok_or(HpackError::Truncated)?;
        *rest = tail;
        let bits = u64::from(octet & 0x7f) << octet_number.saturating_mul(7);
        value = value.saturating_add(bits);
        if octet & 0x80 == 0 {
            return u32::try_from(value).map_err(|_| HpackError::IntegerTooLarge);
        }
    }
    Err(HpackError::IntegerTooLarge)
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]
mod tests {
    use super::*;

    fn value(bytes: &[u8], prefix_bits: u32) -> Result<(u32, usize), HpackError> {
        let (first, mut rest) = bytes.split_first().expect("a first octet");
        read(*first, prefix_bits, &mut rest).map(|value| (value, rest.len()))
    }

    #[test]
    fn examples_of_the_rfc_are_read() {
        assert_eq!(value(&[0b1110_1010], 5), Ok((10, 0)));
        assert_eq!(value(&[0b0001_1111, 0b1001_1010, 0b0000_1010], 5), Ok((1337, 0)));
        assert_eq!(value(&[42], 8), Ok((42, 0)));
        assert_eq!(value(&[255, 0, 9], 8), Ok((255, 1)));
    }

    #[test]
    fn limits_are_exact() {
        let largest = u32::MAX - 31;
        let mut bytes = vec![31_u8];
        let mut left = largest;
        while left >= 128 {
            bytes.push((left % 128) as u8 | 0x80);
            left /= 128;
        }
        bytes.push(left as u8);
        assert_eq!(value(&bytes, 5), Ok((u32::MAX, 0)));
        assert_eq!(value(&[31, 0xe1, 0xff, 0xff, 0xff, 0x0f], 5), Err(HpackError::IntegerTooLarge));
        assert_eq!(value(&[31, 0x80, 0x80, 0x80, 0x80, 0x80, 0], 5), Err(HpackError::IntegerTooLarge));
        assert_eq!(value(&[31, 0x80, 0x80, 0x80, 0x80, 0], 5), Ok((31, 0)));
        assert_eq!(value(&[31], 5), Err(HpackError::Truncated));
        assert_eq!(value(&[31, 0x80], 5), Err(HpackError::Truncated));
    }
}
