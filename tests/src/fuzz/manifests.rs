//! Any text: manifests of Kubernetes objects.

use mirror_daemon::config::{Config, KubernetesConfig};
use mirror_daemon::kube::{self, Objects};

pub(super) fn run(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let Ok(documents) = kube::documents(&text, "input") else { return };
    let (objects, findings) = Objects::from_documents(documents);
    let resolved = kube::resolve(&objects, &KubernetesConfig::default());
    for finding in findings.iter().chain(resolved.findings()) {
        assert!(!finding.to_string().chars().any(char::is_control), "{finding:?}");
    }
    let toml = resolved.to_toml();
    if let Err(faults) = Config::from_toml(&toml, "toml") {
        panic!("{faults}\n{toml}");
    }
}
