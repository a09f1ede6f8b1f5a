//! Packets that are not the usual ones: tags, options, extension headers, fragments, tunnels, BIG TCP.

use crate::capture::{PORT, SMALL, assert_told_once, by_default, config, interface, opened};
use crate::place::{Place, ip, may_test_kernel, run, within};
use crate::traffic::{Exchange, Log, Server, read_all, record};
use mirror_common::KernelCounter;
use mirror_daemon::capture::Attachment;
use mirror_daemon::config::TcMode;
use mirror_tests::cleanup::RunDir;
use std::net::IpAddr;
use std::process::Command;

const PAYLOAD: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
const TCP: u8 = 6;
const UDP: u8 = 17;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;
const UNKNOWN: u8 = 253;

/// A TCP segment to the captured port, with `option_bytes` of options.
fn tcp(option_bytes: u8) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend_from_slice(&40_000_u16.to_be_bytes());
    segment.extend_from_slice(&PORT.to_be_bytes());
    segment.extend_from_slice(&1000_u32.to_be_bytes());
    segment.extend_from_slice(&2000_u32.to_be_bytes());
    segment.extend_from_slice(&[(5 + option_bytes / 4) << 4, 0x18, 1, 0, 0, 0, 0, 0]);
    segment.resize(20 + usize::from(option_bytes), 1);
    segment.extend_from_slice(PAYLOAD);
    segment
}

/// An IPv4 packet with `option_bytes` of options and this fragment word.
fn v4(protocol: u8, option_bytes: u8, fragment: u16, body: &[u8]) -> Vec<u8> {
    let total_bytes = 20 + u16::from(option_bytes) + body.len() as u16;
    let mut packet = vec![0x45 + option_bytes / 4, 0];
    packet.extend_from_slice(&total_bytes.to_be_bytes());
    packet.extend_from_slice(&[0, 1]);
    packet.extend_from_slice(&fragment.to_be_bytes());
    packet.extend_from_slice(&[64, protocol, 0, 0, 10, 77, 1, 2, 10, 77, 1, 1]);
    packet.resize(20 + usize::from(option_bytes), 1);
    packet.extend_from_slice(body);
    packet
}

/// An IPv6 packet with these extension headers (kind and whole header, its next-header byte apart).
fn v6(extensions: &[(u8, Vec<u8>)], last: u8, body: &[u8]) -> Vec<u8> {
    let mut chain: Vec<u8> = Vec::new();
    for (index, (_, header)) in extensions.iter().enumerate() {
        let next = extensions.get(index + 1).map_or(last, |(kind, _)| *kind);
        chain.push(next);
        chain.extend_from_slice(&header[1..]);
    }
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend_from_slice(&((chain.len() + body.len()) as u16).to_be_bytes());
    packet.extend_from_slice(&[extensions.first().map_or(last, |(kind, _)| *kind), 64]);
    for last in [2, 1] {
        packet.extend_from_slice(&[0xfd, 0x77, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    }
    packet.extend_from_slice(&chain);
    packet.extend_from_slice(body);
    packet
}

/// An extension header of `8 + 8 * more` bytes, or `8 + 4 * more` for AH.
fn extension(kind: u8, more: u8) -> (u8, Vec<u8>) {
    let unit_bytes = if kind == AUTHENTICATION { 4 } else { 8 };
    let mut header = vec![0; 8 + usize::from(more) * unit_bytes];
    header[1] = more;
    (kind, header)
}

fn fragment_header(word: u16) -> (u8, Vec<u8>) {
    let [high, low] = word.to_be_bytes();
    (FRAGMENT, vec![0, 0, high, low, 0, 0, 0, 7])
}

/// A frame with these VLAN tags.
fn frame(tags: &[u16], protocol: u16, packet: &[u8]) -> Vec<u8> {
    let mut frame = vec![2; 12];
    for tag in tags {
        frame.extend_from_slice(&tag.to_be_bytes());
        frame.extend_from_slice(&[0, 7]);
    }
    frame.extend_from_slice(&protocol.to_be_bytes());
    frame.extend_from_slice(packet);
    frame
}

/// What is to become of a frame.
enum Fate {
    /// Its payload is told.
    Told,
    /// Nothing is told, and this counts it.
    Counted(KernelCounter),
}

fn frames() -> Vec<(&'static str, Vec<u8>, Fate)> {
    use Fate::{Counted, Told};
    let plain4 = v4(TCP, 0, 0, &tcp(0));
    let on4 = |packet: Vec<u8>| frame(&[], ETH_P_IP, &packet);
    let on6 = |packet: Vec<u8>| frame(&[], ETH_P_IPV6, &packet);
    let mut padded = on4(v4(TCP, 0, 0, &tcp(0)));
    padded.extend_from_slice(&[0xee; 30]);
    let all = [
        extension(HOP_BY_HOP, 0),
        extension(DESTINATION, 3),
        extension(ROUTING, 2),
        fragment_header(0),
        extension(AUTHENTICATION, 4),
        extension(DESTINATION, 0),
    ];
    let seven: Vec<_> = (0..7).map(|_| extension(DESTINATION, 0)).collect();
    vec![
        ("plain", on4(plain4.clone()), Told),
        ("padding behind the packet", padded, Told),
        ("TCP options", on4(v4(TCP, 0, 0, &tcp(40))), Told),
        ("IPv4 options", on4(v4(TCP, 40, 0, &tcp(12))), Told),
        ("do not fragment", on4(v4(TCP, 0, 0x4000, &tcp(0))), Told),
        ("first IPv4 fragment", on4(v4(TCP, 0, 0x2000, &tcp(0))), Counted(KernelCounter::Fragment)),
        ("later IPv4 fragment", on4(v4(TCP, 0, 185, &tcp(0))), Counted(KernelCounter::Fragment)),
        ("UDP", on4(v4(UDP, 0, 0, &tcp(0))), Counted(KernelCounter::NotTcp)),
        ("cut TCP header", on4(v4(TCP, 0, 0, &tcp(0)[..12])), Counted(KernelCounter::Truncated)),
        ("one tag", frame(&[0x8100], ETH_P_IP, &plain4), Told),
        ("two tags", frame(&[0x88a8, 0x8100], ETH_P_IP, &plain4), Told),
        (
            "three tags",
            frame(&[0x88a8, 0x8100, 0x8100], ETH_P_IP, &plain4),
            Counted(KernelCounter::VlanDepth),
        ),
        ("ARP", frame(&[], 0x0806, &[0; 28]), Counted(KernelCounter::NotIp)),
        ("IPv6", on6(v6(&[], TCP, &tcp(0))), Told),
        ("six extension headers", on6(v6(&all, TCP, &tcp(20))), Told),
        ("seven extension headers", on6(v6(&seven, TCP, &tcp(0))), Counted(KernelCounter::ExtensionHeader)),
        (
            "unknown extension header",
            on6(v6(&[extension(UNKNOWN, 0)], TCP, &tcp(0))),
            Counted(KernelCounter::NotTcp),
        ),
        (
            "first IPv6 fragment",
            on6(v6(&[fragment_header(1)], TCP, &tcp(0))),
            Counted(KernelCounter::Fragment),
        ),
        (
            "later IPv6 fragment",
            on6(v6(&[fragment_header(64)], TCP, &tcp(0))),
            Counted(KernelCounter::Fragment),
        ),
    ]
}

#[test]
fn headers_of_every_kind_are_read_right_or_counted() {
    if !may_test_kernel() {
        return;
    }
    let place = Place::new(false);
    let netns = place.gateway_netns();
    let mut config = config(vec![interface(&place, "eth0")]);
    // Of a filter, tc tells the program.
    config.tc_mode = TcMode::Clsact;
    let mut capture = opened(&config, Attachment::Clsact);
    let listed = within(&netns, || run("tc", &["-j", "filter", "show", "dev", "eth0", "ingress"]));
    let listed: serde_json::Value = serde_json::from_str(&listed).expect("JSON");
    let id =
        listed.as_array().into_iter().flatten().find_map(|filter| filter["options"]["prog"]["id"].as_u64());
    let id = id.expect("our filter").to_string();
    let dir = RunDir::new().expect("a directory");
    let file = dir.path().join("frame");
    for (name, bytes, fate) in frames() {
        std::fs::write(&file, &bytes).expect("a file");
        let before = capture.counters.snapshot().expect("counters");
        capture.live.beat().expect("a map to write");
        run("bpftool", &["prog", "run", "id", &id, "data_in", file.to_str().expect("text"), "repeat", "1"]);
        let grown = capture.counters.snapshot().expect("counters").since(&before);
        let mut log = Log::default();
        read_all(&mut capture, &mut log);
        match fate {
            Fate::Told => assert_eq!(log.only().0.payload(), PAYLOAD, "{name}"),
            Fate::Counted(counter) => {
                assert_eq!((log.records, grown.of(counter)), (0, 1), "{name}: {grown:?}");
            }
        }
    }
}

/// Makes a device over `eth0` in both namespaces; false, with a line that says so, where the kernel has none
/// of its kind.
fn stacked(place: &Place, words: &dyn Fn(u8) -> Vec<String>) -> bool {
    for (netns, last) in [(place.gateway_netns(), 1), (place.client_netns(), 2)] {
        let name = netns.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
        let added = Command::new("ip")
            .args(["-n", &name, "link", "add", "name", "over0"])
            .args(words(last))
            .output()
            .expect("ip is installed");
        if !added.status.success() {
            eprintln!("skipped: {}", String::from_utf8_lossy(&added.stderr).trim());
            return false;
        }
        ip(&["-n", &name, "addr", "add", &format!("10.77.2.{last}/24"), "dev", "over0"]);
        ip(&["-n", &name, "link", "set", "over0", "up"]);
    }
    true
}

fn exchange_over(place: &Place, captured: &str) {
    let mut capture = opened(&config(vec![interface(place, captured)]), by_default());
    let addr: IpAddr = "10.77.2.1".parse().expect("an address");
    let server = Server::new(&place.gateway_netns(), addr, PORT);
    let client_netns = place.client_netns();
    let log = record(&mut capture, || server.exchange(&client_netns, SMALL, 1), |log| log.finished() == 1);
    assert_told_once(&log, &capture, place, SMALL);
}

#[test]
fn tagged_traffic_is_told_at_the_parent_and_at_the_vlan_interface() {
    if !may_test_kernel() {
        return;
    }
    let place = Place::new(false);
    let words = |_| ["link", "eth0", "type", "vlan", "id", "7"].map(str::to_owned).to_vec();
    if stacked(&place, &words) {
        exchange_over(&place, "eth0");
        exchange_over(&place, "over0");
    }
}

#[test]
fn tunnel_without_a_link_layer_is_told() {
    if !may_test_kernel() {
        return;
    }
    let place = Place::new(false);
    let words = |last| {
        let (local, remote) = (format!("10.77.1.{last}"), format!("10.77.1.{}", 3 - last));
        ["type", "ipip", "local", &local, "remote", &remote].map(str::to_owned).to_vec()
    };
    if stacked(&place, &words) {
        exchange_over(&place, "over0");
    }
}

#[test]
fn big_tcp_is_told_whole() {
    if !may_test_kernel() {
        return;
    }
    let place = Place::new(true);
    for netns in [place.gateway_netns(), place.client_netns()] {
        let larger = ["link", "set", "eth0", "gso_max_size", "200000", "gro_max_size", "200000"];
        within(&netns, || run("ip", &larger));
    }
    let exchange = Exchange { request_bytes: 6_000_000, answer_bytes: 1000, write_bytes: 1 << 20 };
    let mut capture = opened(&config(vec![interface(&place, "eth0")]), by_default());
    let server = Server::new(&place.gateway_netns(), place.gateway_addr(), PORT);
    let client_netns = place.client_netns();
    let log = record(&mut capture, || server.exchange(&client_netns, exchange, 1), |log| log.finished() == 1);
    assert_told_once(&log, &capture, &place, exchange);
    assert!(log.only().0.largest_segment_bytes > 65_535, "no segment beyond 64 KiB came");
}
