//! Known bytes over TCP, and what the records say of them.

use crate::place::within;
use mirror_common::SHADOW_SOCKET_MARK;
use mirror_daemon::capture::{Capture, ControlEvent};
use mirror_daemon::flow::{Direction, FlowKey, Segment, TcpFlags};
use mirror_tests::server::listen;
use socket2::{Domain, Socket, Type};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

/// The byte at `index` of the stream called `name`: every position and every stream looks different.
pub(crate) fn pattern(name: u8, bytes: usize) -> Vec<u8> {
    (0..bytes as u64).map(|index| (index.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) as u8 ^ name).collect()
}

/// What goes over one connection.
#[derive(Clone, Copy)]
pub(crate) struct Exchange {
    pub(crate) request_bytes: usize,
    pub(crate) answer_bytes: usize,
    /// Bytes of each `write`.
    pub(crate) write_bytes: usize,
}

/// A listener in `server_netns`; the thread that serves it ends with the last connection.
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    listener: TcpListener,
}

impl Server {
    pub(crate) fn new(netns: &Path, addr: IpAddr, port: u16) -> Self {
        let listener = within(netns, || listen((addr, port).into()).expect("a free port"));
        Self { addr: listener.local_addr().expect("its address"), listener }
    }

    /// As [`Self::new`], with the listener, and so every connection it accepts, in this cgroup.
    pub(crate) fn in_cgroup(cgroup: &Path, netns: &Path, addr: IpAddr, port: u16) -> Self {
        // A socket belongs to the cgroup of the process that made it. A thread of its own cannot move alone in
        // a cgroup that is not threaded, so the whole test process goes in, and out again.
        let process = std::process::id().to_string();
        let _alone = ALONE.lock();
        std::fs::write(cgroup.join("cgroup.procs"), &process).expect("to enter the cgroup");
        let server = Self::new(netns, addr, port);
        let root = cgroup.parent().expect("a root").join("cgroup.procs");
        std::fs::write(root, process).expect("to leave the cgroup");
        server
    }

    /// One exchange over a connection that carries the daemon's own mark.
    pub(crate) fn exchange_marked(&self, client_netns: &Path, exchange: Exchange) {
        std::thread::scope(|scope| {
            scope.spawn(|| serve(self.listener.accept().expect("a client").0, exchange));
            within(client_netns, || {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
                socket.set_mark(SHADOW_SOCKET_MARK).expect("CAP_NET_ADMIN");
                socket.connect(&self.addr.into()).expect("the server");
                request(TcpStream::from(socket), exchange);
            });
        });
    }

    /// A connection to say single things over.
    pub(crate) fn talk(&self, client_netns: &Path) -> Talk {
        let client = within(client_netns, || TcpStream::connect(self.addr).expect("the server"));
        client.set_nodelay(true).expect("an open socket");
        Talk { client, server: self.listener.accept().expect("the client").0 }
    }

    /// Runs `connections` exchanges, one after the other, the client in `client_netns`.
    pub(crate) fn exchange(&self, client_netns: &Path, exchange: Exchange, connections: usize) {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..connections {
                    serve(self.listener.accept().expect("a client").0, exchange);
                }
            });
            within(client_netns, || {
                for _ in 0..connections {
                    request(TcpStream::connect(self.addr).expect("the server"), exchange);
                }
            });
        });
    }
}

/// Serialises what moves the whole process.
static ALONE: Mutex<()> = Mutex::new(());

/// An open connection.
pub(crate) struct Talk {
    client: TcpStream,
    server: TcpStream,
}

impl Talk {
    /// Sends `bytes` in one segment, and returns when the server has them.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.client.write_all(bytes).expect("the server reads");
        let mut received = vec![0; bytes.len()];
        self.server.read_exact(&mut received).expect("the bytes");
        assert_eq!(received, bytes);
    }
}

fn serve(mut stream: TcpStream, exchange: Exchange) {
    let mut request = Vec::new();
    stream.read_to_end(&mut request).expect("the request");
    assert_eq!(request, pattern(b'q', exchange.request_bytes));
    for part in pattern(b'a', exchange.answer_bytes).chunks(exchange.write_bytes) {
        stream.write_all(part).expect("the client reads");
    }
}

fn request(mut stream: TcpStream, exchange: Exchange) {
    for part in pattern(b'q', exchange.request_bytes).chunks(exchange.write_bytes) {
        stream.write_all(part).expect("the server reads");
    }
    stream.shutdown(Shutdown::Write).expect("an open connection");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("the answer");
    assert_eq!(answer, pattern(b'a', exchange.answer_bytes));
}

/// One direction of one connection, as the records tell it.
#[derive(Default)]
pub(crate) struct Told {
    /// Sequence number behind the SYN.
    start: Option<u32>,
    /// Pieces: sequence number and bytes.
    pieces: Vec<(u32, Vec<u8>)>,
    pub(crate) segment_bytes: u64,
    pub(crate) largest_segment_bytes: u32,
    pub(crate) fins: usize,
    pub(crate) selected: Vec<Option<bool>>,
}

impl Told {
    pub(crate) const fn start(&self) -> Option<u32> {
        self.start
    }

    /// All pieces, in the order of their arrival.
    pub(crate) fn payload(&self) -> Vec<u8> {
        self.pieces.iter().flat_map(|(_, piece)| piece.iter().copied()).collect()
    }

    /// How often each byte of `expected` was told; every piece must match it.
    pub(crate) fn coverage(&self, expected: &[u8]) -> Vec<u32> {
        let start = self.start.expect("the SYN was told");
        let mut times = vec![0; expected.len()];
        for (seq, piece) in &self.pieces {
            let offset = seq.wrapping_sub(start) as usize;
            assert_eq!(piece, &expected[offset..offset + piece.len()], "piece at {offset}");
            for count in &mut times[offset..offset + piece.len()] {
                *count += 1;
            }
        }
        times
    }
}

/// Everything that was read.
#[derive(Default)]
pub(crate) struct Log {
    /// By connection and whether it is the request direction, in order.
    pub(crate) flows: BTreeMap<(FlowKey, bool), Told>,
    /// Which shards told of each connection.
    pub(crate) shards: BTreeMap<FlowKey, Vec<u32>>,
    pub(crate) events: Vec<ControlEvent>,
    pub(crate) records: usize,
    pub(crate) copied_bytes: u64,
}

impl Log {
    pub(crate) fn note(&mut self, shard: u32, segment: &Segment<'_>) {
        self.records += 1;
        self.copied_bytes += segment.payload.len() as u64;
        let shards = self.shards.entry(segment.key).or_default();
        if !shards.contains(&shard) {
            shards.push(shard);
        }
        let told = self.flows.entry((segment.key, segment.direction == Direction::Request)).or_default();
        told.selected.push(segment.selected);
        if segment.flags.contains(TcpFlags::SYN) {
            told.start = Some(segment.seq.0.wrapping_add(1));
        }
        if segment.flags.contains(TcpFlags::FIN) {
            told.fins += 1;
        }
        let acknowledges = segment.direction == Direction::Request && !segment.flags.contains(TcpFlags::SYN);
        if segment.offset_bytes == 0 {
            told.segment_bytes += u64::from(segment.segment_bytes);
            told.largest_segment_bytes = told.largest_segment_bytes.max(segment.segment_bytes);
        }
        if !segment.payload.is_empty() {
            told.pieces.push((segment.seq.0.wrapping_add(segment.offset_bytes), segment.payload.to_vec()));
        }
        if acknowledges {
            // Older kernels (6.1) do not run `cgroup_skb` for a SYN-ACK: the client's first words acknowledge it.
            self.flows.entry((segment.key, false)).or_default().start.get_or_insert(segment.ack.0);
        }
    }

    /// The only connection's directions: request and answer.
    pub(crate) fn only(&self) -> (&Told, &Told) {
        assert_eq!(self.shards.len(), 1, "connections: {:?}", self.shards.keys());
        let key = *self.shards.keys().next().expect("one");
        (&self.flows[&(key, true)], &self.flows[&(key, false)])
    }

    /// Connections that were told to their end.
    pub(crate) fn finished(&self) -> usize {
        let ended =
            |key: &FlowKey, is_request| self.flows.get(&(*key, is_request)).is_some_and(|told| told.fins > 0);
        self.shards.keys().filter(|key| ended(key, true) && ended(key, false)).count()
    }
}

/// Runs `work` on a thread of its own while the heart beats and all rings are read, and then reads on until
/// `is_done` or a minute is over.
pub(crate) fn record(
    capture: &mut Capture,
    work: impl FnOnce() + Send,
    is_done: impl Fn(&Log) -> bool,
) -> Log {
    let mut log = Log::default();
    capture.live.beat().expect("a map to write");
    std::thread::scope(|scope| {
        let (done_tx, done_rx) = mpsc::channel();
        scope.spawn(move || {
            work();
            let _ = done_tx.send(());
        });
        let mut worked = false;
        let mut deadline = Instant::now() + Duration::from_secs(60);
        while Instant::now() < deadline && !(worked && is_done(&log)) {
            capture.live.beat().expect("a map to write");
            read_all(capture, &mut log);
            if !worked {
                match done_rx.recv_timeout(Duration::from_millis(1)) {
                    Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => {
                        worked = true;
                        deadline = Instant::now() + Duration::from_secs(60);
                    }
                    Err(mpsc::RecvTimeoutError::Timeout) => {}
                }
            }
        }
    });
    read_all(capture, &mut log);
    log
}

/// Reads what waits in all rings.
pub(crate) fn read_all(capture: &mut Capture, log: &mut Log) {
    for reader in &mut capture.readers {
        let shard = reader.shard();
        while reader.drain(1000, |segment| log.note(shard, &segment)).more {}
        assert_eq!(reader.malformed(), 0);
    }
    capture.control.drain(|event| log.events.push(event));
}
