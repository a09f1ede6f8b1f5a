//! What `run` and `tap` do alike before they capture.

use super::Failure;
use crate::capture::{AttacherClient, PointState};
use crate::flow::HashSeed;
use anyhow::anyhow;

/// Most records of one look at a ring, so that time-outs, hand-over and signs of life are never far apart.
pub(super) const RECORDS_PER_LOOK: usize = 4096;

/// At the start a capture point that can't be attached is a fault of the configuration: nothing stays attached.
pub(super) fn refuse_missing_points(attacher: &AttacherClient) -> Result<(), Failure> {
    for point in attacher.points() {
        if let PointState::Failed(why) = point.state {
            return Err(Failure::usage(anyhow!("{} can't be captured: {why}", point.point)));
        }
    }
    Ok(())
}

/// A secret seed for a flow table.
pub(super) fn seed() -> Result<HashSeed, Failure> {
    let mut halves = [0_u64; 2];
    for half in &mut halves {
        let mut bytes = [0_u8; 8];
        rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
            .map_err(Failure::running)?;
        *half = u64::from_ne_bytes(bytes);
    }
    Ok(HashSeed(halves))
}
