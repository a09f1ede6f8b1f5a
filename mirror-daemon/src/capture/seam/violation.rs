//! Why the attacher gives a parser up.

use std::io;
use thiserror::Error;

/// What no parser of ours does. It ends the session.
#[derive(Debug, Error)]
pub(crate) enum Violation {
    /// A message that may not be said there, or not then.
    #[error("the parser said something out of turn")]
    OutOfTurn,
    /// No message, one beyond its bounds, or a socket that broke.
    #[error("the parser could not be understood")]
    Io(#[from] io::Error),
}
