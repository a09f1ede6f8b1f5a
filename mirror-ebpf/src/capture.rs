//! From a packet at a hook to what is copied of it. Nothing here changes, delays or drops it.

use crate::{
    emit::{self, Emission},
    maps::{self, Books},
    parse::{self, TcpSegment},
};
use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_get_smp_processor_id, bpf_ktime_get_ns},
};
use mirror_common::{
    ANY_POINT, ExcludedKey, FlowKey, FlowVerdict, HEARTBEAT_STALE_NS, KernelCounter, KernelSettings, LegCode,
    Live, LossReason, MAX_PIECE_BYTES, MAX_PORTS, PointFlags, RecordDirection, RecordFlags, RecordHeader,
    SHADOW_SOCKET_MARK, VerdictCode,
};

/// Which of a capture point's two hooks a packet came by.
pub(crate) const INGRESS: u32 = 0;
/// See [`INGRESS`].
pub(crate) const EGRESS: u32 = 1;

const TCP_FIN: u8 = 0x01;
const TCP_SYN: u8 = 0x02;
const TCP_RST: u8 = 0x04;
const TCP_ACK: u8 = 0x10;

/// What is run for each packet at capture point number `point`. One copy in the object file, called by every
/// program that is not only an entry point.
#[inline(never)]
pub(crate) fn capture(skb: *mut __sk_buff, point: u32, side: u32) -> u32 {
    if let Some(books) = Books::open()
        && let Err(counter) = try_capture(skb, point, side, books)
    {
        Books::add_to_reason(counter, 1);
    }
    0
}

/// `Err` names the counter of why nothing was copied.
#[inline(always)]
fn try_capture(skb: *mut __sk_buff, point: u32, side: u32, books: Books) -> Result<(), KernelCounter> {
    // SAFETY: a helper without arguments.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    let live = live(now_ns)?;
    let settings = maps::SETTINGS.get(0).ok_or(KernelCounter::Inert)?;
    let place = maps::point(point).ok_or(KernelCounter::Inert)?;
    if place.flags & PointFlags::PAUSED != 0 {
        return Err(KernelCounter::Inert);
    }
    let tcp = parse::segment(skb, place.link_header_bytes)?;
    let direction = direction(settings, place.flags, side, &tcp).ok_or(KernelCounter::OtherPort)?;
    let mut header = header(settings, point, direction, &tcp, now_ns);
    let opens = tcp.flags & (TCP_SYN | TCP_ACK) == TCP_SYN;
    leave_out(skb, settings, &header.flow, opens)?;
    books.add(KernelCounter::Segments, 1);
    books.add(KernelCounter::PayloadBytes, u64::from(tcp.payload_bytes));
    if tcp.payload_bytes == 0 && tcp.flags & (TCP_SYN | TCP_FIN | TCP_RST) == 0 {
        return Err(KernelCounter::PureAcks);
    }
    if opens {
        let _ = maps::VERDICTS.remove(&header.flow);
    }
    let hash = header.flow.hash();
    header.shard = hash.shard(settings.shards) as u16;
    let to = Emission { skb, payload_offset: tcp.payload_offset, settings, books };
    if hash.shed_step() < live.shed_level {
        books.add(KernelCounter::ShedSegments, 1);
        if tcp.payload_bytes != 0 {
            emit::lost(&to, &header, tcp.payload_bytes, LossReason::Shed);
        }
        return Ok(());
    }
    let wanted_bytes = wanted_bytes(settings, &header, books)?;
    if place.flags & PointFlags::SELECTION != 0 {
        header.flags = selection_flags(&header.flow);
    }
    emit::segment(&to, &mut header, wanted_bytes);
    Ok(())
}

/// `Err` when the daemon is not yet there or drains, and when its heart has stopped without a word.
#[inline(always)]
pub(crate) fn live(now_ns: u64) -> Result<Live, KernelCounter> {
    let live = maps::LIVE.get_ptr(0).ok_or(KernelCounter::Inert)?;
    // SAFETY: a live array value, written by user space word by word.
    let live = unsafe { live.read_volatile() };
    if live.heartbeat_ns == 0 {
        return Err(KernelCounter::Inert);
    }
    if now_ns.saturating_sub(live.heartbeat_ns) > HEARTBEAT_STALE_NS {
        return Err(KernelCounter::Stalled);
    }
    Ok(live)
}

/// Which way the segment travels on the wanted leg; `None` when it is not on it.
#[inline(always)]
fn direction(
    settings: &KernelSettings,
    point_flags: u32,
    side: u32,
    tcp: &TcpSegment,
) -> Option<RecordDirection> {
    let to_port = has_port(settings, tcp.dst_port);
    let from_port = has_port(settings, tcp.src_port);
    if point_flags & PointFlags::BOTH_ENDS != 0 {
        return match (to_port, from_port) {
            (false, false) => None,
            (false, true) => Some(RecordDirection::Answer),
            (true, true) if tcp.dst_port > tcp.src_port => Some(RecordDirection::Answer),
            _ => Some(RecordDirection::Request),
        };
    }
    let enters_gateway = (side == INGRESS) != (point_flags & PointFlags::SWAPPED != 0);
    let requests_enter = settings.leg == LegCode::Downstream as u32;
    if enters_gateway == requests_enter {
        to_port.then_some(RecordDirection::Request)
    } else {
        from_port.then_some(RecordDirection::Answer)
    }
}

/// Whether `port` is among the wanted ones.
#[inline(always)]
pub(crate) fn has_port(settings: &KernelSettings, port: u16) -> bool {
    for index in 0..MAX_PORTS {
        if index as u32 >= settings.port_count {
            return false;
        }
        if settings.ports[index] == port {
            return true;
        }
    }
    false
}

/// The record header, but for what differs from piece to piece.
#[inline(always)]
fn header(
    settings: &KernelSettings,
    point: u32,
    direction: RecordDirection,
    tcp: &TcpSegment,
    now_ns: u64,
) -> RecordHeader {
    let downstream = settings.leg == LegCode::Downstream as u32;
    let gateway_sends = downstream != matches!(direction, RecordDirection::Request);
    let (gateway, remote) = if gateway_sends {
        ((tcp.src, tcp.src_port), (tcp.dst, tcp.dst_port))
    } else {
        ((tcp.dst, tcp.dst_port), (tcp.src, tcp.src_port))
    };
    RecordHeader {
        flow: FlowKey {
            gateway_addr: octets(gateway.0),
            remote_addr: octets(remote.0),
            gateway_port: gateway.1,
            remote_port: remote.1,
            capture_point: point,
        },
        captured_ns: now_ns,
        seq: tcp.seq,
        ack: tcp.ack,
        segment_bytes: tcp.payload_bytes,
        offset_bytes: 0,
        piece_bytes: tcp.payload_bytes,
        record_number: 0,
        // SAFETY: a helper without arguments.
        cpu: unsafe { bpf_get_smp_processor_id() } as u16,
        shard: 0,
        tcp_flags: tcp.flags,
        direction: direction as u8,
        flags: 0,
    }
}

/// `Err` for the daemon's own connections and for excluded destinations. Only what the daemon sends carries
/// the mark, so its SYN leaves a verdict for the answers.
#[inline(always)]
fn leave_out(
    skb: *mut __sk_buff,
    settings: &KernelSettings,
    flow: &FlowKey,
    opens: bool,
) -> Result<(), KernelCounter> {
    // SAFETY: a read of a context field, which the verifier allows for every skb program.
    if unsafe { (*skb).mark } == SHADOW_SOCKET_MARK {
        if opens {
            let ignore = FlowVerdict { code: VerdictCode::Ignore as u32, until_seq: 0 };
            let _ = maps::VERDICTS.insert(flow, &ignore, 0);
        }
        return Err(KernelCounter::Own);
    }
    if settings.leg == LegCode::Upstream as u32 && settings.excluded_count != 0 {
        let key = ExcludedKey { addr: flow.remote_addr, port: flow.remote_port, padding: 0 };
        if maps::EXCLUDED.get_ptr(&key).is_some() {
            return Err(KernelCounter::Excluded);
        }
    }
    Ok(())
}

/// How much of the segment is copied; `Err` when not even its header is.
#[inline(always)]
fn wanted_bytes(
    settings: &KernelSettings,
    header: &RecordHeader,
    books: Books,
) -> Result<u32, KernelCounter> {
    let bytes = header.segment_bytes;
    // SAFETY: a live map value, written by user space as a whole; read at once.
    let verdict = maps::VERDICTS.get_ptr(&header.flow).map(|verdict| unsafe { verdict.read_volatile() });
    let is_request = header.direction == RecordDirection::Request as u8;
    if let Some(verdict) = verdict {
        if verdict.code == VerdictCode::Ignore as u32 {
            books.add(KernelCounter::IgnoredBytes, u64::from(bytes));
            return Err(KernelCounter::IgnoredSegments);
        }
        let end = header.seq.wrapping_add(bytes);
        if verdict.code == VerdictCode::PassOver as u32 && is_request && bytes != 0 {
            if end.wrapping_sub(verdict.until_seq) as i32 <= 0 {
                books.add(KernelCounter::PassedOverSegments, 1);
                books.add(KernelCounter::PassedOverBytes, u64::from(bytes));
                return Ok(0);
            }
            // Left where it is, it would hold again 2 GiB further on.
            let _ = maps::VERDICTS.remove(&header.flow);
        }
    }
    let copies_answers = verdict.is_some_and(|verdict| verdict.code == VerdictCode::CopyAnswers as u32);
    if is_request || copies_answers {
        return Ok(bytes);
    }
    let wanted = bytes.min(settings.answer_snap_bytes).min(MAX_PIECE_BYTES);
    books.add(KernelCounter::SnappedBytes, u64::from(bytes - wanted));
    Ok(wanted)
}

/// Whether `sockops` knows the flow. The first segment of a connection can pass before it does, so user space
/// decides, not this program.
#[inline(always)]
fn selection_flags(flow: &FlowKey) -> u16 {
    let anywhere = flow.at_point(ANY_POINT);
    if maps::FLOWS.get_ptr(&anywhere).is_some() {
        RecordFlags::SELECTION_IN_USE | RecordFlags::SELECTED
    } else {
        RecordFlags::SELECTION_IN_USE
    }
}

/// `addr` is in network byte order, and so is the result.
#[inline(always)]
pub(crate) fn octets(addr: [u32; 4]) -> [u8; 16] {
    // SAFETY: both are 16 plain bytes; `addr` is in network byte order already.
    unsafe { core::mem::transmute(addr) }
}
