//! `import`: manifests as the equal TOML.

use super::source::{FromManifests, Source};
use super::{Failure, print, show};
use crate::cli::ImportArgs;
use crate::config::Config;
use anyhow::{Context, anyhow};

/// Prints the TOML; findings go to standard error, one a line. A text that is no manifest fails it behind the rest: whoever
/// wants the rest has it, and a script learns that rules may be missing.
pub(super) fn run(args: &ImportArgs) -> Result<(), Failure> {
    let base = Source { file: args.config.clone(), manifests: None };
    let config = base.load().map_err(Failure::Usage)?;
    let manifests = FromManifests::read(&args.directory, &config).map_err(Failure::Usage)?;
    let FromManifests { resolved, findings, .. } = &manifests;
    show(findings);
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
    print(&text)?;
    manifests.refuse_unread().context("what was printed may lack rules").map_err(Failure::Usage)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    const FIXTURE: &str = include_str!("../../../tests/fixtures/k8sgateway-shadowing.yaml");

    fn import(directory: &Path, config: Option<&Path>) -> Result<(), Failure> {
        run(&ImportArgs { directory: directory.to_owned(), config: config.map(Path::to_owned) })
    }

    #[test]
    fn manifests_that_make_a_mirror_are_imported_and_others_are_a_usage_failure() {
        let root = tempfile::tempdir().unwrap();
        let manifests = root.path().join("manifests");
        assert!(matches!(import(&manifests, None), Err(Failure::Usage(_))), "there is none");
        fs::create_dir(&manifests).unwrap();
        assert!(matches!(import(&manifests, None), Err(Failure::Usage(_))), "it is empty");
        fs::write(manifests.join("guide.yaml"), FIXTURE).unwrap();
        assert!(import(&manifests, None).is_ok());
        fs::write(manifests.join("half.yaml"), "a: [").unwrap();
        let Err(Failure::Usage(refused)) = import(&manifests, None) else { panic!("rules may be missing") };
        assert!(format!("{refused:#}").contains("is no manifest"), "{refused:#}");
        fs::write(manifests.join("half.yaml"), "apiVersion: v9\nkind: Service\nmetadata: { name: old }\n")
            .unwrap();
        assert!(import(&manifests, None).is_ok(), "what can be used is");

        let config = root.path().join("mirror.toml");
        let bind = |name: &str| {
            format!(
                "[[kubernetes.gateway]]\nname = \"{name}\"\nnamespace = \"gloo-system\"\npods = {{ selector = \"a\" }}\n"
            )
        };
        fs::write(&config, bind("other")).unwrap();
        assert!(
            matches!(import(&manifests, Some(&config)), Err(Failure::Usage(_))),
            "its gateway is not bound"
        );
        fs::write(&config, bind("http")).unwrap();
        assert!(import(&manifests, Some(&config)).is_ok());
        fs::write(&config, "[kubernetes]\nx = 1").unwrap();
        assert!(
            matches!(import(&manifests, Some(&config)), Err(Failure::Usage(_))),
            "the settings are wrong"
        );
    }
}
