//! From configuration to loaded kernel programs and handles on their maps.

use super::attach::Attacher;
use super::control::ControlReader;
use super::counters::{CounterMaps, CounterReader};
use super::error::CaptureError;
use super::live::{LiveMap, LiveWriter};
use super::reader::RingReader;
use super::seam::{AttacherClient, AttacherLink, DeskMaps};
use super::verdict::{VerdictMap, VerdictWriter};
use crate::config::{CaptureConfig, Leg};
use aya::maps::{Map, MapData};
use aya::{Ebpf, EbpfLoader};
use mirror_common::{KernelSettings, LegCode, MAX_EXCLUDED, MAX_PIECE_BYTES, MAX_PORTS, MAX_SHARDS};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// The kernel programs, or nothing when they were not built before this crate was, or of other sources.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/mirror-ebpf"));

/// There were kernel programs of other sources.
const IS_STALE: bool = option_env!("MIRROR_EBPF_STALE").is_some();

const RING_NAMES: [&str; MAX_SHARDS] = ["RING_0", "RING_1", "RING_2", "RING_3"];

/// The smallest data ring: several of the largest records must fit.
const LEAST_RING_BYTES: u32 = 128 * 1024;
/// Bounds of the per-flow maps; an entry takes about 100 bytes of kernel memory, used or not.
const LEAST_FLOW_ENTRIES: usize = 1024;
const MOST_FLOW_ENTRIES: usize = 32_768;

/// Everything that capturing needs, ready to be handed to its threads.
#[derive(Debug)]
pub struct Capture {
    /// Has programs and links attached and detached; dropping it detaches everything.
    pub attacher: AttacherClient,
    /// One per shard, in their order.
    pub readers: Vec<RingReader>,
    /// Reads opens, closes and loss marks.
    pub control: ControlReader,
    /// Reads the counters.
    pub counters: CounterReader,
    /// Writes heartbeat and shed level. Until the first beat the kernel programs do nothing.
    pub live: LiveWriter,
    /// One per shard, in their order.
    pub verdicts: Vec<VerdictWriter>,
}

/// What only tests turn.
#[derive(Clone, Copy, Debug, Default)]
pub struct TestKnobs {
    /// On average one in so many data records is dropped on purpose and counted; 0: none.
    pub drop_one_in: u32,
}

/// Why this binary has no kernel programs; `None` when it has.
#[must_use]
pub fn unbuilt() -> Option<CaptureError> {
    let reason = if IS_STALE { CaptureError::Stale } else { CaptureError::NotBuilt };
    OBJECT.is_empty().then_some(reason)
}

/// Loads the kernel programs and attaches them to the configured capture points, with the privileges of this thread. A
/// point that cannot be attached is no error here: see [`AttacherClient::points`].
///
/// # Errors
/// When nothing can be captured at all: no kernel programs in this binary, a kernel too old, no privilege.
pub fn open(config: &CaptureConfig) -> Result<Capture, CaptureError> {
    open_with(config, TestKnobs::default())
}

/// [`open`] with the knobs of tests.
///
/// # Errors
/// As [`open`].
pub fn open_with(config: &CaptureConfig, knobs: TestKnobs) -> Result<Capture, CaptureError> {
    AttacherLink::to_thread()?.prepare(config, knobs)?.attach(config)
}

/// What an attacher holds before anything is attached.
pub(super) struct Loaded {
    pub(super) attacher: Attacher,
    /// The data rings, in their order.
    pub(super) rings: Vec<OwnedFd>,
    pub(super) control: OwnedFd,
    pub(super) maps: DeskMaps,
}

impl Loaded {
    /// Makes the maps.
    ///
    /// # Errors
    /// As [`open`].
    pub(super) fn new(config: &CaptureConfig, knobs: TestKnobs) -> Result<Self, CaptureError> {
        if let Some(reason) = unbuilt() {
            return Err(reason);
        }
        refuse_old_kernel()?;
        let ebpf = load_object(config)?;
        let names = RING_NAMES.into_iter().take(shards(config) as usize);
        let rings = names.map(|name| descriptor(&ebpf, name)).collect::<Result<_, _>>()?;
        let control = descriptor(&ebpf, "CONTROL")?;
        let maps = DeskMaps {
            states: map(&ebpf, "READERS")?.try_into().map_err(CaptureError::map("READERS"))?,
            verdicts: VerdictMap(map(&ebpf, "VERDICTS")?.try_into().map_err(CaptureError::map("VERDICTS"))?),
            live: LiveMap(map(&ebpf, "LIVE")?.try_into().map_err(CaptureError::map("LIVE"))?),
            counters: CounterMaps {
                counters: map(&ebpf, "COUNTERS")?.try_into().map_err(CaptureError::map("COUNTERS"))?,
                reasons: map(&ebpf, "REASONS")?.try_into().map_err(CaptureError::map("REASONS"))?,
            },
            has_captured: Arc::default(),
        };
        Ok(Self { attacher: Attacher::new(ebpf, knobs)?, rings, control, maps })
    }
}

/// The kernel's view of the configuration.
pub(crate) fn kernel_settings(config: &CaptureConfig, knobs: TestKnobs) -> KernelSettings {
    let mut ports = [0; MAX_PORTS];
    for (slot, port) in ports.iter_mut().zip(&config.ports) {
        *slot = *port;
    }
    let leg = match config.leg {
        Leg::Downstream => LegCode::Downstream,
        Leg::Upstream => LegCode::Upstream,
    };
    KernelSettings {
        ports,
        port_count: count(config.ports.len().min(MAX_PORTS)),
        leg: leg as u32,
        answer_snap_bytes: config.answer_snap_bytes.min(MAX_PIECE_BYTES),
        shards: shards(config),
        wake_up_bytes: ring_bytes(config) / 4,
        excluded_count: count(config.exclude.len().min(MAX_EXCLUDED)),
        drop_one_in: knobs.drop_one_in,
        padding: 0,
    }
}

/// A handle of our own on a map. The object keeps its handle: programs that are loaded later refer to maps by
/// the object's descriptors.
pub(crate) fn map(ebpf: &Ebpf, name: &'static str) -> Result<Map, CaptureError> {
    let (wrap, _) = named(ebpf, name)?;
    MapData::from_fd(descriptor(ebpf, name)?).map(wrap).map_err(CaptureError::map(name))
}

/// A descriptor of our own of a map.
fn descriptor(ebpf: &Ebpf, name: &'static str) -> Result<OwnedFd, CaptureError> {
    let (_, data) = named(ebpf, name)?;
    data.fd()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|source| CaptureError::Io { what: "duplicate a map's descriptor", source })
}

type Wrap = fn(MapData) -> Map;

fn named<'a>(ebpf: &'a Ebpf, name: &'static str) -> Result<(Wrap, &'a MapData), CaptureError> {
    let missing = || CaptureError::Missing { kind: "map", name: name.to_owned() };
    Ok(match ebpf.map(name).ok_or_else(missing)? {
        Map::Array(data) => (Map::Array, data),
        Map::HashMap(data) => (Map::HashMap, data),
        Map::LruHashMap(data) => (Map::LruHashMap, data),
        Map::PerCpuArray(data) => (Map::PerCpuArray, data),
        Map::RingBuf(data) => (Map::RingBuf, data),
        Map::ProgramArray(data) => (Map::ProgramArray, data),
        // Its system calls are those of a hash map; aya's own type knows the key only as it was before 5.9.
        Map::CgroupStorage(data) => (Map::HashMap, data),
        _ => return Err(missing()),
    })
}

fn load_object(config: &CaptureConfig) -> Result<Ebpf, CaptureError> {
    let flow_entries = config
        .limits
        .max_flows
        .saturating_mul(config.shards as usize)
        .clamp(LEAST_FLOW_ENTRIES, MOST_FLOW_ENTRIES);
    let mut loader = EbpfLoader::new();
    loader.btf(None);
    for name in RING_NAMES.iter().take(shards(config) as usize) {
        loader.map_max_entries(name, ring_bytes(config));
    }
    loader.map_max_entries("VERDICTS", count(flow_entries));
    loader.map_max_entries("FLOWS", count(flow_entries));
    loader.load(OBJECT).map_err(CaptureError::load)
}

fn shards(config: &CaptureConfig) -> u32 {
    config.shards.clamp(1, count(MAX_SHARDS))
}

/// The size of each data ring: the largest power of two of which all shards together fit.
fn ring_bytes(config: &CaptureConfig) -> u32 {
    let each = config.ring_bytes.checked_div(shards(config)).unwrap_or(0).max(LEAST_RING_BYTES);
    1_u32.checked_shl(each.ilog2()).unwrap_or(LEAST_RING_BYTES)
}

fn count(items: usize) -> u32 {
    u32::try_from(items).unwrap_or(u32::MAX)
}

/// Ring buffers came with 5.8, storage of cgroups that programs share with 5.9; without this check the kernel would
/// only say "invalid argument".
fn refuse_old_kernel() -> Result<(), CaptureError> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(u32::MAX), numbers.next().unwrap_or(0));
    if version < (5, 9) {
        return Err(CaptureError::KernelTooOld { release });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{FlowLimits, TcMode};
    use crate::http::h2::H2Options;
    use std::time::Duration;

    fn config(ring_bytes: u32, shards: u32) -> CaptureConfig {
        CaptureConfig {
            points: Vec::new(),
            gateways: vec![],
            leg: Leg::Upstream,
            ports: vec![80, 8080],
            tc_mode: TcMode::Auto,
            gateway_cgroups: Vec::new(),
            ring_bytes,
            shards,
            answer_snap_bytes: u32::MAX,
            http2: H2Options::default(),
            tick: Duration::from_millis(2),
            proxy_protocol: false,
            exclude: Vec::new(),
            limits: FlowLimits::default(),
        }
    }

    #[test]
    fn rings_share_their_bytes_in_powers_of_two() {
        assert_eq!(ring_bytes(&config(8 << 20, 1)), 8 << 20);
        assert_eq!(ring_bytes(&config(8 << 20, 2)), 4 << 20);
        assert_eq!(ring_bytes(&config(8 << 20, 3)), 2 << 20);
        assert_eq!(ring_bytes(&config(1, 4)), LEAST_RING_BYTES);
        assert_eq!(ring_bytes(&config(u32::MAX, 1)), 1 << 31);
    }

    #[test]
    fn settings_carry_ports_leg_and_bounds() {
        let settings = kernel_settings(&config(8 << 20, 9), TestKnobs::default());
        assert_eq!((settings.port_count, &settings.ports[..3]), (2, &[80, 8080, 0][..]));
        assert_eq!(settings.leg, LegCode::Upstream as u32);
        assert_eq!(settings.shards, count(MAX_SHARDS));
        assert_eq!(settings.answer_snap_bytes, MAX_PIECE_BYTES);
        assert_eq!(settings.wake_up_bytes, (2 << 20) / 4);
    }
}
