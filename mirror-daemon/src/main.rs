//! The command line of the mirror daemon. See `mirror_daemon` for how it is built.

use clap::Parser;
use mirror_daemon::app;
use mirror_daemon::cli::{Cli, EXIT_USAGE};
use mirror_daemon::telemetry::logging;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let variable = std::env::var(logging::FILTER_VARIABLE).ok();
    if let Err(error) = logging::start(cli.log.as_deref(), variable.as_deref(), cli.log_format) {
        eprintln!("mirror-daemon: {error}");
        return ExitCode::from(EXIT_USAGE);
    }
    app::main(cli.command)
}
