//! The parser's end of the calls.

use super::super::attach::{Expected, PointNumbers, PointStatus};
use super::super::control::ControlReader;
use super::super::counters::CounterReader;
use super::super::error::CaptureError;
use super::super::line::Line;
use super::super::live::LiveWriter;
use super::super::load::{Capture, TestKnobs};
use super::super::marker::SocketMarker;
use super::super::reader::RingReader;
use super::super::verdict::VerdictWriter;
use super::message::{Call, Reply};
use super::server::{Terms, attend};
use super::socket::CallSocket;
use crate::config::{CaptureConfig, CapturePoint};
use aya::maps::{Map, MapData, RingBuf};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;

/// The way to an attacher, before anything is opened.
#[derive(Debug)]
pub struct AttacherLink {
    client: AttacherClient,
    restarts: u64,
    orders: Option<OwnedFd>,
}

/// Gives the attacher its work: capture points come and go while the daemon runs. Dropping it detaches all.
#[derive(Debug)]
pub struct AttacherClient {
    calls: CallSocket,
    points: Vec<PointStatus>,
    numbers: PointNumbers,
    /// Maps are made.
    is_open: bool,
    /// The attacher, where it is a thread of this process.
    thread: Option<JoinHandle<()>>,
}

/// A configuration whose new capture points are attached and tell nothing yet.
#[derive(Debug)]
#[must_use = "a trial ends by `AttacherClient::commit` or `AttacherClient::abandon`"]
pub struct Trial {
    number: u32,
    failures: Vec<(CapturePoint, String)>,
}

impl Trial {
    /// The points that could not be attached, or not in the wanted way, and why, in words.
    pub fn failures(&self) -> impl Iterator<Item = (CapturePoint, String)> {
        self.failures.iter().cloned()
    }
}

/// Everything that capturing needs but the capture points: maps are made, rings are mapped, nothing is attached. From
/// here on this process needs no privilege.
#[derive(Debug)]
pub struct Prepared {
    capture: Capture,
    marker: Arc<SocketMarker>,
}

impl AttacherLink {
    /// Starts an attacher on a thread of this process, with the privileges of this thread.
    ///
    /// # Errors
    /// When no thread or no socket can be made.
    pub fn to_thread() -> Result<Self, CaptureError> {
        let refused = |source| CaptureError::Io { what: "start the attacher", source };
        let (near, far) = CallSocket::pair().map_err(refused)?;
        let attacher = move || attend(far, Terms::default());
        let thread =
            std::thread::Builder::new().name("attacher".to_owned()).spawn(attacher).map_err(refused)?;
        Self::greet(near, Some(thread))
    }

    /// Talks to the attacher at the other end of `socket`.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn to_process(socket: OwnedFd) -> Result<Self, CaptureError> {
        Self::greet(socket.into(), None)
    }

    fn greet(calls: CallSocket, thread: Option<JoinHandle<()>>) -> Result<Self, CaptureError> {
        let (points, numbers) = (Vec::new(), PointNumbers::default());
        let mut client = AttacherClient { calls, points, numbers, is_open: false, thread };
        match client.call(&Call::Hello)? {
            (Reply::Welcome { restarts }, descriptors) => {
                Ok(Self { client, restarts, orders: descriptors.into_iter().next() })
            }
            _ => Err(misunderstood()),
        }
    }

    /// How many parsers of this attacher died before this one.
    #[must_use]
    pub const fn restarts(&self) -> u64 {
        self.restarts
    }

    /// What an attacher of another process gives its orders by.
    pub const fn take_orders(&mut self) -> Option<OwnedFd> {
        self.orders.take()
    }

    /// Makes the maps that `config` wants, and maps the rings. Needs the privileges of BPF, which nothing needs
    /// afterwards.
    ///
    /// # Errors
    /// When nothing can be captured at all: no kernel programs in this binary, a kernel too old, no privilege.
    pub fn prepare(self, config: &CaptureConfig, knobs: TestKnobs) -> Result<Prepared, CaptureError> {
        let Self { mut client, .. } = self;
        let nice = rustix::process::getpriority_process(None).ok().and_then(|nice| u8::try_from(nice).ok());
        let open = Call::Open {
            wanted: config.into(),
            drop_one_in: knobs.drop_one_in,
            nice: nice.unwrap_or_default(),
        };
        let (rings, descriptors) = match client.call(&open)? {
            (Reply::Opened { rings }, descriptors) => (rings, descriptors),
            (Reply::Failed(words), _) => return Err(CaptureError::Attacher { words }),
            _ => return Err(misunderstood()),
        };
        client.is_open = true;
        let mut descriptors = descriptors.into_iter();
        let mut next = || descriptors.next().ok_or_else(misunderstood);
        let mut mapped = Vec::new();
        for _ in 0..rings {
            mapped.push(map_ring(next()?)?);
        }
        let control = ControlReader::new(map_ring(next()?)?)?;
        let (mut readers, mut verdicts) = (Vec::new(), Vec::new());
        for (shard, ring) in (0..).zip(mapped) {
            let line = Arc::new(Line::new(next()?));
            readers.push(RingReader::new(ring, shard, Arc::clone(&line), config.tick)?);
            verdicts.push(VerdictWriter::new(line));
        }
        let live = LiveWriter::new(Line::new(next()?));
        let counters = CounterReader::new(Line::new(next()?));
        let marker = Arc::new(SocketMarker::new(next()?));
        let capture = Capture { attacher: client, readers, control, counters, live, verdicts };
        Ok(Prepared { capture, marker })
    }
}

impl Prepared {
    /// Attaches to the configured capture points. One that can't be attached is no error here: see
    /// [`AttacherClient::points`].
    ///
    /// # Errors
    /// As [`AttacherClient::apply`].
    pub fn attach(mut self, config: &CaptureConfig) -> Result<Capture, CaptureError> {
        self.capture.attacher.apply(config)?;
        Ok(self.capture)
    }

    /// Marks the daemon's own sockets.
    #[must_use]
    pub fn marker(&self) -> Arc<SocketMarker> {
        Arc::clone(&self.marker)
    }
}

impl AttacherClient {
    /// Makes ports, leg, exclusions, capture points and lifecycle hooks what `config` says, at points that are
    /// attached already too. Points that stay wanted stay attached. Ring sizes and shards are those of the start:
    /// changing them takes a restart.
    ///
    /// # Errors
    /// When a map cannot be written, or more points are wanted than there can be. A point that cannot be attached is
    /// no error; see [`Self::points`], and [`Self::try_out`] where it is to be one.
    pub fn apply(&mut self, config: &CaptureConfig) -> Result<(), CaptureError> {
        let trial = self.try_out(config)?;
        self.commit(trial)
    }

    /// Attaches what `config` wants and is not there yet, beside what there is, and changes nothing else. A trial
    /// under way is abandoned.
    ///
    /// # Errors
    /// When more points are wanted than there can be. That one cannot be attached is told by [`Trial::failures`].
    pub fn try_out(&mut self, config: &CaptureConfig) -> Result<Trial, CaptureError> {
        match self.call(&Call::TryOut(config.into()))?.0 {
            Reply::Tried { trial: number, failures } => Ok(Trial { number, failures }),
            Reply::Failed(words) => Err(CaptureError::Attacher { words }),
            _ => Err(misunderstood()),
        }
    }

    /// Takes the tried configuration into use: ports, leg, exclusions, lifecycle hooks and capture points. Points
    /// that stay wanted stay attached. A new one that could not be attached stays wanted, too.
    ///
    /// # Errors
    /// When a map cannot be written.
    pub fn commit(&mut self, trial: Trial) -> Result<(), CaptureError> {
        self.order(&Call::Commit { trial: trial.number })
    }

    /// Takes off what was tried.
    pub fn abandon(&mut self, trial: Trial) {
        log_failure(self.order(&Call::Abandon { trial: trial.number }));
    }

    /// Tries again what could not be attached, and attaches anew where an interface was replaced by another of
    /// the same name. The attacher logs a point that is lost, and one that is back, once. To be called every few
    /// seconds.
    pub fn check(&mut self) {
        log_failure(self.order(&Call::Check));
    }

    /// Loads what capture points that come later are attached with, so that the first of them does not wait for the
    /// kernel's verifier.
    ///
    /// # Errors
    /// When the kernel refuses a program; a point that needs it will not be attached either.
    pub fn get_ready(&mut self, expected: Expected) -> Result<(), CaptureError> {
        self.order(&Call::GetReady(expected))
    }

    /// Every wanted capture point and whether it is attached, as of the latest call.
    #[must_use]
    pub fn points(&self) -> Vec<PointStatus> {
        self.points.clone()
    }

    /// The numbers in use, now and later.
    #[must_use]
    pub fn numbers(&self) -> PointNumbers {
        self.numbers.clone()
    }

    fn order(&mut self, call: &Call) -> Result<(), CaptureError> {
        let (Reply::Done { points, fault }, _) = self.call(call)? else { return Err(misunderstood()) };
        if let Some(points) = points {
            self.numbers.replace(points.iter());
            self.points = points;
        }
        fault.map_or(Ok(()), |words| Err(CaptureError::Attacher { words }))
    }

    fn call(&mut self, call: &Call) -> Result<(Reply, Vec<OwnedFd>), CaptureError> {
        let refused = |source| CaptureError::Io { what: "talk to the attacher", source };
        self.calls.send(call, &[]).map_err(refused)?;
        let answered = self.calls.receive().map_err(refused)?;
        answered.ok_or_else(|| refused(io::ErrorKind::UnexpectedEof.into()))
    }
}

impl Drop for AttacherClient {
    fn drop(&mut self) {
        if self.is_open {
            // Fails when there is no attacher any more, and then nothing is attached either.
            let _ = self.order(&Call::Close);
        }
        self.calls.hang_up();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Maps a ring. It tells the kernel's limits of the map by `bpf(2)`: the last call of that kind of a parser.
fn map_ring(ring: OwnedFd) -> Result<RingBuf<MapData>, CaptureError> {
    let refused = CaptureError::map("RING");
    let data = MapData::from_fd(
        ring.as_fd()
            .try_clone_to_owned()
            .map_err(|source| CaptureError::Io { what: "duplicate a map's descriptor", source })?,
    );
    match data.and_then(|data| Map::RingBuf(data).try_into()) {
        Ok(ring) => Ok(ring),
        Err(error) => Err(refused(error)),
    }
}

fn misunderstood() -> CaptureError {
    CaptureError::Io { what: "understand the attacher", source: io::ErrorKind::InvalidData.into() }
}

fn log_failure(outcome: Result<(), CaptureError>) {
    if let Err(error) = outcome {
        tracing::warn!(%error, "the attacher could not do what it was asked");
    }
}
