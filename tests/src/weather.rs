//! Bad weather on a receiver's ingress: segments are truly lost, doubled, or overtaken by others.
//!
//! The classifier is `mirror-ebpf/src/bin/weather.rs`; `cargo xtask build-ebpf` (and so `cargo xtask test`)
//! builds it.

use anyhow::{Context as _, Result, ensure};
use aya::Ebpf;
use aya::maps::{Array, PerCpuArray};
use aya::programs::tc::{NlOptions, TcAttachOptions};
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};

use crate::daemon::TC_MODE;
use crate::netns::Netns;
use crate::privilege::kernel_has_tcx;

const OBJECT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bpf/weather");

/// Behind every filter that chose no priority for itself.
const LAST_PRIORITY: u16 = 60_000;

/// One segment in so many; 0: none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Forecast {
    /// Is lost.
    pub lose_one_in: u32,
    /// Comes twice.
    pub double_one_in: u32,
    /// Comes behind those that wait.
    pub delay_one_in: u32,
}

/// Where the weather is, seen from a capture on the same interface that is attached already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The capture sees what the receiver sees: holes, and what is sent again.
    BeforeCapture,
    /// The capture sees segments that the receiver never gets.
    AfterCapture,
}

/// Lasts until it is dropped; what clsact holds, until the namespace is gone.
pub struct Weather {
    ebpf: Ebpf,
}

impl std::fmt::Debug for Weather {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Weather").finish_non_exhaustive()
    }
}

impl Weather {
    /// Attaches it to the ingress of `eth0` in `netns`.
    ///
    /// # Errors
    /// When the classifier was not built, or cannot be attached.
    pub fn start(netns: &Netns, forecast: Forecast, side: Side) -> Result<Self> {
        let object = std::fs::read(OBJECT).context("no target/bpf/weather: run cargo xtask build-ebpf")?;
        let mut ebpf = Ebpf::load(&object)?;
        let mut map: Array<_, [u32; 3]> = ebpf.map_mut("FORECAST").context("no map")?.try_into()?;
        map.set(0, [forecast.lose_one_in, forecast.double_one_in, forecast.delay_one_in], 0)?;
        let program: &mut SchedClassifier = ebpf.program_mut("weather").context("no program")?.try_into()?;
        program.load()?;
        let is_clsact = std::env::var(TC_MODE).is_ok_and(|mode| mode == "clsact");
        // TCX programs run before all filters; of filters without a priority, the one that came last.
        let options = match side {
            Side::BeforeCapture if kernel_has_tcx() => TcAttachOptions::TcxOrder(LinkOrder::first()),
            Side::BeforeCapture => TcAttachOptions::Netlink(NlOptions::default()),
            Side::AfterCapture if !is_clsact && kernel_has_tcx() => {
                TcAttachOptions::TcxOrder(LinkOrder::last())
            }
            Side::AfterCapture => {
                TcAttachOptions::Netlink(NlOptions { priority: LAST_PRIORITY, ..NlOptions::default() })
            }
        };
        let stays = matches!(options, TcAttachOptions::Netlink(_));
        netns.run(|| -> Result<()> {
            let link = program.attach_with_options("eth0", TcAttachType::Ingress, options)?;
            if stays {
                // aya would detach in whatever namespace the dropping thread is.
                std::mem::forget(program.take_link(link)?);
            }
            Ok(())
        })??;
        Ok(Self { ebpf })
    }

    /// How many segments were lost, doubled, delayed.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn fallen(&self) -> Result<[u64; 3]> {
        let map: PerCpuArray<_, [u64; 3]> = self.ebpf.map("FALLEN").context("no map")?.try_into()?;
        let mut sum = [0; 3];
        for of_one_cpu in map.get(&0, 0)?.iter() {
            for (sum, count) in sum.iter_mut().zip(of_one_cpu) {
                *sum += count;
            }
        }
        ensure!(sum.iter().sum::<u64>() > 0, "the weather was fine: the test proves nothing");
        Ok(sum)
    }
}
