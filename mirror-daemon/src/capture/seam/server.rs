//! The attacher's end of the calls.

use super::super::attach::{Attacher, PointState, PointStatus, Trial};
use super::super::load::{Loaded, TestKnobs};
use super::desk::{Desk, Purpose};
use super::message::{Call, Reply, cut, words_of};
use super::socket::{CallSocket, line};
use super::violation::Violation;
use crate::config::CaptureConfig;
use rustix::fd::AsFd;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// What the attacher brings to a session with one parser.
#[derive(Default)]
pub(crate) struct Terms {
    /// How many parsers there were before.
    pub(crate) restarts: u64,
    /// What the parser reads orders from.
    pub(crate) orders: Option<OwnedFd>,
    /// Looks at the parser before anything is attached: why it may not have it, in words.
    pub(crate) admit: Option<Box<dyn Fn() -> Result<(), String> + Send>>,
    /// Called when the parser is given up, from whichever thread.
    pub(crate) give_up: Option<Arc<dyn Fn() + Send + Sync>>,
    /// Becomes true with the parser's first beat: it captures.
    pub(crate) has_captured: Arc<AtomicBool>,
}

/// Serves the parser at the other end of `calls` to its end, or gives it up; then nothing of it is attached.
pub(crate) fn attend(calls: OwnedFd, terms: Terms) {
    let give_up = terms.give_up.clone();
    if let Err(violation) = serve(&calls.into(), terms) {
        tracing::error!(violation = words_of(&violation), "the parser is given up");
        give_up.iter().for_each(|give_up| give_up());
    }
}

/// Serves one parser to its end; then nothing of it is attached.
///
/// # Errors
/// When it said what it may not.
fn serve(calls: &CallSocket, terms: Terms) -> Result<(), Violation> {
    let mut server = Server { terms, stage: Stage::Greeting };
    while let Some((call, _unwanted)) = calls.receive()? {
        let (reply, descriptors) = server.obey(call)?;
        let borrowed: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
        calls.send(&reply, &borrowed)?;
    }
    Ok(())
}

struct Server {
    terms: Terms,
    stage: Stage,
}

/// `Greeting ──Hello──▶ Idle ──Open──▶ Opened ──Close──▶ Closed`. What comes out of turn ends the session.
enum Stage {
    Greeting,
    Idle,
    Opened(Box<Opened>),
    Closed,
}

struct Opened {
    attacher: Attacher,
    trial: Option<(u32, Trial)>,
    trials: u32,
    told: Vec<PointStatus>,
    is_admitted: bool,
}

type Said = (Reply, Vec<OwnedFd>);

impl Server {
    fn obey(&mut self, call: Call) -> Result<Said, Violation> {
        let stage = std::mem::replace(&mut self.stage, Stage::Closed);
        let (stage, said) = match (stage, call) {
            (Stage::Greeting, Call::Hello) => {
                let orders = self.terms.orders.take().into_iter().collect();
                (Stage::Idle, (Reply::Welcome { restarts: self.terms.restarts }, orders))
            }
            (Stage::Idle, Call::Open { wanted, drop_one_in, nice }) => {
                step_back(nice);
                match self.open(&wanted.into(), TestKnobs { drop_one_in })? {
                    Ok((opened, said)) => (Stage::Opened(Box::new(opened)), said),
                    Err(words) => (Stage::Idle, (Reply::Failed(words), Vec::new())),
                }
            }
            (Stage::Opened(opened), Call::Close) => {
                drop(opened);
                (Stage::Closed, (Reply::Done { points: Some(Vec::new()), fault: None }, Vec::new()))
            }
            (Stage::Opened(mut opened), call) => {
                let reply = opened.obey(call, &self.terms)?;
                (Stage::Opened(opened), (reply, Vec::new()))
            }
            _ => return Err(Violation::OutOfTurn),
        };
        self.stage = stage;
        Ok(said)
    }

    /// Makes maps, and starts the desk.
    fn open(
        &self,
        config: &CaptureConfig,
        knobs: TestKnobs,
    ) -> Result<Result<(Opened, Said), String>, Violation> {
        let loaded = match Loaded::new(config, knobs) {
            Ok(loaded) => loaded,
            Err(error) => return Ok(Err(words_of(&error))),
        };
        let Loaded { attacher, rings, control, mut maps } = loaded;
        maps.has_captured = Arc::clone(&self.terms.has_captured);
        let count = u32::try_from(rings.len()).unwrap_or(u32::MAX);
        let purposes =
            (0..count).map(Purpose::Ring).chain([Purpose::Live, Purpose::Counters, Purpose::Marks]);
        let mut descriptors = rings;
        descriptors.push(control);
        let mut lines = Vec::new();
        for purpose in purposes {
            let (near, far) = line()?;
            lines.push((purpose, near));
            descriptors.push(far);
        }
        let desk = Desk::new(maps, lines);
        let give_up = self.terms.give_up.clone();
        std::thread::Builder::new().name("desk".to_owned()).spawn(move || {
            if let Err(violation) = desk.serve() {
                tracing::error!(violation = words_of(&violation), "the parser is given up");
                give_up.iter().for_each(|give_up| give_up());
            }
        })?;
        let opened = Opened {
            attacher,
            trial: None,
            trials: 0,
            told: Vec::new(),
            is_admitted: self.terms.admit.is_none(),
        };
        Ok(Ok((opened, (Reply::Opened { rings: count }, descriptors))))
    }
}

impl Opened {
    fn obey(&mut self, call: Call, terms: &Terms) -> Result<Reply, Violation> {
        match call {
            Call::TryOut(wanted) => {
                if let (false, Some(admit)) = (self.is_admitted, &terms.admit) {
                    admit().map_err(io::Error::other)?;
                    self.is_admitted = true;
                }
                self.abandon();
                Ok(self.try_out(&wanted.into()))
            }
            Call::Commit { trial } => {
                let trial = self.take_trial(trial)?;
                let committed = self.attacher.commit(trial);
                Ok(self.done(committed.err().map(|error| words_of(&error))))
            }
            Call::Abandon { trial } => {
                let trial = self.take_trial(trial)?;
                self.attacher.abandon(trial);
                Ok(self.done(None))
            }
            Call::Check => {
                self.attacher.check();
                Ok(self.done(None))
            }
            Call::GetReady(expected) => {
                let loaded = self.attacher.get_ready(expected);
                Ok(self.done(loaded.err().map(|error| words_of(&error))))
            }
            Call::Hello | Call::Open { .. } | Call::Close => Err(Violation::OutOfTurn),
        }
    }

    fn try_out(&mut self, config: &CaptureConfig) -> Reply {
        match self.attacher.try_out(config) {
            Ok(trial) => {
                self.trials = self.trials.wrapping_add(1);
                let failures = trial.failures().map(|(point, why)| (point, cut(why))).collect();
                self.trial = Some((self.trials, trial));
                Reply::Tried { trial: self.trials, failures }
            }
            Err(error) => Reply::Failed(words_of(&error)),
        }
    }

    fn take_trial(&mut self, number: u32) -> Result<Trial, Violation> {
        match self.trial.take() {
            Some((present, trial)) if present == number => Ok(trial),
            other => {
                self.trial = other;
                Err(Violation::OutOfTurn)
            }
        }
    }

    fn abandon(&mut self) {
        if let Some((_, trial)) = self.trial.take() {
            self.attacher.abandon(trial);
        }
    }

    /// Tells the points where they are not as they were told last.
    fn done(&mut self, fault: Option<String>) -> Reply {
        let mut points = self.attacher.points();
        for point in &mut points {
            if let PointState::Failed(why) = &mut point.state {
                *why = cut(std::mem::take(why));
            }
            point.lifecycle_error = point.lifecycle_error.take().map(cut);
        }
        if points == self.told {
            return Reply::Done { points: None, fault };
        }
        self.told.clone_from(&points);
        Reply::Done { points: Some(points), fault }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        // Dropped as it is, a trial would leave filters behind.
        self.abandon();
    }
}

/// This thread, and so those that it starts, give way as the parser does.
fn step_back(nice: u8) {
    const NICEST: u8 = 19;
    if let Err(error) = rustix::process::setpriority_process(None, nice.min(NICEST).into()) {
        tracing::debug!(nice, %error, "the attacher's priority can't be lowered");
    }
}
