//! I/O. Asks the API server once for what the daemon would need of it: for `doctor`.

use super::api::{self, Fault};
use super::client::Access;
use super::discovery::pod::{Pod, PodMeta, PodSpec, PodStatus};
use crate::kube::Kind;
use crate::telemetry::logging::in_words;
use kube::Client;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;
use tokio::time::timeout;

/// For all questions together.
const LIMIT: Duration = Duration::from_secs(20);
/// Most pods of a node that are read; kubelets run 110 unless told otherwise.
const MAX_PODS: usize = 500;
const REVIEWS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
/// Kinds of rules that clusters may lack.
const INSTALLED: [Kind; 5] =
    [Kind::HttpRoute, Kind::Gateway, Kind::ReferenceGrant, Kind::RouteOption, Kind::Upstream];

/// What the API server answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// Where it is.
    pub server: String,
    /// What the daemon wants to do and may not.
    pub refused: Vec<Right>,
    /// Kinds of rules that are not installed.
    pub absent: Vec<Kind>,
    /// Pods of this node that have not ended; `None`: the node is not known, or they are not told.
    pub pods: Option<Vec<NodePod>>,
}

/// A pod of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePod {
    /// `namespace/name`.
    pub name: String,
    /// The UID in the name of its cgroup.
    pub cgroup_uid: String,
}

/// Something that roles allow or not, in all namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Right {
    verb: &'static str,
    resource: &'static str,
    group: &'static str,
}

impl Right {
    /// Everything that some configuration makes the daemon do.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let reading = |resource, group| ["list", "watch"].map(|verb| Self { verb, resource, group });
        let kinds = INSTALLED.into_iter().chain([Kind::Service, Kind::Namespace]);
        let events =
            ["create", "patch"].map(|verb| Self { verb, resource: "events", group: "events.k8s.io" });
        let read = kinds.flat_map(|kind| reading(kind.plural(), kind.group()));
        reading("pods", "").into_iter().chain(read).chain(events).collect()
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verb, resource, group } = self;
        let dot = if group.is_empty() { "" } else { "." };
        write!(f, "{verb} {resource}{dot}{group}")
    }
}

/// Asks it, as `access` says. It takes 20 seconds at most.
///
/// # Errors
/// In words: no credentials, no connection, or an answer that is none.
pub fn ask(access: &Access, node: Option<&str>) -> Result<Answers, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| in_words(&error))?.block_on(async {
        let config = access.config().await.map_err(|error| in_words(&error))?;
        let server = config.cluster_url.to_string();
        let client = super::client::client(config).map_err(|error| in_words(&error))?;
        match timeout(LIMIT, questions(&client, node)).await {
            Ok(Ok(answers)) => Ok(Answers { server, ..answers }),
            Ok(Err(fault)) => Err(format!("{server}: {fault}")),
            Err(_) => Err(format!("{server}: no answer within {} s", LIMIT.as_secs())),
        }
    })
}

async fn questions(client: &Client, node: Option<&str>) -> Result<Answers, Fault> {
    let mut answers = Answers::default();
    for right in Right::all() {
        if !is_allowed(client, right).await? {
            answers.refused.push(right);
        }
    }
    for kind in INSTALLED {
        if !is_installed(client, kind).await? {
            answers.absent.push(kind);
        }
    }
    if let Some(node) = node {
        answers.pods = match api::get::<Pods>(client, &pods_uri(node)).await {
            Ok(pods) => Some(pods.items.into_iter().filter_map(PodObject::reduced).collect()),
            // The rights tell of it.
            Err(Fault::Forbidden(_)) => None,
            Err(fault) => return Err(fault),
        };
    }
    Ok(answers)
}

/// `authorization.k8s.io/v1`, as far as it is used.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Review {
    status: ReviewStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ReviewStatus {
    allowed: bool,
}

/// Every account that is known may ask this about itself.
async fn is_allowed(client: &Client, right: Right) -> Result<bool, Fault> {
    let review = serde_json::json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": { "resourceAttributes": right }
    });
    let review: Review = api::post_for(client, REVIEWS, &review).await?;
    Ok(review.status.allowed)
}

/// What a version of an API group has.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Resources {
    resources: Vec<Resource>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Resource {
    name: String,
}

async fn is_installed(client: &Client, kind: Kind) -> Result<bool, Fault> {
    for version in kind.versions() {
        let uri = format!("/apis/{}/{version}", kind.group());
        match api::get::<Resources>(client, &uri).await {
            Ok(found) if found.resources.iter().any(|one| one.name == kind.plural()) => return Ok(true),
            Ok(_) | Err(Fault::NotFound(_)) => {}
            Err(fault) => return Err(fault),
        }
    }
    Ok(false)
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Pods {
    items: Vec<PodObject>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PodObject {
    metadata: PodMeta,
    spec: PodSpec,
    status: PodStatus,
}

impl PodObject {
    fn reduced(self) -> Option<NodePod> {
        let pod = Pod::of(self.metadata, &self.spec, &self.status).filter(|pod| !pod.is_over)?;
        Some(NodePod { name: pod.full_name(), cgroup_uid: pod.cgroup_uid })
    }
}

/// `node` is a node's name, in which nothing has to be escaped.
fn pods_uri(node: &str) -> String {
    format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{node}&limit={MAX_PODS}")
}

#[cfg(test)]
mod tests;
