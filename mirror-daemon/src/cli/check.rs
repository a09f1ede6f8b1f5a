//! `check` on the command line.

use clap::Args;
use std::path::PathBuf;

const CHECK_HELP: &str = "\
Examples:
  Before a deployment; every fault is named at once, with its key and line:
    mirror-daemon check --config mirror.toml

  In a pipeline:
    mirror-daemon check --config mirror.toml --json

Exit codes:
  0  the configuration is right
  2  it has faults, or can't be read
";

/// `check`
#[derive(Clone, Debug, Args)]
#[command(after_help = CHECK_HELP)]
pub struct CheckArgs {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Write the faults as JSON
    #[arg(long)]
    pub json: bool,
}
