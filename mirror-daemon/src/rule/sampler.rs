//! Which requests a percentage picks. No chance is in it: a keyed hash of a stable key decides.
//!
//! - The same key gets the same answer on every node and after every restart.
//! - Raising a share only adds requests: a share is a threshold on the hash.
//! - Mirrors with the same salt and key see the same requests.

use super::matching::query_value;
use super::{Sampling, Sender};
use crate::http::RequestHead;
use siphasher::sip::SipHasher24;
use siphasher::sip128::{Hasher128, SipHasher24 as KeyHasher};
use std::fmt;
use std::hash::Hasher;

/// An exact share, `numerator / denominator`, from 0 to 1.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    numerator: u64,
    denominator: u64,
}

/// Why a number is no share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShareFault {
    /// Not a decimal number.
    #[error("is not a number")]
    NotANumber,
    /// Below 0, above 100 %, NaN or infinite.
    #[error("is out of range; allowed is 0 to 100")]
    Range,
    /// A numerator above its denominator, or a denominator of 0.
    #[error("is out of range; allowed is 0/n to n/n, n at least 1")]
    Fraction,
    /// More decimals than [`Share::MAX_DECIMALS`].
    #[error("has too many decimals; allowed are 12")]
    TooFine,
}

/// What a share is taken by. Whatever is missing in a request, its per-request key serves instead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SampleBy {
    /// Per request: the request id header, else the connection's addresses and ports and the request's
    /// number in it.
    #[default]
    Request,
    /// The value of the first header field of this name.
    Header(String),
    /// The value of the first cookie of this name.
    Cookie(String),
    /// The value of the first query parameter of this name, as written.
    Query(String),
    /// The client's address.
    ClientIp,
}

/// What a request's key was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyUsed {
    /// The header field, cookie, query parameter or address that was asked for.
    Wanted,
    /// The request id header.
    RequestId,
    /// The connection and the request's number in it.
    Connection,
}

/// One mirror's choice.
#[derive(Debug)]
pub(super) struct Sampler {
    pub(super) share: Share,
    pub(super) by: SampleBy,
    request_id: String,
    key0: u64,
    key1: u64,
}

impl Share {
    /// Most decimals of a percentage: far below 1 ppm, and no overflow in sight.
    pub const MAX_DECIMALS: u32 = 12;
    /// Every request.
    pub const ALL: Self = Self { numerator: 1, denominator: 1 };
    /// No request.
    pub const NONE: Self = Self { numerator: 0, denominator: 1 };

    /// `numerator / denominator`.
    ///
    /// # Errors
    /// The denominator is 0, or the fraction above 1.
    pub const fn fraction(numerator: u64, denominator: u64) -> Result<Self, ShareFault> {
        if denominator == 0 || numerator > denominator {
            return Err(ShareFault::Fraction);
        }
        Ok(Self { numerator, denominator })
    }

    /// A percentage as it is written: `0.39` is 39/10000, with no binary fraction in between. Takes a sign
    /// and an exponent as well.
    ///
    /// # Errors
    /// It is no number, not within 0 to 100, or finer than [`Share::MAX_DECIMALS`].
    pub fn percent(text: &str) -> Result<Self, ShareFault> {
        let (negative, unsigned) = match text.as_bytes().first() {
            Some(b'-') => (true, text.get(1..).unwrap_or_default()),
            Some(b'+') => (false, text.get(1..).unwrap_or_default()),
            _ => (false, text),
        };
        if matches!(unsigned, "nan" | "inf" | "NaN") {
            return Err(ShareFault::Range);
        }
        let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
        let (whole, decimals) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() && decimals.is_empty() || !is_digits(whole) || !is_digits(decimals) {
            return Err(ShareFault::NotANumber);
        }
        let exponent: i64 = exponent.parse().map_err(|_| ShareFault::NotANumber)?;
        let digits = format!("{whole}{decimals}");
        let scale = i64::try_from(decimals.len()).ok().and_then(|scale| scale.checked_sub(exponent));
        scaled(&digits, scale.ok_or(ShareFault::Range)?, negative)
    }

    /// Whether this share picks what hashes to `hash`: `hash / 2^64 < numerator / denominator`, exactly.
    #[must_use]
    pub fn picks(self, hash: u64) -> bool {
        // Below 2^64 * 2^64: it can't overflow.
        let place = u128::from(hash).saturating_mul(self.denominator.into()) >> 64;
        place < u128::from(self.numerator)
    }

    /// True when no request's key can make a difference: none, or all of them.
    #[must_use]
    pub const fn is_certain(self) -> bool {
        self.numerator == 0 || self.numerator == self.denominator
    }
}

impl PartialEq for Share {
    fn eq(&self, other: &Self) -> bool {
        let cross = |left: u64, right: u64| u128::from(left).saturating_mul(right.into());
        cross(self.numerator, other.denominator) == cross(other.numerator, self.denominator)
    }
}

impl Eq for Share {}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = u128::from(self.numerator).saturating_mul(100);
        let denominator = u128::from(self.denominator.max(1));
        let mut text = rest.div_euclid(denominator).to_string();
        rest = rest.rem_euclid(denominator);
        for place in 0..Self::MAX_DECIMALS {
            if rest == 0 {
                break;
            }
            if place == 0 {
                text.push('.');
            }
            rest = rest.saturating_mul(10);
            text.push_str(&rest.div_euclid(denominator).to_string());
            rest = rest.rem_euclid(denominator);
        }
        if rest == 0 { write!(f, "{text} %") } else { write!(f, "{}/{}", self.numerator, self.denominator) }
    }
}

impl fmt::Display for SampleBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request => f.write_str("request"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
            Self::Query(name) => write!(f, "query:{name}"),
            Self::ClientIp => f.write_str("client_ip"),
        }
    }
}

/// Kinds of keys as they are hashed: one byte in front of the key, so that kinds never meet.
#[derive(Clone, Copy)]
enum KeyKind {
    RequestId = 1,
    Connection = 2,
    Header = 3,
    Cookie = 4,
    Query = 5,
    ClientIp = 6,
}

impl Sampler {
    pub(super) fn new(share: Share, by: SampleBy, salt: &str, sampling: &Sampling) -> Self {
        let mut key = KeyHasher::new();
        key.write(sampling.seed.as_bytes());
        // 0xff is in no UTF-8 text: seed and salt can't be shifted against each other.
        key.write(&[0xff]);
        key.write(salt.as_bytes());
        let key = key.finish128();
        Self { share, by, request_id: sampling.request_id.clone(), key0: key.h1, key1: key.h2 }
    }

    /// Whether this request is picked.
    pub(super) fn picks(&self, head: &RequestHead<'_>, sender: &Sender) -> bool {
        if self.share.is_certain() {
            return self.share == Share::ALL;
        }
        self.share.picks(self.hash(head, sender))
    }

    /// What [`Sampler::hash`] makes the key of.
    pub(super) fn key_used(&self, head: &RequestHead<'_>) -> KeyUsed {
        if matches!(self.by, SampleBy::ClientIp) || self.wanted(head).is_some() {
            return KeyUsed::Wanted;
        }
        if self.request_id(head).is_some() { KeyUsed::RequestId } else { KeyUsed::Connection }
    }

    pub(super) fn hash(&self, head: &RequestHead<'_>, sender: &Sender) -> u64 {
        if matches!(self.by, SampleBy::ClientIp) {
            return match sender.client_ip.to_canonical() {
                std::net::IpAddr::V4(address) => self.hash_bytes(KeyKind::ClientIp, &address.octets()),
                std::net::IpAddr::V6(address) => self.hash_bytes(KeyKind::ClientIp, &address.octets()),
            };
        }
        let found = self.wanted(head);
        if let Some((kind, bytes)) = found.or_else(|| Some((KeyKind::RequestId, self.request_id(head)?))) {
            return self.hash_bytes(kind, bytes);
        }
        self.hash_connection(sender)
    }

    /// The key that was asked for, when the request has it; an empty value is none.
    fn wanted<'a>(&self, head: &RequestHead<'a>) -> Option<(KeyKind, &'a [u8])> {
        let (kind, value) = match &self.by {
            SampleBy::Request | SampleBy::ClientIp => return None,
            SampleBy::Header(name) => (KeyKind::Header, head.field(name)?),
            SampleBy::Cookie(name) => (KeyKind::Cookie, cookie(head, name)?),
            SampleBy::Query(name) => (KeyKind::Query, query_value(head.query()?, name)?.as_bytes()),
        };
        (!value.is_empty()).then_some((kind, value))
    }

    fn request_id<'a>(&self, head: &RequestHead<'a>) -> Option<&'a [u8]> {
        head.field(&self.request_id).filter(|value| !value.is_empty())
    }

    fn hash_bytes(&self, kind: KeyKind, bytes: &[u8]) -> u64 {
        let mut hasher = SipHasher24::new_with_keys(self.key0, self.key1);
        hasher.write(&[kind as u8]);
        hasher.write(bytes);
        hasher.finish()
    }

    /// The capture point is left out: which of several hooks saw a connection must not matter.
    fn hash_connection(&self, sender: &Sender) -> u64 {
        let mut hasher = SipHasher24::new_with_keys(self.key0, self.key1);
        hasher.write(&[KeyKind::Connection as u8]);
        hasher.write(&sender.flow.gateway_addr);
        hasher.write(&sender.flow.gateway_port.to_be_bytes());
        hasher.write(&sender.flow.remote_addr);
        hasher.write(&sender.flow.remote_port.to_be_bytes());
        hasher.write(&sender.number.0.to_be_bytes());
        hasher.finish()
    }
}

/// `digits / 10^scale` percent as a share.
fn scaled(digits: &str, scale: i64, negative: bool) -> Result<Share, ShareFault> {
    let significant = digits.trim_start_matches('0');
    if significant.is_empty() {
        return Ok(Share::NONE);
    }
    if negative {
        return Err(ShareFault::Range);
    }
    let trimmed = significant.trim_end_matches('0');
    let zeros = significant.len().saturating_sub(trimmed.len());
    let scale = scale.saturating_sub(i64::try_from(zeros).unwrap_or(i64::MAX));
    // The value is at least 10^(digits - 1 - scale): above 10^2 it is out of range, however long it is.
    let magnitude = i64::try_from(trimmed.len()).unwrap_or(i64::MAX).saturating_sub(scale);
    if magnitude > 3 {
        return Err(ShareFault::Range);
    }
    if scale > Share::MAX_DECIMALS.into() {
        return Err(ShareFault::TooFine);
    }
    let value: u64 = trimmed.parse().map_err(|_| ShareFault::TooFine)?;
    let power =
        |exponent: i64| u32::try_from(exponent).ok().and_then(|exponent| 10_u64.checked_pow(exponent));
    let numerator = value.checked_mul(power(scale.saturating_neg().max(0)).ok_or(ShareFault::Range)?);
    let denominator = power(scale.max(0)).and_then(|power| power.checked_mul(100));
    let (numerator, denominator) = numerator.zip(denominator).ok_or(ShareFault::Range)?;
    Share::fraction(numerator, denominator).map_err(|_| ShareFault::Range)
}

/// The value of the first cookie called `name` (RFC 6265, 4.2.1).
fn cookie<'a>(head: &RequestHead<'a>, name: &str) -> Option<&'a [u8]> {
    let fields = head.fields.iter().filter(|field| field.is("cookie"));
    let mut pairs = fields.flat_map(|field| field.value.split(|byte| *byte == b';'));
    pairs.find_map(|pair| {
        let equals = memchr::memchr(b'=', pair)?;
        let (found, value) = pair.split_at_checked(equals)?;
        (found.trim_ascii() == name.as_bytes()).then_some(value.get(1..)?.trim_ascii())
    })
}
