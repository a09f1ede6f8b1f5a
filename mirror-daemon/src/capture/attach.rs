//! The attacher: capture points come and go while the daemon runs.

mod cgroup;
mod change;
mod interface;
mod overlap;
mod selection;
mod trial;

pub use trial::Trial;

use super::error::CaptureError;
use super::kernel_log::KernelLog;
use super::load::{TestKnobs, map};
use super::pod;
use crate::config::{CaptureConfig, CapturePoint, TcMode};
use crate::telemetry::logging::in_words;
use aya::Ebpf;
use aya::maps::{Array, HashMap, MapData};
use aya::programs::Program;
use cgroup::CgroupLinks;
use interface::InterfaceLinks;
use mirror_common::{
    ExcludedKey, KernelSettings, MAX_CAPTURE_POINTS, MAX_EXCLUDED, PointFlags, PointSettings,
};
use overlap::Identity;
use selection::Selection;
use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use trial::Neighbours;

/// How a capture point is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Attachment {
    /// TCX links.
    Tcx,
    /// Filters on a clsact qdisc.
    Clsact,
    /// `cgroup_skb` links.
    Cgroup,
}

/// Whether a wanted capture point is attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PointState {
    /// It is.
    Attached(Attachment),
    /// It is not; the error with its causes, in words.
    Failed(String),
}

/// One wanted capture point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PointStatus {
    /// [`crate::flow::FlowKey::capture_point`] of what it captures.
    pub number: u32,
    /// What is wanted.
    pub point: CapturePoint,
    /// Whether it is attached.
    pub state: PointState,
    /// Why opens and closes of its connections are not reported, if they should be and are not.
    pub lifecycle_error: Option<String>,
}

/// The numbers of the wanted capture points. Clones share one set, which the attacher keeps up to date.
#[derive(Clone, Debug, Default)]
pub struct PointNumbers(Arc<AtomicU32>);

impl PointNumbers {
    fn set<'a>(&self, numbers: impl Iterator<Item = &'a u32>) {
        self.0.store(numbers.fold(0, |set, number| set | bit(*number)), Ordering::Relaxed);
    }

    /// Whether a point of this number is in use.
    #[must_use]
    pub fn contains(&self, number: u32) -> bool {
        number < u32::BITS && self.0.load(Ordering::Relaxed) & bit(number) != 0
    }

    /// In ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + use<> {
        let set = self.0.load(Ordering::Relaxed);
        (0..u32::BITS).filter(move |number| set & bit(*number) != 0)
    }
}

/// [`MAX_CAPTURE_POINTS`] is far below the width.
const fn bit(number: u32) -> u32 {
    1_u32.wrapping_shl(number)
}

/// Owns the kernel programs, their links and the maps that say what to capture. Dropping it detaches all.
pub struct Attacher {
    ebpf: Ebpf,
    knobs: TestKnobs,
    settings: Array<MapData, KernelSettings>,
    places: Array<MapData, PointSettings>,
    excluded: HashMap<MapData, ExcludedKey, u32>,
    tc_mode: TcMode,
    /// What `settings` holds.
    current: KernelSettings,
    points: BTreeMap<u32, Held>,
    numbers: PointNumbers,
    kernel_log: Option<KernelLog>,
    selection: Selection,
}

/// One wanted capture point and what holds it in the kernel.
struct Held {
    point: CapturePoint,
    /// Where it was found to be; `None` when it was not found.
    place: Option<CapturePoint>,
    /// `None` when it could not be told.
    identity: Option<Identity>,
    links: Result<Links, CaptureError>,
}

enum Links {
    Interface(InterfaceLinks),
    Cgroup(CgroupLinks),
}

impl std::fmt::Debug for Attacher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attacher").field("points", &self.points()).finish_non_exhaustive()
    }
}

impl Attacher {
    pub(crate) fn new(mut ebpf: Ebpf, knobs: TestKnobs) -> Result<Self, CaptureError> {
        let settings = map(&ebpf, "SETTINGS")?.try_into().map_err(CaptureError::map("SETTINGS"))?;
        let places = map(&ebpf, "POINTS")?.try_into().map_err(CaptureError::map("POINTS"))?;
        let excluded = map(&ebpf, "EXCLUDED")?.try_into().map_err(CaptureError::map("EXCLUDED"))?;
        let kernel_log = KernelLog::open(&mut ebpf);
        let selection = Selection::new(&ebpf)?;
        Ok(Self {
            ebpf,
            knobs,
            settings,
            places,
            excluded,
            tc_mode: TcMode::Auto,
            current: KernelSettings::default(),
            points: BTreeMap::new(),
            numbers: PointNumbers::default(),
            kernel_log,
            selection,
        })
    }

    /// Makes ports, leg, exclusions, capture points and lifecycle hooks what `config` says, at points that are
    /// attached already too. Points that stay wanted stay attached. Ring sizes and shards are those of the start:
    /// changing them takes a restart.
    ///
    /// # Errors
    /// When a map cannot be written, or more points are wanted than there can be. A point that cannot be attached is
    /// no error; see [`Self::points`], and [`Self::try_out`] where it is to be one.
    pub fn apply(&mut self, config: &CaptureConfig) -> Result<(), CaptureError> {
        let trial = self.try_out(config)?;
        self.commit(trial)
    }

    /// Wants one more capture point, and tries to attach it. Returns its number.
    ///
    /// # Errors
    /// When all [`MAX_CAPTURE_POINTS`] are in use. That it could not be attached is no error; see
    /// [`Self::points`].
    pub fn add(&mut self, point: CapturePoint) -> Result<u32, CaptureError> {
        let number = self.add_unselected(point)?;
        self.adopt();
        Ok(number)
    }

    /// [`Self::add`], which does not look for older flows yet.
    fn add_unselected(&mut self, point: CapturePoint) -> Result<u32, CaptureError> {
        let number =
            self.free_number(|_| false).ok_or(CaptureError::TooManyPoints { limit: MAX_CAPTURE_POINTS })?;
        let held = self.try_point(number, point, self.tc_mode, &self.neighbours());
        self.hold(number, held);
        Ok(number)
    }

    /// The first number that no point has, and that is not taken otherwise.
    fn free_number(&self, is_taken: impl Fn(&u32) -> bool) -> Option<u32> {
        let limit = u32::try_from(MAX_CAPTURE_POINTS).unwrap_or(u32::MAX);
        (1..=limit).find(|number| !self.points.contains_key(number) && !is_taken(number))
    }

    /// Attaches a point, which tells nothing before [`Self::hold`].
    fn try_point(
        &mut self,
        number: u32,
        point: CapturePoint,
        tc_mode: TcMode,
        neighbours: &Neighbours,
    ) -> Held {
        let place = match pod::placed(&point) {
            Ok(place) => place,
            Err(error) => return Held { point, place: None, identity: None, links: Err(error) },
        };
        let (identity, links) = match Identity::of(&place) {
            Ok(identity) => {
                let links = neighbours
                    .refuse_overlap(&identity)
                    .and_then(|()| self.attach(number, &place, tc_mode, PointFlags::PAUSED));
                (Some(identity), links)
            }
            Err(error) => (None, Err(error)),
        };
        Held { point, place: Some(place), identity, links }
    }

    /// From now on the point tells what it sees.
    fn hold(&mut self, number: u32, mut held: Held) {
        let is_selected = self.selection.is_in_use();
        held.links =
            held.links.and_then(|mut links| match links.resume(&mut self.places, number, is_selected) {
                Ok(()) => Ok(links),
                Err(error) => {
                    links.detach();
                    Err(error)
                }
            });
        self.points.insert(number, held);
        self.numbers.set(self.points.keys());
    }

    /// Detaches a capture point and forgets it.
    pub fn remove(&mut self, number: u32) {
        if let Some(Held { links: Ok(links), .. }) = self.points.remove(&number) {
            links.detach();
        }
        self.unload_all(number);
        self.numbers.set(self.points.keys());
    }

    /// The numbers in use, now and later.
    #[must_use]
    pub fn numbers(&self) -> PointNumbers {
        self.numbers.clone()
    }

    /// Tries again what could not be attached, and attaches anew where an interface was replaced by another of
    /// the same name. Logs a point that is lost, and one that is back, once. Passes on what the kernel programs had
    /// to say. To be called every few seconds.
    pub fn check(&mut self) {
        if let Some(kernel_log) = &mut self.kernel_log {
            kernel_log.flush();
        }
        for held in self.points.values_mut() {
            if let Ok(Links::Interface(links)) = &mut held.links
                && links.has_others()
            {
                links.look_for_others(&interface::program_ids(&self.ebpf));
            }
        }
        let mut are_new = self.selection.retry(&mut self.ebpf);
        for number in self.numbers_where(|held| !held.is_in_place()) {
            let was_attached = self.points.get(&number).is_some_and(|held| held.links.is_ok());
            self.attach_anew(number);
            if let Some(held) = self.points.get(&number) {
                change::log(&held.point, was_attached, &held.state());
                are_new |= held.links.is_ok();
            }
        }
        if are_new {
            self.adopt();
        }
    }

    /// Every wanted capture point and whether it is attached.
    #[must_use]
    pub fn points(&self) -> Vec<PointStatus> {
        let gateway_error = self.selection.error();
        self.points
            .iter()
            .map(|(number, held)| {
                let lifecycle_error = match &held.links {
                    Ok(Links::Cgroup(links)) => links.lifecycle_error(),
                    _ => gateway_error,
                };
                PointStatus {
                    number: *number,
                    point: held.point.clone(),
                    state: held.state(),
                    lifecycle_error: lifecycle_error.map(|error| in_words(error)),
                }
            })
            .collect()
    }

    fn numbers_where(&self, is_meant: impl Fn(&Held) -> bool) -> Vec<u32> {
        self.points.iter().filter(|(_, held)| is_meant(held)).map(|(number, _)| *number).collect()
    }

    fn attach_anew(&mut self, number: u32) {
        let Some(point) = self.points.get(&number).map(|held| held.point.clone()) else { return };
        self.remove(number);
        let held = self.try_point(number, point, self.tc_mode, &self.neighbours());
        self.hold(number, held);
    }

    /// Tells the kernel at which points flows are selected.
    fn mark_selection(&mut self) -> Result<(), CaptureError> {
        let is_in_use = self.selection.is_in_use();
        for (number, held) in &mut self.points {
            if let Ok(Links::Interface(links)) = &mut held.links {
                links.select(&mut self.places, *number, is_in_use)?;
            }
        }
        Ok(())
    }

    /// Looks for the gateway's flows that are older than the hooks.
    fn adopt(&mut self) {
        let namespace = |held: &Held| match (&held.place, &held.links) {
            (Some(CapturePoint::Interface { netns, .. }), Ok(_)) => Some(netns.clone()),
            _ => None,
        };
        let namespaces: HashSet<Option<PathBuf>> = self.points.values().filter_map(namespace).collect();
        self.selection.adopt(&namespaces, &self.current);
    }

    /// `point`: as [`pod::placed`] gives it. `flags`: of [`PointFlags`], beside those that the point itself makes necessary.
    fn attach(
        &mut self,
        number: u32,
        point: &CapturePoint,
        tc_mode: TcMode,
        mut flags: u32,
    ) -> Result<Links, CaptureError> {
        match point {
            CapturePoint::Interface { name, netns, host_side } => {
                let wanted = interface::Wanted { number, name, netns: netns.as_deref(), tc_mode };
                flags |= if *host_side { PointFlags::SWAPPED } else { 0 };
                if self.selection.is_in_use() {
                    flags |= PointFlags::SELECTION;
                }
                interface::attach(&mut self.ebpf, &mut self.places, &wanted, flags).map(Links::Interface)
            }
            CapturePoint::Cgroup { path } => {
                let place = PointSettings { link_header_bytes: 0, flags };
                self.places.set(number, place, 0).map_err(CaptureError::map("POINTS"))?;
                cgroup::attach(&mut self.ebpf, number, path).map(Links::Cgroup)
            }
            CapturePoint::Pod { name, .. } => Err(CaptureError::PodNamespace { pod: name.clone() }),
        }
    }

    /// Gives the kernel's memory for a point's programs back.
    fn unload_all(&mut self, number: u32) {
        for name in program_names(number) {
            self.unload(&name);
        }
    }

    /// Gives the kernel's memory for a program back. It may not be loaded.
    fn unload(&mut self, name: &str) {
        let _ = match self.ebpf.program_mut(name) {
            Some(Program::SchedClassifier(program)) => program.unload(),
            Some(Program::CgroupSkb(program)) => program.unload(),
            Some(Program::SockOps(program)) => program.unload(),
            _ => Ok(()),
        };
    }

    fn exclude(&mut self, destinations: &[SocketAddr]) -> Result<(), CaptureError> {
        let wanted: Vec<ExcludedKey> =
            destinations.iter().take(MAX_EXCLUDED).map(|destination| excluded_key(*destination)).collect();
        let present: Vec<ExcludedKey> = self.excluded.keys().filter_map(Result::ok).collect();
        for key in present.iter().filter(|key| !wanted.contains(key)) {
            self.excluded.remove(key).map_err(CaptureError::map("EXCLUDED"))?;
        }
        for key in wanted {
            self.excluded.insert(key, 1, 0).map_err(CaptureError::map("EXCLUDED"))?;
        }
        Ok(())
    }
}

impl Drop for Attacher {
    fn drop(&mut self) {
        for (_, held) in std::mem::take(&mut self.points) {
            if let Ok(links) = held.links {
                links.detach();
            }
        }
    }
}

impl Held {
    fn is_in_place(&self) -> bool {
        self.links.as_ref().is_ok_and(Links::is_in_place)
    }

    /// Whether it need not be attached anew for this mode; one that is not attached at all waits for
    /// [`Attacher::check`].
    fn is_attached_as(&self, mode: TcMode) -> bool {
        match &self.links {
            Ok(Links::Interface(links)) => links.is_attached_as(mode),
            _ => true,
        }
    }

    /// Takes over a qdisc that `other`, which goes, would otherwise delete or leave.
    fn inherit_qdisc(&mut self, other: &InterfaceLinks) {
        if let Ok(Links::Interface(links)) = &mut self.links {
            links.inherit_qdisc(other);
        }
    }

    fn state(&self) -> PointState {
        match &self.links {
            Ok(Links::Interface(links)) => PointState::Attached(links.attachment()),
            Ok(Links::Cgroup(_)) => PointState::Attached(Attachment::Cgroup),
            Err(error) => PointState::Failed(in_words(error)),
        }
    }
}

impl Links {
    fn detach(self) {
        match self {
            Self::Interface(links) => links.detach(),
            // Dropping a link detaches it.
            Self::Cgroup(links) => drop(links),
        }
    }

    /// Ends [`PointFlags::PAUSED`].
    fn resume(
        &mut self,
        places: &mut Array<MapData, PointSettings>,
        number: u32,
        is_selected: bool,
    ) -> Result<(), CaptureError> {
        match self {
            Self::Interface(links) => {
                links.select(places, number, is_selected)?;
                links.resume(places, number)
            }
            Self::Cgroup(_) => {
                places.set(number, PointSettings::default(), 0).map_err(CaptureError::map("POINTS"))
            }
        }
    }

    fn is_in_place(&self) -> bool {
        match self {
            Self::Interface(links) => links.is_in_place(),
            Self::Cgroup(links) => links.is_in_place(),
        }
    }
}

/// The entry points of one capture point, as `mirror-ebpf/src/main.rs` names them.
fn program_names(number: u32) -> [String; 5] {
    ["tci", "tce", "cgi", "cge", "ops"].map(|hook| format!("mirror_{hook}_{number}"))
}

fn excluded_key(destination: SocketAddr) -> ExcludedKey {
    let addr = match destination.ip() {
        IpAddr::V4(addr) => addr.to_ipv6_mapped().octets(),
        IpAddr::V6(addr) => addr.octets(),
    };
    ExcludedKey { addr, port: destination.port(), padding: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_to_all_clones() {
        let numbers = PointNumbers::default();
        let elsewhere = numbers.clone();
        let most = u32::try_from(MAX_CAPTURE_POINTS).unwrap();
        numbers.set([1, 3, most].iter());
        assert_eq!(elsewhere.iter().collect::<Vec<_>>(), [1, 3, most]);
        assert!(elsewhere.contains(3) && !elsewhere.contains(2) && !elsewhere.contains(35));
        numbers.set([].iter());
        assert_eq!(elsewhere.iter().count(), 0);
    }
}
