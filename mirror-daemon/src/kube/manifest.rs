//! Manifests as text: YAML with any number of documents, or JSON.

use super::finding::{Finding, Reason};
use serde_json::Value;

/// Longest text of one manifest file, in bytes: longer ones are refused.
pub const MAX_MANIFEST_BYTES: usize = 16 * 1024 * 1024;
/// How deep values may be nested; deeper ones are refused.
const MAX_DEPTH: usize = 64;
/// Most values that aliases may stand for: a short text must not become a huge one.
const MAX_ALIASED_VALUES: usize = 100_000;

/// The documents of a text, e.g. of a file; `source` is what findings call it. JSON is YAML too.
///
/// # Errors
/// The text is no manifest, or beyond a bound. One wrong document spoils the text: where it ends can't be told.
pub fn documents(text: &str, source: &str) -> Result<Vec<Value>, Finding> {
    let refuse = |message: String| Finding::new(source, "", Reason::InvalidManifest, message);
    if text.len() > MAX_MANIFEST_BYTES {
        return Err(refuse(format!("has {} bytes; allowed are {MAX_MANIFEST_BYTES}", text.len())));
    }
    let mut options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            max_nodes: MAX_MANIFEST_BYTES,
            max_events: MAX_MANIFEST_BYTES,
            max_documents: MAX_MANIFEST_BYTES,
        },
        with_snippet: false,
    };
    options.alias_limits.max_total_replayed_events = MAX_ALIASED_VALUES;
    let mut found: Vec<Value> =
        serde_saphyr::from_multiple_with_options(text, options).map_err(|error| refuse(error.to_string()))?;
    found.iter_mut().for_each(drop_nulls);
    Ok(found)
}

/// `key:` without a value is as if it was not there, as the API server has it.
pub(super) fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(members) => members.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}
