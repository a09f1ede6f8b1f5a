//! The process that a user starts: the attacher. It starts itself again as the parser, attaches what that one asks for,
//! passes signals on, and starts it again when it dies.
//!
//! ```text
//!  attacher: one thread here, one for the parser's calls, one for its lines
//!     │ starts, gives orders, reaps
//!     ▼
//!  parser: configuration, rings, pipeline, replay, pages; no capability
//! ```
//!
//! It reads no configuration and nothing of the network. Without a parser nothing is attached: production is free.
//! When the attacher dies, the kernel kills the parser (PR_SET_PDEATHSIG).

use crate::capture::{AttacherLink, Terms, attend};
use crate::cli::{EXIT_FAILURE, EXIT_OK};
use crate::privilege::{self, PrivilegeError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Set for a parser: the process id of its attacher, whose socket is the parser's standard input.
const ATTACHER_VARIABLE: &str = "MIRROR_ATTACHER";

/// How long the first parser that dies is waited for before another is started; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The longest that all may take to be detached after a parser's end.
const LONGEST_DETACHING: Duration = Duration::from_secs(20);
/// A parser that lived for so long starts the pauses anew.
const LONG_LIFE: Duration = Duration::from_secs(60);

/// An order from attacher to parser, one byte each: a signal that the attacher got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// SIGTERM.
    Terminate,
    /// SIGINT.
    Interrupt,
    /// SIGHUP.
    HangUp,
}

impl Order {
    const ALL: [(Self, u8, i32); 3] =
        [(Self::Terminate, b'T', SIGTERM), (Self::Interrupt, b'I', SIGINT), (Self::HangUp, b'H', SIGHUP)];

    /// `None`: no order.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, letter, _)| *letter == byte).map(|(order, ..)| order)
    }

    fn byte(self) -> u8 {
        Self::ALL.into_iter().find(|(order, ..)| *order == self).map_or(0, |(_, letter, _)| letter)
    }
}

/// What becomes of a parser that dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// Another is started.
    Always,
    /// All ends.
    Never,
}

/// Why there is no attacher, or no parser.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// The attacher could not be set up.
    #[error("the attacher can't {what}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Capabilities that are of no use here could not be given up.
    #[error(transparent)]
    Privilege(#[from] PrivilegeError),
    /// Standard input is not the attacher's socket, or the attacher has died.
    #[error("{ATTACHER_VARIABLE} is set, and this process was not started by an attacher: unset it")]
    NoAttacher,
    /// The attacher does not answer.
    #[error("the attacher does not answer")]
    Silent(#[source] crate::capture::CaptureError),
}

fn refused(what: &'static str) -> impl FnOnce(io::Error) -> SupervisorError {
    move |source| SupervisorError::Io { what, source }
}

/// In a process that was started as parser: the way to its attacher. `None` in any other. To be called while the process
/// has one thread.
///
/// # Errors
/// When the attacher is not there.
pub fn attacher_of_this_process() -> Result<Option<AttacherLink>, SupervisorError> {
    let Some(attacher) = std::env::var_os(ATTACHER_VARIABLE) else { return Ok(None) };
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|errno| refused("be followed into its end")(errno.into()))?;
    // It may have died before.
    let parent = rustix::process::getppid().map(|parent| parent.as_raw_nonzero().to_string());
    if parent.as_deref().map(AsRef::as_ref) != Some(attacher.as_os_str()) {
        return Err(SupervisorError::NoAttacher);
    }
    // Best effort: only what `ps` shows.
    let _ = rustix::thread::set_name(c"mirror-parser");
    privilege::keep_for_starting()?;
    let socket = io::stdin().as_fd().try_clone_to_owned().map_err(refused("be reached at standard input"))?;
    let nothing = std::fs::File::open("/dev/null").map_err(refused("leave standard input"))?;
    rustix::stdio::dup2_stdin(nothing).map_err(|errno| refused("leave standard input")(errno.into()))?;
    AttacherLink::to_process(socket).map(Some).map_err(SupervisorError::Silent)
}

/// Runs as attacher until the parser ends for good; returns the exit code. To be called while the process has one thread.
///
/// # Errors
/// When no parser can be started at all.
pub fn run(restart: Restart) -> Result<u8, SupervisorError> {
    privilege::keep_for_attaching()?;
    let mut inbox = Inbox::open()?;
    let mut is_told_to_end = false;
    let mut pause = FIRST_PAUSE;
    let has_captured = Arc::new(AtomicBool::new(false));
    for restarts in 0.. {
        let started = Instant::now();
        let mut parser = Parser::start(restarts, &has_captured)?;
        let status = loop {
            for order in inbox.wait(Some(parser.ended.as_fd()), None)? {
                is_told_to_end |= order != Order::HangUp;
                parser.order(order);
            }
            if let Some(status) = parser.reap()? {
                break status;
            }
        };
        // Nothing is attached from here on.
        drop(parser);
        let code = status.code().and_then(|code| u8::try_from(code).ok());
        match code {
            Some(EXIT_OK) => return Ok(EXIT_OK),
            _ if is_told_to_end || restart == Restart::Never => return Ok(code.unwrap_or(EXIT_FAILURE)),
            // A fault of the command line, the configuration or the machine; a crash is none.
            Some(code) if code != PANICKED && !has_captured.load(Ordering::Relaxed) => return Ok(code),
            _ => {}
        }
        if started.elapsed() > LONG_LIFE {
            pause = FIRST_PAUSE;
        }
        tracing::error!(how = in_words(status), again_in = ?pause, "the parser died: nothing is mirrored until it is back");
        if inbox.wait_without_parser(pause)? {
            return Ok(EXIT_OK);
        }
        pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
    }
    Ok(EXIT_FAILURE)
}

/// With this code a process ends whose main thread panicked.
const PANICKED: u8 = 101;

fn in_words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("it ended with code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "it is gone".to_owned(),
    }
}

/// The signals that this process gets.
struct Inbox {
    pipes: Vec<(Order, UnixStream)>,
}

impl Inbox {
    fn open() -> Result<Self, SupervisorError> {
        let open = |(order, _, signal)| {
            let (read, write) = UnixStream::pair()?;
            read.set_nonblocking(true)?;
            signal_hook::low_level::pipe::register(signal, write)?;
            Ok((order, read))
        };
        let pipes = Order::ALL.into_iter().map(open).collect::<io::Result<_>>();
        Ok(Self { pipes: pipes.map_err(refused("handle signals"))? })
    }

    /// Sleeps until a signal came, `other` is readable or `timeout` is over (`None`: never). Which signals came.
    fn wait(
        &mut self,
        other: Option<rustix::fd::BorrowedFd<'_>>,
        timeout: Option<Duration>,
    ) -> Result<Vec<Order>, SupervisorError> {
        let pipes = self.pipes.iter().map(|(_, pipe)| pipe.as_fd());
        let mut fds: Vec<_> =
            pipes.chain(other).map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(timeout.subsec_nanos()),
        });
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(refused("wait for signals")(errno.into())),
        }
        drop(fds);
        let came = |(order, pipe): &mut (Order, UnixStream)| {
            // One byte for each signal; two of a kind are two orders.
            let count = pipe.read(&mut [0; 16]).unwrap_or(0);
            std::iter::repeat_n(*order, count)
        };
        Ok(self.pipes.iter_mut().flat_map(came).collect())
    }

    /// True when it was told to end meanwhile.
    fn wait_without_parser(&mut self, pause: Duration) -> Result<bool, SupervisorError> {
        let until = Instant::now().checked_add(pause).unwrap_or_else(Instant::now);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            // A parser that starts reads its configuration anyway.
            if self.wait(None, Some(left))?.into_iter().any(|order| order != Order::HangUp) {
                return Ok(true);
            }
        }
    }
}

/// A running parser and what serves it. Dropped, it is killed, and nothing of it stays attached.
struct Parser {
    child: Child,
    /// Readable once it has ended.
    ended: Arc<OwnedFd>,
    orders: UnixStream,
    /// Owns links; ends with the parser.
    server: Option<JoinHandle<()>>,
}

impl Parser {
    fn start(restarts: u64, has_captured: &Arc<AtomicBool>) -> Result<Self, SupervisorError> {
        let (near, far) = UnixStream::pair().map_err(refused("make a socket"))?;
        let (orders, taken_orders) = UnixStream::pair().map_err(refused("make a socket"))?;
        orders.set_nonblocking(true).map_err(refused("make a socket"))?;
        let mut arguments = std::env::args_os();
        let mut command = Command::new("/proc/self/exe");
        command.arg0(arguments.next().unwrap_or_else(|| "mirror-daemon".into()));
        command.args(arguments).env(ATTACHER_VARIABLE, std::process::id().to_string());
        let mut child =
            command.stdin(Stdio::from(OwnedFd::from(far))).spawn().map_err(refused("start the parser"))?;
        // It holds the far end of the socket.
        drop(command);
        let pid = child.id();
        let ended = match i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
            Some(pid) => pidfd_open(pid, PidfdFlags::empty()).map_err(io::Error::from),
            None => Err(io::ErrorKind::NotFound.into()),
        };
        let ended = match ended {
            Ok(ended) => Arc::new(ended),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(refused("watch the parser")(error));
            }
        };
        let victim = Arc::clone(&ended);
        let terms = Terms {
            restarts,
            orders: Some(taken_orders.into()),
            admit: Some(Box::new(move || privilege::look_at_threads(pid))),
            // Fails when it is gone already.
            give_up: Some(Arc::new(move || {
                let _ = pidfd_send_signal(&*victim, Signal::KILL);
            })),
            has_captured: Arc::clone(has_captured),
        };
        let serve = move || attend(near.into(), terms);
        let server = std::thread::Builder::new().name("attacher".to_owned()).spawn(serve);
        let mut parser = Self { child, ended, orders, server: None };
        parser.server = Some(server.map_err(refused("start a thread"))?);
        Ok(parser)
    }

    fn order(&mut self, order: Order) {
        // It reads them whenever it can; a parser that is gone needs none.
        let written = self.orders.write(&[order.byte()]);
        let is_full = written.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        if is_full && order != Order::HangUp {
            // It has not read hundreds of orders, and will not end by one more.
            let _ = self.child.kill();
        }
    }

    fn reap(&mut self) -> Result<Option<ExitStatus>, SupervisorError> {
        self.child.try_wait().map_err(refused("wait for the parser"))
    }
}

impl Drop for Parser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let Some(server) = self.server.take() else { return };
        let begun = Instant::now();
        while !server.is_finished() {
            if begun.elapsed() > LONGEST_DETACHING {
                // With this process all that it has attached goes; filters do nothing without it.
                tracing::error!("the attacher does not come to an end: it is given up");
                std::process::exit(EXIT_FAILURE.into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = server.join();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_read_as_they_were_given() {
        for (order, ..) in Order::ALL {
            assert_eq!(Order::from_byte(order.byte()), Some(order));
        }
        assert_eq!(Order::from_byte(0), None);
    }
}
