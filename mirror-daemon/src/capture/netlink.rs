//! The little of rtnetlink that attaching needs and aya does not offer: link types, listing and deleting tc
//! filters, deleting a qdisc; and the netlink under it. All in the calling thread's network namespace.
//!
//! Messages: rtnetlink(7); layouts: `linux/netlink.h`, `linux/rtnetlink.h`, `linux/if_link.h`.

use super::error::CaptureError;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
pub(crate) const NLM_F_DUMP: u16 = 0x300;
/// `NLM_F_CREATE | NLM_F_EXCL`.
const NLM_F_NEW: u16 = 0x600;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFADDRMSG_BYTES: usize = 8;
const RTM_NEWQDISC: u16 = 36;
const RTM_DELQDISC: u16 = 37;
const RTM_NEWTFILTER: u16 = 44;
const RTM_DELTFILTER: u16 = 45;
const RTM_GETTFILTER: u16 = 46;
const RTM_NEWNSID: u16 = 88;
const RTM_GETNSID: u16 = 90;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_INFO_KIND: u16 = 1;
const NETNSA_NSID: u16 = 1;
const NETNSA_FD: u16 = 3;
/// -1 as the kernel writes it.
const NETNSA_NSID_NOT_ASSIGNED: u32 = u32::MAX;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_ID: u16 = 11;
const NLA_TYPE_MASK: u16 = 0x3fff;
const NLMSG_HEADER_BYTES: usize = 16;
const IFINFOMSG_BYTES: usize = 16;
const RTGENMSG_BYTES: usize = 4;
const TCMSG_BYTES: usize = 20;
const IFF_LOOPBACK: u32 = 0x8;
/// `TC_H_CLSACT`: handle and parent of the clsact qdisc.
const CLSACT_PARENT: u32 = 0xffff_fff1;
const CLSACT_HANDLE: u32 = 0xffff_0000;
/// The largest answer to one `recv`: netlink's own bound on a dump's skb.
const ANSWER_BYTES: usize = 32 * 1024;

/// The index of the interface `name` in the calling thread's network namespace.
///
/// # Errors
/// When there is none.
pub(crate) fn interface_index(name: &str) -> io::Result<u32> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    Ok(rustix::net::netdevice::name_to_index(socket, name)?)
}

/// What a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Link {
    /// `ARPHRD_*`.
    pub(crate) kind: u16,
    pub(crate) is_loopback: bool,
    /// One end of a veth pair.
    pub(crate) is_veth: bool,
    /// `IFLA_LINK`: the index of the interface that this one is on top of; of a veth, the other end.
    pub(crate) under: Option<u32>,
    /// `IFLA_LINK_NETNSID`: the number that this namespace has for the one of `under`; `None`: the same.
    pub(crate) under_namespace: Option<u32>,
    /// `IFLA_MASTER`: the index of the bridge, bond or VRF that this one belongs to.
    pub(crate) master: Option<u32>,
}

/// Where on a clsact qdisc a filter hangs: `TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS / EGRESS)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Side {
    Ingress = 0xffff_fff2,
    Egress = 0xffff_fff3,
}

/// One tc filter.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Filter {
    pub(crate) handle: u32,
    /// Priority in the upper half, protocol (network byte order) in the lower.
    pub(crate) tcm_info: u32,
    /// `bpf`, `flower`, ...
    pub(crate) kind: String,
    /// A BPF filter's name.
    pub(crate) name: String,
    /// A BPF filter's program.
    pub(crate) program_id: Option<u32>,
}

/// One message to the kernel.
pub(crate) struct Request<'a> {
    /// For messages.
    pub(crate) what: &'static str,
    /// `nlmsg_type`.
    pub(crate) kind: u16,
    /// `nlmsg_flags`, but for `NLM_F_REQUEST`.
    pub(crate) flags: u16,
    /// What follows the header.
    pub(crate) body: &'a [u8],
}

impl Request<'_> {
    /// struct nlmsghdr (length, type, flags, sequence, port), then the body.
    fn message(&self) -> Vec<u8> {
        let bytes = u32::try_from(self.body.len().saturating_add(NLMSG_HEADER_BYTES)).unwrap_or(u32::MAX);
        let mut message = bytes.to_ne_bytes().to_vec();
        message.extend_from_slice(&self.kind.to_ne_bytes());
        message.extend_from_slice(&(self.flags | NLM_F_REQUEST).to_ne_bytes());
        message.extend_from_slice(&[0_u8; 8]);
        message.extend_from_slice(self.body);
        message
    }
}

/// A connection to one netlink family of the namespace in which it was opened.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: OwnedFd,
}

impl Netlink {
    /// `None` is NETLINK_ROUTE.
    ///
    /// # Errors
    /// When the socket cannot be opened.
    pub(crate) fn open(family: Option<Protocol>) -> Result<Self, CaptureError> {
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, family)
            .map_err(failed("open a socket"))?;
        Ok(Self { socket })
    }

    /// Sends one request and passes each message of the answer (type and body) to `on_message`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn ask(
        &self,
        request: &Request<'_>,
        mut on_message: impl FnMut(u16, &[u8]),
    ) -> Result<(), CaptureError> {
        let what = request.what;
        send(&self.socket, &request.message(), SendFlags::empty()).map_err(failed(what))?;
        let mut answer = vec![0_u8; ANSWER_BYTES];
        loop {
            let (received, _) =
                recv(&self.socket, answer.as_mut_slice(), RecvFlags::empty()).map_err(failed(what))?;
            let mut rest = answer.get(..received).unwrap_or_default();
            while let Some((kind, body, behind)) = next_message(rest) {
                match kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => return acknowledged(what, body),
                    _ => on_message(kind, body),
                }
                rest = behind;
            }
        }
    }
}

/// A connection to rtnetlink of the namespace in which it was opened.
#[derive(Debug)]
pub(crate) struct Rtnetlink(Netlink);

impl Rtnetlink {
    /// # Errors
    /// When the socket cannot be opened.
    pub(crate) fn open() -> Result<Self, CaptureError> {
        Netlink::open(None).map(Self)
    }

    /// What the link with this index is.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn link(&self, index: u32) -> Result<Link, CaptureError> {
        // struct ifinfomsg: family, pad, type, index, flags, change.
        let mut body = vec![0_u8; IFINFOMSG_BYTES];
        put(&mut body, 4, &index.to_ne_bytes());
        let mut link = None;
        self.0.ask(
            &Request { what: "read a link", kind: RTM_GETLINK, flags: NLM_F_ACK, body: &body },
            |kind, body| {
                if kind == RTM_NEWLINK {
                    link = Link::from_message(body);
                }
            },
        )?;
        link.ok_or_else(|| failed("read a link")(rustix::io::Errno::NODEV))
    }

    /// The addresses of the interface with this index.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn addresses(&self, index: u32) -> Result<Vec<IpAddr>, CaptureError> {
        let mut addresses = Vec::new();
        // struct ifaddrmsg, zeroed: every family, every interface.
        let body = [0_u8; IFADDRMSG_BYTES];
        self.0.ask(
            &Request { what: "list addresses", kind: RTM_GETADDR, flags: NLM_F_DUMP, body: &body },
            |kind, body| {
                if kind == RTM_NEWADDR && u32_at(body, 4) == Some(index) {
                    addresses.extend(address_of(body));
                }
            },
        )?;
        Ok(addresses)
    }

    /// The number that this namespace has for another one; `None` when it has none.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn namespace_number(&self, other: &File) -> Result<Option<u32>, CaptureError> {
        // struct rtgenmsg: family, then padding.
        let mut body = vec![0_u8; RTGENMSG_BYTES];
        put_attribute(&mut body, NETNSA_FD, &other.as_raw_fd().to_ne_bytes());
        let mut number = None;
        self.0.ask(
            &Request { what: "tell a namespace", kind: RTM_GETNSID, flags: NLM_F_ACK, body: &body },
            |kind, body| {
                if kind == RTM_NEWNSID {
                    number = attributes(body.get(RTGENMSG_BYTES..).unwrap_or_default())
                        .find(|(kind, _)| *kind == NETNSA_NSID)
                        .and_then(|(_, value)| u32_at(value, 0));
                }
            },
        )?;
        Ok(number.filter(|number| *number != NETNSA_NSID_NOT_ASSIGNED))
    }

    /// The filters on one side of the interface's clsact qdisc; none without such a qdisc.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn filters(&self, index: u32, side: Side) -> Result<Vec<Filter>, CaptureError> {
        let mut filters = Vec::new();
        let body = tcmsg(index, 0, side as u32, 0);
        let listed = self.0.ask(
            &Request { what: "list filters", kind: RTM_GETTFILTER, flags: NLM_F_DUMP, body: &body },
            |kind, body| {
                if kind == RTM_NEWTFILTER {
                    filters.extend(Filter::from_message(body));
                }
            },
        );
        match listed {
            // Without the qdisc there is nothing to list.
            Err(CaptureError::Netlink { source, .. }) if is_absent(&source) => Ok(Vec::new()),
            Err(error) => Err(error),
            Ok(()) => Ok(filters),
        }
    }

    /// # Errors
    /// When there is no such filter, or the kernel refuses.
    pub(crate) fn delete_filter(&self, index: u32, side: Side, filter: &Filter) -> Result<(), CaptureError> {
        let mut body = tcmsg(index, filter.handle, side as u32, filter.tcm_info);
        put_attribute(&mut body, TCA_KIND, b"bpf\0");
        self.0.ask(
            &Request { what: "delete a filter", kind: RTM_DELTFILTER, flags: NLM_F_ACK, body: &body },
            |_, _| (),
        )
    }

    /// Gives the interface a clsact qdisc. False when it has one already.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn add_clsact(&self, index: u32) -> Result<bool, CaptureError> {
        let mut body = tcmsg(index, CLSACT_HANDLE, CLSACT_PARENT, 0);
        put_attribute(&mut body, TCA_KIND, b"clsact\0");
        match self.0.ask(
            &Request {
                what: "add a clsact qdisc",
                kind: RTM_NEWQDISC,
                flags: NLM_F_ACK | NLM_F_NEW,
                body: &body,
            },
            |_, _| (),
        ) {
            Ok(()) => Ok(true),
            Err(CaptureError::Netlink { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Deletes the interface's clsact qdisc, and with it what hangs on it.
    ///
    /// # Errors
    /// When there is none, or the kernel refuses.
    pub(crate) fn delete_clsact(&self, index: u32) -> Result<(), CaptureError> {
        let mut body = tcmsg(index, CLSACT_HANDLE, CLSACT_PARENT, 0);
        put_attribute(&mut body, TCA_KIND, b"clsact\0");
        self.0.ask(
            &Request { what: "delete the clsact qdisc", kind: RTM_DELQDISC, flags: NLM_F_ACK, body: &body },
            |_, _| (),
        )
    }
}

/// From the body of an `RTM_NEWADDR`, a struct ifaddrmsg (family, prefix length, flags, scope, index) and attributes.
fn address_of(message: &[u8]) -> Option<IpAddr> {
    let all = || attributes(message.get(IFADDRMSG_BYTES..).unwrap_or_default());
    let of = |wanted: u16| all().find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    // On a point-to-point interface `IFA_ADDRESS` is the far end's.
    let value = of(IFA_LOCAL).or_else(|| of(IFA_ADDRESS))?;
    match value.len() {
        4 => Some(IpAddr::from(*value.first_chunk::<4>()?)),
        16 => Some(IpAddr::from(*value.first_chunk::<16>()?)),
        _ => None,
    }
}

impl Link {
    /// From the body of an `RTM_NEWLINK`, a struct ifinfomsg and attributes.
    fn from_message(body: &[u8]) -> Option<Self> {
        let flags = u32_at(body, 8)?;
        let mut link =
            Self { kind: u16_at(body, 2)?, is_loopback: flags & IFF_LOOPBACK != 0, ..Self::default() };
        for (kind, value) in attributes(body.get(IFINFOMSG_BYTES..)?) {
            match kind {
                IFLA_LINK => link.under = u32_at(value, 0).filter(|index| *index != 0),
                IFLA_LINK_NETNSID => link.under_namespace = u32_at(value, 0),
                IFLA_MASTER => link.master = u32_at(value, 0),
                IFLA_LINKINFO => {
                    let kind = attributes(value).find(|(kind, _)| *kind == IFLA_INFO_KIND);
                    link.is_veth = kind.is_some_and(|(_, kind)| text(kind) == "veth");
                }
                _ => {}
            }
        }
        Some(link)
    }
}

impl Filter {
    /// From the body of an `RTM_NEWTFILTER`; `None` for the line that only names a chain.
    fn from_message(body: &[u8]) -> Option<Self> {
        let mut filter = Self { handle: u32_at(body, 8)?, tcm_info: u32_at(body, 16)?, ..Self::default() };
        if filter.handle == 0 {
            return None;
        }
        for (kind, value) in attributes(body.get(TCMSG_BYTES..)?) {
            match kind {
                TCA_KIND => filter.kind = text(value),
                TCA_OPTIONS => filter.read_bpf_options(value),
                _ => {}
            }
        }
        Some(filter)
    }

    fn read_bpf_options(&mut self, options: &[u8]) {
        for (kind, value) in attributes(options) {
            match kind {
                TCA_BPF_NAME => self.name = text(value),
                TCA_BPF_ID => self.program_id = u32_at(value, 0),
                _ => {}
            }
        }
    }
}

fn failed(what: &'static str) -> impl Fn(rustix::io::Errno) -> CaptureError {
    move |errno| CaptureError::Netlink { what, source: errno.into() }
}

fn is_absent(error: &io::Error) -> bool {
    let absent = [rustix::io::Errno::INVAL, rustix::io::Errno::NOENT].map(rustix::io::Errno::raw_os_error);
    error.raw_os_error().is_some_and(|errno| absent.contains(&errno))
}

/// The body of an `NLMSG_ERROR`: a negative errno, or 0.
fn acknowledged(what: &'static str, body: &[u8]) -> Result<(), CaptureError> {
    match u32_at(body, 0).map(|errno| errno.cast_signed().saturating_neg()) {
        Some(0) => Ok(()),
        Some(errno) => Err(CaptureError::Netlink { what, source: io::Error::from_raw_os_error(errno) }),
        None => Err(CaptureError::Netlink { what, source: io::ErrorKind::UnexpectedEof.into() }),
    }
}

/// struct tcmsg: family, pads, ifindex, handle, parent, info.
fn tcmsg(index: u32, handle: u32, parent: u32, info: u32) -> Vec<u8> {
    let mut body = vec![0_u8; 4];
    for word in [index, handle, parent, info] {
        body.extend_from_slice(&word.to_ne_bytes());
    }
    body
}

/// The first message of `bytes`: type, body, and what follows it.
fn next_message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
    let body = bytes.get(NLMSG_HEADER_BYTES..length)?;
    let behind = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((u16_at(bytes, 4)?, body, behind))
}

/// Type and value of each attribute; ends at the first that is cut short.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & NLA_TYPE_MASK;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn put_attribute(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(value.len().saturating_add(4)).unwrap_or(u16::MAX);
    message.extend_from_slice(&length.to_ne_bytes());
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(value);
    message.resize(message.len().next_multiple_of(4), 0);
}

pub(crate) fn put(bytes: &mut [u8], offset: usize, value: &[u8]) {
    for (slot, byte) in bytes.iter_mut().skip(offset).zip(value) {
        *slot = *byte;
    }
}

fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or_default()).into_owned()
}

pub(crate) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(offset..)?.first_chunk().copied()?))
}

pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(offset..)?.first_chunk().copied()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_a_loopback() {
        let index = interface_index("lo").expect("lo exists");
        let link = Rtnetlink::open().expect("a socket").link(index).expect("lo has a type");
        assert_eq!(link, Link { kind: 772, is_loopback: true, ..Link::default() });
    }

    #[test]
    fn cut_messages_end_the_walk() {
        assert!(next_message(&[20, 0, 0, 0, 1, 0]).is_none());
        let mut filter = tcmsg(1, 2, 3, 4);
        put_attribute(&mut filter, TCA_KIND, b"bpf\0");
        let whole = Filter::from_message(&filter).expect("whole");
        assert_eq!((whole.kind.as_str(), whole.handle, whole.tcm_info), ("bpf", 2, 4));
        for cut in 0..filter.len() {
            let _ = Filter::from_message(&filter[..cut]);
        }
    }

    #[test]
    fn a_refusal_carries_its_errno() {
        assert!(acknowledged("x", &0_i32.to_ne_bytes()).is_ok());
        let refused = acknowledged("x", &(-1_i32).to_ne_bytes());
        assert!(
            matches!(refused, Err(CaptureError::Netlink { source, .. }) if source.raw_os_error() == Some(1))
        );
    }
}
