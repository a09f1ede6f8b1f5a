//! What the kernel programs have to say of rare faults, passed on to the log. Never anything per packet.

use crate::telemetry::logging::Throttle;
use aya::Ebpf;
use aya_log::EbpfLogger;
use log::{Log, Metadata, Record};
use std::time::{Duration, Instant};

/// Reads the kernel programs' own log. To be kept for as long as programs are loaded: they refer to its map.
pub(super) struct KernelLog(EbpfLogger<ToTracing>);

impl KernelLog {
    /// `None` when this object logs nothing.
    pub(super) fn open(ebpf: &mut Ebpf) -> Option<Self> {
        EbpfLogger::init_with_logger(ebpf, ToTracing).map(Self).ok()
    }

    /// Passes on what waits: at most the log ring's 128 KiB.
    pub(super) fn flush(&mut self) {
        self.0.flush();
    }
}

/// aya-log speaks the `log` crate's language.
struct ToTracing;

impl Log for ToTracing {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        static LINES: Throttle = Throttle::every(Duration::from_secs(10));
        if let Some(suppressed) = LINES.admit(Instant::now()) {
            tracing::warn!(suppressed, "kernel program: {}", record.args());
        }
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn kernel_lines_reach_the_log_and_a_flood_of_them_does_not() {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            for _ in 0..100 {
                ToTracing.log(&Record::builder().args(format_args!("a fault")).build());
            }
        });
        let lines = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        assert_eq!(lines.matches("kernel program: a fault").count(), 1, "{lines}");
    }
}
