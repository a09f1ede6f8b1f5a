//! `check` and `explain`: what a configuration says, without running it.

use super::source::{self, Source};
use super::{Failure, print, print_json};
use crate::cli::{CheckArgs, ExplainArgs};
use crate::config::Config;
use crate::explain::{self, Question};
use anyhow::anyhow;
use std::path::Path;

/// Prints what the configuration says in brief, or every fault of it.
pub(super) fn check(args: &CheckArgs) -> Result<(), Failure> {
    let text = source::read(&args.config).map_err(Failure::Usage)?;
    let checked = Config::from_toml(&text, &args.config.display().to_string());
    match (checked, args.json) {
        (Ok(config), false) => print(&explain::summary(&config)),
        (Ok(config), true) => {
            let (summary, warnings) = (explain::summary(&config), explain::warnings(&config));
            print_json(&serde_json::json!({ "ok": true, "warnings": warnings, "summary": summary }))
        }
        (Err(faults), false) => Err(Failure::usage(faults)),
        (Err(faults), true) => {
            print_json(&serde_json::json!({ "ok": false, "faults": faults.faults }))?;
            let count = faults.faults.len();
            Err(Failure::usage(anyhow!("{}: {count} faults", args.config.display())))
        }
    }
}

/// Prints what becomes of a request.
pub(super) fn explain(args: &ExplainArgs) -> Result<(), Failure> {
    let config = load(&args.config)?;
    let headers: Vec<_> =
        args.headers.iter().map(|header| (header.name.clone(), header.value.clone())).collect();
    let question = Question {
        method: &args.method,
        url: &args.url,
        headers: &headers,
        client_ip: args.client_ip,
        is_http2: args.http2,
    };
    let explanation = explain::explain(&config, &question).map_err(Failure::usage)?;
    match args.json {
        true => print_json(&explanation),
        false => print(&explanation.to_string()),
    }
}

/// Reads and checks a configuration file.
fn load(path: &Path) -> Result<Config, Failure> {
    Source { file: Some(path.to_owned()), manifests: None }.load().map_err(Failure::Usage)
}
