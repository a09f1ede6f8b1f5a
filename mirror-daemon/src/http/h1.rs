//! HTTP/1.0 and HTTP/1.1 (RFC 9112).

mod answer;
mod blank_line;
mod chunked;
mod framing;

pub use answer::{AnswerDecoder, AnswerError, AnswerProgress, AnswerSummary};
