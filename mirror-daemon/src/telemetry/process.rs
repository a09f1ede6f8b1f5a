//! What the kernel says of this process: memory, descriptors, processor time. Read when asked.

use rustix::time::{ClockId, clock_gettime};
use std::fs;

/// Figures of this process; a figure that can't be read is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessReading {
    /// Resident memory, `VmRSS`.
    pub resident_bytes: Option<u64>,
    /// Resident memory that is not backed by files, `RssAnon`.
    pub resident_anon_bytes: Option<u64>,
    /// Most resident memory so far, `VmHWM`.
    pub resident_peak_bytes: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
    /// Open file descriptors.
    pub open_fds: Option<u64>,
    /// Processor time spent, user and system.
    pub cpu_seconds: f64,
}

impl ProcessReading {
    /// Reads the figures from `/proc/self` and the process clock.
    #[must_use]
    pub fn now() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        // The directory listing holds a descriptor of its own while it is read.
        let open_fds = fs::read_dir("/proc/self/fd")
            .ok()
            .and_then(|entries| u64::try_from(entries.count().saturating_sub(1)).ok());
        Self { open_fds, cpu_seconds: cpu_seconds(), ..parse_status(&status) }
    }
}

fn cpu_seconds() -> f64 {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    // Exact: seconds of processor time stay far below 2^53.
    spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9
}

fn parse_status(status: &str) -> ProcessReading {
    let mut reading = ProcessReading::default();
    for line in status.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        let number = value.split_whitespace().next().and_then(|word| word.parse::<u64>().ok());
        let bytes = number.map(|kibibytes| kibibytes.saturating_mul(1024));
        match key {
            "VmRSS" => reading.resident_bytes = bytes,
            "RssAnon" => reading.resident_anon_bytes = bytes,
            "VmHWM" => reading.resident_peak_bytes = bytes,
            "Threads" => reading.threads = number,
            _ => {}
        }
    }
    reading
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_figures_are_read_and_plausible() {
        let reading = ProcessReading::now();
        let resident = reading.resident_bytes.unwrap();
        assert!(resident >= reading.resident_anon_bytes.unwrap());
        assert!(resident <= reading.resident_peak_bytes.unwrap());
        assert!(reading.open_fds.unwrap() >= 3);
        assert!(reading.threads.unwrap() >= 1);
        assert!(reading.cpu_seconds > 0.0);
    }

    #[test]
    fn status_without_memory_lines_gives_none() {
        assert_eq!(parse_status("Name:\tx\nThreads:\t4\n").threads, Some(4));
        assert_eq!(parse_status("VmRSS: nonsense\n").resident_bytes, None);
    }
}
