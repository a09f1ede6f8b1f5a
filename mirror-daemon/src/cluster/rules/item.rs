//! An object as the API server tells it, as far as rules look at it. Read leniently: what is wrong with one object
//! must not spoil the list it is in.

use crate::cluster::api::{Fault, Status};
use crate::kube::{Kind, ObjectRef};
use serde::Deserialize;
use serde_json::{Map, Value};

/// Longest name of an object or a namespace, in bytes.
const MAX_NAME_BYTES: usize = 253;
/// Longest identifier of an object that is kept, in bytes.
const MAX_UID_BYTES: usize = 64;
/// What a value takes at least, in bytes.
const VALUE_BYTES: usize = size_of::<Value>();

/// A page of a list.
#[derive(Debug, Deserialize)]
pub(super) struct Page {
    #[serde(default)]
    pub(super) metadata: PageMetadata,
    #[serde(default)]
    pub(super) items: Vec<Item>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PageMetadata {
    /// From which a watch goes on.
    pub(super) resource_version: String,
    /// The next page; empty: there is none.
    pub(super) r#continue: String,
}

/// One event of a watch.
#[derive(Debug, Deserialize)]
pub(super) struct Event {
    #[serde(rename = "type")]
    pub(super) kind: EventKind,
    pub(super) object: Item,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum EventKind {
    Added,
    Modified,
    Deleted,
    Bookmark,
    Error,
}

/// An object, or the status that stands in its place in an error. Only what is used is read: managed fields, for
/// one, are half of many objects.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Item {
    metadata: ItemMetadata,
    spec: Option<Value>,
    status: Option<Value>,
    /// Of an error.
    code: Option<Value>,
    /// Of an error.
    message: Option<Value>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ItemMetadata {
    name: Option<Value>,
    namespace: Option<Value>,
    labels: Option<Value>,
    creation_timestamp: Option<Value>,
    resource_version: Option<Value>,
    uid: Option<Value>,
}

impl Item {
    /// Its name; `None`: it has none that could be one.
    pub(super) fn reference(&self, kind: Kind) -> Option<ObjectRef> {
        let text = |value: &Option<Value>| {
            let text = value.as_ref()?.as_str()?;
            (1..=MAX_NAME_BYTES).contains(&text.len()).then(|| text.to_owned())
        };
        let namespace = match kind.is_namespaced() {
            true => text(&self.metadata.namespace)?,
            false => String::new(),
        };
        Some(ObjectRef { kind, namespace, name: text(&self.metadata.name)? })
    }

    /// Which version of it this is; empty: it does not say.
    pub(super) fn resource_version(&self) -> &str {
        self.metadata.resource_version.as_ref().and_then(Value::as_str).unwrap_or_default()
    }

    /// What tells it from others of the same name, before and after; empty: it does not say.
    pub(super) fn uid(&self) -> &str {
        let uid = self.metadata.uid.as_ref().and_then(Value::as_str).unwrap_or_default();
        if uid.len() <= MAX_UID_BYTES { uid } else { "" }
    }

    /// The error that it stands for.
    pub(super) fn into_fault(self) -> Fault {
        let code = self.code.as_ref().and_then(Value::as_i64).unwrap_or_default();
        let message = self.message.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned();
        Status { code, message }.into_fault()
    }

    /// About how many bytes it takes here.
    pub(super) fn weight_bytes(&self) -> usize {
        let metadata = &self.metadata;
        let parts = [
            &self.spec,
            &self.status,
            &metadata.name,
            &metadata.namespace,
            &metadata.labels,
            &metadata.creation_timestamp,
        ];
        parts.into_iter().flatten().fold(0, |sum, value| sum.saturating_add(weight_bytes(value)))
    }

    /// The object as a manifest has it.
    pub(super) fn into_manifest(self, kind: Kind, version: &str) -> Value {
        let group = kind.group();
        let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        let ItemMetadata { name, namespace, labels, creation_timestamp, .. } = self.metadata;
        let metadata = object([
            ("name", name),
            ("namespace", namespace),
            ("labels", labels),
            ("creationTimestamp", creation_timestamp),
        ]);
        // Of no other kind is the status looked at.
        let status = self.status.filter(|_| kind == Kind::HttpRoute);
        let spec = self.spec.filter(|_| kind != Kind::Namespace);
        object([
            ("apiVersion", Some(api_version.into())),
            ("kind", Some(kind.name().into())),
            ("metadata", Some(metadata)),
            ("spec", spec),
            ("status", status),
        ])
    }
}

fn object<const N: usize>(fields: [(&str, Option<Value>); N]) -> Value {
    let given = fields.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
    Value::Object(given.collect::<Map<_, _>>())
}

/// JSON that was read is not nested deeply.
fn weight_bytes(value: &Value) -> usize {
    let inner = match value {
        Value::String(text) => text.len(),
        Value::Array(members) => members.iter().map(weight_bytes).fold(0, usize::saturating_add),
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| key.len().saturating_add(VALUE_BYTES).saturating_add(weight_bytes(value)))
            .fold(0, usize::saturating_add),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    };
    inner.saturating_add(VALUE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn item(value: Value) -> Item {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn object_of_a_list_becomes_a_manifest_without_what_is_not_used() {
        let listed = item(json!({
            "metadata": {
                "name": "r", "namespace": "ns", "uid": "u", "resourceVersion": "7", "labels": { "a": "b" },
                "creationTimestamp": "2026-01-31T12:00:00Z", "managedFields": [{ "manager": "kubectl" }]
            },
            "spec": { "hostnames": ["x"] }, "status": { "parents": [] }
        }));
        assert_eq!((listed.uid(), listed.resource_version()), ("u", "7"));
        assert_eq!(listed.reference(Kind::Upstream).unwrap().to_string(), "Upstream ns/r");
        let metadata = json!({
            "name": "r", "namespace": "ns", "labels": { "a": "b" }, "creationTimestamp": "2026-01-31T12:00:00Z"
        });
        assert_eq!(
            listed.clone().into_manifest(Kind::HttpRoute, "v1beta1"),
            json!({
                "apiVersion": "gateway.networking.k8s.io/v1beta1", "kind": "HTTPRoute", "metadata": metadata,
                "spec": { "hostnames": ["x"] }, "status": { "parents": [] }
            })
        );
        let service = listed.into_manifest(Kind::Service, "v1");
        assert_eq!((&service["apiVersion"], &service["status"]), (&json!("v1"), &Value::Null));
    }

    #[test]
    fn objects_that_are_none_are_read_and_have_no_name() {
        for wrong in [
            json!({}),
            json!({ "metadata": { "namespace": "ns" } }),
            json!({ "metadata": { "name": "", "namespace": "ns" } }),
            json!({ "metadata": { "name": 7, "namespace": ["ns"], "labels": 1, "uid": {} } }),
            json!({ "metadata": { "name": "n".repeat(254), "namespace": "ns" } }),
        ] {
            assert_eq!(item(wrong.clone()).reference(Kind::Service), None, "{wrong}");
        }
    }

    #[test]
    fn error_of_a_watch_is_the_fault_that_it_says() {
        let gone = item(
            json!({ "kind": "Status", "metadata": {}, "status": "Failure", "code": 410, "message": "old" }),
        );
        assert_eq!(gone.into_fault(), Fault::Gone("old".to_owned()));
        assert!(matches!(item(json!({ "code": "x" })).into_fault(), Fault::Garbage(_)));
    }

    #[test]
    fn weight_counts_what_is_kept() {
        let long = "x".repeat(1000);
        let heavy = item(json!({ "spec": { "a": [long] }, "metadata": { "name": "n" } }));
        assert!((1000..2000).contains(&heavy.weight_bytes()), "{}", heavy.weight_bytes());
    }
}
