//! Clients that send exactly the bytes they are told to, and a load generator ([`load`]).

pub mod load;

use std::io::Write as _;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::netns::Netns;
use crate::wire::{self, Framing, Wire};

/// How long a client waits for bytes before it gives up.
pub const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// One step of a byte script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Writes bytes, in one write and so usually in one segment.
    Send(Vec<u8>),
    /// Writes bytes in pieces of so many, each a segment of its own.
    SendInPieces(Vec<u8>, usize),
    /// Waits, with everything sent on its way.
    Pause(Duration),
    /// Reads so many final answers; the method of each request decides whether they have a body.
    Read(usize),
    /// Reads one interim answer (1xx).
    ReadInterim,
    /// Ends the sending side (FIN).
    Finish,
}

/// One answer as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// The head, with status line and empty line.
    pub head: Vec<u8>,
    /// The body, de-chunked.
    pub body: Vec<u8>,
    /// The trailer section, without the empty line.
    pub trailers: Vec<u8>,
}

impl Answer {
    /// The first field of that name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<String> {
        wire::field(&self.head, name).map(wire::latin1)
    }

    /// Head and body as they came, without the one line that may differ between two runs: Date.
    #[must_use]
    pub fn without_date(&self) -> Vec<u8> {
        let mut kept = Vec::with_capacity(self.head.len() + self.body.len());
        for line in self.head.split_inclusive(|byte| *byte == b'\n') {
            if !line.get(..5).is_some_and(|name| name.eq_ignore_ascii_case(b"date:")) {
                kept.extend_from_slice(line);
            }
        }
        kept.extend_from_slice(&self.body);
        kept
    }
}

/// A connection of a client.
#[derive(Debug)]
pub struct Connection {
    wire: Wire,
    /// Methods of requests whose answers are outstanding; only HEAD matters.
    heads: Vec<bool>,
}

impl Connection {
    /// Connects from inside `netns`.
    ///
    /// # Errors
    /// When the connection is refused.
    pub fn open(netns: &Netns, to: SocketAddr) -> Result<Self> {
        Self::open_with(netns, to, READ_TIMEOUT)
    }

    /// As [`Self::open`], with another limit for connecting and for each read.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with(netns: &Netns, to: SocketAddr, limit: Duration) -> Result<Self> {
        let connecting = || TcpStream::connect_timeout(&to, limit);
        let stream = netns.run(connecting)?.with_context(|| format!("cannot connect to {to}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(limit))?;
        Ok(Self { wire: Wire::new(stream), heads: Vec::new() })
    }

    /// This end of it: its address and port are the key of the flow.
    ///
    /// # Errors
    /// When the socket is gone.
    pub fn local_address(&mut self) -> Result<SocketAddr> {
        Ok(self.wire.stream().local_addr()?)
    }

    /// Says which of the coming answers are to HEAD, in order; without this none is.
    pub fn expect_heads(&mut self, heads: impl IntoIterator<Item = bool>) {
        self.heads.extend(heads);
    }

    /// Writes bytes.
    ///
    /// # Errors
    /// When the peer has closed.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.wire.stream().write_all(bytes)?)
    }

    /// Reads one final answer; interim ones before it are skipped.
    ///
    /// # Errors
    /// When the answer is cut off or not HTTP/1.1.
    pub fn read_answer(&mut self) -> Result<Answer> {
        let to_head = !self.heads.is_empty() && self.heads.remove(0);
        loop {
            let answer = self.read_any(to_head)?;
            if answer.status >= 200 || answer.status == 101 {
                return Ok(answer);
            }
        }
    }

    /// Reads a head alone: of an answer behind which HTTP/1 is left.
    ///
    /// # Errors
    /// When the peer closes before its end.
    pub fn read_head(&mut self) -> Result<Vec<u8>> {
        self.wire.read_head()?.context("closed instead of a head")
    }

    /// Reads so many bytes, whatever they are.
    ///
    /// # Errors
    /// When the peer closes before the last.
    pub fn read_bytes(&mut self, bytes: usize) -> Result<Vec<u8>> {
        let mut read = Vec::with_capacity(bytes);
        self.wire.read_body(Framing::Length(bytes as u64), &mut |part| read.extend_from_slice(part))?;
        Ok(read)
    }

    /// Sends one request and reads its answer.
    ///
    /// # Errors
    /// As [`Self::send`] and [`Self::read_answer`].
    pub fn exchange(&mut self, request: &[u8]) -> Result<Answer> {
        self.send(request)?;
        self.expect_heads([request.starts_with(b"HEAD ")]);
        self.read_answer()
    }

    /// Plays a script and gives the final answers.
    ///
    /// # Errors
    /// When a step fails, naming it by its number.
    pub fn play(&mut self, script: &[Step]) -> Result<Vec<Answer>> {
        let mut answers = Vec::new();
        for (number, step) in script.iter().enumerate() {
            self.play_step(step, &mut answers).with_context(|| format!("step {number} of the script"))?;
        }
        Ok(answers)
    }

    fn play_step(&mut self, step: &Step, answers: &mut Vec<Answer>) -> Result<()> {
        match step {
            Step::Send(bytes) => self.send(bytes)?,
            Step::SendInPieces(bytes, size) => {
                for piece in bytes.chunks((*size).max(1)) {
                    self.send(piece)?;
                }
            }
            Step::Pause(time) => std::thread::sleep(*time),
            Step::Read(count) => {
                for _ in 0..*count {
                    answers.push(self.read_answer()?);
                }
            }
            Step::ReadInterim => {
                let interim = self.read_any(false)?;
                if interim.status >= 200 {
                    bail!("status {} came instead of an interim answer", interim.status);
                }
            }
            Step::Finish => self.wire.stream().shutdown(Shutdown::Write)?,
        }
        Ok(())
    }

    fn read_any(&mut self, to_head: bool) -> Result<Answer> {
        let head = self.wire.read_head()?.context("closed instead of an answer")?;
        let status = head.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
        let status: u16 = status.with_context(|| format!("no status in {:?}", wire::latin1(&head)))?;
        let framing = match wire::declared_framing(&head)? {
            _ if to_head || status < 200 || status == 204 || status == 304 => Framing::None,
            Framing::None => Framing::UntilClose,
            declared => declared,
        };
        let mut body = Vec::new();
        let trailers = self.wire.read_body(framing, &mut |bytes| body.extend_from_slice(bytes))?;
        Ok(Answer { status, head, body, trailers })
    }
}

/// Sends one GET on a connection of its own.
///
/// # Errors
/// When no whole answer comes.
pub fn get(netns: &Netns, to: SocketAddr, host: &str, target: &str) -> Result<Answer> {
    let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    Connection::open(netns, to)?.exchange(request.as_bytes())
}

/// A chunked request: `head` is the request line and fields without framing and without the empty line,
/// `trailers` ends each field with CRLF.
#[must_use]
pub fn chunked_request(head: &str, chunks: &[&[u8]], trailers: &str) -> Vec<u8> {
    let mut bytes = format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
    for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
        bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(format!("0\r\n{trailers}\r\n").as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::answer::pattern;
    use crate::server::{Behaviour, LogMode, TestApp};
    use crate::wire::body_hash;

    fn app() -> TestApp {
        TestApp::start(&Netns::own(), "127.0.0.1:0".parse().unwrap(), LogMode::Full).unwrap()
    }

    fn open(app: &TestApp) -> Connection {
        Connection::open(&Netns::own(), app.address()).unwrap()
    }

    #[test]
    fn ten_pipelined_requests_in_one_write_get_ten_answers_in_order() {
        let app = app();
        let all: String = (0..10).map(|n| format!("GET /bytes/{n} HTTP/1.1\r\nHost: h\r\n\r\n")).collect();
        let answers = open(&app).play(&[Step::Send(all.into_bytes()), Step::Read(10)]).unwrap();
        for (bytes, answer) in answers.iter().enumerate() {
            assert_eq!(answer.body, pattern(bytes));
        }
        let noted = app.requests();
        assert_eq!(noted.iter().map(|r| r.number).collect::<Vec<_>>(), (1..=10).collect::<Vec<_>>());
        assert!(noted.iter().all(|r| r.connection == 1));
    }

    #[test]
    fn chunked_upload_with_trailers_in_small_pieces_is_noted_whole() {
        let app = app();
        let head = "POST /echo-hash HTTP/1.1\r\nHost: h\r\n";
        let request = chunked_request(head, &[b"hello ", b"world"], "X-Sum: 9\r\n");
        let answers = open(&app).play(&[Step::SendInPieces(request, 3), Step::Read(1)]).unwrap();
        assert!(wire::latin1(&answers[0].body).contains(&body_hash(b"hello world")));
        assert_eq!(app.requests()[0].trailers, b"X-Sum: 9\r\n");
        assert_eq!(app.requests()[0].body_bytes, 11);
    }

    #[test]
    fn expecting_client_gets_100_before_it_sends_the_body() {
        let app = app();
        let head =
            b"PUT /x HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n".to_vec();
        let script = [Step::Send(head), Step::ReadInterim, Step::Send(b"body".to_vec()), Step::Read(1)];
        assert_eq!(open(&app).play(&script).unwrap()[0].status, 200);
        assert_eq!(app.requests()[0].body_hash, body_hash(b"body"));
    }

    #[test]
    fn every_kind_of_answer_is_read_to_its_end() {
        let app = app();
        let mut connection = open(&app);
        let mut ask = |line: &str| {
            connection.exchange(format!("{line} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes()).unwrap()
        };
        assert_eq!(ask("HEAD /bytes/500").field("content-length").unwrap(), "500");
        assert_eq!(ask("GET /status/204").status, 204);
        assert_eq!(ask("GET /status/304").status, 304);
        assert_eq!(ask("GET /status/404").status, 404);
        let chunked = ask("GET /chunked/2500");
        assert_eq!((chunked.body, chunked.trailers), (pattern(2500), b"X-Body-Bytes: 2500\r\n".to_vec()));
        assert_eq!(ask("GET /until-close/70000").body, pattern(70_000));
        assert_eq!(app.accepted(), 1);
    }

    #[test]
    fn silent_app_notes_and_never_answers() {
        let app = app();
        app.behave(Behaviour::Silent);
        let mut connection = open(&app);
        connection.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        app.wait_for_requests(1, Duration::from_secs(30)).unwrap();
        app.close_connections();
        assert!(connection.read_answer().is_err());
    }

    #[test]
    fn without_date_differs_in_nothing_else() {
        let head = b"HTTP/1.1 200 OK\r\nDate: now\r\nX: 1\r\n\r\n".to_vec();
        let answer = Answer { status: 200, head, body: b"b".to_vec(), trailers: Vec::new() };
        assert_eq!(answer.without_date(), b"HTTP/1.1 200 OK\r\nX: 1\r\n\r\nb");
    }
}
