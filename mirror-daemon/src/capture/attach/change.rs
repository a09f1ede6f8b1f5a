//! Tells the operator when a capture point is lost, and when it is back.

use super::PointState;
use crate::config::CapturePoint;

/// What happened to a point that was not in place when it was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change<'a> {
    /// It was attached, and cannot be attached anew, for this reason.
    Lost(&'a str),
    /// Another interface or cgroup has its name now, and is attached.
    Replaced,
    /// It was lost, and is attached again.
    Back,
    /// It still cannot be attached, which was told when it was lost.
    StillLost,
}

impl<'a> Change<'a> {
    fn of(was_attached: bool, state: &'a PointState) -> Self {
        match (was_attached, state) {
            (true, PointState::Failed(why)) => Self::Lost(why),
            (true, PointState::Attached(_)) => Self::Replaced,
            (false, PointState::Attached(_)) => Self::Back,
            (false, PointState::Failed(_)) => Self::StillLost,
        }
    }
}

/// Logs what became of a point that was not in place, after it was tried again.
pub(super) fn log(point: &CapturePoint, was_attached: bool, state: &PointState) {
    let is_of_pod = matches!(point, CapturePoint::Pod { .. });
    match Change::of(was_attached, state) {
        // An interface ends a moment before its pod's cgroup does, and with that it is no longer wanted.
        Change::Lost(why) if is_of_pod => {
            tracing::info!(%point, why, "capture point of a pod lost: its interface may have gone with it")
        }
        Change::Lost(why) => {
            tracing::warn!(%point, why, "capture point lost: nothing is mirrored there until it is back");
        }
        Change::Replaced => {
            tracing::warn!(%point, why = "another has its name now", "capture point lost");
            tracing::info!(%point, %state, "capture point attached again");
        }
        Change::Back => tracing::info!(%point, %state, "capture point attached again"),
        Change::StillLost => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::Attachment;
    use super::*;

    #[test]
    fn loss_and_return_are_told_once_each() {
        let gone = PointState::Failed("no such interface".to_owned());
        let there = PointState::Attached(Attachment::Tcx);
        assert_eq!(Change::of(true, &gone), Change::Lost("no such interface"));
        assert_eq!(Change::of(false, &gone), Change::StillLost);
        assert_eq!(Change::of(false, &there), Change::Back);
        assert_eq!(Change::of(true, &there), Change::Replaced);
    }

    #[test]
    fn states_are_told_in_words() {
        let told = |attachment| PointState::Attached(attachment).to_string();
        assert_eq!(told(Attachment::Tcx), "attached by TCX links");
        assert_eq!(told(Attachment::Clsact), "attached by clsact filters");
        assert_eq!(told(Attachment::Cgroup), "attached by cgroup_skb links");
        let failed = PointState::Failed("no such interface".to_owned());
        assert_eq!(failed.to_string(), "not attached: no such interface");
    }
}
