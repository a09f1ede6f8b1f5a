//! What the kernel programs know of capture points: which they are, and which cgroup or entry point is whose.

use super::super::error::CaptureError;
use super::super::load::map;
use aya::Ebpf;
use aya::maps::{Array, HashMap, MapData, MapError};
use mirror_common::{ANY_POINT, PointSettings};
use std::io::ErrorKind;

/// The maps of `mirror-ebpf/src/maps.rs` that say it.
pub(super) struct PointTable {
    places: Array<MapData, PointSettings>,
    /// By cgroup id, which is the inode of its directory. The kernel makes the entry when a program is attached there
    /// and removes it with the cgroup: here it can only be written.
    cgroups: HashMap<MapData, u64, u32>,
    interfaces: Array<MapData, u32>,
}

impl PointTable {
    pub(super) fn new(ebpf: &Ebpf) -> Result<Self, CaptureError> {
        Ok(Self {
            places: map(ebpf, "POINTS")?.try_into().map_err(CaptureError::map("POINTS"))?,
            cgroups: map(ebpf, "CGROUPS")?.try_into().map_err(CaptureError::map("CGROUPS"))?,
            interfaces: map(ebpf, "INTERFACES")?.try_into().map_err(CaptureError::map("INTERFACES"))?,
        })
    }

    /// Says how a point is, by the number in it.
    pub(super) fn set(&mut self, point: PointSettings) -> Result<(), CaptureError> {
        let place = PointSettings::place_of(point.number);
        self.places.set(place, point, 0).map_err(CaptureError::map("POINTS"))
    }

    /// From now on there is no point of this number: whatever program still finds the number does nothing.
    pub(super) fn clear(&mut self, number: u32) {
        let place = PointSettings::place_of(number);
        let is_its_own = self.places.get(&place, 0).is_ok_and(|point| point.number == number);
        if is_its_own {
            // It is there, as the read has shown, and arrays never refuse.
            let _ = self.places.set(place, PointSettings::default(), 0);
        }
    }

    /// Says whose the packets are that pass this entry point; [`ANY_POINT`]: nobody's.
    pub(super) fn set_entry(&mut self, entry: u32, number: u32) -> Result<(), CaptureError> {
        self.interfaces.set(entry, number, 0).map_err(CaptureError::map("INTERFACES"))
    }

    /// Says whose the packets of a cgroup are. One write, for all programs that are attached there.
    ///
    /// # Errors
    /// When the kernel refuses. [`is_missing`]: the cgroup is gone, or nothing is attached to it.
    pub(super) fn set_cgroup(&mut self, id: u64, number: u32) -> Result<(), MapError> {
        self.cgroups.insert(id, number, 0)
    }

    /// Takes [`Self::set_cgroup`] back, unless another point has the cgroup by now, or the cgroup is gone.
    pub(super) fn clear_cgroup(&mut self, id: u64, number: u32) {
        match self.cgroups.get(&id, 0) {
            Ok(present) if present != number => {}
            Err(MapError::KeyNotFound) => {}
            // Where it can't be written for want of memory, the number leads to no point any more.
            _ => drop(self.cgroups.insert(id, ANY_POINT, 0)),
        }
    }
}

/// Whether the map has no such entry.
pub(super) fn is_missing(error: &MapError) -> bool {
    match error {
        MapError::KeyNotFound => true,
        MapError::SyscallError(error) => error.io_error.kind() == ErrorKind::NotFound,
        _ => false,
    }
}
