//! PURE. A pod, as far as it matters here.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The kubelet runs a pod from a file (a static pod) under the hash of that file; the API server shows a mirror of it
/// under another UID, which names the hash.
const HASH_ANNOTATIONS: [&str; 2] = ["kubernetes.io/config.mirror", "kubernetes.io/config.hash"];

/// A pod of this node, reduced to what is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::cluster) struct Pod {
    /// `metadata.uid`.
    pub(super) uid: String,
    /// The UID in the name of its cgroup: `uid`, or a static pod's hash.
    pub(in crate::cluster) cgroup_uid: String,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) labels: BTreeMap<String, String>,
    /// `status.podIPs`; empty until its sandbox runs.
    pub(super) addresses: Vec<IpAddr>,
    /// It uses the node's network namespace.
    pub(super) is_host_network: bool,
    /// Its condition Ready.
    pub(super) is_ready: bool,
    /// All of its containers have ended, for good.
    pub(in crate::cluster) is_over: bool,
}

/// What is read of `metadata`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::cluster) struct PodMeta {
    pub(super) uid: String,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) annotations: BTreeMap<String, String>,
}

/// What is read of `spec`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::cluster) struct PodSpec {
    host_network: bool,
}

/// What is read of `status`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::cluster) struct PodStatus {
    phase: String,
    #[serde(rename = "podIP")]
    pod_ip: String,
    #[serde(rename = "podIPs")]
    pod_ips: Vec<PodIp>,
    conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PodIp {
    ip: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

impl Pod {
    /// The pod that an API server describes so. `None` without a UID, which no pod of a server is.
    pub(in crate::cluster) fn of(meta: PodMeta, spec: &PodSpec, status: &PodStatus) -> Option<Self> {
        let PodMeta { uid, namespace, name, labels, annotations } = meta;
        if uid.is_empty() {
            return None;
        }
        let hash = HASH_ANNOTATIONS.iter().find_map(|key| annotations.get(*key));
        let listed = status.pod_ips.iter().map(|one| one.ip.as_str());
        let mut addresses: Vec<IpAddr> =
            listed.chain([status.pod_ip.as_str()]).filter_map(|text| text.parse().ok()).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let is_ready = |one: &Condition| one.kind == "Ready" && one.status == "True";
        Some(Self {
            cgroup_uid: hash.cloned().unwrap_or_else(|| uid.clone()),
            uid,
            namespace,
            name,
            labels,
            addresses,
            is_host_network: spec.host_network,
            is_ready: status.conditions.iter().any(is_ready),
            is_over: matches!(status.phase.as_str(), "Succeeded" | "Failed"),
        })
    }

    /// `namespace/name`.
    pub(in crate::cluster) fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(annotations: &[(&str, &str)]) -> PodMeta {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        PodMeta {
            uid: "u1".into(),
            namespace: "ns".into(),
            name: "gw-0".into(),
            labels: BTreeMap::new(),
            annotations: annotations.iter().map(owned).collect(),
        }
    }

    #[test]
    fn running_pod_is_read_as_the_api_server_writes_it() {
        let spec: PodSpec =
            serde_json::from_str(r#"{"hostNetwork":true,"nodeName":"n","containers":[]}"#).unwrap();
        let status: PodStatus = serde_json::from_str(
            r#"{"phase":"Running","podIP":"10.77.0.3","podIPs":[{"ip":"10.77.0.3"},{"ip":"fd77::3"}],
                "conditions":[{"type":"Initialized","status":"True"},{"type":"Ready","status":"True"}]}"#,
        )
        .unwrap();
        let pod = Pod::of(meta(&[]), &spec, &status).unwrap();
        assert!(pod.is_host_network && pod.is_ready && !pod.is_over);
        assert_eq!(pod.addresses.len(), 2);
        assert_eq!((pod.full_name().as_str(), pod.cgroup_uid.as_str()), ("ns/gw-0", "u1"));
    }

    #[test]
    fn static_pod_has_its_cgroup_under_the_hash_of_its_file() {
        let hash = "0123456789abcdef0123456789abcdef";
        let annotations = [("kubernetes.io/config.source", "file"), ("kubernetes.io/config.mirror", hash)];
        let pod = Pod::of(meta(&annotations), &PodSpec::default(), &PodStatus::default()).unwrap();
        assert_eq!((pod.uid.as_str(), pod.cgroup_uid.as_str()), ("u1", hash));
    }

    #[test]
    fn pod_that_is_new_ended_or_strange_is_read_all_the_same() {
        let pod = |status: &str| {
            Pod::of(meta(&[]), &PodSpec::default(), &serde_json::from_str(status).unwrap()).unwrap()
        };
        assert!(!pod("{}").is_ready && pod("{}").addresses.is_empty());
        assert!(pod(r#"{"phase":"Failed"}"#).is_over);
        assert!(pod(r#"{"podIPs":[{"ip":"nonsense"}],"podIP":""}"#).addresses.is_empty());
        let nameless = PodMeta { uid: String::new(), ..meta(&[]) };
        assert_eq!(Pod::of(nameless, &PodSpec::default(), &PodStatus::default()), None);
    }
}
