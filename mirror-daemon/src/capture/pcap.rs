//! I/O. Segments from a capture file, classic pcap or pcapng.
//!
//! Streams the file: memory is one buffer that grows to the largest block, at most [`MAX_BLOCK_BYTES`].
//! Nothing in a file can panic. A packet that is no whole TCP header of a wanted port is skipped and
//! counted; broken framing is an error, for then nothing behind it can be found. A file that stops in
//! mid-packet, as that of a killed tcpdump does, ends there ([`PcapCounters::cut_off`]).
//!
//! Left out: IP fragments (counted), checksums (captures of sent packets often lack them), pcapng's obsolete
//! Packet Block.

mod blocks;
mod packet;
#[cfg(test)]
mod tests;

use crate::config::Leg;
use crate::flow::Segment;
use blocks::{Blocks, Fault};
use packet::{PortSelection, Skip};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

pub use blocks::{MAX_BLOCK_BYTES, MAX_INTERFACES};

/// A capture file as a source of segments.
#[derive(Debug)]
pub struct PcapSource<R = File> {
    path: PathBuf,
    blocks: Blocks<R>,
    selection: PortSelection,
    counters: PcapCounters,
}

/// What became of the packets of a file: `packets = segments + skipped.total()`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PcapCounters {
    /// Packets read.
    pub packets: u64,
    /// Segments handed on.
    pub segments: u64,
    /// Of these, the ones whose payload was cut by the snap length.
    pub snapped_segments: u64,
    /// Packets not handed on, by cause.
    pub skipped: SkippedPackets,
    /// The file stops in mid-packet.
    pub cut_off: bool,
}

/// Packets not handed on, each counted once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SkippedPackets {
    /// Neither IPv4 nor IPv6.
    pub not_ip: u64,
    /// Another protocol than TCP.
    pub not_tcp: u64,
    /// A fragment of an IP packet.
    pub fragment: u64,
    /// Cut by the snap length within its headers.
    pub cut_headers: u64,
    /// Headers that contradict themselves.
    pub malformed: u64,
    /// TCP, but neither port is wanted.
    pub other_port: u64,
    /// Of a link type that is not supported (pcapng; a classic file of such a type is refused as a whole).
    pub link_type: u64,
}

impl SkippedPackets {
    /// Sum over all causes.
    #[must_use]
    pub fn total(&self) -> u64 {
        let causes = [
            self.not_ip,
            self.not_tcp,
            self.fragment,
            self.cut_headers,
            self.malformed,
            self.other_port,
            self.link_type,
        ];
        causes.iter().fold(0, |sum, packets| sum.saturating_add(*packets))
    }

    fn of(&mut self, skip: Skip) -> &mut u64 {
        match skip {
            Skip::NotIp => &mut self.not_ip,
            Skip::NotTcp => &mut self.not_tcp,
            Skip::Fragment => &mut self.fragment,
            Skip::CutHeaders => &mut self.cut_headers,
            Skip::Malformed => &mut self.malformed,
            Skip::OtherPort => &mut self.other_port,
            Skip::LinkType => &mut self.link_type,
        }
    }
}

/// Why a capture file could not be read, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum PcapError {
    /// The file could not be opened.
    #[error("cannot open capture file {}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Reading failed.
    #[error("cannot read capture file {} at byte {offset}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What the system said.
        source: io::Error,
    },
    /// It is no capture file.
    #[error("{} is neither pcap nor pcapng: it starts with {start:02x?}", path.display())]
    NotCapture {
        /// The file.
        path: PathBuf,
        /// Its first bytes, at most 4.
        start: Vec<u8>,
    },
    /// A classic pcap file of a link type that is not supported.
    #[error(
        "capture file {} has link type {link_type}; supported are Ethernet (1), raw IP (12, 14, 101, 228, \
         229), loopback (0, 108) and Linux cooked (113, 276)",
        path.display()
    )]
    LinkType {
        /// The file.
        path: PathBuf,
        /// Its link type, as tcpdump.org numbers them.
        link_type: i32,
    },
    /// The framing is broken.
    #[error("capture file {} is broken at byte {offset}: {what}", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// Where the broken block starts.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// A block is larger than is sane.
    #[error(
        "capture file {} has a block of {bytes} bytes at byte {offset}; the limit is {MAX_BLOCK_BYTES}",
        path.display()
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Where it starts.
        offset: u64,
        /// Its length.
        bytes: u64,
    },
}

impl PcapSource<File> {
    /// Opens a capture file. `ports` are the gateway's on the downstream leg and the other end's on the
    /// upstream leg: on both, those of who accepts the connections, so that requests travel towards them.
    ///
    /// # Errors
    ///
    /// The file can't be opened or read, is no capture file, or has a link type that is not supported.
    pub fn open(path: &Path, leg: Leg, ports: &[u16]) -> Result<Self, PcapError> {
        let file = File::open(path).map_err(|source| PcapError::Open { path: path.to_path_buf(), source })?;
        Self::read_from(file, path, leg, ports)
    }
}

impl<R: Read> PcapSource<R> {
    /// Reads a capture from anywhere; `path` is what errors call it.
    ///
    /// # Errors
    ///
    /// As [`PcapSource::open`].
    pub fn read_from(reader: R, path: &Path, leg: Leg, ports: &[u16]) -> Result<Self, PcapError> {
        let path = path.to_path_buf();
        match Blocks::new(reader) {
            Ok(blocks) => Ok(Self {
                path,
                blocks,
                selection: PortSelection::new(leg, ports),
                counters: PcapCounters::default(),
            }),
            Err(fault) => Err(fault.of_file(path)),
        }
    }

    /// Hands on the next segment; false at the end of the file.
    ///
    /// # Errors
    ///
    /// The file can't be read or its framing is broken. There is no going on behind an error.
    pub fn next(&mut self, on_segment: &mut impl FnMut(&Segment<'_>)) -> Result<bool, PcapError> {
        loop {
            let packet = match self.blocks.next() {
                Ok(Some(packet)) => packet,
                Ok(None) => {
                    self.counters.cut_off = self.blocks.is_cut_off();
                    return Ok(false);
                }
                Err(fault) => return Err(fault.of_file(self.path.clone())),
            };
            increment(&mut self.counters.packets);
            match packet::parse(&packet, &self.selection) {
                Ok(segment) => {
                    increment(&mut self.counters.segments);
                    if u64::from(segment.segment_bytes) > segment.payload.len() as u64 {
                        increment(&mut self.counters.snapped_segments);
                    }
                    on_segment(&segment);
                    return Ok(true);
                }
                Err(skip) => increment(self.counters.skipped.of(skip)),
            }
        }
    }

    /// Hands on every segment.
    ///
    /// # Errors
    ///
    /// As [`PcapSource::next`]; the segments before were handed on.
    pub fn for_each(&mut self, mut on_segment: impl FnMut(&Segment<'_>)) -> Result<(), PcapError> {
        while self.next(&mut on_segment)? {}
        Ok(())
    }

    /// What was counted so far.
    #[must_use]
    pub fn counters(&self) -> &PcapCounters {
        &self.counters
    }
}

impl Fault {
    fn of_file(self, path: PathBuf) -> PcapError {
        match self {
            Self::Read { offset, source } => PcapError::Read { path, offset, source },
            Self::NotCapture { start } => PcapError::NotCapture { path, start },
            Self::LinkType { link_type } => PcapError::LinkType { path, link_type },
            Self::Broken { offset, what } => PcapError::Broken { path, offset, what },
            Self::TooLarge { offset, bytes } => PcapError::TooLarge { path, offset, bytes },
        }
    }
}

fn increment(counter: &mut u64) {
    *counter = counter.saturating_add(1);
}
