//! The attacher: capture points come and go while the daemon runs.

mod cgroup;
mod change;
mod held;
mod interface;
mod numbers;
mod overlap;
mod selection;
mod table;
mod trial;

pub use numbers::PointNumbers;
pub(super) use trial::Trial;

use super::error::CaptureError;
use super::kernel_log::KernelLog;
use super::load::{TestKnobs, map};
use super::pod;
use crate::config::{CapturePoint, TcMode};
use crate::telemetry::logging::in_words;
use aya::Ebpf;
use aya::maps::{Array, HashMap, MapData, ProgramArray};
use held::{Candidate, Held, Links};
use mirror_common::{
    ANY_POINT, ExcludedKey, KernelSettings, MAX_CAPTURE_POINTS, MAX_EXCLUDED, MAX_INTERFACE_POINTS,
    PointFlags, PointSettings,
};
use numbers::{Entries, NextNumber};
use overlap::Identity;
use selection::Selection;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use table::PointTable;
use trial::Neighbours;

/// How a capture point is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Attachment {
    /// TCX links.
    Tcx,
    /// Filters on a clsact qdisc.
    Clsact,
    /// `cgroup_skb` links.
    Cgroup,
}

/// Whether a wanted capture point is attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PointState {
    /// It is.
    Attached(Attachment),
    /// It is not; the error with its causes, in words.
    Failed(String),
}

impl std::fmt::Display for Attachment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tcx => "TCX links",
            Self::Clsact => "clsact filters",
            Self::Cgroup => "cgroup_skb links",
        })
    }
}

impl std::fmt::Display for PointState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Attached(attachment) => write!(f, "attached by {attachment}"),
            Self::Failed(why) => write!(f, "not attached: {why}"),
        }
    }
}

/// One wanted capture point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// How capture points that come later will be attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// Some of them on cgroups.
    pub cgroups: bool,
    /// Some of them on interfaces.
    pub interfaces: bool,
}

/// Owns the kernel programs, their links and the maps that say what to capture. Dropping it detaches all.
pub(super) struct Attacher {
    ebpf: Ebpf,
    knobs: TestKnobs,
    settings: Array<MapData, KernelSettings>,
    table: PointTable,
    bodies: ProgramArray<MapData>,
    excluded: HashMap<MapData, ExcludedKey, u32>,
    tc_mode: TcMode,
    /// What `settings` holds.
    current: KernelSettings,
    points: BTreeMap<u32, Held>,
    next_number: NextNumber,
    entries: Entries,
    kernel_log: Option<KernelLog>,
    selection: Selection,
}

impl std::fmt::Debug for Attacher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attacher").field("points", &self.points()).finish_non_exhaustive()
    }
}

impl Attacher {
    pub(super) fn new(mut ebpf: Ebpf, knobs: TestKnobs) -> Result<Self, CaptureError> {
        let settings = map(&ebpf, "SETTINGS")?.try_into().map_err(CaptureError::map("SETTINGS"))?;
        let table = PointTable::new(&ebpf)?;
        let bodies = map(&ebpf, "BODIES")?.try_into().map_err(CaptureError::map("BODIES"))?;
        let excluded = map(&ebpf, "EXCLUDED")?.try_into().map_err(CaptureError::map("EXCLUDED"))?;
        let kernel_log = KernelLog::open(&mut ebpf);
        let selection = Selection::new(&ebpf)?;
        Ok(Self {
            ebpf,
            knobs,
            settings,
            table,
            bodies,
            excluded,
            tc_mode: TcMode::Auto,
            current: KernelSettings::default(),
            points: BTreeMap::new(),
            next_number: NextNumber::default(),
            entries: Entries::default(),
            kernel_log,
            selection,
        })
    }

    /// Wants one more capture point, and tries to attach it. Does not look for older flows yet.
    ///
    /// # Errors
    /// When all [`MAX_CAPTURE_POINTS`] are in use. That it could not be attached is no error; see [`Self::points`].
    fn add_unselected(&mut self, point: &CapturePoint) -> Result<u32, CaptureError> {
        let limit = MAX_CAPTURE_POINTS;
        let number = self.free_number(&BTreeMap::new()).ok_or(CaptureError::TooManyPoints { limit })?;
        let held = self.try_point(number, point, self.tc_mode, &self.neighbours());
        self.hold(number, held);
        Ok(number)
    }

    /// A number that no point has had, with a place in the kernel's table that neither a point nor one of `others` has.
    fn free_number(&mut self, others: &BTreeMap<u32, Held>) -> Option<u32> {
        let held = self.points.keys().chain(others.keys());
        let taken: HashSet<u32> = held.map(|number| PointSettings::place_of(*number)).collect();
        self.next_number.take(|number| taken.contains(&PointSettings::place_of(number)))
    }

    fn holds(&self, point: &CapturePoint) -> bool {
        self.points.values().any(|held| held.point == *point)
    }

    /// Attaches a point, which tells nothing before [`Self::hold`].
    fn try_point(
        &mut self,
        number: u32,
        point: &CapturePoint,
        tc_mode: TcMode,
        neighbours: &Neighbours,
    ) -> Held {
        let place = match pod::placed(point) {
            Ok(place) => place,
            Err(error) => return Held::nowhere(point, error),
        };
        let (identity, links) = match Identity::of(&place) {
            Ok(identity) => {
                let links = neighbours.refuse_overlap(&identity);
                let links = links.and_then(|()| self.attach_new(number, &place, tc_mode));
                (Some(identity), links)
            }
            Err(error) => (None, Err(error)),
        };
        let (entry, links) = match links {
            Ok((entry, links)) => (entry, Ok(links)),
            Err(error) => (None, Err(error)),
        };
        Held { point: point.clone(), place: Some(place), identity, entry, links }
    }

    /// From now on the point tells what it sees.
    fn hold(&mut self, number: u32, mut held: Held) {
        let is_selected = self.selection.is_in_use();
        held.links =
            held.links.and_then(|mut links| match links.resume(&mut self.table, number, is_selected) {
                Ok(()) => Ok(links),
                Err(error) => {
                    links.detach(&mut self.table, number);
                    Err(error)
                }
            });
        self.points.insert(number, held);
    }

    /// Detaches a capture point and forgets it. Its number is not used again.
    pub(super) fn remove(&mut self, number: u32) {
        if let Some(held) = self.points.remove(&number) {
            self.let_go(number, held);
        }
    }

    /// Detaches a point, and leaves nothing of it in the kernel.
    fn let_go(&mut self, number: u32, held: Held) {
        // First of all, so that from here on nothing is told as this point's.
        self.table.clear(number);
        if let Ok(links) = held.links {
            links.detach(&mut self.table, number);
        }
        if let Some(entry) = held.entry {
            self.give_back(entry);
        }
    }

    /// Lets others have an entry point that nothing is attached with any more.
    fn give_back(&mut self, entry: u32) {
        // Arrays never refuse; and without the number's place in the table it means nothing.
        let _ = self.table.set_entry(entry, ANY_POINT);
        interface::unload(&mut self.ebpf, entry);
        self.entries.give_back(entry);
    }

    /// Tries again what could not be attached, and attaches anew where an interface was replaced by another of
    /// the same name. Logs a point that is lost, and one that is back, once. Passes on what the kernel programs had
    /// to say. To be called every few seconds.
    pub(super) fn check(&mut self) {
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

    /// Loads what points that come later are attached with: verifying takes hundreds of milliseconds, in which the
    /// first of them would capture nothing. Attaches nothing.
    ///
    /// # Errors
    /// When the kernel refuses a program; attaching tries again.
    pub(super) fn get_ready(&mut self, expected: Expected) -> Result<(), CaptureError> {
        let cgroups = if expected.cgroups { cgroup::load(&mut self.ebpf) } else { Ok(()) };
        if expected.interfaces {
            interface::Programs { ebpf: &mut self.ebpf, bodies: &mut self.bodies }.load_bodies()?;
        }
        cgroups
    }

    /// Every wanted capture point and whether it is attached.
    #[must_use]
    pub(super) fn points(&self) -> Vec<PointStatus> {
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
        let held = self.try_point(number, &point, self.tc_mode, &self.neighbours());
        self.hold(number, held);
    }

    /// Tells the kernel at which points flows are selected.
    fn mark_selection(&mut self) -> Result<(), CaptureError> {
        let is_in_use = self.selection.is_in_use();
        for held in self.points.values_mut() {
            if let Ok(Links::Interface(links)) = &mut held.links {
                links.select(&mut self.table, is_in_use)?;
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

    /// Attaches a point that tells nothing yet, with entry points of its own where it needs some. `point`: as
    /// [`pod::placed`] gives it.
    fn attach_new(
        &mut self,
        number: u32,
        point: &CapturePoint,
        tc_mode: TcMode,
    ) -> Result<(Option<u32>, Links), CaptureError> {
        let entry = match point {
            CapturePoint::Interface { .. } => {
                let limit = MAX_INTERFACE_POINTS;
                Some(self.entries.take().ok_or(CaptureError::TooManyInterfaces { limit })?)
            }
            CapturePoint::Cgroup { .. } | CapturePoint::Pod { .. } => None,
        };
        let attached = self.attach(&Candidate { number, entry, point, tc_mode }, PointFlags::PAUSED);
        if attached.is_err() {
            self.table.clear(number);
            entry.into_iter().for_each(|entry| self.give_back(entry));
        }
        Ok((entry, attached?))
    }

    /// `flags`: of [`PointFlags`], beside those that the point itself makes necessary.
    fn attach(&mut self, candidate: &Candidate<'_>, mut flags: u32) -> Result<Links, CaptureError> {
        let Candidate { number, tc_mode, .. } = *candidate;
        match candidate.point {
            CapturePoint::Interface { name, netns, host_side } => {
                let entry = candidate.entry.unwrap_or(ANY_POINT);
                let wanted = interface::Wanted { number, entry, name, netns: netns.as_deref(), tc_mode };
                flags |= if *host_side { PointFlags::SWAPPED } else { 0 };
                if self.selection.is_in_use() {
                    flags |= PointFlags::SELECTION;
                }
                let mut programs = interface::Programs { ebpf: &mut self.ebpf, bodies: &mut self.bodies };
                interface::attach(&mut programs, &mut self.table, &wanted, flags).map(Links::Interface)
            }
            CapturePoint::Cgroup { path } => cgroup::attach(&mut self.ebpf, path).map(Links::Cgroup),
            CapturePoint::Pod { name, .. } => Err(CaptureError::PodNamespace { pod: name.clone() }),
        }
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
        for (number, held) in std::mem::take(&mut self.points) {
            self.let_go(number, held);
        }
    }
}

fn excluded_key(destination: SocketAddr) -> ExcludedKey {
    let addr = match destination.ip() {
        IpAddr::V4(addr) => addr.to_ipv6_mapped().octets(),
        IpAddr::V6(addr) => addr.octets(),
    };
    ExcludedKey { addr, port: destination.port(), padding: 0 }
}
