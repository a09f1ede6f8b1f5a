//! PURE. Turns a captured head into the head that a shadow gets.
//!
//! In: a [`RequestHead`](crate::http::RequestHead), a
//! [`RewriteConfig`](crate::config::RewriteConfig) and the loop mark. Out: a [`ShadowHead`], ready to be written: the one copy that
//! captured head bytes see on their way from the ring to the socket.

use bytes::Bytes;

/// The head of a shadow request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShadowHead {
    /// HTTP/1.1 request line to blank line, ready for the wire.
    pub wire: Bytes,
    /// How the body that follows is framed: what `wire` says of it.
    pub framing: Framing,
    /// What the replayer has to know of the method.
    pub method: MethodTraits,
}

/// How a shadow request's body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No body.
    None,
    /// Content-Length says so many bytes.
    Length(u64),
    /// Chunked; trailers may follow.
    Chunked,
}

/// Traits of a method that the replayer needs (RFC 9110, 9.2 and 9.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MethodTraits {
    /// Safe: may be sent once more when a pooled connection closes before any byte of the answer.
    pub is_safe: bool,
    /// HEAD: its answer has no body whatever its head says.
    pub is_head: bool,
}
