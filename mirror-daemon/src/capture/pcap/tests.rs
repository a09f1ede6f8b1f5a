#![expect(clippy::arithmetic_side_effects, reason = "tests")]

use super::*;
use crate::flow::{Direction, TcpFlags, Timestamp};
use etherparse::{IpHeaders, LinuxSllPacketType, PacketBuilder, PacketBuilderStep, TcpHeader};
use proptest::prelude::*;

const ETHERNET: u32 = 1;
const RAW: u32 = 101;

/// A segment without its borrow.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    direction: Direction,
    gateway_port: u16,
    remote_port: u16,
    seq: u32,
    flags: u8,
    at: Timestamp,
    segment_bytes: u32,
    payload: Vec<u8>,
}

fn tcp(source: u16, destination: u16) -> TcpHeader {
    let mut tcp = TcpHeader::new(source, destination, 1_000, 0);
    tcp.ack = true;
    tcp
}

fn finish(builder: PacketBuilderStep<IpHeaders>, tcp: TcpHeader, payload: &[u8]) -> Vec<u8> {
    let builder = builder.tcp_header(tcp);
    let mut bytes = vec![0; builder.size(payload.len())];
    let written = builder.write_to_slice(&mut bytes, payload).unwrap();
    assert_eq!(written, bytes.len());
    bytes
}

fn ipv4(payload: &[u8]) -> Vec<u8> {
    finish(PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 9), tcp(5_000, 80), payload)
}

fn ipv4_answer(payload: &[u8]) -> Vec<u8> {
    finish(PacketBuilder::ipv4([10, 0, 0, 2], [10, 0, 0, 1], 9), tcp(80, 5_000), payload)
}

fn ethernet(payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2([1; 6], [2; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 9);
    finish(builder, tcp(5_000, 80), payload)
}

/// A classic file of whole packets.
fn classic(link_type: u32, packets: &[Vec<u8>]) -> Vec<u8> {
    let whole: Vec<_> = packets.iter().map(|packet| (packet.len(), packet.clone())).collect();
    classic_snapped(link_type, &whole)
}

/// A classic file; each packet with its length on the wire.
fn classic_snapped(link_type: u32, packets: &[(usize, Vec<u8>)]) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, link_type] {
        file.extend(u32::to_le_bytes(word));
    }
    for (wire, packet) in packets {
        for word in [7, 5, u32::try_from(packet.len()).unwrap(), u32::try_from(*wire).unwrap()] {
            file.extend(u32::to_le_bytes(word));
        }
        file.extend(packet);
    }
    file
}

/// A pcapng block, in either byte order.
fn block(kind: u32, words: &[u32], rest: &[u8], big_endian: bool) -> Vec<u8> {
    let word = |word: u32| if big_endian { word.to_be_bytes() } else { word.to_le_bytes() };
    let padding = rest.len().next_multiple_of(4) - rest.len();
    let length = u32::try_from(12 + words.len() * 4 + rest.len() + padding).unwrap();
    let mut bytes = Vec::new();
    bytes.extend(word(kind));
    bytes.extend(word(length));
    words.iter().for_each(|w| bytes.extend(word(*w)));
    bytes.extend(rest);
    bytes.extend(vec![0; padding]);
    bytes.extend(word(length));
    bytes
}

fn interface(link_type: u32, if_tsresol: u8, big_endian: bool) -> Vec<u8> {
    // Option 9, length 1, then the end of options.
    let options =
        if big_endian { [0, 9, 0, 1, if_tsresol, 0, 0, 0] } else { [9, 0, 1, 0, if_tsresol, 0, 0, 0] };
    let link_word = if big_endian { link_type << 16 } else { link_type };
    block(1, &[link_word, 0], &options, big_endian)
}

fn section(big_endian: bool) -> Vec<u8> {
    let version = if big_endian { 0x0001_0000 } else { 1 };
    block(0x0a0d_0d0a, &[0x1a2b_3c4d, version, u32::MAX, u32::MAX], b"", big_endian)
}

fn enhanced(interface: u32, time: u64, packet: &[u8], big_endian: bool) -> Vec<u8> {
    let length = u32::try_from(packet.len()).unwrap();
    let (high, low) = (u32::try_from(time >> 32).unwrap(), u32::try_from(time & 0xffff_ffff).unwrap());
    block(6, &[interface, high, low, length, length], packet, big_endian)
}

fn read_leg(file: &[u8], leg: Leg, ports: &[u16]) -> (Vec<Seen>, PcapCounters, Result<(), PcapError>) {
    let mut seen = Vec::new();
    let mut source = match PcapSource::read_from(file, Path::new("some.pcap"), leg, ports) {
        Ok(source) => source,
        Err(error) => return (seen, PcapCounters::default(), Err(error)),
    };
    let result = source.for_each(|segment| {
        seen.push(Seen {
            direction: segment.direction,
            gateway_port: segment.key.gateway_port,
            remote_port: segment.key.remote_port,
            seq: segment.seq.0,
            flags: segment.flags.0,
            at: segment.at,
            segment_bytes: segment.segment_bytes,
            payload: segment.payload.to_vec(),
        });
    });
    let counters = source.counters().clone();
    assert_eq!(counters.packets, counters.segments + counters.skipped.total());
    (seen, counters, result)
}

fn read(file: &[u8]) -> (Vec<Seen>, PcapCounters) {
    let (seen, counters, result) = read_leg(file, Leg::Downstream, &[80]);
    result.unwrap();
    (seen, counters)
}

fn expected(payload: &[u8]) -> Seen {
    Seen {
        direction: Direction::Request,
        gateway_port: 80,
        remote_port: 5_000,
        seq: 1_000,
        flags: TcpFlags::ACK.0,
        at: Timestamp(7_000_005_000),
        segment_bytes: u32::try_from(payload.len()).unwrap(),
        payload: payload.to_vec(),
    }
}

#[test]
fn every_link_type_gives_the_same_segment() {
    let ip = ipv4(b"GET /");
    let before = |header: &[u8]| [header, &ip].concat();
    let sll = finish(
        PacketBuilder::linux_sll(LinuxSllPacketType::OUTGOING, 6, [0; 8]).ipv4(
            [10, 0, 0, 1],
            [10, 0, 0, 2],
            9,
        ),
        tcp(5_000, 80),
        b"GET /",
    );
    let mut sll2 = vec![0; 20];
    sll2[0] = 8;
    for (link_type, packet) in [
        (ETHERNET, ethernet(b"GET /")),
        (RAW, ip.clone()),
        (228, ip.clone()),
        (0, before(&[2, 0, 0, 0])),
        (108, before(&[0, 0, 0, 2])),
        (113, sll),
        (276, before(&sll2)),
    ] {
        let (seen, counters) = read(&classic(link_type, &[packet]));
        assert_eq!(seen, [expected(b"GET /")], "link type {link_type}: {counters:?}");
    }
}

#[test]
fn vlan_tags_are_passed_over() {
    let tagged = PacketBuilder::ethernet2([1; 6], [2; 6]).single_vlan(5.try_into().unwrap());
    let single = finish(tagged.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 9), tcp(5_000, 80), b"x");
    let tagged =
        PacketBuilder::ethernet2([1; 6], [2; 6]).double_vlan(5.try_into().unwrap(), 6.try_into().unwrap());
    let double = finish(tagged.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 9), tcp(5_000, 80), b"x");
    assert_eq!(read(&classic(ETHERNET, &[single, double])).0, [expected(b"x"), expected(b"x")]);
}

#[test]
fn ipv6_and_its_extension_headers_are_read() {
    let tcp_bytes = |payload: &[u8]| [tcp(5_000, 80).to_bytes().as_slice(), payload].concat();
    let packet = |next_header: u8, rest: &[u8]| {
        let mut bytes = vec![0x60, 0, 0, 0];
        bytes.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
        bytes.extend([next_header, 64]);
        bytes.extend([0xfd; 16]);
        bytes.extend([0xfe; 16]);
        bytes.extend(rest);
        bytes
    };
    let plain = packet(6, &tcp_bytes(b"six"));
    let hop_by_hop = packet(0, &[&[6, 0, 1, 4, 0, 0, 0, 0], tcp_bytes(b"six").as_slice()].concat());
    let fragment = packet(44, &[&[6, 0, 0, 1, 0, 0, 0, 9], tcp_bytes(b"six").as_slice()].concat());
    let (seen, counters) = read(&classic(229, &[plain, hop_by_hop, fragment]));
    assert_eq!(seen, [expected(b"six"), expected(b"six")]);
    assert_eq!(counters.skipped.fragment, 1);
}

#[test]
fn padding_of_short_frames_is_no_payload() {
    let mut short = ethernet(b"x");
    short.resize(60, 0xee);
    let mut acknowledgement = ethernet(b"");
    acknowledgement.resize(60, 0xee);
    assert_eq!(read(&classic(ETHERNET, &[short, acknowledgement])).0, [expected(b"x"), expected(b"")]);
}

#[test]
fn packets_cut_by_the_snap_length_give_what_is_left() {
    let whole = ethernet(b"GET / HTTP/1.1");
    for (cut, payload) in [(0, &b"GET / HTTP/1.1"[..]), (1, b"GET / HTTP/1."), (14, b"")] {
        let snapped = whole[..whole.len() - cut].to_vec();
        let (seen, counters) = read(&classic_snapped(ETHERNET, &[(whole.len(), snapped)]));
        assert_eq!(seen, [Seen { segment_bytes: 14, ..expected(payload) }]);
        assert_eq!(counters.snapped_segments, u64::from(cut > 0));
    }
    for cut in 15..whole.len() {
        let snapped = whole[..whole.len() - cut].to_vec();
        let (seen, counters) = read(&classic_snapped(ETHERNET, &[(whole.len(), snapped)]));
        assert!(seen.is_empty());
        assert_eq!(counters.skipped.total(), 1, "{cut}");
        assert_eq!(counters.skipped.cut_headers, 1, "{cut}: {counters:?}");
    }
}

#[test]
fn packets_without_an_ip_length_take_that_of_the_record() {
    let mut big = ipv4(&[7; 70]);
    big[2..4].fill(0);
    let (seen, _) = read(&classic_snapped(RAW, &[(big.len() + 1_000, big)]));
    assert_eq!(seen, [Seen { segment_bytes: 1_070, ..expected(&[7; 70]) }]);
}

#[test]
fn other_packets_are_skipped_and_counted() {
    let mut fragment = ipv4(b"x");
    fragment[6] = 0x20;
    let mut udp = ipv4(b"x");
    udp[9] = 17;
    let other_port = finish(PacketBuilder::ipv4([1; 4], [2; 4], 9), tcp(81, 82), b"x");
    let mut short_header = ipv4(b"x");
    short_header[32] = 0x10;
    let mut short_length = ipv4(b"xy");
    short_length[3] -= 30;
    let (seen, counters) = read(&classic(RAW, &[fragment, udp, other_port, short_header, vec![0x15; 40]]));
    assert!(seen.is_empty());
    let all_once = SkippedPackets {
        not_ip: 1,
        not_tcp: 1,
        fragment: 1,
        malformed: 1,
        other_port: 1,
        ..SkippedPackets::default()
    };
    assert_eq!(counters.skipped, all_once);
    assert_eq!(read(&classic(RAW, &[short_length])).1.segments, 0);
}

#[test]
fn leg_decides_which_end_is_the_gateway() {
    let file = classic(RAW, &[ipv4(b"q"), ipv4_answer(b"a")]);
    for (leg, ends) in [(Leg::Downstream, (80, 5_000)), (Leg::Upstream, (5_000, 80))] {
        let (seen, _, _) = read_leg(&file, leg, &[80, 443]);
        let ways: Vec<_> = seen.iter().map(|s| (s.direction, (s.gateway_port, s.remote_port))).collect();
        assert_eq!(ways, [(Direction::Request, ends), (Direction::Answer, ends)]);
    }
    let (both, _, _) = read_leg(&file, Leg::Downstream, &[80, 5_000]);
    assert!(both.iter().all(|seen| seen.gateway_port == 80), "the lower port is taken for the server's");
}

#[test]
fn both_ends_of_a_connection_have_one_key() {
    let file = classic(RAW, &[ipv4(b"q"), ipv4_answer(b"a")]);
    let mut keys = Vec::new();
    let mut source = PcapSource::read_from(&file[..], Path::new("x"), Leg::Downstream, &[80]).unwrap();
    source.for_each(|segment| keys.push(segment.key)).unwrap();
    assert_eq!(keys[0], keys[1]);
    assert_eq!(keys[0].gateway_addr, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 0, 0, 2]);
}

#[test]
fn classic_files_of_either_byte_order_and_precision_are_read() {
    let packet = ipv4(b"x");
    for (magic, nanos) in [(0xa1b2_c3d4_u32, 7_000_005_000), (0xa1b2_3c4d, 7_000_000_005)] {
        for big_endian in [false, true] {
            let word = |word: u32| if big_endian { word.to_be_bytes() } else { word.to_le_bytes() };
            let length = u32::try_from(packet.len()).unwrap();
            let version = if big_endian { 0x0002_0004 } else { 0x0004_0002 };
            let words = [magic, version, 0, 0, 65_535, RAW, 7, 5, length, length];
            let file = [words.map(word).concat(), packet.clone()].concat();
            assert_eq!(read(&file).0, [Seen { at: Timestamp(nanos), ..expected(b"x") }]);
        }
    }
}

#[test]
fn pcapng_of_either_byte_order_with_several_interfaces_is_read() {
    for big_endian in [false, true] {
        let file = [
            section(big_endian),
            interface(ETHERNET, 9, big_endian),
            block(5, &[0, 0, 0], b"statistics", big_endian),
            interface(RAW, 0x80 | 10, big_endian),
            interface(147, 6, big_endian),
            enhanced(0, 7_000_005_000, &ethernet(b"a"), big_endian),
            enhanced(1, 7 * 1_024, &ipv4(b"b"), big_endian),
            enhanced(2, 0, &ipv4(b"c"), big_endian),
            enhanced(9, 0, &ipv4(b"d"), big_endian),
            block(3, &[u32::try_from(ethernet(b"e").len()).unwrap()], &ethernet(b"e"), big_endian),
            section(!big_endian),
            interface(RAW, 6, !big_endian),
            enhanced(0, 7_000_005, &ipv4(b"f"), !big_endian),
        ]
        .concat();
        let (seen, counters) = read(&file);
        assert_eq!(counters.skipped.link_type, 2);
        let payloads: Vec<_> = seen.iter().map(|seen| (seen.payload.as_slice(), seen.at.0)).collect();
        let at = [7_000_005_000, 7_000_000_000, 0, 7_000_005_000];
        assert_eq!(payloads[..2], [(&b"a"[..], at[0]), (b"b", at[1])]);
        assert_eq!((payloads[2].0, payloads[3]), (&b"e"[..], (&b"f"[..], at[3])));
    }
}

#[test]
fn blocks_of_no_interest_may_be_longer_than_the_limit() {
    let file = [
        section(false),
        interface(RAW, 6, false),
        block(0x0bad, &[], &vec![1; MAX_BLOCK_BYTES + 8], false),
        enhanced(0, 0, &ipv4(b"x"), false),
    ]
    .concat();
    assert_eq!(read(&file).0.len(), 1);
}

#[test]
fn packets_up_to_the_block_limit_are_read_and_larger_ones_refused() {
    for (more, fits) in [(0, true), (1, false)] {
        let packet = vec![0x15; MAX_BLOCK_BYTES - 16 + more];
        let (_, counters, result) = read_leg(&classic(RAW, &[packet]), Leg::Downstream, &[80]);
        assert_eq!(counters.packets, u64::from(fits));
        assert_eq!(matches!(result, Err(PcapError::TooLarge { offset: 24, .. })), !fits);
    }
}

#[test]
fn file_cut_off_in_a_packet_ends_there() {
    let file = classic(RAW, &[ipv4(b"first"), ipv4(b"second")]);
    for cut in 0..ipv4(b"second").len() + 16 {
        let (seen, counters) = read(&file[..file.len() - cut]);
        assert_eq!(seen.len(), if cut == 0 { 2 } else { 1 });
        assert_eq!(counters.cut_off, cut > 0);
    }
    let (seen, counters) = read(&file[..file.len() - ipv4(b"second").len() - 16]);
    assert_eq!((seen.len(), counters.cut_off), (1, false));
}

#[test]
fn errors_name_the_file_and_what_is_wrong() {
    let text = |file: &[u8]| read_leg(file, Leg::Downstream, &[80]).2.unwrap_err().to_string();
    assert_eq!(text(b"GET / HTTP"), "some.pcap is neither pcap nor pcapng: it starts with [47, 45, 54, 20]");
    assert_eq!(text(b""), "some.pcap is neither pcap nor pcapng: it starts with []");
    assert!(text(&classic(147, &[])).starts_with("capture file some.pcap has link type 147; supported are"));
    let broken = [section(false), block(6, &[0], b"", false)].concat();
    assert_eq!(
        text(&broken),
        "capture file some.pcap is broken at byte 28: the length of a block is impossible"
    );
    let missing = PcapSource::open(Path::new("/nowhere/x.pcap"), Leg::Downstream, &[80]).unwrap_err();
    assert!(missing.to_string().starts_with("cannot open capture file /nowhere/x.pcap: "));
}

#[test]
fn a_file_on_disk_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("one.pcap");
    std::fs::write(&path, classic(ETHERNET, &[ethernet(b"x")])).unwrap();
    let mut source = PcapSource::open(&path, Leg::Downstream, &[80]).unwrap();
    assert!(source.next(&mut |segment| assert_eq!(segment.payload, b"x")).unwrap());
    assert!(!source.next(&mut |_| panic!("there is only one")).unwrap());
}

fn sample_files() -> Vec<Vec<u8>> {
    let ng = |big_endian| {
        let blocks = [
            section(big_endian),
            interface(ETHERNET, 9, big_endian),
            interface(RAW, 6, big_endian),
            enhanced(0, 1, &ethernet(b"GET /"), big_endian),
            block(5, &[0, 0, 0], b"statistics", big_endian),
            enhanced(1, 2, &ipv4(b"HTTP"), big_endian),
            block(3, &[70], &ethernet(b"simple"), big_endian),
        ];
        blocks.concat()
    };
    vec![
        classic(ETHERNET, &[ethernet(b"GET /"), ethernet(b"")]),
        classic(RAW, &[ipv4(b"GET /"), ipv4(b"x")]),
        classic(276, &[ipv4(b"GET /"), vec![8; 90]]),
        ng(false),
        ng(true),
    ]
}

/// Whatever comes out, nothing panics, and the packets are accounted for.
fn survives(file: &[u8], leg: Leg, ports: &[u16]) {
    let (_, counters, _) = read_leg(file, leg, ports);
    assert_eq!(counters.packets, counters.segments + counters.skipped.total());
}

proptest! {
    #[test]
    fn random_files_never_panic(link in 0..300_u32, rest in prop::collection::vec(any::<u8>(), 0..600)) {
        survives(&rest, Leg::Downstream, &[80]);
        survives(&[classic(link, &[]), rest.clone()].concat(), Leg::Upstream, &[80]);
        survives(&classic(link, std::slice::from_ref(&rest)), Leg::Upstream, &[80]);
        survives(&[section(false), interface(1, 6, false), rest].concat(), Leg::Downstream, &[80]);
    }

    #[test]
    fn mutated_files_never_panic(
        which in 0..5_usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut file = sample_files()[which].clone();
        for (at, byte) in changes {
            let at = at.index(file.len());
            file[at] = byte;
        }
        survives(&file, Leg::Downstream, &[80, 5_000]);
        survives(&file[..cut.index(file.len())], Leg::Downstream, &[80]);
    }

    #[test]
    fn random_blocks_never_panic(
        kind in 0..12_u32,
        words in prop::collection::vec(prop_oneof![0..64_u32, any::<u32>()], 0..12),
        rest in prop::collection::vec(any::<u8>(), 0..100),
        big_endian in any::<bool>(),
    ) {
        let random = block(kind, &words, &rest, big_endian);
        let file = [section(big_endian), interface(1, 6, big_endian), random.clone(), random].concat();
        survives(&file, Leg::Downstream, &[80]);
    }

    #[test]
    fn packets_that_parse_stay_within_their_segment(
        flips in prop::collection::vec((0..80_usize, any::<u8>()), 0..6),
        snap in 0..100_usize,
    ) {
        let mut packet = ethernet(&[b'x'; 30]);
        for (at, byte) in flips {
            if let Some(place) = packet.get_mut(at) {
                *place = byte;
            }
        }
        let wire = packet.len();
        packet.truncate(snap);
        let (seen, _, _) = read_leg(&classic_snapped(1, &[(wire, packet)]), Leg::Downstream, &[80]);
        for segment in seen {
            prop_assert!(segment.payload.len() <= usize::try_from(segment.segment_bytes).unwrap());
        }
    }
}
