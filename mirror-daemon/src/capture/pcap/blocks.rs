//! Framing: a file's blocks, one after the other, and the packets in them.
//!
//! Finds the blocks itself and lets `pcap_parser` read only the few kinds that are wanted: its own readers
//! parse every kind, and some of those parsers do not survive hostile lengths.

use super::packet::{Packet, is_supported};
use crate::flow::Timestamp;
use pcap_parser::{PcapHeader, nom, parse_pcap_frame, parse_pcap_frame_be, parse_pcap_frame_modified};
use pcap_parser::{pcapng, traits::PcapNGPacketBlock};
use std::io::{self, Read};

/// Largest block; the largest super-packet is an eighth of it.
pub const MAX_BLOCK_BYTES: usize = 4 * 1024 * 1024;
/// Most interfaces in one section of a pcapng file.
pub const MAX_INTERFACES: usize = 4096;

const FIRST_BUFFER_BYTES: usize = 256 * 1024;
const LEGACY_HEADER_BYTES: usize = 24;
/// Block type, length at the start and length at the end.
const NG_FRAME_BYTES: usize = 12;
const NANOS: u128 = 1_000_000_000;

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;

/// What can go wrong in a file; see `PcapError`, which adds the file's name.
#[derive(Debug)]
pub(super) enum Fault {
    Read { offset: u64, source: io::Error },
    NotCapture { start: Vec<u8> },
    LinkType { link_type: i32 },
    Broken { offset: u64, what: &'static str },
    TooLarge { offset: u64, bytes: u64 },
}

/// The blocks of a capture.
#[derive(Debug)]
pub(super) struct Blocks<R> {
    window: ReadWindow<R>,
    format: Format,
    /// Of the current section, in order of description.
    interfaces: Vec<Interface>,
    /// Length of the block that was handed out last, and is still in the window.
    handed_out: usize,
    /// Simple Packet Blocks have no time of their own.
    last_at: Timestamp,
    is_cut_off: bool,
}

#[derive(Clone, Copy, Debug)]
enum Format {
    Legacy(Legacy),
    Ng { big_endian: bool },
}

#[derive(Clone, Copy, Debug)]
struct Legacy {
    link_type: i32,
    big_endian: bool,
    nanoseconds: bool,
    /// Alexey Kuznetzov's: longer packet headers.
    modified: bool,
}

#[derive(Clone, Copy, Debug)]
struct Interface {
    link_type: i32,
    /// Units of time per second.
    resolution: u128,
    offset_seconds: i64,
    /// 0: no limit.
    snap_bytes: u32,
}

impl<R: Read> Blocks<R> {
    pub(super) fn new(reader: R) -> Result<Self, Fault> {
        let mut window = ReadWindow::new(reader);
        window.fill(LEGACY_HEADER_BYTES)?;
        let start = window.bytes(4).to_vec();
        let (format, header_bytes) = if u32_at(window.bytes(4), 0, false) == Some(SECTION_HEADER) {
            (Format::Ng { big_endian: false }, 0)
        } else {
            match pcap_parser::parse_pcap_header(window.bytes(LEGACY_HEADER_BYTES)) {
                Ok((_, header)) => (Format::Legacy(Legacy::check(&header)?), LEGACY_HEADER_BYTES),
                Err(_) => return Err(Fault::NotCapture { start }),
            }
        };
        Ok(Self {
            window,
            format,
            interfaces: Vec::new(),
            handed_out: header_bytes,
            last_at: Timestamp(0),
            is_cut_off: false,
        })
    }

    /// The next packet; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Packet<'_>>, Fault> {
        let found = match self.format {
            Format::Legacy(legacy) => self.find_legacy(legacy)?,
            Format::Ng { .. } => self.find_ng()?,
        };
        let Some(length) = found else {
            self.is_cut_off |= !self.window.bytes(1).is_empty();
            return Ok(None);
        };
        self.handed_out = length;
        let offset = self.window.offset;
        let block = self.window.bytes(length);
        match self.format {
            Format::Legacy(legacy) => legacy.packet(block, offset),
            Format::Ng { big_endian } => {
                let packet = ng_packet(block, big_endian, &self.interfaces, self.last_at)
                    .ok_or(Fault::Broken { offset, what: "a packet block contradicts itself" })?;
                self.last_at = packet.at;
                Ok(packet)
            }
        }
        .map(Some)
    }

    /// True once the file has ended within a block.
    pub(super) fn is_cut_off(&self) -> bool {
        self.is_cut_off
    }

    /// Brings the next packet of a classic file into the window, and says how long it is.
    fn find_legacy(&mut self, legacy: Legacy) -> Result<Option<usize>, Fault> {
        self.window.discard(std::mem::take(&mut self.handed_out));
        let head = if legacy.modified { 24 } else { 16 };
        if !self.window.fill(head)? {
            return Ok(None);
        }
        let captured = u32_at(self.window.bytes(head), 8, legacy.big_endian).unwrap_or(u32::MAX);
        let length = self.window.check_length(u64::from(captured).saturating_add(head as u64))?;
        Ok(self.window.fill(length)?.then_some(length))
    }

    /// Brings the next packet block of a pcapng file into the window, and says how long it is.
    fn find_ng(&mut self) -> Result<Option<usize>, Fault> {
        loop {
            self.window.discard(std::mem::take(&mut self.handed_out));
            if !self.window.fill(NG_FRAME_BYTES)? {
                return Ok(None);
            }
            let (kind, length) = self.ng_frame()?;
            let wanted = [SECTION_HEADER, INTERFACE_DESCRIPTION, SIMPLE_PACKET, ENHANCED_PACKET];
            if !wanted.contains(&kind) {
                if !self.window.skip(length)? {
                    self.is_cut_off = true;
                    return Ok(None);
                }
                continue;
            }
            let length = self.window.check_length(length)?;
            if !self.window.fill(length)? {
                return Ok(None);
            }
            match kind {
                SECTION_HEADER => self.interfaces.clear(),
                INTERFACE_DESCRIPTION => self.add_interface(length)?,
                _ => return Ok(Some(length)),
            }
            self.handed_out = length;
        }
    }

    /// Kind and length of the block at the window's start. A section header tells its byte order.
    fn ng_frame(&mut self) -> Result<(u32, u64), Fault> {
        let offset = self.window.offset;
        let head = self.window.bytes(NG_FRAME_BYTES);
        let broken = |what| Fault::Broken { offset, what };
        // The same in both byte orders.
        if u32_at(head, 0, false) == Some(SECTION_HEADER) {
            let big_endian = match u32_at(head, 8, false) {
                Some(BYTE_ORDER_MAGIC) => false,
                Some(magic) if magic.swap_bytes() == BYTE_ORDER_MAGIC => true,
                _ => return Err(broken("a section header has no byte order")),
            };
            self.format = Format::Ng { big_endian };
        }
        let Format::Ng { big_endian } = self.format else { return Err(broken("not a pcapng file")) };
        let head = self.window.bytes(NG_FRAME_BYTES);
        let (Some(kind), Some(length)) = (u32_at(head, 0, big_endian), u32_at(head, 4, big_endian)) else {
            return Err(broken("a block is too short"));
        };
        let shortest = if kind == ENHANCED_PACKET { 32 } else { NG_FRAME_BYTES as u64 };
        if !length.is_multiple_of(4) || u64::from(length) < shortest {
            return Err(broken("the length of a block is impossible"));
        }
        Ok((kind, u64::from(length)))
    }

    fn add_interface(&mut self, length: usize) -> Result<(), Fault> {
        let offset = self.window.offset;
        let broken = |what| Fault::Broken { offset, what };
        let Format::Ng { big_endian } = self.format else { return Err(broken("not a pcapng file")) };
        let block = self.window.bytes(length);
        let parsed = if big_endian {
            pcapng::parse_interfacedescriptionblock_be(block)
        } else {
            pcapng::parse_interfacedescriptionblock_le(block)
        };
        let (_, described) = parsed.map_err(|_| broken("an interface description contradicts itself"))?;
        if self.interfaces.len() >= MAX_INTERFACES {
            return Err(broken("a section describes more interfaces than the limit"));
        }
        self.interfaces.push(Interface {
            link_type: described.linktype.0,
            resolution: resolution(described.if_tsresol)
                .ok_or_else(|| broken("the time resolution of an interface is impossible"))?,
            offset_seconds: described.if_tsoffset,
            snap_bytes: described.snaplen,
        });
        Ok(())
    }
}

impl Legacy {
    fn check(header: &PcapHeader) -> Result<Self, Fault> {
        let link_type = header.network.0;
        if !is_supported(link_type) {
            return Err(Fault::LinkType { link_type });
        }
        Ok(Self {
            link_type,
            big_endian: header.is_bigendian(),
            nanoseconds: header.is_nanosecond_precision(),
            modified: header.is_modified_format(),
        })
    }

    fn packet(self, block: &[u8], offset: u64) -> Result<Packet<'_>, Fault> {
        let parsed = match self {
            Self { modified: true, .. } => parse_pcap_frame_modified(block),
            Self { big_endian: true, .. } => parse_pcap_frame_be(block),
            Self { .. } => parse_pcap_frame(block),
        };
        let (_, frame) = parsed
            .map_err(|_: nom::Err<_>| Fault::Broken { offset, what: "a packet header contradicts itself" })?;
        let fraction_nanos = if self.nanoseconds { 1 } else { 1_000 };
        let fraction = u64::from(frame.ts_usec).saturating_mul(fraction_nanos);
        let seconds = u64::from(frame.ts_sec).saturating_mul(1_000_000_000);
        Ok(Packet {
            link_type: Some(self.link_type),
            at: Timestamp(seconds.saturating_add(fraction)),
            wire_bytes: frame.origlen,
            bytes: frame.data,
        })
    }
}

fn ng_packet<'b>(
    block: &'b [u8],
    big_endian: bool,
    interfaces: &[Interface],
    last_at: Timestamp,
) -> Option<Packet<'b>> {
    let kind = u32_at(block, 0, big_endian)?;
    if kind == SIMPLE_PACKET {
        let simple = if big_endian {
            pcapng::parse_simplepacketblock_be(block)
        } else {
            pcapng::parse_simplepacketblock_le(block)
        };
        let (_, simple) = simple.ok()?;
        let interface = interfaces.first();
        let snap = interface.map(|interface| interface.snap_bytes).filter(|snap| *snap > 0);
        let captured = usize::try_from(simple.origlen.min(snap.unwrap_or(u32::MAX))).ok()?;
        return Some(Packet {
            link_type: interface.map(|interface| interface.link_type),
            at: last_at,
            wire_bytes: simple.origlen,
            bytes: simple.data.get(..captured).unwrap_or(simple.data),
        });
    }
    let enhanced = if big_endian {
        pcapng::parse_enhancedpacketblock_be(block)
    } else {
        pcapng::parse_enhancedpacketblock_le(block)
    };
    let (_, enhanced) = enhanced.ok()?;
    let interface = interfaces.get(usize::try_from(enhanced.if_id).ok()?);
    let units = (u64::from(enhanced.ts_high) << 32) | u64::from(enhanced.ts_low);
    // The lengths of the packet were checked by the parser against those of the block.
    let bytes = enhanced.data.get(..enhanced.packet_data().len()).unwrap_or(enhanced.data);
    Some(Packet {
        link_type: interface.map(|interface| interface.link_type),
        at: interface.map_or(last_at, |interface| interface.time(units)),
        wire_bytes: enhanced.origlen,
        bytes,
    })
}

impl Interface {
    fn time(&self, units: u64) -> Timestamp {
        let nanos = u128::from(units).saturating_mul(NANOS).checked_div(self.resolution).unwrap_or(0);
        let offset = u128::from(self.offset_seconds.unsigned_abs()).saturating_mul(NANOS);
        let nanos =
            if self.offset_seconds < 0 { nanos.saturating_sub(offset) } else { nanos.saturating_add(offset) };
        Timestamp(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// Units per second of pcapng's `if_tsresol`: the top bit says whether the rest is a power of 2 or of 10.
fn resolution(if_tsresol: u8) -> Option<u128> {
    let power = u32::from(if_tsresol & 0x7f);
    if if_tsresol & 0x80 == 0 { 10_u128.checked_pow(power) } else { 1_u128.checked_shl(power) }
}

fn u32_at(bytes: &[u8], at: usize, big_endian: bool) -> Option<u32> {
    let word = bytes.get(at..)?.first_chunk::<4>()?;
    Some(if big_endian { u32::from_be_bytes(*word) } else { u32::from_le_bytes(*word) })
}

/// A part of the file.
#[derive(Debug)]
struct ReadWindow<R> {
    reader: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Place of `start` in the file.
    offset: u64,
}

impl<R: Read> ReadWindow<R> {
    fn new(reader: R) -> Self {
        Self { reader, buffer: vec![0; FIRST_BUFFER_BYTES], start: 0, end: 0, offset: 0 }
    }

    /// The first `count` bytes of the window, or as many as there are.
    fn bytes(&self, count: usize) -> &[u8] {
        let end = self.start.saturating_add(count).min(self.end);
        self.buffer.get(self.start..end).unwrap_or(&[])
    }

    /// Reads until the window holds `count` bytes; false when the file ends before that. `count` is at most
    /// [`MAX_BLOCK_BYTES`].
    fn fill(&mut self, count: usize) -> Result<bool, Fault> {
        while self.end.saturating_sub(self.start) < count {
            if self.start.saturating_add(count) > self.buffer.len() {
                self.buffer.copy_within(self.start..self.end, 0);
                self.end = self.end.saturating_sub(self.start);
                self.start = 0;
            }
            if count > self.buffer.len() {
                self.buffer.resize(count, 0);
            }
            let room = self.buffer.get_mut(self.end..).unwrap_or_default();
            match self.reader.read(room) {
                Ok(0) => return Ok(false),
                Ok(read) => self.end = self.end.saturating_add(read).min(self.buffer.len()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(Fault::Read { offset: self.offset, source }),
            }
        }
        Ok(true)
    }

    /// Forgets the first `count` bytes, which are in the window.
    fn discard(&mut self, count: usize) {
        self.start = self.start.saturating_add(count).min(self.end);
        self.offset = self.offset.saturating_add(count as u64);
    }

    /// Passes over `count` bytes, however many; false when the file ends before that.
    fn skip(&mut self, count: u64) -> Result<bool, Fault> {
        let mut left = count;
        while left > 0 {
            if !self.fill(1)? {
                return Ok(false);
            }
            let here = self.end.saturating_sub(self.start);
            let step = usize::try_from(left).unwrap_or(usize::MAX).min(here);
            self.discard(step);
            left = left.saturating_sub(step as u64);
        }
        Ok(true)
    }

    fn check_length(&self, bytes: u64) -> Result<usize, Fault> {
        let too_large = Fault::TooLarge { offset: self.offset, bytes };
        usize::try_from(bytes).ok().filter(|length| *length <= MAX_BLOCK_BYTES).ok_or(too_large)
    }
}
