//! I/O. Tells of a pod without traffic where its owner looks: an Event at the pod (Kubernetes API reference, Event v1).

use super::pod::Pod;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request};
use kube::Client;
use serde_json::{Value, json};
use siphasher::sip::SipHasher13;
use std::hash::Hasher;
use std::time::{Duration, SystemTime};

/// What an Event of a silent pod is called.
const REASON: &str = "NoTrafficSeen";
/// Longest name of an object, less the hash.
const MAX_NAME_BYTES: usize = 230;

/// The Event: one for each pod, however often it is told, for its name depends on the pod alone.
fn no_traffic(pod: &Pod, after: Duration, at: &str) -> Value {
    let mut hash = SipHasher13::new();
    hash.write(pod.uid.as_bytes());
    hash.write(REASON.as_bytes());
    let front: String = pod.name.chars().take(MAX_NAME_BYTES).collect();
    json!({
        "apiVersion": "v1", "kind": "Event",
        "metadata": { "namespace": pod.namespace, "name": format!("{front}.{:016x}", hash.finish()) },
        "involvedObject": {
            "apiVersion": "v1", "kind": "Pod",
            "namespace": pod.namespace, "name": pod.name, "uid": pod.uid
        },
        "type": "Warning", "reason": REASON, "count": 1,
        "message": format!(
            "Ready for {} s, and mirror-daemon has seen no traffic on the captured ports", after.as_secs()
        ),
        "source": { "component": "mirror-daemon" },
        "reportingComponent": "mirror-daemon", "reportingInstance": "",
        "firstTimestamp": at, "lastTimestamp": at
    })
}

/// Posts it. That it is there already is as well, and that it can't be is no more than a line in the log: the log and
/// a metric tell of the pod anyway.
pub(super) async fn tell(client: Client, pod: Pod, after: Duration) {
    let at = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let event = no_traffic(&pod, after, &at);
    let mut request = Request::new(event.to_string().into_bytes());
    *request.method_mut() = Method::POST;
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let Ok(uri) = format!("/api/v1/namespaces/{}/events", pod.namespace).parse() else { return };
    *request.uri_mut() = uri;
    match client.request_text(request).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        Err(error) => {
            tracing::warn!(pod = pod.full_name(), %error, "the Event of a pod without traffic can't be created");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_of_a_pod_has_always_the_same_name_and_another_pods_another() {
        let pod = |uid: &str| Pod {
            uid: uid.into(),
            name: "gw-0".into(),
            namespace: "ns".into(),
            ..Pod::default()
        };
        let of = |uid, at| no_traffic(&pod(uid), Duration::from_secs(60), at);
        assert_eq!(of("a", "now")["metadata"], of("a", "later")["metadata"]);
        assert_ne!(of("a", "now")["metadata"], of("b", "now")["metadata"]);
        assert_eq!(of("a", "now")["involvedObject"]["uid"], "a");
        let long = Pod { name: "x".repeat(300), ..pod("a") };
        let event = no_traffic(&long, Duration::from_secs(60), "now");
        assert!(event["metadata"]["name"].as_str().unwrap().len() <= 253);
    }
}
