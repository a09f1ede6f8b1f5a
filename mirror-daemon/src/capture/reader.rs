//! One data ring: segments out of it without a copy, and sleep without a tick while it is empty.

mod tick;

use super::control::direction;
use super::error::CaptureError;
use super::line::Line;
use super::seam::Note;
use crate::flow::{Segment, SeqNumber, TcpFlags, Timestamp};
use aya::maps::{MapData, RingBuf};
use mirror_common::{RecordFlags, RecordHeader};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, epoll, eventfd, poll};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tick::Tick;

/// A ring that was empty for this long makes its reader ask for a wake-up and stop ticking.
const IDLE_AFTER: Duration = Duration::from_millis(100);

/// The longest sleep without a look at the ring. The kernel reads the reader's flag without a full barrier,
/// so in theory one wake-up can be missed; then the record waits for this long.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// What a [`RingReader::drain`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Records handed over.
    pub records: usize,
    /// The budget was used up: more may wait.
    pub more: bool,
}

/// Reads one data ring. Both directions of a flow are in the same ring.
pub struct RingReader {
    ring: RingBuf<MapData>,
    shard: u32,
    /// To the attacher, which tells the kernel when this reader sleeps.
    line: Arc<Line>,
    sleep: Sleep,
    epoll: OwnedFd,
    waker: Waker,
    tick: Tick,
    last_record: Instant,
    malformed: u64,
}

/// Whether the kernel knows that it has to wake this reader.
///
/// ```text
/// Awake ──idle: note to the attacher──▶ Asked ──its answer──▶ Granted ──the ring is readable──▶ Awake
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sleep {
    Awake,
    /// By the note of this number. Until the answer comes the reader ticks on.
    Asked(u32),
    /// The kernel wakes it with the next record, and forgets it then.
    Granted,
}

/// Which descriptor of the epoll set is ready.
const RING: u64 = 0;
const WAKER: u64 = 1;
const LINE: u64 = 2;

impl std::fmt::Debug for RingReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RingReader").field("shard", &self.shard).finish_non_exhaustive()
    }
}

impl RingReader {
    pub(super) fn new(
        ring: RingBuf<MapData>,
        shard: u32,
        line: Arc<Line>,
        tick: Duration,
    ) -> Result<Self, CaptureError> {
        let refused = |errno: rustix::io::Errno| CaptureError::Io { what: "use epoll", source: errno.into() };
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(refused)?;
        let waker = Waker::new()?;
        // Edge-triggered: waiting data alone, which the kernel put there without a wake-up, does not end the
        // tick; a forced wake-up does.
        let edge = epoll::EventFlags::IN | epoll::EventFlags::ET;
        let always = epoll::EventFlags::IN;
        epoll::add(&epoll, &ring, epoll::EventData::new_u64(RING), edge).map_err(refused)?;
        epoll::add(&epoll, &*waker.0, epoll::EventData::new_u64(WAKER), always).map_err(refused)?;
        epoll::add(&epoll, &*line, epoll::EventData::new_u64(LINE), edge).map_err(refused)?;
        Ok(Self {
            ring,
            shard,
            line,
            sleep: Sleep::Awake,
            epoll,
            waker,
            tick: Tick::new(tick),
            last_record: Instant::now(),
            malformed: 0,
        })
    }

    /// Which data ring this is.
    #[must_use]
    pub const fn shard(&self) -> u32 {
        self.shard
    }

    /// What ends a [`Self::wait`] from another thread.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Records that were no records. Not 0 only when kernel programs and daemon do not match.
    #[must_use]
    pub const fn malformed(&self) -> u64 {
        self.malformed
    }

    /// Hands up to `budget` records over; the payload is borrowed from the ring, whose room is free again when
    /// `on_segment` returns.
    pub fn drain(&mut self, budget: usize, mut on_segment: impl FnMut(Segment<'_>)) -> Drained {
        let mut records = 0_usize;
        while records < budget {
            let Some(item) = self.ring.next() else { break };
            records = records.saturating_add(1);
            match segment(&item) {
                Some(segment) => on_segment(segment),
                None => self.malformed = self.malformed.saturating_add(1),
            }
        }
        if records > 0 {
            self.last_record = Instant::now();
        }
        self.tick.handle_look(records);
        Drained { records, more: records == budget }
    }

    /// Sleeps: for a tick while the ring is in use, and until the next record once it has been empty for a
    /// while. Ends early when too much waits, when the waker was used, and after `timeout` (`None`: none).
    ///
    /// # Errors
    /// When the kernel refuses to wait.
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<(), CaptureError> {
        if self.last_record.elapsed() < IDLE_AFTER {
            self.sleep = Sleep::Awake;
        } else if self.is_sleep_granted() {
            return self.sleep(timeout.map_or(LONGEST_SLEEP, |timeout| timeout.min(LONGEST_SLEEP)));
        }
        let tick = self.tick.length();
        self.wait_tick(timeout.map_or(tick, |timeout| timeout.min(tick)))
    }

    /// Asks for a wake-up where that was not done yet. Never waits for the attacher: without it, the reader ticks.
    fn is_sleep_granted(&mut self) -> bool {
        self.sleep = match self.sleep {
            Sleep::Awake => {
                let asked = self.line.ask_for(|number| Note::Asleep { number });
                asked.map_or(Sleep::Awake, Sleep::Asked)
            }
            Sleep::Asked(number) if self.line.is_answered(number) => Sleep::Granted,
            sleep => sleep,
        };
        self.sleep == Sleep::Granted
    }

    fn sleep(&mut self, longest: Duration) -> Result<(), CaptureError> {
        // `poll` looks again for records, reserved ones included, behind the flag: none can slip between.
        if sleep_until_readable(&self.ring, &self.waker, Some(longest))? {
            self.sleep = Sleep::Awake;
        }
        Ok(())
    }

    fn wait_tick(&self, tick: Duration) -> Result<(), CaptureError> {
        let nothing =
            epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(RING) };
        let mut events = [nothing; 3];
        let ready = match epoll::wait(&self.epoll, &mut events, Some(&timespec(tick))) {
            Ok(ready) => ready,
            Err(rustix::io::Errno::INTR) => 0,
            Err(errno) => return Err(CaptureError::Io { what: "wait for a ring", source: errno.into() }),
        };
        if events.iter().take(ready).any(|event| event.data.u64() == WAKER) {
            self.waker.clear();
        }
        Ok(())
    }
}

/// Ends the sleep of one reader, from any thread.
#[derive(Clone, Debug)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    pub(crate) fn new() -> Result<Self, CaptureError> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| CaptureError::Io { what: "make an eventfd", source: errno.into() })?;
        Ok(Self(Arc::new(fd)))
    }

    /// The reader's current or next wait ends at once.
    pub fn wake(&self) {
        // Fails only when the counter is full, and then the reader is woken anyway.
        let _ = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
    }

    fn clear(&self) {
        let _ = rustix::io::read(&*self.0, &mut [0_u8; 8]);
    }
}

/// Sleeps until `source` is readable, `waker` was used or `timeout` is over. Whether `source` is readable.
pub(crate) fn sleep_until_readable(
    source: &impl AsFd,
    waker: &Waker,
    timeout: Option<Duration>,
) -> Result<bool, CaptureError> {
    let mut fds = [PollFd::new(source, PollFlags::IN), PollFd::new(&*waker.0, PollFlags::IN)];
    match poll(&mut fds, timeout.map(timespec).as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(errno) => return Err(CaptureError::Io { what: "wait for a ring", source: errno.into() }),
    }
    if fds.last().is_some_and(|fd| !fd.revents().is_empty()) {
        waker.clear();
    }
    Ok(fds.first().is_some_and(|fd| !fd.revents().is_empty()))
}

/// The segment in one record; `None` when the record is shorter than it says.
fn segment(record: &[u8]) -> Option<Segment<'_>> {
    let header = RecordHeader::from_bytes(record)?;
    let end = RecordHeader::BYTES.checked_add(usize::try_from(header.piece_bytes).ok()?)?;
    let payload = record.get(RecordHeader::BYTES..end)?;
    let selected = (header.flags & RecordFlags::SELECTION_IN_USE != 0)
        .then_some(header.flags & RecordFlags::SELECTED != 0);
    Some(Segment {
        key: header.flow,
        direction: direction(u16::from(header.direction)),
        seq: SeqNumber(header.seq),
        ack: SeqNumber(header.ack),
        flags: TcpFlags(header.tcp_flags),
        selected,
        at: Timestamp(header.captured_ns),
        segment_bytes: header.segment_bytes,
        offset_bytes: header.offset_bytes,
        payload,
    })
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(piece_bytes: u32, payload: &[u8]) -> Vec<u8> {
        let mut record = vec![0_u8; RecordHeader::BYTES];
        let offset = std::mem::offset_of!(RecordHeader, piece_bytes);
        record[offset..][..4].copy_from_slice(&piece_bytes.to_ne_bytes());
        record.extend_from_slice(payload);
        record
    }

    #[test]
    fn payload_ends_where_the_header_says() {
        assert_eq!(segment(&record(3, b"abcdef")).map(|segment| segment.payload), Some(&b"abc"[..]));
        assert_eq!(segment(&record(0, b"")).map(|segment| segment.payload), Some(&b""[..]));
    }

    #[test]
    fn record_that_promises_more_than_it_has_is_refused() {
        assert!(segment(&record(4, b"abc")).is_none());
        assert!(segment(&record(u32::MAX, b"abc")).is_none());
        assert!(segment(&[0; RecordHeader::BYTES - 1]).is_none());
    }
}
