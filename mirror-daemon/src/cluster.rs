//! I/O. The cluster's API server: what it tells of this node's pods.

pub mod discovery;
