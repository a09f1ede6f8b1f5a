//! Calls (gRPC), which may last for hours in either direction. So their requests are streamed: replayed while they are
//! still being captured, from their head on. And their answers are watched: the shadow of a request that is whole, streamed
//! or not, is told when its original is cancelled or ends.

use crate::http::{BodyLength, RequestHead, RequestNumber, Version};
use crate::replay::Canceller;

/// Content types whose bodies are streams of messages: gRPC (and gRPC-Web), and streaming calls of the Connect
/// protocol.
const STREAMED_TYPES: [&[u8]; 2] = [b"application/grpc", b"application/connect+"];

/// Calls of one connection that were whole and may still be cancelled, at most; the oldest are let go.
const MAX_CALLS: usize = 1024;

/// What a request is as a call; nothing of it for most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Call {
    /// It is streamed from its start. Not so when its length is known: it will end soon.
    pub(super) is_streamed: bool,
    /// Its shadows are told how the original goes on when the request is whole, for the answer may go on for hours.
    /// Only HTTP/2 tells.
    pub(super) is_watched: bool,
}

impl Call {
    pub(super) fn of(head: &RequestHead<'_>) -> Self {
        let is_streamed = |value: &[u8]| {
            STREAMED_TYPES.iter().any(|streamed| {
                value.get(..streamed.len()).is_some_and(|start| start.eq_ignore_ascii_case(streamed))
            })
        };
        if !head.field("content-type").is_some_and(is_streamed) {
            return Self::default();
        }
        Self { is_streamed: head.body == BodyLength::Chunked, is_watched: head.version == Version::Http2 }
    }
}

/// Calls of one connection whose requests were whole: their shadows are told when the client cancels them.
#[derive(Debug, Default)]
pub(super) struct Calls(Vec<WholeCall>);

#[derive(Debug)]
struct WholeCall {
    number: RequestNumber,
    cancellers: Vec<Canceller>,
}

impl Calls {
    pub(super) fn add(&mut self, number: RequestNumber, cancellers: Vec<Canceller>) {
        if cancellers.is_empty() {
            return;
        }
        if self.0.len() >= MAX_CALLS || self.0.len() == self.0.capacity() {
            self.0.retain(|call| call.cancellers.iter().any(|canceller| !canceller.is_over()));
        }
        if self.0.len() >= MAX_CALLS {
            self.0.remove(0);
        }
        self.0.push(WholeCall { number, cancellers });
    }

    /// The answer is at its end.
    pub(super) fn end(&mut self, number: RequestNumber) {
        drop(self.take(number));
    }

    /// The client has cancelled the answer.
    pub(super) fn cancel(&mut self, number: RequestNumber) {
        self.take(number).into_iter().for_each(Canceller::cancel);
    }

    /// The connection has ended, and with it every answer that had not.
    pub(super) fn leave_all(self) {
        self.0.into_iter().flat_map(|call| call.cancellers).for_each(Canceller::leave);
    }

    /// The cancellers of a call that is over; none when it is not watched.
    fn take(&mut self, number: RequestNumber) -> Vec<Canceller> {
        let place = self.0.iter().position(|call| call.number == number);
        // Not by a swap with the last: the oldest come first.
        place.map(|place| self.0.remove(place).cancellers).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Field;
    use crate::replay::original;

    fn head<'a>(fields: &'a [Field<'a>], body: BodyLength) -> RequestHead<'a> {
        RequestHead { method: "POST", target: "/a.B/C", version: Version::Http2, fields, body }
    }

    #[test]
    fn streams_of_messages_are_calls_and_those_of_known_length_are_not_streamed() {
        for (value, is) in [
            ("application/grpc", true),
            ("Application/GRPC+proto", true),
            ("application/grpc-web", true),
            ("application/connect+json", true),
            ("application/json", false),
            ("", false),
        ] {
            let fields = [Field { name: "content-type", value: value.as_bytes(), line: b"" }];
            let unknown = Call::of(&head(&fields, BodyLength::Chunked));
            assert_eq!((unknown.is_streamed, unknown.is_watched), (is, is), "{value}");
            let known = Call::of(&head(&fields, BodyLength::Known(5)));
            assert_eq!((known.is_streamed, known.is_watched), (false, is), "{value}");
        }
    }

    #[test]
    fn calls_that_are_over_make_room_and_the_rest_is_bounded() {
        let mut calls = Calls::default();
        let mut kept = Vec::new();
        for number in 0..2 * MAX_CALLS as u64 {
            let (canceller, original) = original();
            calls.add(RequestNumber(number), vec![canceller]);
            if number % 2 == 0 {
                kept.push(original);
            }
        }
        assert!(calls.0.len() <= MAX_CALLS);
        calls.leave_all();
        assert_eq!(kept.len(), MAX_CALLS);
    }
}
