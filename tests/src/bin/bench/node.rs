//! Who used the gateway's CPU: what was not idle, what the gateway and the mirror used, what others did.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use mirror_tests::cgroup::Cgroup;

use crate::place::GATEWAY_CPU;

/// Length of a tick in /proc/stat: `USER_HZ` is 100 on every architecture of today.
const TICK: Duration = Duration::from_millis(10);

/// One look at the counters.
pub(crate) struct Look {
    at: Instant,
    /// Idle and waiting for I/O.
    idle: Duration,
    /// Taken by the hypervisor.
    steal: Duration,
    gateway: Duration,
    mirror: Duration,
    /// Each task that is neither ours nor the kernel's.
    foreign: BTreeMap<String, Task>,
}

/// One thread of somebody else.
struct Task {
    used: Duration,
    /// The CPU that it ran on last.
    cpu: u32,
}

/// What happened between two looks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Used {
    /// All of the gateway's CPU that was not idle: programs, system calls, soft interrupts.
    pub(crate) busy: Duration,
    /// The gateway's processes.
    pub(crate) gateway: Duration,
    /// The mirror's process, if there is one.
    pub(crate) mirror: Duration,
    /// Share of the time in which others used the gateway's CPU, or the hypervisor took it: 0 to 1.
    pub(crate) disturbed: f64,
}

impl Look {
    pub(crate) fn take(gateway: &Cgroup, mirror: &Cgroup) -> Result<Self> {
        let foreign = foreign_tasks(&[gateway, mirror])?;
        let (idle, steal) = idle_and_steal()?;
        let used = |group: &Cgroup| group.stat("cpu.stat", "usage_usec").map(Duration::from_micros);
        Ok(Self { at: Instant::now(), idle, steal, gateway: used(gateway)?, mirror: used(mirror)?, foreign })
    }

    /// What happened since `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Used {
        let passed = self.at - earlier.at;
        let steal = self.steal.saturating_sub(earlier.steal);
        let on_cpu = self.foreign.iter().filter(|(_, task)| task.cpu == GATEWAY_CPU);
        // What has moved about cannot be told apart by CPU: all of it counts.
        let grown = on_cpu.map(|(name, task)| {
            let before = earlier.foreign.get(name).map_or(Duration::ZERO, |task| task.used);
            task.used.saturating_sub(before)
        });
        let foreign: Duration = grown.sum();
        Used {
            busy: passed.saturating_sub(self.idle.saturating_sub(earlier.idle)).saturating_sub(steal),
            gateway: self.gateway.saturating_sub(earlier.gateway),
            mirror: self.mirror.saturating_sub(earlier.mirror),
            disturbed: (foreign + steal).as_secs_f64() / passed.as_secs_f64(),
        }
    }
}

fn idle_and_steal() -> Result<(Duration, Duration)> {
    let text = std::fs::read_to_string("/proc/stat")?;
    let name = format!("cpu{GATEWAY_CPU} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&name)).context("no such CPU")?;
    let ticks: Vec<u32> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal
    let &[_, _, _, idle, iowait, _, _, steal, ..] = ticks.as_slice() else {
        anyhow::bail!("/proc/stat is not understood: {line}");
    };
    Ok((TICK * (idle + iowait), TICK * steal))
}

/// Tasks by a key that no later task has: id and start.
fn foreign_tasks(ours: &[&Cgroup]) -> Result<BTreeMap<String, Task>> {
    let mut own = vec![std::process::id().to_string()];
    for group in ours {
        let listed = std::fs::read_to_string(group.path().join("cgroup.procs")).unwrap_or_default();
        own.extend(listed.lines().map(str::to_owned));
    }
    let mut tasks = BTreeMap::new();
    for process in std::fs::read_dir("/proc")? {
        let process = process?;
        let name = process.file_name().to_string_lossy().into_owned();
        if !name.starts_with(|c: char| c.is_ascii_digit()) || own.contains(&name) {
            continue;
        }
        // Kernel threads have no memory of their own; what they do is work for us or small.
        if !std::fs::read_to_string(process.path().join("maps")).is_ok_and(|maps| !maps.is_empty()) {
            continue;
        }
        let Ok(threads) = std::fs::read_dir(process.path().join("task")) else { continue };
        for thread in threads.flatten() {
            tasks.extend(look_at(&thread.path()));
        }
    }
    Ok(tasks)
}

fn look_at(task: &Path) -> Option<(String, Task)> {
    let stat = std::fs::read_to_string(task.join("stat")).ok()?;
    // The name, in parentheses, may hold anything; fields are counted from behind it (state is the third).
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let (start, cpu) = (fields.get(19)?, fields.get(36)?.parse().ok()?);
    let used = std::fs::read_to_string(task.join("schedstat")).ok()?;
    let used = Duration::from_nanos(used.split(' ').next()?.parse().ok()?);
    Some((format!("{}@{start}", task.display()), Task { used, cpu }))
}
