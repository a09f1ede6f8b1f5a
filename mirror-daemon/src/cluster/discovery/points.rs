//! PURE. From what is known of pods and cgroups to the capture points that are wanted.
//!
//! ```text
//!            API server: pod      node: its cgroup appears          told, tried
//!  (unknown) ──────────▶ waiting ─────────────────────────▶ wanted ────────────▶ attached | failed
//!                           ▲                                 │                       │
//!                           └───────── its cgroup vanishes ◀──┴───────────────────────┘
//! ```
//!
//! A pod counts from the moment its cgroup is there, Ready or not, until the cgroup is gone: neither its
//! `deletionTimestamp` nor its end in the API server ends its traffic. What was told once stays known while the API
//! server is away. Changes are told together, [`COALESCE`] after the first, and at most once in [`MIN_INTERVAL`].

use super::pod::Pod;
use super::selection::{Selection, Target};
use crate::config::{CapturePoint, PodAttach};
use crate::kube::PodCgroup;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a change waits for others.
pub(super) const COALESCE: Duration = Duration::from_millis(50);
/// The least time between two changes of what is wanted.
pub(super) const MIN_INTERVAL: Duration = Duration::from_millis(200);
/// Wanted pods that are kept, at most; more are left out, and counted.
pub(super) const MAX_PODS: usize = 1024;
/// Cgroups of pods, wanted or not, that are kept, at most.
pub(super) const MAX_CGROUPS: usize = 4096;
/// Notices that wait to be told, at most; the oldest are left out first.
const MAX_NOTICES: usize = 1024;

/// One wanted capture point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodPoint {
    /// `namespace/name` of its pod.
    pub pod: String,
    /// Where to attach.
    pub point: CapturePoint,
    /// The gateways it carries, `namespace/name`.
    pub gateways: Vec<String>,
}

/// What became of a wanted capture point, as the attacher tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is attached, and captures under this number.
    Attached(u32),
    /// It could not be attached, for this reason.
    Failed(String),
}

/// Something for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// For the first time, so long after it could have been.
    Attached { pod: String, point: CapturePoint, took: Duration },
    /// It can't be attached; said once, and again when the reason is another. Not said of an interface that is looked
    /// for before its pod has an address.
    Failed { pod: String, why: String },
    /// It was attached, and its cgroup is gone.
    Gone { pod: String },
    /// `attach = "interface"` would capture the node's own interface: its cgroup is taken.
    HostNetwork { pod: String },
}

/// How many pods are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodCounts {
    /// Wanted, and no cgroup of theirs is there.
    pub waiting: u64,
    /// About to be attached.
    pub wanted: u64,
    /// Attached.
    pub attached: u64,
    /// They can't be attached; it is tried again.
    pub failed: u64,
    /// Beyond `MAX_PODS`.
    pub left_out: u64,
}

/// An attached pod, for the self-test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AttachedPod<'a> {
    pub(super) uid: &'a str,
    pub(super) pod: &'a Pod,
    /// Of its capture point.
    pub(super) number: u32,
}

/// See the module.
#[derive(Debug)]
pub(super) struct PodPoints {
    selection: Selection,
    /// False: there is no cgroup v2 here; pods in interface mode do without.
    has_cgroups: bool,
    /// Wanted pods, by the UID of their cgroup.
    pods: BTreeMap<String, Tracked>,
    /// By UID.
    cgroups: BTreeMap<String, PathBuf>,
    left_out: HashSet<String>,
    changed_at: Option<Instant>,
    told: Vec<PodPoint>,
    told_at: Option<Instant>,
    notices: VecDeque<Notice>,
}

#[derive(Debug)]
struct Tracked {
    pod: Pod,
    target: Target,
    /// False: the API server has it no more.
    is_listed: bool,
    wanted: Option<Wanted>,
}

#[derive(Debug)]
struct Wanted {
    point: CapturePoint,
    /// Since when it could be attached.
    since: Instant,
    state: State,
    was_attached: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Untried,
    Attached(u32),
    Failed(String),
}

impl PodPoints {
    pub(super) fn new() -> Self {
        Self {
            selection: Selection::default(),
            has_cgroups: true,
            pods: BTreeMap::new(),
            cgroups: BTreeMap::new(),
            left_out: HashSet::new(),
            changed_at: None,
            told: Vec::new(),
            told_at: None,
            notices: VecDeque::new(),
        }
    }

    /// From now on other pods are wanted. Those that were not before are learnt of by [`Self::handle_list`].
    pub(super) fn handle_selection(&mut self, now: Instant, selection: Selection) {
        self.selection = selection;
        let known: Vec<Pod> = self.pods.values().map(|tracked| tracked.pod.clone()).collect();
        for pod in known {
            let is_listed = self.pods.get(&pod.cgroup_uid).is_some_and(|tracked| tracked.is_listed);
            self.take(now, pod, is_listed);
        }
    }

    /// All pods of the node, as the API server has them now.
    pub(super) fn handle_list(&mut self, now: Instant, pods: Vec<Pod>) {
        let listed: HashSet<String> = pods.iter().map(|pod| pod.uid.clone()).collect();
        self.left_out.clear();
        let gone: Vec<Pod> = self
            .pods
            .values()
            .filter(|tracked| !listed.contains(&tracked.pod.uid))
            .map(|tracked| tracked.pod.clone())
            .collect();
        for pod in gone {
            self.handle_deleted(now, &pod);
        }
        for pod in pods {
            self.handle_pod(now, pod);
        }
    }

    /// One pod is new or has changed.
    pub(super) fn handle_pod(&mut self, now: Instant, pod: Pod) {
        self.take(now, pod, true);
    }

    /// The API server has forgotten a pod. While its cgroup is there it may still serve.
    pub(super) fn handle_deleted(&mut self, now: Instant, pod: &Pod) {
        self.left_out.remove(&pod.uid);
        let Some(tracked) = self.pods.get_mut(&pod.cgroup_uid) else { return };
        // The mirror of a static pod is made anew under another UID now and then.
        if tracked.pod.uid != pod.uid {
            return;
        }
        tracked.is_listed = false;
        self.refresh(now, &pod.cgroup_uid);
    }

    /// All cgroups of pods that are there now; `None`: there is no cgroup v2 here.
    pub(super) fn handle_cgroups(&mut self, now: Instant, cgroups: Option<Vec<PodCgroup>>) {
        self.has_cgroups = cgroups.is_some();
        self.cgroups.clear();
        for cgroup in cgroups.into_iter().flatten().take(MAX_CGROUPS) {
            self.cgroups.entry(cgroup.uid).or_insert(cgroup.path);
        }
        let known: Vec<String> = self.pods.keys().cloned().collect();
        for uid in known {
            self.refresh(now, &uid);
        }
    }

    /// A pod's cgroup has appeared.
    pub(super) fn handle_appeared(&mut self, now: Instant, cgroup: PodCgroup) {
        let PodCgroup { uid, path } = cgroup;
        if self.cgroups.len() < MAX_CGROUPS || self.cgroups.contains_key(&uid) {
            self.cgroups.insert(uid.clone(), path);
            self.refresh(now, &uid);
        }
    }

    /// A pod's cgroup has vanished.
    pub(super) fn handle_vanished(&mut self, now: Instant, cgroup: &PodCgroup) {
        if self.cgroups.get(&cgroup.uid).is_some_and(|path| *path == cgroup.path) {
            self.cgroups.remove(&cgroup.uid);
            self.refresh(now, &cgroup.uid);
        }
    }

    /// What became of wanted points.
    pub(super) fn handle_outcome(
        &mut self,
        now: Instant,
        outcome: impl Fn(&CapturePoint) -> Option<Outcome>,
    ) {
        let mut lost = Vec::new();
        for (uid, tracked) in &mut self.pods {
            let Some(wanted) = &mut tracked.wanted else { continue };
            let pod = || tracked.pod.full_name();
            let is_early = wanted.is_early();
            let before = std::mem::replace(&mut wanted.state, State::Untried);
            wanted.state = match outcome(&wanted.point) {
                None => State::Untried,
                Some(Outcome::Attached(number)) => {
                    if !wanted.was_attached {
                        let took = now.saturating_duration_since(wanted.since);
                        let point = wanted.point.clone();
                        notice(&mut self.notices, Notice::Attached { pod: pod(), point, took });
                    }
                    wanted.was_attached = true;
                    State::Attached(number)
                }
                Some(Outcome::Failed(why)) => {
                    if before != State::Failed(why.clone()) {
                        if !is_early {
                            notice(&mut self.notices, Notice::Failed { pod: pod(), why: why.clone() });
                        }
                        lost.push(uid.clone());
                    }
                    State::Failed(why)
                }
            };
        }
        // One that was attached may have other addresses by now.
        for uid in lost {
            self.refresh(now, &uid);
        }
    }

    /// The points that are wanted, those wanted for longest first, when they are others than were told last and it is
    /// time to tell.
    pub(super) fn poll_change(&mut self, now: Instant) -> Option<Vec<PodPoint>> {
        if self.next_timeout().is_none_or(|due| now < due) {
            return None;
        }
        self.changed_at = None;
        let wanted = self.wanted();
        if wanted == self.told {
            return None;
        }
        self.told_at = Some(now);
        self.told.clone_from(&wanted);
        Some(wanted)
    }

    /// When [`Self::poll_change`] should be called; `None`: nothing has changed.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let coalesced = later(self.changed_at?, COALESCE);
        Some(self.told_at.map_or(coalesced, |told_at| coalesced.max(later(told_at, MIN_INTERVAL))))
    }

    /// The next thing for the operator.
    pub(super) fn poll_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// How many pods are in which state.
    pub(super) fn counts(&self) -> PodCounts {
        let left_out = u64::try_from(self.left_out.len()).unwrap_or(u64::MAX);
        let mut counts = PodCounts { left_out, ..PodCounts::default() };
        for tracked in self.pods.values() {
            let count = match tracked.wanted.as_ref().map(|wanted| &wanted.state) {
                None => &mut counts.waiting,
                Some(State::Untried) => &mut counts.wanted,
                Some(State::Attached(_)) => &mut counts.attached,
                Some(State::Failed(_)) => &mut counts.failed,
            };
            *count = count.saturating_add(1);
        }
        counts
    }

    /// Every pod whose point is attached.
    pub(super) fn attached(&self) -> impl Iterator<Item = AttachedPod<'_>> {
        self.pods.iter().filter_map(|(uid, tracked)| match tracked.wanted.as_ref()?.state {
            State::Attached(number) => Some(AttachedPod { uid, pod: &tracked.pod, number }),
            _ => None,
        })
    }

    /// Whether [`Self::poll_change`] would have something to tell, were it time.
    #[cfg(test)]
    pub(super) fn wanted_now(&self) -> Vec<PodPoint> {
        self.wanted()
    }

    fn wanted(&self) -> Vec<PodPoint> {
        let wanted = self.pods.values().filter_map(|tracked| Some((tracked, tracked.wanted.as_ref()?)));
        let mut wanted: Vec<_> = wanted.collect();
        wanted.sort_by_key(|(_, wanted)| wanted.since);
        let point = |(tracked, wanted): (&Tracked, &Wanted)| PodPoint {
            pod: tracked.pod.full_name(),
            point: wanted.point.clone(),
            gateways: tracked.target.gateways.clone(),
        };
        wanted.into_iter().map(point).collect()
    }

    fn take(&mut self, now: Instant, pod: Pod, is_listed: bool) {
        let uid = pod.cgroup_uid.clone();
        let Some(target) = self.selection.target(&pod) else {
            self.left_out.remove(&pod.uid);
            if self.pods.remove(&uid).is_some_and(|tracked| tracked.wanted.is_some()) {
                self.change(now);
            }
            return;
        };
        if !self.pods.contains_key(&uid) && self.pods.len() >= MAX_PODS {
            self.left_out.insert(pod.uid);
            return;
        }
        let is_odd = pod.is_host_network && target.attach != PodAttach::Cgroup;
        match self.pods.get_mut(&uid) {
            Some(tracked) => {
                let is_other = tracked.target != target;
                (tracked.pod, tracked.target, tracked.is_listed) = (pod, target, is_listed);
                if is_other {
                    self.change(now);
                }
            }
            None => {
                if is_odd {
                    notice(&mut self.notices, Notice::HostNetwork { pod: pod.full_name() });
                }
                self.pods.insert(uid.clone(), Tracked { pod, target, is_listed, wanted: None });
            }
        }
        self.refresh(now, &uid);
    }

    /// Finds out anew what is wanted of a pod.
    fn refresh(&mut self, now: Instant, uid: &str) {
        let Some(tracked) = self.pods.get_mut(uid) else { return };
        let cgroup = self.cgroups.get(uid).map(PathBuf::as_path);
        let point = tracked.point(cgroup, self.has_cgroups);
        let is_forgotten = !tracked.is_listed && point.is_none();
        let is_changed = match (&mut tracked.wanted, point) {
            (None, None) => false,
            (Some(wanted), Some(point)) if wanted.stays(&point) => false,
            (Some(wanted), Some(point)) => {
                wanted.point = point;
                wanted.state = State::Untried;
                true
            }
            (wanted @ None, Some(point)) => {
                *wanted = Some(Wanted { point, since: now, state: State::Untried, was_attached: false });
                true
            }
            (wanted @ Some(_), None) => {
                if wanted.take().is_some_and(|wanted| wanted.was_attached) {
                    notice(&mut self.notices, Notice::Gone { pod: tracked.pod.full_name() });
                }
                true
            }
        };
        if is_forgotten {
            self.pods.remove(uid);
        }
        if is_changed {
            self.change(now);
        }
    }

    fn change(&mut self, now: Instant) {
        self.changed_at.get_or_insert(now);
    }
}

impl Tracked {
    /// Where to attach; `None`: there is nothing yet, or nothing any more.
    fn point(&self, cgroup: Option<&Path>, has_cgroups: bool) -> Option<CapturePoint> {
        match &self.target.attach {
            PodAttach::Interface(interface) if !self.pod.is_host_network => {
                let is_there = if has_cgroups {
                    cgroup.is_some()
                } else {
                    self.is_listed && !self.pod.is_over && !self.pod.addresses.is_empty()
                };
                is_there.then(|| CapturePoint::Pod {
                    name: self.pod.full_name(),
                    interface: interface.clone(),
                    addresses: self.pod.addresses.clone(),
                    cgroup: cgroup.map(Path::to_owned),
                })
            }
            _ => Some(CapturePoint::Cgroup { path: cgroup?.to_owned() }),
        }
    }
}

impl Wanted {
    /// Whether that it can't be attached means nothing yet: its namespace is found by its addresses, and the API server
    /// has none of a pod that is just starting.
    fn is_early(&self) -> bool {
        let has_none = matches!(&self.point, CapturePoint::Pod { addresses, .. } if addresses.is_empty());
        has_none && !self.was_attached
    }

    /// Whether it needs no change: it is the same place, or an interface that was found without the addresses that are
    /// known by now.
    fn stays(&self, point: &CapturePoint) -> bool {
        let found = |point: &CapturePoint| match point {
            CapturePoint::Pod { interface, cgroup, .. } => Some((interface.clone(), cgroup.clone())),
            _ => None,
        };
        let is_found = matches!(self.state, State::Attached(_)) && found(point).is_some();
        self.point == *point || (is_found && found(&self.point) == found(point))
    }
}

fn notice(notices: &mut VecDeque<Notice>, one: Notice) {
    if notices.len() >= MAX_NOTICES {
        notices.pop_front();
    }
    notices.push_back(one);
}

fn later(at: Instant, by: Duration) -> Instant {
    at.checked_add(by).unwrap_or(at)
}

#[cfg(test)]
mod tests;
