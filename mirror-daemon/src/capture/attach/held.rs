//! One wanted capture point, with what holds it in the kernel or why nothing does.

use super::super::error::CaptureError;
use super::cgroup::CgroupLinks;
use super::interface::InterfaceLinks;
use super::overlap::Identity;
use super::table::PointTable;
use super::{Attachment, PointState};
use crate::config::{CapturePoint, TcMode};
use crate::telemetry::logging::in_words;

/// One wanted capture point and what holds it in the kernel.
pub(super) struct Held {
    pub(super) point: CapturePoint,
    /// Where it was found to be; `None` when it was not found.
    pub(super) place: Option<CapturePoint>,
    /// `None` when it could not be told.
    pub(super) identity: Option<Identity>,
    /// Its entry points' number; only an interface that is attached has one.
    pub(super) entry: Option<u32>,
    pub(super) links: Result<Links, CaptureError>,
}

/// A point and what it is to be attached with.
pub(super) struct Candidate<'a> {
    pub(super) number: u32,
    /// See [`Held::entry`].
    pub(super) entry: Option<u32>,
    pub(super) point: &'a CapturePoint,
    pub(super) tc_mode: TcMode,
}

pub(super) enum Links {
    Interface(InterfaceLinks),
    Cgroup(CgroupLinks),
}

impl Held {
    /// One that was not found.
    pub(super) fn nowhere(point: &CapturePoint, error: CaptureError) -> Self {
        Self { point: point.clone(), place: None, identity: None, entry: None, links: Err(error) }
    }

    pub(super) fn is_in_place(&self) -> bool {
        self.links.as_ref().is_ok_and(Links::is_in_place)
            && self.identity.as_ref().is_some_and(Identity::is_current)
    }

    /// Whether it need not be attached anew for this mode; one that is not attached at all waits for
    /// `Attacher::check`.
    pub(super) fn is_attached_as(&self, mode: TcMode) -> bool {
        match &self.links {
            Ok(Links::Interface(links)) => links.is_attached_as(mode),
            _ => true,
        }
    }

    /// Takes over a qdisc that `other`, which goes, would otherwise delete or leave.
    pub(super) fn inherit_qdisc(&mut self, other: &InterfaceLinks) {
        if let Ok(Links::Interface(links)) = &mut self.links {
            links.inherit_qdisc(other);
        }
    }

    pub(super) fn state(&self) -> PointState {
        match &self.links {
            Ok(Links::Interface(links)) => PointState::Attached(links.attachment()),
            Ok(Links::Cgroup(_)) => PointState::Attached(Attachment::Cgroup),
            Err(error) => PointState::Failed(in_words(error)),
        }
    }
}

impl Links {
    /// `number`: the point's.
    pub(super) fn detach(self, table: &mut PointTable, number: u32) {
        match self {
            Self::Interface(links) => links.detach(),
            Self::Cgroup(links) => links.detach(table, number),
        }
    }

    /// Begins to tell what is seen.
    pub(super) fn resume(
        &mut self,
        table: &mut PointTable,
        number: u32,
        is_selected: bool,
    ) -> Result<(), CaptureError> {
        match self {
            Self::Interface(links) => {
                links.select(table, is_selected)?;
                links.resume(table)
            }
            Self::Cgroup(links) => links.resume(table, number),
        }
    }

    pub(super) fn is_in_place(&self) -> bool {
        match self {
            Self::Interface(links) => links.is_in_place(),
            Self::Cgroup(links) => links.is_in_place(),
        }
    }
}
