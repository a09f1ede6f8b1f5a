//! PURE. The circuit breaker of one shadow.
//!
//! ```text
//!            `failures` in a row                 `open_for` is over: the next request is the probe
//!   Closed ─────────────────────▶ Open ────────────────────────────────────────▶ Probing
//!     ▲                            ▲                                                │ │ │
//!     │                            ├─────────────── the probe fails ────────────────┘ │ │
//!     │                            └── the probe says nothing (next one probes) ──────┘ │
//!     └──────────────────────────────── the probe succeeds ─────────────────────────────┘
//! ```
//!
//! Requests that were under way when it opened change nothing any more: only the probe counts then.

use crate::config::BreakerConfig;
use crate::telemetry::snapshot::BreakerState;
use tokio::time::Instant;

/// What one request, or one attempt to connect, said of the shadow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It answers.
    Success,
    /// It cannot be connected to, does not answer in time, closes too early, or answers what is no HTTP; which of
    /// them, in words for the log.
    Failure(&'static str),
    /// Nothing: the request was given up on our side.
    Undecided,
}

impl Verdict {
    /// Why it speaks against the shadow.
    pub(super) const fn why(self) -> &'static str {
        match self {
            Self::Failure(why) => why,
            Self::Success | Self::Undecided => "",
        }
    }
}

/// Whether a request may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// Yes.
    Pass,
    /// Yes, and its fate decides.
    Probe,
    /// No.
    Refuse,
}

#[derive(Debug)]
pub(super) struct Breaker {
    config: BreakerConfig,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant },
    Probing,
}

impl Breaker {
    /// A closed breaker. With `failures` 0 it never opens.
    pub(super) const fn new(config: BreakerConfig) -> Self {
        Self { config, state: State::Closed { failures: 0 } }
    }

    /// What [`admit`](Self::admit) would refuse; changes nothing.
    pub(super) fn refuses(&self, now: Instant) -> bool {
        match self.state {
            State::Closed { .. } => false,
            State::Open { until } => now < until,
            State::Probing => true,
        }
    }

    /// Lets one request pass, or not.
    pub(super) fn admit(&mut self, now: Instant) -> Admission {
        match self.state {
            State::Closed { .. } => Admission::Pass,
            State::Open { until } if now >= until => {
                self.state = State::Probing;
                Admission::Probe
            }
            State::Open { .. } | State::Probing => Admission::Refuse,
        }
    }

    /// Takes a verdict in; true when the breaker opens by it.
    pub(super) fn handle_verdict(&mut self, verdict: Verdict, is_probe: bool, now: Instant) -> bool {
        match (self.state, verdict) {
            (State::Closed { .. }, Verdict::Success) => self.state = State::Closed { failures: 0 },
            (State::Closed { failures }, Verdict::Failure(_)) => {
                let failures = failures.saturating_add(1);
                if self.config.failures > 0 && failures >= self.config.failures {
                    self.open_until(now.checked_add(self.config.open_for).unwrap_or(now));
                    return true;
                }
                self.state = State::Closed { failures };
            }
            (State::Probing, Verdict::Success) if is_probe => self.state = State::Closed { failures: 0 },
            (State::Probing, Verdict::Failure(_)) if is_probe => {
                self.open_until(now.checked_add(self.config.open_for).unwrap_or(now));
                return true;
            }
            (State::Probing, Verdict::Undecided) if is_probe => self.open_until(now),
            (State::Closed { .. } | State::Probing | State::Open { .. }, _) => {}
        }
        false
    }

    /// How it stands.
    pub(super) const fn state(&self) -> BreakerState {
        match self.state {
            State::Closed { .. } => BreakerState::Closed,
            State::Open { .. } => BreakerState::Open,
            State::Probing => BreakerState::HalfOpen,
        }
    }

    fn open_until(&mut self, until: Instant) {
        self.state = State::Open { until };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILURE: Verdict = Verdict::Failure("a test");
    use std::time::Duration;

    const OPEN_FOR: Duration = Duration::from_secs(5);

    fn opened(now: Instant) -> Breaker {
        let mut breaker = Breaker::new(BreakerConfig { failures: 2, open_for: OPEN_FOR });
        assert!(!breaker.handle_verdict(FAILURE, false, now));
        assert!(breaker.handle_verdict(FAILURE, false, now));
        breaker
    }

    #[test]
    fn opens_at_the_configured_run_of_failures_and_a_success_starts_the_run_again() {
        let now = Instant::now();
        let mut breaker = Breaker::new(BreakerConfig { failures: 2, open_for: OPEN_FOR });
        assert!(!breaker.handle_verdict(FAILURE, false, now));
        assert!(!breaker.handle_verdict(Verdict::Success, false, now));
        assert!(!breaker.handle_verdict(FAILURE, false, now));
        assert_eq!(breaker.admit(now), Admission::Pass);
        assert!(breaker.handle_verdict(FAILURE, false, now));
        assert_eq!(breaker.admit(now), Admission::Refuse);
    }

    #[test]
    fn half_open_admits_exactly_one_probe_whose_success_closes() {
        let now = Instant::now();
        let mut breaker = opened(now);
        assert_eq!(breaker.admit(now + OPEN_FOR - Duration::from_nanos(1)), Admission::Refuse);
        assert_eq!(breaker.admit(now + OPEN_FOR), Admission::Probe);
        assert_eq!(breaker.admit(now + OPEN_FOR), Admission::Refuse);
        assert!(!breaker.handle_verdict(Verdict::Success, false, now));
        assert_eq!(breaker.state(), BreakerState::HalfOpen, "a late success of another request says nothing");
        breaker.handle_verdict(Verdict::Success, true, now);
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn failed_probe_opens_again_and_an_undecided_one_lets_the_next_probe() {
        let now = Instant::now();
        let mut breaker = opened(now);
        assert_eq!(breaker.admit(now + OPEN_FOR), Admission::Probe);
        assert!(breaker.handle_verdict(FAILURE, true, now + OPEN_FOR));
        assert!(breaker.refuses(now + OPEN_FOR));
        assert_eq!(breaker.admit(now + OPEN_FOR * 2), Admission::Probe);
        breaker.handle_verdict(Verdict::Undecided, true, now + OPEN_FOR * 2);
        assert_eq!(breaker.admit(now + OPEN_FOR * 2), Admission::Probe);
    }

    #[test]
    fn no_failures_configured_never_opens() {
        let now = Instant::now();
        let mut breaker = Breaker::new(BreakerConfig { failures: 0, open_for: OPEN_FOR });
        assert!((0..100).all(|_| !breaker.handle_verdict(FAILURE, false, now)));
    }
}
