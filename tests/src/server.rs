//! An app that knows exactly what it was sent: production and shadow of the tests.
//!
//! One thread per connection. HTTP/1.1: keep-alive, pipelining, chunked with trailers, `Expect: 100-continue`,
//! HEAD. A connection that begins with its preface is spoken HTTP/2 on ([`h2`]).
//! What it answers depends only on the request (see [`answer`]), what it notes on its [`LogMode`].
//! It is in the test's process, so that its log is at hand; `mirror-test-app` is the same as a program.

pub mod answer;
pub mod h2;
pub mod log;

use std::collections::HashMap;
use std::io::{ErrorKind, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::netns::Netns;
use crate::wait;
use crate::wire::{self, BodyDigest, Framing, Wire};
pub use answer::Behaviour;
pub use log::{Log, LogMode, LoggedRequest, Summary};

/// How long the accept loop waits before it looks whether it should end.
const ACCEPT_LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// Answers that wait to be written together, at most, in bytes.
const MAX_HELD_ANSWER_BYTES: usize = 64 * 1024;

/// A running app; ends with all its connections on Drop.
#[derive(Debug)]
pub struct TestApp {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    log: Log,
    behaviour: RwLock<Behaviour>,
    connections: Mutex<HashMap<u64, TcpStream>>,
    accepted: AtomicU64,
    ends: AtomicBool,
}

/// How long an address may still be held by a listener that was closed.
const FREE_LIMIT: Duration = Duration::from_secs(60);

/// Listens at an address, which may be that of a listener closed a moment ago: a child that another thread is starting
/// has a copy of it until it is another program.
///
/// # Errors
/// When the address cannot be listened at.
pub fn listen(address: SocketAddr) -> Result<TcpListener> {
    wait::until("the address is free", FREE_LIMIT, || match TcpListener::bind(address) {
        Err(taken) if taken.kind() == ErrorKind::AddrInUse => Ok(None),
        bound => Ok(Some(bound?)),
    })
    .with_context(|| format!("cannot listen at {address}"))
}

impl TestApp {
    /// Starts one that listens at `address` in `netns`; port 0 lets the kernel choose.
    ///
    /// # Errors
    /// When the address cannot be listened at.
    pub fn start(netns: &Netns, address: SocketAddr, log: LogMode) -> Result<Self> {
        let listener = netns.run(|| listen(address))??;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            log: Log::new(log)?,
            behaviour: RwLock::new(Behaviour::Normal),
            connections: Mutex::default(),
            accepted: AtomicU64::new(0),
            ends: AtomicBool::new(false),
        });
        let acceptor = Arc::clone(&shared);
        let accepting = std::thread::Builder::new()
            .name("app-accept".into())
            .spawn(move || acceptor.accept(&listener))?;
        Ok(Self { address, shared, accepting: Some(accepting) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on, answers like this; requests already being answered are not changed.
    pub fn behave(&self, behaviour: Behaviour) {
        *self.shared.behaviour.write().unwrap_or_else(PoisonError::into_inner) = behaviour;
    }

    /// What was noted so far.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.shared.log
    }

    /// Every request so far, in the order in which they were read ([`LogMode::Full`] only).
    #[must_use]
    pub fn requests(&self) -> Vec<LoggedRequest> {
        self.shared.log.requests()
    }

    /// Waits until `count` requests are noted, and gives them.
    ///
    /// # Errors
    /// When they are fewer after `limit`.
    pub fn wait_for_requests(&self, count: usize, limit: Duration) -> Result<Vec<LoggedRequest>> {
        let what = format!("the app at {} notes {count} requests", self.address);
        let noted = || self.shared.log.summary().requests as usize >= count;
        crate::wait::until_true(&what, limit, noted)
            .with_context(|| format!("it has noted {}", self.shared.log.summary().requests))?;
        Ok(self.requests())
    }

    /// Connections accepted so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// Closes every open connection.
    pub fn close_connections(&self) {
        for stream in self.shared.connections.lock().unwrap_or_else(PoisonError::into_inner).values() {
            drop(stream.shutdown(Shutdown::Both));
        }
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Relaxed);
        // The port is free again only when the listener is closed.
        drop(self.accepting.take().map(JoinHandle::join));
        self.close_connections();
    }
}

impl Shared {
    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        while !self.ends.load(Ordering::Relaxed) {
            let mut watched = [PollFd::new(listener, PollFlags::IN)];
            if !matches!(poll(&mut watched, Some(&ACCEPT_LOOK)), Ok(1..)) {
                continue;
            }
            let Ok((stream, _)) = listener.accept() else { continue };
            let number = self.accepted.fetch_add(1, Ordering::Relaxed) + 1;
            let shared = Arc::clone(self);
            let serving = move || shared.serve(stream, number);
            drop(std::thread::Builder::new().name(format!("app-{number}")).spawn(serving));
        }
    }

    fn serve(self: Arc<Self>, stream: TcpStream, number: u64) {
        drop(stream.set_nodelay(true));
        if let Ok(handle) = stream.try_clone() {
            self.connections.lock().unwrap_or_else(PoisonError::into_inner).insert(number, handle);
        }
        if h2::begins(&stream) {
            if let Err(broken) = h2::serve(&self, stream, number) {
                self.log.broken(number, &broken);
            }
        } else {
            let mut wire = Wire::new(stream);
            if let Err(broken) = self.serve_requests(&mut wire, number) {
                self.log.broken(number, &broken);
            }
        }
        self.close(number);
    }

    fn close(&self, number: u64) {
        if let Some(stream) = self.connections.lock().unwrap_or_else(PoisonError::into_inner).remove(&number)
        {
            drop(stream.shutdown(Shutdown::Both));
        }
    }

    fn behaviour(&self) -> Behaviour {
        *self.behaviour.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers until the connection is to close. Answers are written together while requests are waiting.
    fn serve_requests(&self, wire: &mut Wire, connection: u64) -> Result<()> {
        let mut answers = Vec::new();
        let mut number = 0;
        while let Some(head) = wire.read_head()? {
            number += 1;
            let behaviour = self.behaviour();
            if behaviour == Behaviour::CloseAfterHead {
                return Ok(());
            }
            let framing = wire::declared_framing(&head)?;
            self.continue_if_expected(wire, &head, framing, &mut answers)?;
            let mut digest = BodyDigest::default();
            let trailers = wire.read_body(framing, &mut |bytes| digest.add(bytes))?;
            let request = LoggedRequest::new((connection, number), head, &digest, trailers);
            std::thread::sleep(answer::delay(request.target(), behaviour));
            let answer = self.answer(&request, behaviour, &mut answers);
            self.log.note(request);
            match answer {
                answer::Next::Never => {
                    wire.stream().write_all(&answers)?;
                    while wire.read_head()?.is_some() {}
                    return Ok(());
                }
                answer::Next::Close => return Ok(wire.stream().write_all(&answers)?),
                answer::Next::KeepAlive => {}
            }
            if wire.waiting().is_empty() || answers.len() > MAX_HELD_ANSWER_BYTES {
                wire.stream().write_all(&answers)?;
                answers.clear();
            }
        }
        Ok(())
    }

    fn continue_if_expected(
        &self,
        wire: &mut Wire,
        head: &[u8],
        framing: Framing,
        answers: &mut Vec<u8>,
    ) -> Result<()> {
        let expects = wire::field(head, "expect").is_some_and(|v| v.eq_ignore_ascii_case(b"100-continue"));
        if expects && framing != Framing::None && wire.waiting().is_empty() {
            answers.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        if wire.waiting().is_empty() && !answers.is_empty() && framing != Framing::None {
            // The client may be waiting for what was held back.
            wire.stream().write_all(answers)?;
            answers.clear();
        }
        Ok(())
    }

    fn answer(&self, request: &LoggedRequest, behaviour: Behaviour, answers: &mut Vec<u8>) -> answer::Next {
        match request.target().split('?').next() {
            Some("/_summary") => {
                let expected = answer::query_number(request.target(), "expect");
                let summary = self.log.summary_json(expected).to_string();
                answer::write(answers, 200, &summary, "application/json");
                answer::Next::KeepAlive
            }
            Some("/_reset") => {
                self.log.clear();
                answer::write(answers, 200, "{}", "application/json");
                answer::Next::KeepAlive
            }
            _ => answer::answer(request, behaviour, answers),
        }
    }
}
