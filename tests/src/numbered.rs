//! Requests of which the number says everything: whoever gets one can tell whether it is true and whole.
//!
//! Every second one is an upload. Uploads are full of what looks like requests, chunk lines and answers, each in a
//! segment of its own: a mirror that takes one of them for real is found out by its target.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};

use crate::client::Connection;
use crate::netns::Netns;
use crate::server::answer::query_number;

/// The path of every true request.
pub const TRUE_PATH: &str = "/true";

/// What uploads are full of.
const TRAPS: [&str; 6] = [
    "GET /embedded?id=1 HTTP/1.1\r\nHost: shadowing.example\r\n\r\n",
    "POST /embedded?id=2 HTTP/1.1\r\nHost: shadowing.example\r\nContent-Length: 4\r\n\r\nbody",
    "5\r\nhello\r\n0\r\n\r\n",
    "POST /embedded?id=3 HTTP/1.1\r\nHost: shadowing.example\r\nTransfer-Encoding: chunked\r\n\r\n",
    "0\r\n\r\nGET /embedded?id=4 HTTP/1.1\r\nHost: shadowing.example\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
];

/// Numbered requests to one gateway.
#[derive(Clone, Copy, Debug)]
pub struct Numbered {
    /// Where to.
    pub to: SocketAddr,
    /// Bytes added to every upload, behind its traps.
    pub filling_bytes: usize,
}

impl Numbered {
    /// The body of request `id`, in the pieces that are written apart.
    #[must_use]
    pub fn body(&self, id: u64) -> Vec<Vec<u8>> {
        if id.is_multiple_of(2) {
            return Vec::new();
        }
        let traps = (0..id % 7 + 2).map(|trap| {
            let index = ((id + trap) % TRAPS.len() as u64) as usize;
            TRAPS[index].as_bytes().to_vec()
        });
        let filling = (0..self.filling_bytes).map(|at| (at as u64).wrapping_mul(id) as u8).collect();
        traps
            .chain([format!("the end of {id}").into_bytes(), filling])
            .filter(|piece: &Vec<u8>| !piece.is_empty())
            .collect()
    }

    /// Request `id` in the pieces that are written apart: the head first.
    #[must_use]
    pub fn request(&self, id: u64) -> Vec<Vec<u8>> {
        let body = self.body(id);
        let is_chunked = id % 4 == 3;
        let (method, framing) = match (body.is_empty(), is_chunked) {
            (true, _) => ("GET", String::new()),
            (false, true) => ("POST", "Transfer-Encoding: chunked\r\n".to_owned()),
            (false, false) => {
                ("POST", format!("Content-Length: {}\r\n", body.iter().map(Vec::len).sum::<usize>()))
            }
        };
        let head =
            format!("{method} {TRUE_PATH}?id={id} HTTP/1.1\r\nHost: shadowing.example\r\n{framing}\r\n");
        let mut pieces = vec![head.into_bytes()];
        for piece in body {
            if is_chunked {
                // The chunk line apart, so that the segment behind starts like a request.
                pieces.push(format!("{:x}\r\n", piece.len()).into_bytes());
                pieces.push([&piece, &b"\r\n"[..]].concat());
            } else {
                pieces.push(piece);
            }
        }
        if is_chunked {
            pieces.push(b"0\r\n\r\n".to_vec());
        }
        pieces
    }

    /// Sends request `id` and reads its answer.
    ///
    /// # Errors
    /// When no good answer comes.
    pub fn exchange(&self, connection: &mut Connection, id: u64) -> Result<()> {
        for piece in self.request(id) {
            connection.send(&piece)?;
        }
        let answer = connection.read_answer().with_context(|| format!("request {id}"))?;
        ensure!(answer.status == 200, "request {id} is answered {}", answer.status);
        Ok(())
    }

    /// Sends `ids` over `connections` kept-alive connections at once.
    ///
    /// # Errors
    /// When one of them is not answered well.
    pub fn run(&self, netns: &Netns, connections: u64, ids: std::ops::Range<u64>) -> Result<()> {
        std::thread::scope(|scope| {
            let lanes: Vec<_> = (0..connections)
                .map(|lane| {
                    let ids = ids.clone().skip(lane as usize).step_by(connections as usize);
                    scope.spawn(move || {
                        let mut connection = Connection::open(netns, self.to)?;
                        ids.into_iter().try_for_each(|id| self.exchange(&mut connection, id))
                    })
                })
                .collect();
            lanes
                .into_iter()
                .try_for_each(|lane| lane.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })
    }

    /// The number of a request that arrived somewhere, if it is a true one, and whole.
    ///
    /// # Errors
    /// When it is not; the message says why.
    pub fn verify(&self, target: &str, body_hash: &str) -> Result<u64> {
        ensure!(target.split('?').next() == Some(TRUE_PATH), "{target} was never sent");
        let id = query_number(target, "id").with_context(|| format!("{target} has no number"))?;
        let expected = crate::wire::body_hash(&self.body(id).concat());
        ensure!(body_hash == expected, "the body of {target} is not what was sent");
        Ok(id)
    }
}
