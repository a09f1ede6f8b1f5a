//! I/O. Tells of a pod without traffic where its owner looks: an Event at the pod.

use super::pod::Pod;
use crate::cluster::api::{self, Fault};
use crate::cluster::event::{self, Event};
use kube::Client;
use serde_json::{Value, json};
use siphasher::sip::SipHasher13;
use std::hash::Hasher;
use std::time::Duration;

/// What an Event of a silent pod is called.
const REASON: &str = "NoTrafficSeen";
/// Longest name of an object, less the hash.
const MAX_NAME_BYTES: usize = 230;

/// The Event: one for each pod, however often it is told, for its name depends on the pod alone.
fn no_traffic(pod: &Pod, after: Duration) -> Value {
    let mut hash = SipHasher13::new();
    hash.write(pod.uid.as_bytes());
    hash.write(REASON.as_bytes());
    let front: String = pod.name.chars().take(MAX_NAME_BYTES).collect();
    let regarding = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "namespace": pod.namespace,
        "name": pod.name,
        "uid": pod.uid,
    });
    let seconds = after.as_secs();
    let told = Event {
        name: &format!("{front}.{:016x}", hash.finish()),
        namespace: &pod.namespace,
        regarding,
        is_warning: true,
        reason: REASON,
        note: &format!("Ready for {seconds} s, and mirror-daemon has seen no traffic on the captured ports"),
    };
    told.body()
}

/// Posts it. That it is there already is as well, and that it can't be is no more than a line in the log: the log and
/// a metric tell of the pod anyway.
pub(super) async fn tell(client: Client, pod: Pod, after: Duration) {
    match api::post(&client, &event::uri(&pod.namespace), &no_traffic(&pod, after)).await {
        Ok(()) | Err(Fault::Conflict(_)) => {}
        Err(fault) => {
            let (pod, why) = (pod.full_name(), fault.to_string());
            tracing::warn!(pod, why, "the Event of a pod without traffic can't be written");
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
        let of = |uid, after| no_traffic(&pod(uid), Duration::from_secs(after));
        assert_eq!(of("a", 60)["metadata"], of("a", 90)["metadata"]);
        assert_ne!(of("a", 60)["metadata"], of("b", 60)["metadata"]);
        assert_eq!(of("a", 60)["regarding"]["uid"], "a");
        assert_eq!(of("a", 60)["metadata"]["namespace"], "ns");
        let long = Pod { name: "x".repeat(300), ..pod("a") };
        let event = no_traffic(&long, Duration::from_secs(60));
        assert!(event["metadata"]["name"].as_str().unwrap().len() <= 253);
    }
}
