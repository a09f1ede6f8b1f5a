//! Any text: manifests of Kubernetes objects.

use mirror_daemon::config::Config;
use mirror_daemon::kube::{self, Finding, Objects, Terms};

pub(super) fn run(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let Ok(documents) = kube::documents(&text, "input") else { return };
    let mut cluster = Objects::of_cluster();
    let refused = documents.iter().filter_map(|document| cluster.insert(document.clone()).err()).collect();
    check(&cluster, refused);
    let (objects, findings) = Objects::from_documents(documents);
    check(&objects, findings);
}

/// What was found is shown in one line, and what is made is a configuration.
fn check(objects: &Objects, findings: Vec<Finding>) {
    let resolved = kube::resolve(objects, &Terms::default());
    for finding in findings.iter().chain(resolved.findings()) {
        assert!(!finding.to_string().chars().any(char::is_control), "{finding:?}");
    }
    let toml = resolved.to_toml();
    if let Err(faults) = Config::from_toml(&toml, "toml") {
        panic!("{faults}\n{toml}");
    }
}
