//! The messages of a gRPC call, counted and measured as its body passes by. PURE.
//!
//! ```text
//! message = compressed flag (1 byte, 0 or 1), length (4 bytes, big endian), so many bytes
//! ```
//!
//! (gRPC over HTTP/2, "Length-Prefixed-Message".) Messages are split over the pieces of a body as it happens, and
//! none is kept: only sizes are, and those of the first [`MAX_LISTED_MESSAGES`]. Left out: what is in a message,
//! and answers.

use crate::http::RequestHead;

/// Sizes of so many messages are kept; of those behind them, count and sum.
pub const MAX_LISTED_MESSAGES: usize = 16;

const PREFIX_BYTES: usize = 5;

/// The request messages of a call so far.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct GrpcCall {
    /// Whole messages.
    pub messages: u64,
    /// Bytes of all whole messages, without their prefixes.
    pub total_bytes: u64,
    /// Bytes of the first whole messages, at most [`MAX_LISTED_MESSAGES`], without their prefixes.
    pub message_bytes: Vec<u32>,
    /// Whole messages that are compressed.
    pub compressed: u64,
    place: Place,
}

/// ```text
/// Prefix ──5 bytes──▶ Message ──its last byte──▶ Prefix
///    └──no such flag──▶ Malformed
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In a prefix, of which `count` bytes were seen; 0: between two messages.
    Prefix { seen: [u8; PREFIX_BYTES], count: usize },
    /// In a message.
    Message { is_compressed: bool, bytes: u32, left: u32 },
    /// A prefix was none: what follows is no gRPC.
    Malformed,
}

/// A message that the body ended in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncated {
    /// Bytes of it that were seen; within the prefix, bytes of that.
    pub seen_bytes: u32,
    /// Its length; `None`: the prefix is not whole.
    pub message_bytes: Option<u32>,
}

impl Default for Place {
    fn default() -> Self {
        Self::Prefix { seen: [0; PREFIX_BYTES], count: 0 }
    }
}

impl GrpcCall {
    /// An empty call when `head` begins one: by its content-type, `application/grpc`, also with `+proto` or the
    /// like, and `application/grpc-web`, whose messages look the same (but not `-web-text`, which is base64).
    #[must_use]
    pub fn begun_by(head: &RequestHead<'_>) -> Option<Self> {
        let content_type = head.field("content-type")?;
        let (media_type, rest) = content_type.split_at_checked("application/grpc".len())?;
        let is_grpc = media_type.eq_ignore_ascii_case(b"application/grpc");
        let web = rest.split_at_checked("-web".len()).filter(|(web, _)| web.eq_ignore_ascii_case(b"-web"));
        let rest = web.map_or(rest, |(_, rest)| rest);
        (is_grpc && matches!(rest.first(), None | Some(b'+' | b';' | b' '))).then(Self::default)
    }

    /// Takes the next bytes of the body.
    pub fn handle_body(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = match self.place {
                Place::Prefix { seen, count } => self.read_prefix(seen, count, bytes),
                Place::Message { is_compressed, bytes: size, left } => {
                    let taken = u32::try_from(bytes.len()).map_or(left, |found| found.min(left));
                    self.place =
                        Place::Message { is_compressed, bytes: size, left: left.saturating_sub(taken) };
                    self.close_message();
                    bytes.get(usize::try_from(taken).unwrap_or(usize::MAX)..).unwrap_or_default()
                }
                Place::Malformed => return,
            };
        }
    }

    /// The message that the body ends in, if it ends here.
    #[must_use]
    pub fn truncated(&self) -> Option<Truncated> {
        match self.place {
            Place::Prefix { count: 0, .. } | Place::Malformed => None,
            Place::Prefix { count, .. } => {
                Some(Truncated { seen_bytes: u32::try_from(count).unwrap_or(u32::MAX), message_bytes: None })
            }
            Place::Message { bytes, left, .. } => {
                Some(Truncated { seen_bytes: bytes.saturating_sub(left), message_bytes: Some(bytes) })
            }
        }
    }

    /// A prefix had a flag that is neither 0 nor 1: messages were counted up to it.
    #[must_use]
    pub fn is_malformed(&self) -> bool {
        self.place == Place::Malformed
    }

    /// Takes bytes of a prefix, and returns what is behind them.
    fn read_prefix<'a>(&mut self, mut seen: [u8; PREFIX_BYTES], count: usize, bytes: &'a [u8]) -> &'a [u8] {
        let missing = PREFIX_BYTES.saturating_sub(count);
        let (taken, rest) = bytes.split_at_checked(missing).unwrap_or((bytes, &[]));
        for (slot, byte) in seen.iter_mut().skip(count).zip(taken) {
            *slot = *byte;
        }
        let [flag, length @ ..] = seen;
        let is_whole = taken.len() == missing;
        self.place = match flag {
            0 | 1 if is_whole => {
                let bytes = u32::from_be_bytes(length);
                Place::Message { is_compressed: flag == 1, bytes, left: bytes }
            }
            0 | 1 => Place::Prefix { seen, count: count.saturating_add(taken.len()) },
            _ => Place::Malformed,
        };
        self.close_message();
        rest
    }

    /// Counts the message if nothing of it is missing.
    fn close_message(&mut self) {
        let Place::Message { is_compressed, bytes, left: 0 } = self.place else { return };
        self.messages = self.messages.saturating_add(1);
        self.total_bytes = self.total_bytes.saturating_add(bytes.into());
        self.compressed = self.compressed.saturating_add(is_compressed.into());
        if self.message_bytes.len() < MAX_LISTED_MESSAGES {
            self.message_bytes.push(bytes);
        }
        self.place = Place::default();
    }
}

/// Service and method of a call: `/shop.Cart/Add` is `Add` of `shop.Cart`. A query is left out; the service is empty
/// where the path has no two parts.
#[must_use]
pub fn service_and_method(path: &str) -> (&str, &str) {
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    let path = path.strip_prefix('/').unwrap_or(path);
    path.rsplit_once('/').unwrap_or(("", path))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::arithmetic_side_effects, reason = "a test that overflows fails, as it should")]

    use super::*;
    use crate::http::{BodyLength, Field, Version};
    use proptest::prelude::*;

    fn message(flag: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap();
        [&[flag][..], &length.to_be_bytes(), payload].concat()
    }

    fn read(body: &[u8]) -> GrpcCall {
        let mut call = GrpcCall::default();
        call.handle_body(body);
        call
    }

    #[test]
    fn only_content_types_with_length_prefixed_messages_begin_a_call() {
        for (content_type, is_call) in [
            ("application/grpc", true),
            ("Application/gRPC+proto", true),
            ("application/grpc; charset=x", true),
            ("application/grpc-web", true),
            ("application/grpc-web+proto", true),
            ("application/grpc-web-text", false),
            ("application/grpcx", false),
            ("application/json", false),
            ("", false),
        ] {
            let fields = [Field { name: "content-type", value: content_type.as_bytes(), line: b"" }];
            let body = BodyLength::Chunked;
            let head =
                RequestHead { method: "POST", target: "/", version: Version::Http2, fields: &fields, body };
            assert_eq!(GrpcCall::begun_by(&head).is_some(), is_call, "{content_type}");
        }
    }

    #[test]
    fn service_and_method_are_the_last_two_parts_of_the_path() {
        for (path, expected) in [
            ("/shop.Cart/Add", ("shop.Cart", "Add")),
            ("/prefix/shop.Cart/Add?x=/1", ("prefix/shop.Cart", "Add")),
            ("/Add", ("", "Add")),
            ("/", ("", "")),
            ("", ("", "")),
        ] {
            assert_eq!(service_and_method(path), expected, "{path}");
        }
    }

    #[test]
    fn empty_and_compressed_messages_count() {
        let body = [message(0, b""), message(1, b"abc"), message(0, b"de")].concat();
        let call = read(&body);
        assert_eq!((call.messages, call.total_bytes, call.compressed), (3, 5, 1));
        assert_eq!((call.message_bytes.as_slice(), call.truncated()), ([0, 3, 2].as_slice(), None));
    }

    #[test]
    fn message_that_the_body_ends_in_is_told_with_what_was_seen_of_it() {
        let body = message(0, b"abcd");
        for cut in 0..body.len() {
            let call = read(&body[..cut]);
            let expected = match u32::try_from(cut).unwrap() {
                0 => None,
                seen @ 1..5 => Some(Truncated { seen_bytes: seen, message_bytes: None }),
                seen => Some(Truncated { seen_bytes: seen - 5, message_bytes: Some(4) }),
            };
            assert_eq!((call.messages, call.truncated()), (0, expected), "{cut}");
        }
        let huge = read(&[0, 255, 255, 255, 255, 1]);
        assert_eq!(huge.truncated(), Some(Truncated { seen_bytes: 1, message_bytes: Some(u32::MAX) }));
    }

    #[test]
    fn another_flag_ends_the_count() {
        let body = [message(0, b"abc"), vec![2, 0], message(0, b"abc")].concat();
        let call = read(&body);
        assert!(call.is_malformed());
        assert_eq!((call.messages, call.truncated()), (1, None));
    }

    #[test]
    fn sizes_are_listed_up_to_a_bound_and_counted_beyond() {
        let many = u32::try_from(MAX_LISTED_MESSAGES).unwrap();
        for count in [many - 1, many, many + 1] {
            let call = read(&message(0, b"ab").repeat(count as usize));
            assert_eq!((call.messages, call.total_bytes), (count.into(), u64::from(2 * count)));
            assert_eq!(call.message_bytes.len(), count.min(many) as usize);
        }
    }

    proptest! {
        #[test]
        fn messages_read_the_same_however_the_body_is_cut(
            sizes in proptest::collection::vec((any::<bool>(), 0..40_usize), 0..24),
            cut in any::<prop::sample::Index>(),
            pieces in proptest::collection::vec(1..30_usize, 1..8),
        ) {
            let all: Vec<Vec<u8>> =
                sizes.iter().map(|(flag, bytes)| message((*flag).into(), &vec![7; *bytes])).collect();
            let whole = all.concat();
            let body = &whole[..cut.index(whole.len() + 1)];
            let mut call = GrpcCall::default();
            let (mut rest, mut pieces) = (body, pieces.iter().cycle());
            while !rest.is_empty() {
                let (piece, behind) = rest.split_at(rest.len().min(*pieces.next().unwrap()));
                call.handle_body(piece);
                rest = behind;
            }

            let mut end = 0;
            let seen: Vec<_> = sizes.iter().take_while(|(_, bytes)| {
                let is_whole = end + 5 + bytes <= body.len();
                end += if is_whole { 5 + bytes } else { 0 };
                is_whole
            }).collect();
            prop_assert_eq!(call.messages, seen.len() as u64);
            prop_assert_eq!(call.compressed, seen.iter().filter(|(flag, _)| *flag).count() as u64);
            let listed: Vec<u32> = seen.iter().take(MAX_LISTED_MESSAGES).map(|(_, bytes)| u32::try_from(*bytes).unwrap()).collect();
            prop_assert_eq!(&call.message_bytes, &listed);
            prop_assert_eq!(call.total_bytes, seen.iter().map(|(_, bytes)| *bytes as u64).sum::<u64>());
            let left = u32::try_from(body.len() - end).unwrap();
            let prefix = 5.min(left);
            prop_assert_eq!(call.truncated().map(|found| found.seen_bytes), match left {
                0 => None,
                1..5 => Some(prefix),
                _ => Some(left - 5),
            });
        }

        #[test]
        fn any_bytes_read_the_same_whole_and_one_by_one(body in proptest::collection::vec(0..3_u8, 0..200)) {
            let mut one_by_one = GrpcCall::default();
            body.iter().for_each(|byte| one_by_one.handle_body(&[*byte]));
            prop_assert_eq!(read(&body), one_by_one);
        }
    }
}
