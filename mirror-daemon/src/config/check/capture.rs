//! `[capture]`.

use super::kubernetes::gateway_names;
use super::names::list;
use super::pods::pods;
use crate::config::read::{Node, Section};
use crate::config::types::{
    CaptureConfig, CapturePoint, FlowLimits, Leg, MAX_GATEWAY_CGROUPS, PodsConfig, PointGateways, TcMode,
};
use crate::http::h2::H2Options;
use crate::http::h2::frame::{DEFAULT_FRAME_BYTES, MAX_FRAME_BYTES};
use mirror_common::{MAX_PORTS, MAX_SHARDS};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Most capture points.
const MAX_POINTS: usize = mirror_common::MAX_CAPTURE_POINTS;
/// Most of them that are interfaces.
const MAX_INTERFACES: usize = mirror_common::MAX_INTERFACE_POINTS;
/// Longest interface name: IFNAMSIZ without its NUL.
const MAX_INTERFACE_NAME_BYTES: usize = 15;
const MIN_RING_BYTES: u64 = 64 * 1024;
const MAX_RING_BYTES: u64 = 1024 * 1024 * 1024;

/// `None` only after a fault was noted.
pub(super) fn capture(section: Section<'_>) -> Option<(CaptureConfig, PodsConfig)> {
    let has_pods = section.has("kubernetes");
    let pods = pods(&section);
    let netns = section.node("netns").and_then(network_namespace);
    let default = CaptureConfig::default();
    let (points, gateways) = points(&section, netns.as_ref());
    let leg = section.or("leg", default.leg, |node| {
        choice(&node, &[("downstream", Leg::Downstream), ("upstream", Leg::Upstream)])
    });
    let tc_mode = section.or("attach", default.tc_mode, |node| {
        choice(&node, &[("auto", TcMode::Auto), ("tcx", TcMode::Tcx), ("clsact", TcMode::Clsact)])
    });
    let ports = ports(&section, has_pods || !points.is_empty());
    let shards = section.or("shards", 1, |node| node.integer(1..=MAX_SHARDS as u64));
    let ring_bytes = section.or("ring_bytes", default.ring_bytes.into(), |node| ring_bytes(node, shards));
    let snap = section.or("answer_snap", default.answer_snap_bytes.into(), |node| node.size(16..=65_536));
    let tick_allowed = Duration::from_micros(100)..=Duration::from_secs(1);
    let config = CaptureConfig {
        points,
        gateways,
        leg,
        ports,
        tc_mode,
        gateway_cgroups: section.or("gateway_cgroups", vec![], gateway_cgroups),
        ring_bytes: u32::try_from(ring_bytes).ok()?,
        shards: u32::try_from(shards).ok()?,
        answer_snap_bytes: u32::try_from(snap).ok()?,
        http2: http2(&section),
        tick: section.or("tick", default.tick, |node| node.duration(tick_allowed)),
        proxy_protocol: section.or("proxy_protocol", false, Node::boolean),
        exclude: section.or("exclude", vec![], |node| list(node, socket_address)),
        limits: limits(section.section("limits")),
    };
    section.close();
    Some((config, pods))
}

/// A capture point as it is written, and the gateways it carries.
type Written = (CapturePoint, Vec<String>);

fn gateway_cgroups(node: Node<'_>) -> Option<Vec<PathBuf>> {
    let count = node.clone().list()?.len();
    if count > MAX_GATEWAY_CGROUPS {
        node.fault(format!("has {count} cgroups; allowed are {MAX_GATEWAY_CGROUPS}: name one above them"));
        return None;
    }
    list(node, absolute_path)
}

fn http2(section: &Section<'_>) -> H2Options {
    let frame_bytes = |node: Node<'_>| node.size(DEFAULT_FRAME_BYTES.into()..=MAX_FRAME_BYTES.into());
    let largest = section.or("http2_largest_frame", DEFAULT_FRAME_BYTES.into(), frame_bytes);
    H2Options {
        tolerate_unknown_fields: section.or("http2_tolerate_unknown_headers", false, Node::boolean),
        largest_frame_bytes: u32::try_from(largest).ok(),
    }
}

fn points(section: &Section<'_>, netns: Option<&PathBuf>) -> (Vec<CapturePoint>, Vec<PointGateways>) {
    let mut points: Vec<CapturePoint> = Vec::new();
    let mut gateways = Vec::new();
    let mut push = |node: Node<'_>, read: &dyn Fn(&Node<'_>) -> Option<Written>| {
        let Some((point, names)) = read(&node) else { return };
        if let Some(twice) = points.iter().find_map(|other| twice(other, &point)) {
            node.fault(format!("{} {twice}, and would be mirrored twice; leave one out", node.found()));
        } else if points.len() >= MAX_POINTS {
            node.fault(format!("is one capture point too many; allowed are {MAX_POINTS}"));
        } else if is_interface(&point)
            && points.iter().filter(|other| is_interface(other)).count() >= MAX_INTERFACES
        {
            node.fault(format!(
                "is one interface too many; allowed are {MAX_INTERFACES}; capture at cgroups instead"
            ));
        } else {
            if !names.is_empty() {
                gateways.push(PointGateways { point: point.clone(), names });
            }
            points.push(point);
        }
    };
    for node in section.node("interfaces").and_then(Node::list).unwrap_or_default() {
        push(node, &|node| interface(node, netns));
    }
    for node in section.node("cgroups").and_then(Node::list).unwrap_or_default() {
        push(node, &cgroup);
    }
    (points, gateways)
}

/// `"/sys/fs/cgroup/x"` or `{ path = "/sys/fs/cgroup/x", gateways = ["ns/name"] }`.
fn cgroup(node: &Node<'_>) -> Option<Written> {
    if !node.is_table() {
        return Some((CapturePoint::Cgroup { path: absolute_path(node.clone())? }, vec![]));
    }
    let section = node.clone().section()?;
    let path = section.required("path", "the cgroup v2 directory, e.g. path = \"/sys/fs/cgroup/x\"");
    let path = path.and_then(absolute_path);
    let gateways = section.or("gateways", vec![], gateway_names);
    section.close();
    Some((CapturePoint::Cgroup { path: path? }, gateways))
}

const fn is_interface(point: &CapturePoint) -> bool {
    matches!(point, CapturePoint::Interface { .. })
}

/// How both are one place, in words, as far as their names tell; the rest is found out when they
/// are attached.
fn twice(other: &CapturePoint, point: &CapturePoint) -> Option<String> {
    match (other, point) {
        (
            CapturePoint::Interface { name: other, netns: other_netns, .. },
            CapturePoint::Interface { name, netns, .. },
        ) => {
            let (other_netns, netns) = (other_netns.as_deref().map(plain), netns.as_deref().map(plain));
            (other == name && other_netns == netns).then(|| "is listed twice".to_owned())
        }
        (CapturePoint::Cgroup { path: other }, CapturePoint::Cgroup { path }) => {
            let (above, below) = (plain(other), plain(path));
            if above == below {
                return Some("is listed twice".to_owned());
            }
            let is_nested = above.starts_with(&below) || below.starts_with(&above);
            is_nested.then(|| format!("is nested with {}", other.display()))
        }
        _ => None,
    }
}

/// The path as most would write it.
fn plain(path: &Path) -> PathBuf {
    // `components` leaves out what means nothing: `//`, `/./` and a slash at the end.
    let path: PathBuf = path.components().collect();
    match path.strip_prefix("/var/run") {
        Ok(rest) => Path::new("/run").join(rest),
        Err(_) => path,
    }
}

/// `"eth0"` or `{ name = "eth0", netns = "gw", side = "host", gateways = ["ns/name"] }`.
fn interface(node: &Node<'_>, netns: Option<&PathBuf>) -> Option<Written> {
    if !node.is_table() {
        let name = interface_name(node.clone())?;
        let point = CapturePoint::Interface { name, netns: netns.cloned(), host_side: false };
        return Some((point, vec![]));
    }
    let section = node.clone().section()?;
    let name = section.required("name", "the interface, e.g. name = \"eth0\"").and_then(interface_name);
    let own_netns = section.node("netns").and_then(network_namespace);
    let host_side = section.or("side", false, |node| choice(&node, &[("gateway", false), ("host", true)]));
    let gateways = section.or("gateways", vec![], gateway_names);
    section.close();
    let netns = own_netns.or_else(|| netns.cloned());
    Some((CapturePoint::Interface { name: name?, netns, host_side }, gateways))
}

pub(super) fn interface_name(node: Node<'_>) -> Option<String> {
    let is_name = |text: &&str| {
        (1..=MAX_INTERFACE_NAME_BYTES).contains(&text.len())
            && !matches!(*text, "." | "..")
            && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b':')
    };
    let found = node.as_text().filter(is_name);
    if found.is_none() {
        node.fault(format!(
            "{} is no interface name; write a name of 1 to {MAX_INTERFACE_NAME_BYTES} characters as in `ip link`, e.g. \"eth0\"",
            node.found()
        ));
    }
    found.map(str::to_owned)
}

/// A path, or a name as in `ip netns`.
fn network_namespace(node: Node<'_>) -> Option<PathBuf> {
    let text = node.as_text().filter(|text| !text.is_empty() && !text.contains('\0'));
    match text {
        Some(name) if !name.contains('/') && name != "." && name != ".." => {
            Some(PathBuf::from("/run/netns").join(name))
        }
        _ => absolute_path(node),
    }
}

fn absolute_path(node: Node<'_>) -> Option<PathBuf> {
    let found = node.as_text().filter(|text| text.starts_with('/') && !text.contains('\0'));
    if found.is_none() {
        node.fault(format!("{} is no absolute path; write one that starts with \"/\"", node.found()));
    }
    found.map(PathBuf::from)
}

fn ports(section: &Section<'_>, is_required: bool) -> Vec<u16> {
    let example = "the gateway's ports, e.g. ports = [8080]";
    let node = if is_required { section.required("ports", example) } else { section.node("ports") };
    let Some(nodes) = node.and_then(|node| {
        let at = node.clone();
        let nodes = node.list()?;
        if nodes.is_empty() || nodes.len() > MAX_PORTS {
            at.fault(format!("has {} ports; allowed are 1 to {MAX_PORTS}", nodes.len()));
        }
        Some(nodes)
    }) else {
        return vec![];
    };
    let mut ports = Vec::new();
    for node in nodes {
        let again = node.clone();
        let Some(port) = node.integer(1..=u16::MAX.into()).and_then(|port| u16::try_from(port).ok()) else {
            continue;
        };
        if ports.contains(&port) {
            again.fault(format!("{port} is listed twice; leave one out"));
        }
        ports.push(port);
    }
    ports
}

fn ring_bytes(node: Node<'_>, shards: u64) -> Option<u64> {
    let again = node.clone();
    let bytes = node.size(MIN_RING_BYTES..=MAX_RING_BYTES)?;
    let shard_bytes = bytes.checked_div(shards)?;
    if shard_bytes.is_power_of_two() && shard_bytes.checked_mul(shards) == Some(bytes) {
        return Some(bytes);
    }
    let above = shard_bytes.saturating_add(1).checked_next_power_of_two().unwrap_or(MAX_RING_BYTES);
    let show = |shard_bytes: u64| crate::config::units::show_size(shard_bytes.saturating_mul(shards));
    let shares = if shards == 1 { String::new() } else { format!(" for each of {shards} shards") };
    again.fault(format!(
        "{} is not a power of two{shares}; the nearest are \"{}\" and \"{}\"",
        again.found(),
        show(above >> 1),
        show(above)
    ));
    None
}

fn socket_address(node: Node<'_>) -> Option<SocketAddr> {
    let found =
        node.as_text().and_then(|text| text.parse::<SocketAddr>().ok()).filter(|found| found.port() != 0);
    if found.is_none() {
        node.wrong_type("an address and port such as \"10.0.0.7:18000\" or \"[2001:db8::7]:18000\"");
    }
    found
}

fn limits(section: Section<'_>) -> FlowLimits {
    const KIB: u64 = 1024;
    let default = FlowLimits::default();
    let bytes = |key, default: usize, allowed| {
        section.or(key, default, |node| node.size(allowed).and_then(|bytes| usize::try_from(bytes).ok()))
    };
    let time = |key, default, seconds: u64| {
        let allowed = Duration::from_millis(10)..=Duration::from_secs(seconds);
        section.or(key, default, |node| node.duration(allowed))
    };
    let limits = FlowLimits {
        max_flows: section.or("max_flows", default.max_flows, |node| {
            node.integer(16..=1_048_576).and_then(|flows| usize::try_from(flows).ok())
        }),
        max_reorder_bytes: bytes("max_reorder_bytes", default.max_reorder_bytes, 64 * KIB..=KIB * KIB * KIB),
        max_total_bytes: bytes("max_total_bytes", default.max_total_bytes, KIB * KIB..=64 * KIB * KIB * KIB),
        hole_timeout: time("hole_timeout", default.hole_timeout, 60),
        idle_timeout: time("idle_timeout", default.idle_timeout, 86_400),
        ..default
    };
    if limits.max_reorder_bytes > limits.max_total_bytes {
        section.fault("max_reorder_bytes is larger than max_total_bytes, which holds it; lower the one or raise the other");
    }
    section.close();
    limits
}

/// One of a few words.
pub(super) fn choice<T: Copy>(node: &Node<'_>, words: &[(&str, T)]) -> Option<T> {
    let found = node.as_text().and_then(|text| words.iter().find(|(word, _)| *word == text));
    if found.is_none() {
        let allowed: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        node.wrong_type(&allowed.join(" or "));
    }
    found.map(|(_, value)| *value)
}
