//! Which connections are the gateway's, and when they open and close.
//!
//! Kernel: `tcp_call_bpf(sk, op, ...)`, `include/net/tcp.h`; program type since 4.13, state callbacks since 4.16.

use crate::{
    capture::{has_port, live, octets},
    emit,
    maps::{self, Books},
    parse::mapped,
};
use aya_ebpf::{
    bindings::{
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB,
        BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_CONNECT_CB, BPF_TCP_CLOSE, bpf_sock_ops,
    },
    helpers::generated::{bpf_ktime_get_ns, bpf_sock_ops_cb_flags_set},
};
use mirror_common::{ANY_POINT, ControlKind, ControlRecord, FlowKey, KernelCounter, LegCode};

const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;

/// What is run for each event of a cgroup's sockets. `point`: the capture point's number where the cgroup is one,
/// or [`ANY_POINT`]. Never writes `reply`.
#[inline(never)]
pub(crate) fn watch(ops: *mut bpf_sock_ops, point: u32) -> u32 {
    if let Some(books) = Books::open() {
        let _ = try_watch(ops, point, books);
    }
    0
}

/// `Err` when the event is of no interest.
#[inline(always)]
fn try_watch(ops: *mut bpf_sock_ops, point: u32, books: Books) -> Result<(), ()> {
    // SAFETY: reads of context fields.
    let (op, new_state) = unsafe { ((*ops).op, (*ops).__bindgen_anon_1.args[1]) };
    let kind = match op {
        BPF_SOCK_OPS_TCP_CONNECT_CB
        | BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB
        | BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => ControlKind::Opened,
        BPF_SOCK_OPS_STATE_CB if new_state == BPF_TCP_CLOSE => ControlKind::Closed,
        _ => return Err(()),
    };
    // SAFETY: a helper without arguments.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    live(now_ns).map_err(drop)?;
    let settings = maps::SETTINGS.get(0).ok_or(())?;
    let passive = op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB;
    if matches!(kind, ControlKind::Opened) && passive != (settings.leg == LegCode::Downstream as u32) {
        return Err(());
    }
    let flow = flow_key(ops, point).ok_or(())?;
    let port = if settings.leg == LegCode::Downstream as u32 { flow.gateway_port } else { flow.remote_port };
    if !has_port(settings, port) {
        return Err(());
    }
    note(ops, op, &flow, books);
    if op != BPF_SOCK_OPS_TCP_CONNECT_CB {
        let record = ControlRecord { flow, at_ns: now_ns, kind: kind as u32, ..ControlRecord::default() };
        emit::control(books, &record);
    }
    Ok(())
}

/// Keeps the map of the gateway's flows (a capture point that is a cgroup needs none), and asks for the state changes of those that open.
#[inline(always)]
fn note(ops: *mut bpf_sock_ops, op: u32, flow: &FlowKey, books: Books) {
    let selects = flow.capture_point == ANY_POINT;
    if op == BPF_SOCK_OPS_STATE_CB {
        if selects {
            let _ = maps::FLOWS.remove(flow);
        }
        books.add(KernelCounter::Closed, 1);
        return;
    }
    if selects {
        let known = 1_u32;
        let _ = maps::FLOWS.insert(flow, &known, 0);
    }
    if op == BPF_SOCK_OPS_TCP_CONNECT_CB {
        return;
    }
    books.add(KernelCounter::Opened, 1);
    // SAFETY: a read of a context field, and a helper that takes the context. Flags that others set stay set.
    let refused = unsafe {
        let flags = (*ops).bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG;
        bpf_sock_ops_cb_flags_set(ops, flags as i32)
    };
    if refused != 0 {
        aya_log_ebpf::warn!(ops, "the close of a connection will not be told: {}", refused);
    }
}

/// The connection of the event's socket; `None` when it is not TCP over IP.
#[inline(always)]
fn flow_key(ops: *mut bpf_sock_ops, point: u32) -> Option<FlowKey> {
    // SAFETY: reads of context fields, each alone, as the verifier wants them.
    let (local, remote, local_port, remote_port) = unsafe {
        let (local, remote) = match (*ops).family {
            AF_INET => (mapped((*ops).local_ip4), mapped((*ops).remote_ip4)),
            // A dual-stack socket's IPv4 peer reads `::ffff:a.b.c.d` here, which is the key's own form.
            AF_INET6 => (ip6(&raw const (*ops).local_ip6), ip6(&raw const (*ops).remote_ip6)),
            _ => return None,
        };
        (local, remote, (*ops).local_port, (*ops).remote_port)
    };
    Some(FlowKey {
        gateway_addr: octets(local),
        remote_addr: octets(remote),
        // The context gives the local port in host byte order and the remote one in network byte order.
        gateway_port: local_port as u16,
        remote_port: u32::from_be(remote_port) as u16,
        capture_point: point,
    })
}

/// SAFETY: `addr` points into the context.
#[inline(always)]
unsafe fn ip6(addr: *const [u32; 4]) -> [u32; 4] {
    let words = addr.cast::<u32>();
    // SAFETY: the caller's; volatile, for context fields must be read as single words.
    unsafe {
        [
            words.read_volatile(),
            words.add(1).read_volatile(),
            words.add(2).read_volatile(),
            words.add(3).read_volatile(),
        ]
    }
}
