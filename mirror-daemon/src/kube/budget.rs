//! How much of what takes memory all rules together may have: whoever writes one HTTPRoute must not take it all.

use super::admission::Attachment;
use crate::rule::{FullRegex, MAX_REGEX_BYTES, RegexFault};

/// Most bytes of all compiled regular expressions. Each thread that matches fills caches beside them, of at most 256 KiB
/// each.
const MAX_REGEXES_BYTES: usize = 16 * 1024 * 1024;
/// Most regular expressions.
const MAX_REGEXES: usize = 1_000;
/// Most bytes of the routes as TOML.
pub(super) const MAX_TOML_BYTES: usize = 8 * 1024 * 1024;

/// What is left for regular expressions, and who found no room.
#[derive(Debug)]
pub(super) struct Budget {
    bytes: usize,
    count: usize,
    /// Where routes hold of which something is left out: what their requests would be mirrored to is not known.
    pub(super) left_out: Vec<Attachment>,
}

/// Why a regular expression is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It is none.
    Wrong(RegexFault),
    /// There is no room for it.
    Full,
}

impl Default for Budget {
    fn default() -> Self {
        Self { bytes: MAX_REGEXES_BYTES, count: MAX_REGEXES, left_out: Vec::new() }
    }
}

impl Budget {
    /// What is said of what finds no room.
    pub(super) fn exceeded() -> String {
        format!(
            "has no room for its regular expressions; allowed are {MAX_REGEX_BYTES} bytes for each, and \
             {MAX_REGEXES} of them and {MAX_REGEXES_BYTES} bytes in all routes, the older first"
        )
    }

    /// Takes the room that a pattern needs. Once there is none, no other is even looked at.
    pub(super) fn take(&mut self, pattern: &str) -> Result<(), Refused> {
        let count = self.count.checked_sub(1).filter(|_| self.bytes > 0).ok_or(Refused::Full)?;
        self.count = count;
        let (bytes, outcome) = match FullRegex::new(pattern) {
            Ok(regex) => (regex.memory_bytes(), Ok(())),
            // It took as much to find that out. A gateway may well take it: its requests are not known here.
            Err(fault) if fault.is_size() => (MAX_REGEX_BYTES, Err(Refused::Full)),
            Err(fault) => (pattern.len(), Err(Refused::Wrong(fault))),
        };
        match self.bytes.checked_sub(bytes) {
            Some(left) => self.bytes = left,
            None => {
                self.bytes = 0;
                return Err(Refused::Full);
            }
        }
        outcome
    }
}
