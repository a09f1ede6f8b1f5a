//! What mirroring costs, measured.

use anyhow::{Result, bail};

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Repetitions of every case, in rotating order.
    #[arg(long, default_value_t = 7)]
    repetitions: u32,
}

/// Runs the measurement.
///
/// # Errors
/// When set-up or a case fails.
pub(crate) fn bench(options: &Options) -> Result<()> {
    bail!("no measurement is written yet ({} repetitions were asked for)", options.repetitions)
}
