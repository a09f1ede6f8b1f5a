//! What every fuzz target does with one input: shared by `fuzz/`, where a fuzzer makes the inputs, and by the test
//! that feeds each target the inputs that were kept.
//!
//! An input is any bytes. A run panics where the daemon breaks a promise: it panicked, let a bound be passed, told of
//! a request twice, or lost one from its books.

mod answer;
mod contract;
mod frames;
mod h1;
mod h2;
mod h2_frame;
mod heads;
mod hpack;
mod input;
mod manifests;
mod pcap;
mod pipeline;

/// One fuzz target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name: that of the binary in `fuzz/`, and of the directory of its seeds.
    pub name: &'static str,
    /// Runs one input.
    ///
    /// # Panics
    /// When the daemon breaks a promise.
    pub run: fn(&[u8]),
}

/// The answer decoder of the replayer: never claims bytes that it was not given, and says the same whatever the cut.
pub const ANSWER: Target = Target { name: "answer", run: answer::run };
/// The passive decoder of one connection, whatever it carries: keeps the event contract and its bounds.
pub const H1: Target = Target { name: "h1", run: h1::run };
/// The HTTP/2 decoder: keeps the event contract and its bounds, and says the same whatever the cut.
pub const H2: Target = Target { name: "h2", run: h2::run };
/// HTTP/2 frames: the same whatever the cut.
pub const H2_FRAME: Target = Target { name: "h2_frame", run: h2_frame::run };
/// HPACK: keeps its bounds, and joined late never contradicts the decoder that saw all.
pub const HPACK: Target = Target { name: "hpack", run: hpack::run };
/// Manifests of Kubernetes objects: what is made of them is a right configuration, and findings are one line.
pub const MANIFESTS: Target = Target { name: "manifests", run: manifests::run };
/// Capture files: every packet is counted once.
pub const PCAP: Target = Target { name: "pcap", run: pcap::run };
/// The pure middle as a whole: keeps its books, holds nothing after the end, and makes only right heads.
pub const PIPELINE: Target = Target { name: "pipeline", run: pipeline::run };

/// All of them.
pub const TARGETS: [Target; 8] = [ANSWER, H1, H2, H2_FRAME, HPACK, MANIFESTS, PCAP, PIPELINE];
