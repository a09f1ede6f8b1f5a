//! The K8sGateway traffic shadowing guide: namespaces, httpbin at production and shadow, and its manifests.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use mirror_tests::kube::Cluster;

/// The fixture, as it is.
const GUIDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/k8sgateway-shadowing.yaml");

/// Definitions of K8sGateway's kinds.
const DEFINITIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/cluster/crds");

/// What the kinds are called for which a wait is needed before the first object.
const KINDS: [&str; 5] = [
    "httproutes.gateway.networking.k8s.io",
    "gateways.gateway.networking.k8s.io",
    "referencegrants.gateway.networking.k8s.io",
    "routeoptions.gateway.solo.io",
    "upstreams.gloo.solo.io",
];

/// Makes sure of httpbin at production (`httpbin`) and shadow (`shadow`). Tests share it.
pub(crate) fn httpbin(cluster: &Cluster) -> Result<()> {
    once(&HTTPBIN, || {
        cluster.apply(include_str!("manifests/httpbin.yaml"))?;
        cluster.rolled_out("httpbin", "deployment/httpbin")?;
        cluster.rolled_out("shadow", "deployment/httpbin")
    })
}

/// Makes sure of the kinds of the Gateway API and of K8sGateway, and of the guide's own manifests.
pub(crate) fn manifests(cluster: &Cluster) -> Result<()> {
    httpbin(cluster)?;
    once(&MANIFESTS, || {
        cluster.apply_files(cluster.gateway_api())?;
        cluster.apply_files(Path::new(DEFINITIONS))?;
        for kind in KINDS {
            let definition = format!("crd/{kind}");
            cluster.kubectl(["wait", "--for=condition=Established", "--timeout=60s", &definition])?;
        }
        cluster.apply_files(Path::new(GUIDE))
    })
}

static HTTPBIN: Mutex<bool> = Mutex::new(false);
static MANIFESTS: Mutex<bool> = Mutex::new(false);

/// Does it once per process; a second test waits for the first.
fn once(done: &Mutex<bool>, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
    if !*done {
        work()?;
        *done = true;
    }
    Ok(())
}

#[test]
fn manifests_of_the_guide_are_taken_as_they_are() -> Result<()> {
    let Some(cluster) = Cluster::or_skip("manifests_of_the_guide_are_taken_as_they_are") else {
        return Ok(());
    };
    manifests(&cluster)?;
    let option = cluster.get(&["routeoption", "-n", "httpbin", "shadowing"])?;
    let shadowing = &option["spec"]["options"]["shadowing"];
    assert_eq!(shadowing["upstream"]["name"], "shadow");
    assert_eq!(shadowing["percentage"], 100);
    let upstream = cluster.get(&["upstream", "-n", "gloo-system", "shadow"])?;
    assert_eq!(upstream["spec"]["kube"]["serviceNamespace"], "shadow");
    let route = cluster.get(&["httproute", "-n", "httpbin", "httpbin-shadow"])?;
    assert_eq!(route["spec"]["rules"][0]["filters"][0]["extensionRef"]["name"], "shadowing");
    Ok(())
}
