use super::*;
use crate::config::Config;
use proptest::prelude::*;

const SELECTION: &str = "[capture]\nports = [80]\nkubernetes = { namespace = 'ns', selector = 'app=gw' }";
const OTHER_SELECTION: &str =
    "[capture]\nports = [80]\nkubernetes = { namespace = 'ns', selector = 'app=other' }";
const BY_INTERFACE: &str =
    "[capture]\nports = [80]\nkubernetes = { namespace = 'ns', selector = 'app=gw', attach = 'interface' }";

fn selection(toml: &str) -> Selection {
    Selection::of(&Config::from_toml(toml, "t").unwrap())
}

fn pod(number: usize) -> Pod {
    Pod {
        uid: format!("uid-{number}"),
        cgroup_uid: format!("uid-{number}"),
        namespace: "ns".into(),
        name: format!("gw-{number}"),
        labels: [("app".to_owned(), "gw".to_owned())].into(),
        ..Pod::default()
    }
}

fn cgroup(number: usize) -> PodCgroup {
    PodCgroup { uid: format!("uid-{number}"), path: format!("/cg/kubepods/poduid-{number}").into() }
}

fn named(points: &[PodPoint]) -> Vec<&str> {
    points.iter().map(|point| point.pod.as_str()).collect()
}

struct World {
    points: PodPoints,
    now: Instant,
}

impl World {
    fn new(toml: &str) -> Self {
        let (mut points, now) = (PodPoints::new(), Instant::now());
        points.handle_selection(now, selection(toml));
        Self { points, now }
    }

    fn pass(&mut self, milliseconds: u64) {
        self.now = later(self.now, Duration::from_millis(milliseconds));
    }

    fn attach_all(&mut self) {
        self.points.handle_outcome(self.now, |_| Some(Outcome::Attached(1)));
    }

    fn notices(&mut self) -> Vec<Notice> {
        std::iter::from_fn(|| self.points.poll_notice()).collect()
    }
}

#[test]
fn pod_is_wanted_from_its_cgroup_on_whichever_is_told_first() {
    for pod_first in [true, false] {
        let mut world = World::new(SELECTION);
        let now = world.now;
        if pod_first {
            world.points.handle_pod(now, pod(1));
            assert_eq!(world.points.counts().waiting, 1);
            world.points.handle_appeared(now, cgroup(1));
        } else {
            world.points.handle_appeared(now, cgroup(1));
            world.points.handle_pod(now, pod(1));
        }
        let wanted = world.points.wanted_now();
        assert_eq!(wanted[0].point, CapturePoint::Cgroup { path: cgroup(1).path });
        assert_eq!(world.points.counts(), PodCounts { wanted: 1, ..PodCounts::default() });
    }
}

#[test]
fn deleted_pod_is_captured_until_its_cgroup_vanishes() {
    let mut world = World::new(SELECTION);
    let now = world.now;
    world.points.handle_pod(now, pod(1));
    world.points.handle_appeared(now, cgroup(1));
    world.points.handle_deleted(now, &pod(1));
    assert_eq!(named(&world.points.wanted_now()), ["ns/gw-1"]);
    world.points.handle_list(now, vec![]);
    assert_eq!(named(&world.points.wanted_now()), ["ns/gw-1"]);
    world.points.handle_vanished(now, &cgroup(1));
    assert_eq!(world.points.wanted_now(), []);
    assert_eq!(world.points.counts(), PodCounts::default());
    world.points.handle_appeared(now, cgroup(1));
    assert_eq!(world.points.wanted_now(), [], "it was forgotten");
}

#[test]
fn changes_are_told_together_and_not_too_often() {
    let mut world = World::new(SELECTION);
    let start = world.now;
    for number in 0..3 {
        world.points.handle_pod(world.now, pod(number));
        world.points.handle_appeared(world.now, cgroup(number));
        assert_eq!(world.points.poll_change(world.now), None);
        world.pass(10);
    }
    assert_eq!(world.points.next_timeout(), Some(start + COALESCE));
    world.pass(20);
    let told = world.points.poll_change(world.now).unwrap();
    assert_eq!(named(&told), ["ns/gw-0", "ns/gw-1", "ns/gw-2"]);
    assert_eq!((world.points.next_timeout(), world.points.poll_change(world.now)), (None, None));
    let told_at = world.now;
    world.points.handle_vanished(world.now, &cgroup(1));
    assert_eq!(world.points.next_timeout(), Some(told_at + MIN_INTERVAL));
    world.pass(u64::try_from(MIN_INTERVAL.as_millis()).unwrap() - 1);
    assert_eq!(world.points.poll_change(world.now), None);
    world.pass(1);
    assert_eq!(named(&world.points.poll_change(world.now).unwrap()), ["ns/gw-0", "ns/gw-2"]);
}

#[test]
fn what_came_and_went_before_it_was_told_is_not_told() {
    let mut world = World::new(SELECTION);
    world.points.handle_pod(world.now, pod(1));
    world.points.handle_appeared(world.now, cgroup(1));
    world.points.handle_vanished(world.now, &cgroup(1));
    world.pass(1000);
    assert_eq!((world.points.poll_change(world.now), world.points.next_timeout()), (None, None));
}

#[test]
fn time_to_attach_counts_from_when_it_could_be_attached_and_is_told_once() {
    let mut world = World::new(SELECTION);
    world.points.handle_pod(world.now, pod(1));
    world.pass(5000);
    world.points.handle_appeared(world.now, cgroup(1));
    world.pass(70);
    world.attach_all();
    let point = CapturePoint::Cgroup { path: cgroup(1).path };
    let took = Duration::from_millis(70);
    assert_eq!(world.notices(), [Notice::Attached { pod: "ns/gw-1".into(), point, took }]);
    world.attach_all();
    assert_eq!(world.notices(), []);
    let attached: Vec<_> = world.points.attached().map(|one| (one.uid.to_owned(), one.number)).collect();
    assert_eq!(attached, [("uid-1".to_owned(), 1)]);
    world.points.handle_vanished(world.now, &cgroup(1));
    assert_eq!(world.notices(), [Notice::Gone { pod: "ns/gw-1".into() }]);
}

#[test]
fn failure_is_told_once_for_each_reason_and_stays_wanted() {
    let mut world = World::new(SELECTION);
    world.points.handle_pod(world.now, pod(1));
    world.points.handle_appeared(world.now, cgroup(1));
    for (why, told) in [("no", 1), ("no", 0), ("other", 1)] {
        world.points.handle_outcome(world.now, |_| Some(Outcome::Failed(why.to_owned())));
        assert_eq!(world.notices().len(), told, "{why}");
        assert_eq!(world.points.counts().failed, 1);
        assert_eq!(world.points.wanted_now().len(), 1);
    }
}

#[test]
fn other_labels_or_another_selection_let_go_of_a_pod() {
    let mut world = World::new(SELECTION);
    world.points.handle_appeared(world.now, cgroup(1));
    world.points.handle_pod(world.now, pod(1));
    let relabelled = Pod { labels: [("app".to_owned(), "other".to_owned())].into(), ..pod(1) };
    world.points.handle_pod(world.now, relabelled.clone());
    assert_eq!(world.points.wanted_now(), []);
    world.points.handle_selection(world.now, selection(OTHER_SELECTION));
    world.points.handle_list(world.now, vec![relabelled]);
    assert_eq!(world.points.wanted_now().len(), 1);
    world.points.handle_selection(world.now, Selection::default());
    assert_eq!(world.points.wanted_now(), []);
}

#[test]
fn interface_of_a_pod_is_looked_for_with_the_addresses_that_are_known() {
    let mut world = World::new(BY_INTERFACE);
    let addressed = Pod { addresses: vec!["10.77.0.9".parse().unwrap()], ..pod(1) };
    let of = |points: &PodPoints| match &points.wanted_now()[0].point {
        CapturePoint::Pod { addresses, interface, .. } => (addresses.len(), interface.clone()),
        other => panic!("{other}"),
    };
    world.points.handle_pod(world.now, pod(1));
    world.points.handle_appeared(world.now, cgroup(1));
    assert_eq!(of(&world.points), (0, "eth0".to_owned()));
    world.points.handle_outcome(world.now, |_| Some(Outcome::Failed("not found".to_owned())));
    world.points.handle_pod(world.now, addressed.clone());
    assert_eq!(of(&world.points).0, 1);
    // Found by its process, it is left alone.
    let mut world = World::new(BY_INTERFACE);
    world.points.handle_pod(world.now, pod(1));
    world.points.handle_appeared(world.now, cgroup(1));
    world.attach_all();
    world.points.handle_pod(world.now, addressed);
    assert_eq!(of(&world.points).0, 0);
    // Until it is lost: its sandbox was made anew.
    world.points.handle_outcome(world.now, |_| Some(Outcome::Failed("gone".to_owned())));
    assert_eq!(of(&world.points).0, 1);
}

#[test]
fn interface_that_is_not_found_is_told_when_its_pod_has_an_address() {
    let mut world = World::new(BY_INTERFACE);
    let fail = |points: &mut PodPoints, now| {
        points.handle_outcome(now, |_| Some(Outcome::Failed("not found".to_owned())));
    };
    world.points.handle_pod(world.now, pod(1));
    world.points.handle_appeared(world.now, cgroup(1));
    fail(&mut world.points, world.now);
    assert_eq!((world.notices(), world.points.counts().failed), (vec![], 1));
    let addressed = Pod { addresses: vec!["10.77.0.9".parse().unwrap()], ..pod(1) };
    world.points.handle_pod(world.now, addressed);
    fail(&mut world.points, world.now);
    fail(&mut world.points, world.now);
    let told = Notice::Failed { pod: "ns/gw-1".into(), why: "not found".into() };
    assert_eq!(world.notices(), [told]);
}

#[test]
fn host_network_pod_is_captured_by_its_cgroup_and_that_is_said() {
    let mut world = World::new(BY_INTERFACE);
    let host = Pod { is_host_network: true, ..pod(1) };
    world.points.handle_pod(world.now, host);
    world.points.handle_appeared(world.now, cgroup(1));
    assert!(matches!(world.points.wanted_now()[0].point, CapturePoint::Cgroup { .. }));
    assert_eq!(world.notices(), [Notice::HostNetwork { pod: "ns/gw-1".into() }]);
}

#[test]
fn without_cgroups_an_interface_is_wanted_while_the_pod_has_an_address() {
    let mut world = World::new(BY_INTERFACE);
    world.points.handle_cgroups(world.now, None);
    world.points.handle_pod(world.now, pod(1));
    assert_eq!(world.points.wanted_now(), []);
    let addressed = Pod { addresses: vec!["10.77.0.9".parse().unwrap()], ..pod(1) };
    world.points.handle_pod(world.now, addressed.clone());
    assert_eq!(world.points.wanted_now().len(), 1);
    world.points.handle_pod(world.now, Pod { is_over: true, ..addressed });
    assert_eq!(world.points.wanted_now(), []);
}

#[test]
fn mirror_of_a_static_pod_made_anew_keeps_it() {
    let mut world = World::new(SELECTION);
    let old = Pod { uid: "mirror-1".into(), ..pod(1) };
    let new = Pod { uid: "mirror-2".into(), ..pod(1) };
    world.points.handle_pod(world.now, old.clone());
    world.points.handle_pod(world.now, new);
    world.points.handle_deleted(world.now, &old);
    world.points.handle_appeared(world.now, cgroup(1));
    assert_eq!(world.points.wanted_now().len(), 1);
}

#[test]
fn pods_beyond_the_bound_are_left_out_and_counted() {
    let mut world = World::new(SELECTION);
    world.points.handle_list(world.now, (0..MAX_PODS + 3).map(pod).collect());
    let counts = world.points.counts();
    assert_eq!((counts.waiting, counts.left_out), (MAX_PODS as u64, 3));
    world.points.handle_cgroups(world.now, Some((0..MAX_CGROUPS + 3).map(cgroup).collect()));
    assert_eq!(world.points.cgroups.len(), MAX_CGROUPS);
    assert_eq!(world.points.wanted_now().len(), MAX_PODS);
}

/// What can happen to one of a few pods.
#[derive(Clone, Debug)]
enum Step {
    Apply(usize, bool),
    Delete(usize),
    Relist,
    Appear(usize),
    Vanish(usize),
    Scan,
    Select(bool),
    Outcome(bool),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let number = 0..5_usize;
    prop_oneof![
        (number.clone(), any::<bool>()).prop_map(|(number, chosen)| Step::Apply(number, chosen)),
        number.clone().prop_map(Step::Delete),
        Just(Step::Relist),
        number.clone().prop_map(Step::Appear),
        number.prop_map(Step::Vanish),
        Just(Step::Scan),
        any::<bool>().prop_map(Step::Select),
        any::<bool>().prop_map(Step::Outcome),
        (1..300_u64).prop_map(Step::Pass),
    ]
}

/// The truth, and what the daemon was told of it, as simply as can be.
#[derive(Default)]
struct Oracle {
    /// In the API server, with whether it carries the label of the one selection (or of the other).
    api: BTreeMap<usize, bool>,
    /// Deleted there while its cgroup was there and it was wanted.
    orphans: BTreeMap<usize, bool>,
    cgroups: std::collections::BTreeSet<usize>,
    selects: bool,
}

impl Oracle {
    fn wanted(&self) -> Vec<usize> {
        let all: BTreeMap<usize, bool> =
            self.orphans.iter().chain(&self.api).map(|(k, v)| (*k, *v)).collect();
        let is_wanted =
            |(number, chosen): &(usize, bool)| *chosen == self.selects && self.cgroups.contains(number);
        all.into_iter().filter(is_wanted).map(|(number, _)| number).collect()
    }

    fn handle(&mut self, step: &Step) {
        match step {
            Step::Apply(number, chosen) => {
                self.orphans.remove(number);
                self.api.insert(*number, *chosen);
            }
            Step::Delete(number) => {
                if let Some(chosen) = self.api.remove(number)
                    && self.cgroups.contains(number)
                    && chosen == self.selects
                {
                    self.orphans.insert(*number, chosen);
                }
            }
            Step::Appear(number) => {
                self.cgroups.insert(*number);
            }
            Step::Vanish(number) => {
                self.cgroups.remove(number);
                self.orphans.remove(number);
            }
            Step::Select(selects) => {
                self.selects = *selects;
                self.orphans.retain(|_, chosen| chosen == selects);
            }
            Step::Relist | Step::Scan | Step::Outcome(_) | Step::Pass(_) => {}
        }
    }
}

fn labelled(number: usize, chosen: bool) -> Pod {
    let app = if chosen { "gw" } else { "other" };
    Pod { labels: [("app".to_owned(), app.to_owned())].into(), ..pod(number) }
}

fn give(points: &mut PodPoints, now: Instant, oracle: &Oracle, step: &Step) {
    let listed = || oracle.api.iter().map(|(number, chosen)| labelled(*number, *chosen)).collect();
    match *step {
        Step::Apply(number, chosen) => points.handle_pod(now, labelled(number, chosen)),
        Step::Delete(number) => points.handle_deleted(now, &pod(number)),
        Step::Relist => points.handle_list(now, listed()),
        Step::Appear(number) => points.handle_appeared(now, cgroup(number)),
        Step::Vanish(number) => points.handle_vanished(now, &cgroup(number)),
        Step::Scan => {
            points.handle_cgroups(now, Some(oracle.cgroups.iter().map(|number| cgroup(*number)).collect()));
        }
        Step::Select(selects) => {
            points.handle_selection(now, selection(if selects { SELECTION } else { OTHER_SELECTION }));
            // The watch begins anew with another selection.
            points.handle_list(now, listed());
        }
        Step::Outcome(good) => points.handle_outcome(now, |_| {
            Some(if good { Outcome::Attached(1) } else { Outcome::Failed("no".to_owned()) })
        }),
        Step::Pass(_) => {}
    }
}

proptest! {
    #[test]
    fn wanted_set_is_the_oracles_after_any_order_of_events(steps in prop::collection::vec(step(), 0..80)) {
        let (mut points, mut oracle, mut now) = (PodPoints::new(), Oracle::default(), Instant::now());
        let mut told = Vec::new();
        oracle.selects = true;
        points.handle_selection(now, selection(SELECTION));
        for step in &steps {
            if let Step::Pass(milliseconds) = step {
                now = later(now, Duration::from_millis(*milliseconds));
            }
            oracle.handle(step);
            give(&mut points, now, &oracle, step);
            let wanted = points.wanted_now();
            let mut names: Vec<&str> = named(&wanted);
            names.sort_unstable();
            let expected: Vec<String> = oracle.wanted().iter().map(|number| format!("ns/gw-{number}")).collect();
            prop_assert_eq!(&names, &expected, "{:?}", step);
            if let Some(change) = points.poll_change(now) {
                told = change;
            }
            // What is wanted and was not told yet has a time when it will be.
            prop_assert!(told == wanted || points.next_timeout().is_some());
        }
        now = later(later(now, MIN_INTERVAL), COALESCE);
        told = points.poll_change(now).unwrap_or(told);
        prop_assert_eq!(told, points.wanted_now());
        let counts = points.counts();
        let all = [counts.waiting, counts.wanted, counts.attached, counts.failed];
        prop_assert_eq!(all.iter().sum::<u64>(), points.pods.len() as u64);
        prop_assert_eq!(counts.left_out, 0);
    }
}
