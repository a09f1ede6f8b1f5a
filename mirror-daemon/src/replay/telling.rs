//! PURE. How often the operator is told the same.

use std::time::Duration;
use tokio::time::Instant;

/// Once in this time, at most.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// When something was told last.
#[derive(Debug, Default)]
pub(super) struct Telling {
    last: Option<Instant>,
}

impl Telling {
    /// Whether it is to be told at `now`; then it is taken for told.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.last.is_none_or(|last| now.saturating_duration_since(last) >= TELL_EVERY);
        if is_due {
            self.last = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_at_once_and_then_once_a_minute() {
        let (mut telling, begin) = (Telling::default(), Instant::now());
        let is_due: Vec<bool> = [0, 1, 59, 60, 61, 119, 120, 500, 501]
            .map(|seconds| telling.is_due(begin + Duration::from_secs(seconds)))
            .into();
        assert_eq!(is_due, [true, false, false, true, false, false, true, true, false]);
    }
}
