//! The daemon's container image.

pub(crate) mod archive;
