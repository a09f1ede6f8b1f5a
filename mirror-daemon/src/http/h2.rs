//! HTTP/2 (RFC 9113), read passively from either or both directions of a connection.

pub mod hpack;
