//! The input is a capture file.

use mirror_daemon::capture::pcap::PcapSource;
use mirror_daemon::config::Leg;
use std::path::Path;

pub(super) fn run(input: &[u8]) {
    let Ok(mut source) = PcapSource::read_from(input, Path::new("fuzz"), Leg::Downstream, &[8080]) else {
        return;
    };
    let mut segments = 0;
    // A file that breaks off is told of as an error, behind all that was whole.
    let _ = source.for_each(|segment| {
        assert!(segment.payload.len() <= segment.segment_bytes as usize);
        segments += 1;
    });
    let counters = source.counters();
    assert_eq!((counters.segments, counters.packets), (segments, segments + counters.skipped.total()));
}
