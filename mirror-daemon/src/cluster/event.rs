//! What all Events (events.k8s.io/v1) of this daemon have in common, so that one right at the API server is enough.

use serde_json::{Value, json};
use std::time::SystemTime;

/// The API group of Events.
pub(super) const GROUP: &str = "events.k8s.io";
const CONTROLLER: &str = "mirror-daemon";
/// Longest name of who reports, in bytes.
const MAX_INSTANCE_BYTES: usize = 128;

/// Where Events about objects in this namespace are made.
pub(super) fn uri(namespace: &str) -> String {
    format!("/apis/{GROUP}/v1/namespaces/{namespace}/events")
}

/// The time, as Events have it.
pub(super) fn now() -> String {
    humantime::format_rfc3339_micros(SystemTime::now()).to_string()
}

/// An Event of this name about the object that `regarding` refers to, without what it says: `type`, `reason`, `note`.
pub(super) fn about(name: &str, regarding: Value) -> Value {
    json!({
        "apiVersion": format!("{GROUP}/v1"),
        "kind": "Event",
        "metadata": { "name": name, "namespace": regarding["namespace"] },
        "eventTime": now(),
        "action": "Mirroring",
        "regarding": regarding,
        "reportingController": CONTROLLER,
        "reportingInstance": instance(),
    })
}

/// This node, as far as the daemon knows.
fn instance() -> String {
    let node = std::env::var("NODE_NAME").ok().filter(|name| !name.is_empty());
    let node = node.unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned());
    let name = format!("{CONTROLLER}-{node}");
    name.get(..MAX_INSTANCE_BYTES).unwrap_or(&name).to_owned()
}
