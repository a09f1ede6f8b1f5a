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

/// What one Event says.
#[derive(Debug)]
pub(super) struct Event<'a> {
    /// Its own name: a DNS subdomain.
    pub(super) name: &'a str,
    /// Where the object is, and so the Event.
    pub(super) namespace: &'a str,
    /// Refers to the object.
    pub(super) regarding: Value,
    /// Something is wrong.
    pub(super) is_warning: bool,
    /// One word for programs.
    pub(super) reason: &'a str,
    /// One line for people.
    pub(super) note: &'a str,
}

impl Event<'_> {
    /// As the API server takes it, as of now.
    pub(super) fn body(&self) -> Value {
        json!({
            "apiVersion": format!("{GROUP}/v1"),
            "kind": "Event",
            "metadata": { "name": self.name, "namespace": self.namespace },
            "eventTime": now(),
            "action": "Mirroring",
            "type": if self.is_warning { "Warning" } else { "Normal" },
            "reason": self.reason,
            "note": self.note,
            "regarding": self.regarding,
            "reportingController": CONTROLLER,
            "reportingInstance": instance(),
        })
    }
}

/// This node, as far as the daemon knows.
fn instance() -> String {
    let node = std::env::var("NODE_NAME").ok().filter(|name| !name.is_empty());
    let node = node.unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned());
    let name = format!("{CONTROLLER}-{node}");
    name.get(..MAX_INSTANCE_BYTES).unwrap_or(&name).to_owned()
}
