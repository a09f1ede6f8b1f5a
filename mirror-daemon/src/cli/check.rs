//! `check` on the command line.

use clap::Args;
use std::path::PathBuf;

const CHECK_HELP: &str = "\
Examples:
  Before a deployment; every fault is named at once, with its key and line:
    mirror-daemon check --config mirror.toml

  With the rules of Kubernetes manifests, as `run` would take them; what can't be used goes to standard error:
    mirror-daemon check --config capture.toml --manifests manifests/

  In a pipeline:
    mirror-daemon check --config mirror.toml --json

Exit codes:
  0  the configuration is right, whether or not all objects of the manifests can be used
  2  it has faults, or can't be read, or a file with the name of a manifest is none
";

/// `check`
#[derive(Clone, Debug, Args)]
#[command(after_help = CHECK_HELP)]
pub struct CheckArgs {
    /// What is checked.
    #[command(flatten)]
    pub source: SourceArgs,
    /// Write the faults, and what was found in manifests, as JSON
    #[arg(long)]
    pub json: bool,
}

/// A configuration that is looked at and does not run.
#[derive(Clone, Debug, Args)]
pub struct SourceArgs {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE", required_unless_present = "manifests")]
    pub config: Option<PathBuf>,
    /// Add the rules of the Kubernetes manifests (*.yaml, *.yml, *.json) below this directory, as `run` does
    #[arg(long, value_name = "DIR")]
    pub manifests: Option<PathBuf>,
}
