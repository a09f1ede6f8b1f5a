//! Random true connections of HTTP/1.

use crate::network::{Dice, Network, Packet, Wire};
use proptest::collection::vec;
use proptest::prelude::*;

/// How a request's body travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Bodiless,
    Head,
    Length,
    /// The client waits for `100 Continue`.
    Expected,
    Chunked,
    ChunkedWithTrailers,
    /// Asks for an upgrade that the server does not grant.
    Upgrade,
}

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) framing: Framing,
    pub(crate) content: Vec<u8>,
    pub(crate) chunk_bytes: usize,
    pub(crate) answer: Answer,
}

/// How the server answers it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    Empty,
    Length(usize),
    Chunked(usize),
}

/// Requests that are sent together, before the first of them is answered.
pub(crate) type Turn = Vec<Message>;

impl Message {
    pub(crate) fn target(number: usize) -> String {
        format!("/true?id={number}")
    }

    pub(crate) fn body(&self) -> &[u8] {
        match self.framing {
            Framing::Bodiless | Framing::Head | Framing::Upgrade => &[],
            _ => &self.content,
        }
    }

    pub(crate) fn trailers(&self) -> &'static str {
        if self.framing == Framing::ChunkedWithTrailers { "X-Sum: 7\r\n" } else { "" }
    }

    fn head(&self, number: usize) -> Vec<u8> {
        let (method, fields) = match self.framing {
            Framing::Bodiless => ("GET", String::new()),
            Framing::Head => ("HEAD", String::new()),
            Framing::Length => ("POST", format!("Content-Length: {}\r\n", self.content.len())),
            Framing::Expected => {
                ("PUT", format!("Expect: 100-continue\r\nContent-Length: {}\r\n", self.content.len()))
            }
            Framing::Chunked | Framing::ChunkedWithTrailers => {
                ("POST", "Transfer-Encoding: chunked\r\n".to_owned())
            }
            Framing::Upgrade => ("GET", "Connection: Upgrade\r\nUpgrade: websocket\r\n".to_owned()),
        };
        let target = Self::target(number);
        format!("{method} {target} HTTP/1.1\r\nHost: shadowing.example\r\n{fields}\r\n").into_bytes()
    }

    fn framed_body(&self) -> Vec<u8> {
        if !matches!(self.framing, Framing::Chunked | Framing::ChunkedWithTrailers) {
            return self.body().to_vec();
        }
        let mut bytes = Vec::new();
        for chunk in self.content.chunks(self.chunk_bytes) {
            bytes.extend(format!("{:x}\r\n", chunk.len()).bytes());
            bytes.extend(chunk);
            bytes.extend(b"\r\n");
        }
        bytes.extend(format!("0\r\n{}\r\n", self.trailers()).bytes());
        bytes
    }

    fn answer(&self) -> Vec<u8> {
        let content = |bytes| vec![b'a'; bytes];
        match self.answer {
            Answer::Empty => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
            Answer::Length(bytes) => {
                let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n").into_bytes();
                if self.framing != Framing::Head {
                    answer.extend(content(bytes));
                }
                answer
            }
            Answer::Chunked(bytes) => {
                let mut answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
                if self.framing != Framing::Head {
                    answer.extend(format!("{bytes:x}\r\n").bytes());
                    answer.extend(content(bytes));
                    answer.extend(b"\r\n0\r\n\r\n");
                }
                answer
            }
        }
    }
}

/// What looks like requests, chunk heads and answers, and is none.
fn trap() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        5 => Just(b"GET /embedded HTTP/1.1\r\nHost: shadowing.example\r\n\r\n".to_vec()),
        2 => Just(b"POST /embedded HTTP/1.1\r\nHost: shadowing.example\r\nContent-Length: 4\r\n\r\nbody".to_vec()),
        1 => Just(b"POST /embedded HTTP/1.1\r\nHost: shadowing.example\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec()),
        2 => Just(b"5\r\nhello\r\n0\r\n\r\n".to_vec()),
        1 => Just(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec()),
        2 => vec(any::<u8>(), 1..40),
        1 => vec(any::<u8>(), 500..3000),
    ]
}

fn message() -> impl Strategy<Value = Message> {
    let framing = prop_oneof![
        4 => Just(Framing::Bodiless),
        1 => Just(Framing::Head),
        4 => Just(Framing::Length),
        1 => Just(Framing::Expected),
        2 => Just(Framing::Chunked),
        1 => Just(Framing::ChunkedWithTrailers),
        1 => Just(Framing::Upgrade),
    ];
    let content = vec(trap(), 0..5).prop_map(|parts| parts.concat());
    let answer = prop_oneof![
        1 => Just(Answer::Empty),
        3 => (0_usize..40).prop_map(Answer::Length),
        1 => (2000_usize..5000).prop_map(Answer::Length),
        1 => (1_usize..900).prop_map(Answer::Chunked),
    ];
    (framing, content, 1_usize..200, answer).prop_map(|(framing, content, chunk_bytes, answer)| Message {
        framing,
        content,
        chunk_bytes,
        answer,
    })
}

/// A connection of some turns, most of one request.
pub(crate) fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let turn = prop_oneof![3 => vec(message(), 1..=1), 1 => vec(message(), 2..5)];
    vec(turn, 1..9).prop_map(|mut turns| {
        keep_upgrades_decidable(&mut turns);
        turns
    })
}

/// Once requests were pipelined, it can't always be told which answer is that of a request for an upgrade, and it is
/// dropped: only those before are kept here.
fn keep_upgrades_decidable(turns: &mut [Turn]) {
    let pipelined = turns.iter().position(|turn| turn.len() > 1).unwrap_or(turns.len());
    for message in
        turns.iter_mut().skip(pipelined).flatten().filter(|message| message.framing == Framing::Upgrade)
    {
        message.framing = Framing::Bodiless;
    }
}

/// The packets of `turns` through `network`.
pub(crate) fn packets(turns: &[Turn], network: Network, dice: Dice) -> Vec<Packet> {
    let mut wire = Wire::open(network, dice);
    let mut number = 0;
    for turn in turns {
        let mut together = Vec::new();
        let mut answers = Vec::new();
        for message in turn {
            together.extend(message.head(number));
            if message.framing == Framing::Expected {
                wire.send(&std::mem::take(&mut together));
                answers.extend(b"HTTP/1.1 100 Continue\r\n\r\n");
                wire.answer(&std::mem::take(&mut answers));
            }
            together.extend(message.framed_body());
            answers.extend(message.answer());
            number += 1;
        }
        wire.send(&together);
        wire.answer(&answers);
    }
    wire.close()
}
