//! What can be told of the answers from glimpses: beginnings of segments, not ordered, some perhaps lost.

use super::framing;
use crate::flow::{Glimpse, SeqNumber};

/// An answer head in a glimpse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AnswerHead {
    /// Where it starts in the stream.
    pub(super) start: SeqNumber,
    /// Its status, 100 to 999.
    pub(super) status: u16,
}

impl AnswerHead {
    /// An interim answer: another one follows. 101 is final.
    pub(super) const fn is_interim(&self) -> bool {
        is_interim(self.status)
    }
}

const fn is_interim(status: u16) -> bool {
    matches!(status, 100 | 102..=199)
}

/// The answer heads in a glimpse: the one at its start, and those that follow an interim answer or a content
/// of known length within the bytes copied.
pub(super) struct AnswerHeads<'a> {
    bytes: &'a [u8],
    segment_start: SeqNumber,
    at: usize,
    current: Option<u16>,
}

impl<'a> AnswerHeads<'a> {
    /// Those in `glimpse`.
    pub(super) fn of(glimpse: &Glimpse<'a>) -> Self {
        Self { bytes: glimpse.head, segment_start: glimpse.start, at: 0, current: None }
    }

    /// Bytes from the segment's start to behind the last head given, and behind its content. Either is `None`
    /// where the glimpse does not tell.
    pub(super) fn ends(&self) -> (Option<usize>, Option<usize>) {
        let Some((status, head_end, head)) = self.whole_head() else { return (None, None) };
        let end = match status {
            100..=199 | 204 | 304 => Some(head_end),
            _ => length(head).and_then(|length| head_end.checked_add(length)),
        };
        (Some(head_end), end)
    }

    fn whole_head(&self) -> Option<(u16, usize, &'a [u8])> {
        let status = self.current?;
        let rest = self.bytes.get(self.at..)?;
        let head = rest.get(..super::blank_line::BlankLine::default().find(rest)?)?;
        Some((status, self.at.checked_add(head.len())?, head))
    }
}

impl Iterator for AnswerHeads<'_> {
    type Item = AnswerHead;

    fn next(&mut self) -> Option<AnswerHead> {
        if self.current.is_some() {
            self.at = self.ends().1?;
        }
        let status = status(self.bytes.get(self.at..)?)?;
        self.current = Some(status);
        let start = self.segment_start.add(u32::try_from(self.at).ok()?);
        Some(AnswerHead { start, status })
    }
}

/// The status of the status line that `bytes` start with.
fn status(bytes: &[u8]) -> Option<u16> {
    match bytes.strip_prefix(b"HTTP/1.")? {
        [b'0'..=b'9', b' ', a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', rest @ ..]
            if matches!(rest.first(), None | Some(b' ' | b'\r' | b'\n')) =>
        {
            let digit = |byte: u8| u16::from(byte.wrapping_sub(b'0'));
            Some(
                [*a, *b, *c]
                    .into_iter()
                    .fold(0_u16, |number, byte| number.wrapping_mul(10).wrapping_add(digit(byte))),
            )
        }
        _ => None,
    }
}

/// The Content-Length of a whole head; `None` also where there is a transfer coding.
fn length(head: &[u8]) -> Option<usize> {
    let mut length = None;
    for line in head.split(|byte| *byte == b'\n') {
        let Some(colon) = memchr::memchr(b':', line) else { continue };
        let (name, value) = line.split_at_checked(colon)?;
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            return None;
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            length = framing::content_length(value.get(1..)?.trim_ascii());
        }
    }
    usize::try_from(length?).ok()
}

/// How far the answer stream has got, and the last answer head in it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AnswerSight {
    /// Behind the furthest byte seen.
    position: Option<SeqNumber>,
    /// The last head; `None` also when bytes behind it were missed, or were sent when more of the requests
    /// had been received than when it was sent.
    last: Option<LastHead>,
}

#[derive(Clone, Copy, Debug)]
struct LastHead {
    is_interim: bool,
    /// What of the requests had been received when this answer was sent, from its head to its last byte.
    ack: SeqNumber,
    /// Where the answer ends, if its head told.
    end: Option<SeqNumber>,
}

/// How a glimpse continues the answer stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sighting {
    /// Nothing new.
    Repeated,
    /// New bytes, right behind those known.
    Follows,
    /// New bytes, but others before them were missed, or they overlap.
    Apart,
}

impl AnswerSight {
    /// Takes note of a glimpse. `heads` are looked for only where framing has to be found again.
    pub(super) fn observe(&mut self, glimpse: &Glimpse<'_>, heads: bool) -> Sighting {
        let end = glimpse.start.add(glimpse.segment_bytes);
        let sighting = match self.position {
            Some(position) if !end.is_after(position) => return Sighting::Repeated,
            Some(position) if position != glimpse.start => Sighting::Apart,
            _ => Sighting::Follows,
        };
        self.position = Some(end);
        if sighting == Sighting::Apart || self.last.is_some_and(|last| last.ack != glimpse.ack) {
            self.last = None;
        }
        if heads {
            self.note_heads(glimpse);
        }
        sighting
    }

    fn note_heads(&mut self, glimpse: &Glimpse<'_>) {
        let mut heads = AnswerHeads::of(glimpse);
        while let Some(head) = heads.next() {
            // Wrapping is right here: the end is only ever compared for equality.
            #[expect(clippy::cast_possible_truncation, reason = "places in a stream wrap at 32 bits")]
            let end = heads.ends().1.map(|bytes| glimpse.start.add(bytes as u32));
            self.last = Some(LastHead { is_interim: head.is_interim(), ack: glimpse.ack, end });
        }
    }

    /// True when, as far as glimpses tell, the server had answered everything before `request` and nothing
    /// behind it, and the client, who sent `client_ack` with it, had all of that answer:
    ///
    /// - a final answer was seen from its head on, every segment of it sent when exactly the bytes before
    ///   `request` had been received;
    /// - it ends where its Content-Length says, if that was seen (so never behind an answer to HEAD that has one:
    ///   the next exchange will do);
    /// - `client_ack` is its end.
    pub(super) fn turn_is_over(&self, request: SeqNumber, client_ack: SeqNumber) -> bool {
        self.position == Some(client_ack)
            && self.last.is_some_and(|last| {
                !last.is_interim && last.ack == request && last.end.is_none_or(|end| end == client_ack)
            })
    }

    /// Forgets everything.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests {
    use super::*;
    use crate::flow::Timestamp;

    fn glimpse(start: u32, ack: u32, head: &str) -> Glimpse<'_> {
        let segment_bytes = u32::try_from(head.len()).unwrap();
        Glimpse {
            start: SeqNumber(start),
            offset_bytes: 0,
            ack: SeqNumber(ack),
            at: Timestamp(0),
            segment_bytes,
            head: head.as_bytes(),
        }
    }

    fn statuses(head: &str) -> Vec<u16> {
        AnswerHeads::of(&glimpse(0, 0, head)).map(|head| head.status).collect()
    }

    #[test]
    fn heads_behind_interim_and_known_content_are_seen() {
        assert_eq!(statuses("HTTP/1.1 100 C\r\n\r\nHTTP/1.1 200 OK\r\n\r\nHTTP/1.1 404 x"), [100, 200]);
        assert_eq!(statuses("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP/1.0 404"), [200, 404]);
        assert_eq!(statuses("HTTP/1.1 304 x\r\nContent-Length: 2\r\n\r\nHTTP/1.1 204 x"), [304, 204]);
        for none in ["", "HTTP/1.1 20", "HTTP/2 200", "HTTP/1.1 2000", "HTTP/1.1 000 x", "xHTTP/1.1 200"] {
            assert!(statuses(none).is_empty(), "{none}");
        }
    }

    const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n";

    #[test]
    fn turn_is_over_behind_the_last_byte_of_a_final_answer() {
        let mut sight = AnswerSight::default();
        let end = u32::try_from(ANSWER.len()).unwrap() + 4;
        assert_eq!(sight.observe(&glimpse(0, 50, ANSWER), true), Sighting::Follows);
        assert!(!sight.turn_is_over(SeqNumber(50), SeqNumber(end - 4)), "content is missing");
        assert_eq!(sight.observe(&glimpse(end - 4, 50, "body"), true), Sighting::Follows);
        assert!(sight.turn_is_over(SeqNumber(50), SeqNumber(end)));
        assert!(!sight.turn_is_over(SeqNumber(51), SeqNumber(end)), "more had been received");
        assert!(!sight.turn_is_over(SeqNumber(50), SeqNumber(end - 1)), "the client lacks a byte");
        assert_eq!(sight.observe(&glimpse(0, 50, ANSWER), true), Sighting::Repeated);
        assert!(sight.turn_is_over(SeqNumber(50), SeqNumber(end)), "repeated segments change nothing");
    }

    #[test]
    fn turn_is_not_over_behind_interim_streamed_or_missed_answers() {
        let over = |glimpses: &[Glimpse<'_>]| {
            let mut sight = AnswerSight::default();
            let mut end = SeqNumber(0);
            for glimpse in glimpses {
                sight.observe(glimpse, true);
                end = glimpse.start.add(glimpse.segment_bytes);
            }
            sight.turn_is_over(SeqNumber(50), end)
        };
        let head = "HTTP/1.1 200 OK\r\n\r\n";
        assert!(over(&[glimpse(0, 50, head), glimpse(19, 50, "x")]));
        assert!(!over(&[glimpse(0, 50, "x")]), "no head seen");
        assert!(!over(&[glimpse(0, 50, "HTTP/1.1 100 Continue\r\n\r\n")]), "interim");
        assert!(
            !over(&[glimpse(0, 50, "HTTP/1.1 204 x\r\n\r\nHTTP/1.1 103 x\r\n\r\n")]),
            "interim behind final"
        );
        assert!(!over(&[glimpse(0, 40, head), glimpse(19, 50, "x")]), "streamed while requests came in");
        assert!(!over(&[glimpse(0, 50, head), glimpse(25, 50, "x")]), "bytes missed");
    }
}
