//! PURE. The self-test of each pod: traffic expected, and none seen.
//!
//! A pod that has been Ready for some time and at whose capture point not one segment was captured since it was
//! attached is silent. It may just have no traffic; or its traffic goes past the capture point (another interface,
//! another port than those of `[capture] ports`), which nothing else would tell.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How often one that stays silent is told again.
pub(super) const TELL_AGAIN: Duration = Duration::from_secs(3600);

/// What is known of an attached pod now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listened {
    pub(super) uid: String,
    pub(super) is_ready: bool,
    /// Of its capture point.
    pub(super) number: u32,
    /// Segments captured under this number, by this pod or an earlier one. Only grows.
    pub(super) segments: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Silence {
    pods: BTreeMap<String, Pod>,
}

#[derive(Debug)]
struct Pod {
    number: u32,
    /// What was captured under its number before it had it.
    segments_before: u64,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    NotReady,
    /// Ready since then, and nothing heard.
    Listening(Instant),
    /// Told last at that time.
    Silent(Instant),
    Heard,
}

impl Silence {
    /// Takes all attached pods, and gives the UIDs of those to tell of: just found to be silent, or still silent after
    /// [`TELL_AGAIN`]. `after`: how long a pod may be Ready without a segment; `None`: for ever.
    pub(super) fn handle_pods(
        &mut self,
        now: Instant,
        after: Option<Duration>,
        attached: &[Listened],
    ) -> Vec<String> {
        self.pods.retain(|uid, _| attached.iter().any(|one| one.uid == *uid));
        let mut told = Vec::new();
        for one in attached {
            let fresh = Pod { number: one.number, segments_before: one.segments, state: State::NotReady };
            let pod = self.pods.entry(one.uid.clone()).or_insert(fresh);
            if pod.number != one.number {
                (pod.number, pod.segments_before) = (one.number, one.segments);
            }
            let is_told = pod.handle(now, after, one);
            if is_told {
                told.push(one.uid.clone());
            }
        }
        told
    }

    /// Silent pods, now.
    pub(super) fn silent(&self) -> usize {
        self.pods.values().filter(|pod| matches!(pod.state, State::Silent(_))).count()
    }
}

impl Pod {
    fn handle(&mut self, now: Instant, after: Option<Duration>, seen: &Listened) -> bool {
        if seen.segments > self.segments_before {
            self.state = State::Heard;
        }
        let is_due = |since: Instant, period: Duration| now.saturating_duration_since(since) >= period;
        match (self.state, seen.is_ready, after) {
            (State::Heard, ..) => {}
            (_, false, _) | (_, _, None) => self.state = State::NotReady,
            (State::NotReady, true, _) => self.state = State::Listening(now),
            (State::Listening(since), true, Some(after)) if is_due(since, after) => {
                self.state = State::Silent(now);
                return true;
            }
            (State::Silent(told), true, _) if is_due(told, TELL_AGAIN) => {
                self.state = State::Silent(now);
                return true;
            }
            (State::Listening(_) | State::Silent(_), ..) => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: Duration = Duration::from_secs(60);

    struct World {
        silence: Silence,
        start: Instant,
    }

    impl World {
        fn new() -> Self {
            Self { silence: Silence::default(), start: Instant::now() }
        }

        /// UIDs that are told of `seconds` after the start.
        fn at(&mut self, seconds: u64, pods: &[Listened]) -> Vec<String> {
            let now = self.start.checked_add(Duration::from_secs(seconds)).unwrap();
            self.silence.handle_pods(now, Some(AFTER), pods)
        }
    }

    fn pod(uid: &str, is_ready: bool, segments: u64) -> Listened {
        Listened { uid: uid.to_owned(), is_ready, number: 1, segments }
    }

    #[test]
    fn ready_pod_without_a_segment_is_told_once_and_again_after_an_hour() {
        let mut world = World::new();
        assert!(world.at(0, &[pod("a", false, 7)]).is_empty());
        assert!(world.at(100, &[pod("a", true, 7)]).is_empty(), "Ready only now");
        assert!(world.at(159, &[pod("a", true, 7)]).is_empty());
        assert_eq!(world.at(160, &[pod("a", true, 7)]), ["a"]);
        assert_eq!(world.silence.silent(), 1);
        assert!(world.at(161, &[pod("a", true, 7)]).is_empty());
        assert_eq!(world.at(160 + TELL_AGAIN.as_secs(), &[pod("a", true, 7)]), ["a"]);
    }

    #[test]
    fn one_segment_ends_the_silence_for_good() {
        let mut world = World::new();
        world.at(0, &[pod("a", true, 7), pod("b", true, 7)]);
        world.at(30, &[pod("a", true, 8), pod("b", true, 7)]);
        assert_eq!(world.at(60, &[pod("a", true, 8), pod("b", true, 7)]), ["b"]);
        assert!(world.at(61, &[pod("a", true, 8), pod("b", true, 9)]).is_empty());
        assert_eq!(world.silence.silent(), 0);
        assert!(world.at(10_000, &[pod("a", true, 8), pod("b", true, 9)]).is_empty());
    }

    #[test]
    fn what_an_earlier_pod_had_under_the_number_does_not_count() {
        let mut world = World::new();
        world.at(0, &[pod("a", true, 100)]);
        let moved = Listened { number: 2, ..pod("a", true, 500) };
        assert!(world.at(1, std::slice::from_ref(&moved)).is_empty());
        assert_eq!(world.at(60, &[moved]), ["a"]);
    }

    #[test]
    fn pod_that_is_not_ready_or_is_gone_is_not_silent() {
        let mut world = World::new();
        world.at(0, &[pod("a", true, 0)]);
        assert_eq!(world.at(60, &[pod("a", true, 0)]), ["a"]);
        world.at(61, &[pod("a", false, 0)]);
        assert_eq!(world.silence.silent(), 0);
        world.at(62, &[pod("a", true, 0)]);
        assert_eq!(world.at(122, &[pod("a", true, 0)]), ["a"]);
        world.at(123, &[]);
        assert_eq!(world.silence.silent(), 0);
    }

    #[test]
    fn switched_off_it_tells_nothing() {
        let mut silence = Silence::default();
        let start = Instant::now();
        for seconds in [0, 100, 100_000] {
            let now = start.checked_add(Duration::from_secs(seconds)).unwrap();
            assert!(silence.handle_pods(now, None, &[pod("a", true, 0)]).is_empty());
        }
        assert_eq!(silence.silent(), 0);
    }
}
