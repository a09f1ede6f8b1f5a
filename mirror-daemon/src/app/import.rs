//! `import`: manifests as the equal TOML.

use super::source::{self, Source};
use super::{Failure, print};
use crate::cli::ImportArgs;
use crate::config::Config;
use anyhow::anyhow;

/// Prints the TOML; findings go to standard error, one a line.
pub(super) fn run(args: &ImportArgs) -> Result<(), Failure> {
    let base = Source { file: args.config.clone(), manifests: None };
    let config = base.load().map_err(Failure::Usage)?;
    let (resolved, findings) = source::from_manifests(&args.directory, &config).map_err(Failure::Usage)?;
    for finding in &findings {
        eprintln!("{finding}");
    }
    if resolved.mirror_count() == 0 {
        return Err(Failure::usage(anyhow!(
            "the manifests in {} make no mirror{}",
            args.directory.display(),
            if findings.is_empty() { ": no HTTPRoute in them asks for one" } else { "; see above" }
        )));
    }
    let text = resolved.to_toml();
    if config.kubernetes.gateways.is_empty() {
        // Whatever is printed is a configuration; tied to gateways it is one only together with their file.
        Config::from_toml(&text, "the imported rules").map_err(Failure::running)?;
    }
    print(&text)
}
