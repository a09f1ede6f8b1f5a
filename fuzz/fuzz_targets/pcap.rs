//! Any bytes as a capture file: never panics, and every packet is counted once.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mirror_daemon::capture::pcap::PcapSource;
use mirror_daemon::config::Leg;
use std::path::Path;

fuzz_target!(|input: &[u8]| {
    let Ok(mut source) = PcapSource::read_from(input, Path::new("fuzz"), Leg::Downstream, &[8080]) else {
        return;
    };
    let mut segments = 0;
    let _ = source.for_each(|segment| {
        assert!(segment.payload.len() <= segment.segment_bytes as usize);
        segments += 1;
    });
    let counters = source.counters();
    assert_eq!((counters.segments, counters.packets), (segments, segments + counters.skipped.total()));
});
