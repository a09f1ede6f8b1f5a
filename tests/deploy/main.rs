//! What `deploy/` asks of a cluster, and whether what it says fits this daemon. Pure: only files are read.
//! That a cluster takes the manifests is shown by the cluster tests.

// Every function here is a test or helps one: a panic is a failed test.
#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod monitoring;
mod needs;

use serde_json::Value;
use std::path::{Path, PathBuf};

/// A file below `deploy/`.
fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(name)
}

fn text(name: &str) -> String {
    let path = path(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The documents of a manifest.
fn documents(name: &str) -> Vec<Value> {
    mirror_daemon::kube::documents(&text(name), name).unwrap_or_else(|finding| panic!("{finding}"))
}

/// The only document of a manifest.
fn document(name: &str) -> Value {
    let mut documents = documents(name);
    assert_eq!(documents.len(), 1, "{name}");
    documents.remove(0)
}

/// The texts of a list.
fn texts(list: &Value) -> Vec<&str> {
    list.as_array().map(|list| list.iter().map(|one| one.as_str().unwrap()).collect()).unwrap_or_default()
}
