//! I/O. Where segments come from: the kernel's rings, or a capture file.

pub mod pcap;
