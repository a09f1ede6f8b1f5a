//! A change of the configuration in two steps: [`Attacher::try_out`] attaches what is new beside what runs, paused,
//! and [`Attacher::commit`] changes over. So a change that can't be made leaves all as it was, without a gap.

use super::super::error::CaptureError;
use super::super::load::kernel_settings;
use super::overlap::Identity;
use super::{Attacher, Candidate, Held, Links};
use crate::config::{CaptureConfig, CapturePoint, TcMode};
use crate::telemetry::logging::in_words;
use mirror_common::MAX_CAPTURE_POINTS;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A configuration whose new capture points are attached and tell nothing yet. Dropped, it leaves filters behind.
#[must_use = "a trial ends by `Attacher::commit` or `Attacher::abandon`"]
pub(in crate::capture) struct Trial {
    config: CaptureConfig,
    /// No longer wanted.
    gone: Vec<u32>,
    /// New, under numbers that were free, paused.
    fresh: BTreeMap<u32, Held>,
    /// Attached a second time, in the way that is wanted now; what is told twice counts as retransmitted.
    anew: Vec<Anew>,
    /// New too, but there are numbers for them only once others are gone: not tried.
    late: Vec<CapturePoint>,
}

struct Anew {
    number: u32,
    point: CapturePoint,
    links: Result<Links, CaptureError>,
}

impl std::fmt::Debug for Trial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trial").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Trial {
    /// The points that could not be attached, or not in the wanted way, and why, in words.
    pub(in crate::capture) fn failures(&self) -> impl Iterator<Item = (CapturePoint, String)> {
        let fresh = self.fresh.values().map(|held| (&held.point, &held.links));
        let all = fresh.chain(self.anew.iter().map(|anew| (&anew.point, &anew.links)));
        all.filter_map(|(point, links)| Some((point.clone(), in_words(links.as_ref().err()?))))
    }
}

/// The points beside which another is attached.
pub(super) struct Neighbours {
    points: Vec<(CapturePoint, Identity)>,
    gateway_cgroups: Vec<PathBuf>,
}

impl Attacher {
    /// Attaches what `config` wants and is not there yet, beside what there is, and changes nothing else.
    ///
    /// # Errors
    /// When more points are wanted than there can be. That one cannot be attached is told by [`Trial::failures`].
    pub(in crate::capture) fn try_out(&mut self, config: &CaptureConfig) -> Result<Trial, CaptureError> {
        if config.points.len() > MAX_CAPTURE_POINTS {
            return Err(CaptureError::TooManyPoints { limit: MAX_CAPTURE_POINTS });
        }
        let gone = self.numbers_where(|held| !config.points.contains(&held.point));
        let mut trial = Trial {
            config: config.clone(),
            gone,
            fresh: BTreeMap::new(),
            anew: Vec::new(),
            late: Vec::new(),
        };
        for number in self
            .numbers_where(|held| config.points.contains(&held.point) && !held.is_attached_as(config.tc_mode))
        {
            trial.anew.extend(self.attach_otherwise(number, config.tc_mode));
        }
        let mut neighbours = Neighbours {
            points: self.identities(|number| !trial.gone.contains(number)),
            gateway_cgroups: config.gateway_cgroups.clone(),
        };
        let new: Vec<_> = config.points.iter().filter(|point| !self.holds(point)).cloned().collect();
        for point in new {
            match self.free_number(&trial.fresh) {
                Some(number) => {
                    let held = self.try_point(number, &point, config.tc_mode, &neighbours);
                    neighbours.points.extend(held.identity.clone().map(|id| (held.point.clone(), id)));
                    trial.fresh.insert(number, held);
                }
                None => trial.late.push(point),
            }
        }
        Ok(trial)
    }

    /// Takes the tried configuration into use: ports, leg, exclusions, lifecycle hooks and capture points. Points
    /// that stay wanted stay attached. A new one that could not be attached stays wanted, too.
    ///
    /// # Errors
    /// When a map cannot be written.
    pub(in crate::capture) fn commit(&mut self, trial: Trial) -> Result<(), CaptureError> {
        let Trial { config, gone, mut fresh, anew, late } = trial;
        self.tc_mode = config.tc_mode;
        self.exclude(&config.exclude)?;
        let settings = kernel_settings(&config, self.knobs);
        self.settings.set(0, settings, 0).map_err(CaptureError::map("SETTINGS"))?;
        let is_other_leg = (settings.leg, settings.ports) != (self.current.leg, self.current.ports);
        self.current = settings;
        let are_other_cgroups = self.selection.apply(&mut self.ebpf, &config.gateway_cgroups);
        if is_other_leg || are_other_cgroups {
            self.selection.forget()?;
        }
        for number in gone {
            let links = self.points.get(&number).and_then(|held| held.links.as_ref().ok());
            if let Some(Links::Interface(old)) = links {
                fresh.values_mut().for_each(|held| held.inherit_qdisc(old));
            }
            self.remove(number);
        }
        for Anew { number, links, .. } in anew {
            if let Some(held) = self.points.get_mut(&number)
                && let Ok(old) = std::mem::replace(&mut held.links, links)
            {
                old.detach(&mut self.table, number);
            }
        }
        for (number, held) in fresh {
            self.hold(number, held);
        }
        for point in late {
            self.add_unselected(&point)?;
        }
        self.mark_selection()?;
        self.adopt();
        Ok(())
    }

    /// Takes off what was tried.
    pub(in crate::capture) fn abandon(&mut self, trial: Trial) {
        for (number, held) in trial.fresh {
            self.let_go(number, held);
        }
        for Anew { number, links, .. } in trial.anew {
            if let Ok(links) = links {
                links.detach(&mut self.table, number);
            }
        }
    }

    /// Attaches the point once more in the other way. `None`: there is no other way here, and that is as well.
    fn attach_otherwise(&mut self, number: u32, mode: TcMode) -> Option<Anew> {
        let held = self.points.get(&number)?;
        let (point, entry) = (held.point.clone(), held.entry);
        // By clsact it is attached already.
        let tried = if mode == TcMode::Auto { TcMode::Tcx } else { mode };
        match self.attach(&Candidate { number, entry, point: &point, tc_mode: tried }, 0) {
            Err(CaptureError::Program { .. }) if mode == TcMode::Auto => None,
            links => Some(Anew { number, point, links }),
        }
    }

    /// Those of the attached points that are meant.
    pub(super) fn identities(&self, is_meant: impl Fn(&u32) -> bool) -> Vec<(CapturePoint, Identity)> {
        let meant = self.points.iter().filter(|(number, held)| is_meant(number) && held.links.is_ok());
        meant.filter_map(|(_, held)| Some((held.point.clone(), held.identity.clone()?))).collect()
    }

    /// Everything that is attached now.
    pub(super) fn neighbours(&self) -> Neighbours {
        Neighbours { points: self.identities(|_| true), gateway_cgroups: self.selection.paths() }
    }
}

impl Neighbours {
    /// # Errors
    /// One of them sees the same connections.
    pub(super) fn refuse_overlap(&self, identity: &Identity) -> Result<(), CaptureError> {
        let overlapping = self
            .points
            .iter()
            .find_map(|(point, present)| Some((point, identity.overlap(present, &self.gateway_cgroups)?)));
        match overlapping {
            Some((point, why)) => Err(CaptureError::SeenTwice { other: point.to_string(), why }),
            None => Ok(()),
        }
    }
}
