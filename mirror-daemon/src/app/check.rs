//! `check` and `explain`: what a configuration says, without running it.

use super::source::Source;
use super::{Failure, print, print_json, show};
use crate::cli::{CheckArgs, ExplainArgs, SourceArgs};
use crate::config::{Config, ConfigFaults};
use crate::explain::{self, Question};
use crate::kube::Finding;
use anyhow::anyhow;
use serde_json::{Value, json};

/// Prints what the configuration says in brief, or every fault of it.
pub(super) fn check(args: &CheckArgs) -> Result<(), Failure> {
    let source = source_of(&args.source);
    if args.json {
        let (page, outcome) = check_as_json(&source);
        page.map_or(Ok(()), |page| print_json(&page))?;
        return outcome.map_err(Failure::Usage);
    }
    print(&explain::summary(&load(&source)?))
}

/// What is printed, if anything could be checked, and how it ends.
fn check_as_json(source: &Source) -> (Option<Value>, anyhow::Result<()>) {
    let (findings, checked) = match source.gather() {
        Ok(reading) => (as_json(reading.findings()), reading.checked()),
        Err(error) if error.is::<ConfigFaults>() => (json!([]), Err(error)),
        Err(error) => return (None, Err(error)),
    };
    match checked {
        Ok(config) => {
            let (summary, warnings) = (explain::summary(&config), explain::warnings(&config));
            let page = json!({ "ok": true, "warnings": warnings, "findings": findings, "summary": summary });
            (Some(page), Ok(()))
        }
        Err(error) => {
            let page = |faults: Value| Some(json!({ "ok": false, "faults": faults, "findings": findings }));
            match error.downcast::<ConfigFaults>() {
                Ok(ConfigFaults { source_name, faults }) => {
                    let told = explain::count(faults.len(), "fault");
                    (page(json!(faults)), Err(anyhow!("{source_name}: {told}")))
                }
                Err(error) => (page(json!([])), Err(error)),
            }
        }
    }
}

fn as_json(findings: &[Finding]) -> Value {
    let show = |Finding { object, path, reason, message }: &Finding| {
        let (object, reason) = (object.to_string(), reason.label());
        json!({ "object": object, "path": path, "reason": reason, "message": message })
    };
    findings.iter().map(show).collect()
}

/// Prints what becomes of a request.
pub(super) fn explain(args: &ExplainArgs) -> Result<(), Failure> {
    let config = load(&source_of(&args.source))?;
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

fn source_of(args: &SourceArgs) -> Source {
    Source { file: args.config.clone(), manifests: args.manifests.clone() }
}

/// The configuration that `run` would take; findings go to standard error.
fn load(source: &Source) -> Result<Config, Failure> {
    let reading = source.gather().map_err(Failure::Usage)?;
    show(reading.findings());
    reading.checked().map_err(Failure::Usage)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    const FIXTURE: &str = include_str!("../../../tests/fixtures/k8sgateway-shadowing.yaml");
    const CAPTURE: &str = "[capture]\ninterfaces = [\"eth0\"]\nports = [8080]\n";

    /// The manifests of the guide, and a file beside them.
    fn guide() -> (tempfile::TempDir, Source) {
        let root = tempfile::tempdir().unwrap();
        let (file, manifests) = (root.path().join("mirror.toml"), root.path().join("manifests"));
        fs::create_dir(&manifests).unwrap();
        fs::write(manifests.join("guide.yaml"), FIXTURE).unwrap();
        fs::write(&file, CAPTURE).unwrap();
        (root, Source { file: Some(file), manifests: Some(manifests) })
    }

    fn write(source: &Source, name: &str, text: &str) {
        fs::write(source.manifests.as_deref().unwrap().join(name), text).unwrap();
    }

    fn check_text(source: &Source) -> Result<(), Failure> {
        let source = SourceArgs { config: source.file.clone(), manifests: source.manifests.clone() };
        check(&CheckArgs { source, json: false })
    }

    #[test]
    fn check_counts_the_rules_of_manifests_with_those_of_the_file() {
        let (_root, source) = guide();
        let (page, outcome) = check_as_json(&source);
        let page = page.unwrap();
        assert!(outcome.is_ok());
        assert_eq!(
            (&page["ok"], &page["warnings"], &page["findings"]),
            (&json!(true), &json!([]), &json!([]))
        );
        let summary = page["summary"].as_str().unwrap();
        assert!(summary.starts_with("ok: 1 capture point, 1 shadow, 1 route with"), "{summary}");
        let alone = Source { file: None, ..source };
        let (page, outcome) = check_as_json(&alone);
        assert!(outcome.is_ok() && page.unwrap()["summary"].as_str().unwrap().contains("1 shadow"));
    }

    #[test]
    fn object_that_can_not_be_used_is_told_and_a_text_that_is_no_manifest_is_a_usage_failure() {
        let (_root, source) = guide();
        write(&source, "old.yaml", "apiVersion: v9\nkind: Service\nmetadata: { name: old }\n");
        let (page, outcome) = check_as_json(&source);
        let page = page.unwrap();
        assert!(outcome.is_ok() && check_text(&source).is_ok());
        assert_eq!(page["findings"][0]["object"], "Service default/old");
        assert_eq!(page["findings"][0]["path"], "apiVersion");
        assert_eq!(page["findings"][0]["reason"], "UnknownVersion");

        write(&source, "half.yaml", "a: [");
        let (page, outcome) = check_as_json(&source);
        let page = page.unwrap();
        assert_eq!((&page["ok"], page["findings"].as_array().unwrap().len()), (&json!(false), 2));
        assert!(outcome.unwrap_err().to_string().contains("a file in"));
        assert!(matches!(check_text(&source), Err(Failure::Usage(_))));
    }

    #[test]
    fn faults_of_the_file_and_of_both_together_are_told_as_json() {
        let (_root, source) = guide();
        let file = source.file.clone().unwrap();
        fs::write(&file, format!("route = []\n{CAPTURE}")).unwrap();
        let (page, outcome) = check_as_json(&source);
        let faults = page.unwrap()["faults"].to_string();
        assert!(faults.contains("\"line\":"), "routes can't be added to that: {faults}");
        let told = outcome.unwrap_err().to_string();
        assert!(told.contains("mirror.toml with the manifests in") && told.contains(" fault"), "{told}");
        fs::write(&file, "[capture]\nports = [0]\nx = 1").unwrap();
        let (page, _) = check_as_json(&source);
        assert_eq!(page.unwrap()["faults"].as_array().unwrap().len(), 2);
        let nowhere = Source { file: Some(Path::new("/nowhere/at/all").to_owned()), ..source };
        let (page, outcome) = check_as_json(&nowhere);
        assert!(page.is_none() && outcome.is_err());
    }

    #[test]
    fn explain_finds_the_rules_of_manifests() {
        let (_root, source) = guide();
        let config = load(&source).unwrap();
        let question = Question {
            method: "GET",
            url: "http://shadowing.example/get",
            headers: &[],
            client_ip: None,
            is_http2: false,
        };
        let explanation = explain::explain(&config, &question).unwrap();
        assert_eq!(explanation.mirrors[0].shadow, "shadow.httpbin.8000");
        assert_eq!(explanation.mirrors[0].host, "shadowing.example-shadow");
        write(&source, "half.yaml", "a: [");
        assert!(matches!(load(&source), Err(Failure::Usage(_))));
    }
}
