//! Values of the header fields that frame messages (RFC 9112, 6).

/// The members of a comma-separated list without white space around them; empty members are left out
/// (RFC 9110, 5.6.1).
pub(super) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}

/// A Content-Length value: digits only, or a list of one and the same number (RFC 9112, 6.3, point 5).
/// `None` for anything else, also for what does not fit 64 bits.
pub(super) fn content_length(value: &[u8]) -> Option<u64> {
    let mut numbers = value.split(|byte| *byte == b',').map(|member| digits(member.trim_ascii()));
    let first = numbers.next()??;
    numbers.all(|number| number == Some(first)).then_some(first)
}

fn digits(text: &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for byte in text {
        let digit = byte.is_ascii_digit().then(|| byte.wrapping_sub(b'0'))?;
        number = number.checked_mul(10)?.checked_add(digit.into())?;
    }
    (!text.is_empty()).then_some(number)
}
