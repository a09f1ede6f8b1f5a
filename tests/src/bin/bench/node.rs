//! Who used the gateway's CPU: what was not idle, what the gateway and the mirror used, what others did.
//!
//! Idle time is read from `/proc/timer_list`, in nanoseconds, for `/proc/stat` has it in ticks of 10 ms, a few percent
//! of what mirroring costs in a run of seconds. (The times of `cpuidle` would not do: they hold the interrupts that
//! end an idle phase, and with them the kernel programs.) The processes' time is that of their cgroups' `usage_usec`,
//! which is exact; what soft interrupts do while a process runs counts as that process's.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use mirror_tests::cgroup::Cgroup;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::place::GATEWAY_CPU;

/// Length of a tick in /proc/stat: `USER_HZ` is 100 on every architecture of today.
const TICK: Duration = Duration::from_millis(10);

/// One look at the counters.
pub(crate) struct Look {
    clock: Clock,
    /// Taken by the hypervisor.
    steal: Duration,
    gateway: Duration,
    mirror: Duration,
    /// Each task that is neither ours nor the kernel's.
    foreign: BTreeMap<String, Task>,
}

/// The gateway's CPU at one moment.
struct Clock {
    /// From whatever moment on.
    at: Duration,
    /// Idle and waiting for I/O.
    idle: Duration,
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
        let (_, steal) = idle_and_steal()?;
        let used = |group: &Cgroup| group.stat("cpu.stat", "usage_usec").map(Duration::from_micros);
        Ok(Self { clock: Clock::read()?, steal, gateway: used(gateway)?, mirror: used(mirror)?, foreign })
    }

    /// What happened since `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Used {
        let passed = self.clock.at.saturating_sub(earlier.clock.at);
        let steal = self.steal.saturating_sub(earlier.steal);
        let on_cpu = self.foreign.iter().filter(|(_, task)| task.cpu == GATEWAY_CPU);
        // What has moved about cannot be told apart by CPU: all of it counts.
        let grown = on_cpu.map(|(name, task)| {
            let before = earlier.foreign.get(name).map_or(Duration::ZERO, |task| task.used);
            task.used.saturating_sub(before)
        });
        let foreign: Duration = grown.sum();
        Used {
            busy: passed
                .saturating_sub(self.clock.idle.saturating_sub(earlier.clock.idle))
                .saturating_sub(steal),
            gateway: self.gateway.saturating_sub(earlier.gateway),
            mirror: self.mirror.saturating_sub(earlier.mirror),
            disturbed: (foreign + steal).as_secs_f64() / passed.as_secs_f64(),
        }
    }
}

impl Clock {
    /// On the gateway's CPU itself: what it has been idle is added up when it stops being so.
    fn read() -> Result<Self> {
        let before = sched_getaffinity(None)?;
        let mut gateway = CpuSet::new();
        gateway.set(GATEWAY_CPU as usize);
        sched_setaffinity(None, &gateway)?;
        let text = std::fs::read_to_string("/proc/timer_list");
        sched_setaffinity(None, &before)?;
        match text.ok().as_deref().and_then(Self::from_timer_list) {
            Some(clock) => Ok(clock),
            // A kernel without that file, or without high-resolution timers: in ticks.
            None => Ok(Self { at: BEGUN.elapsed(), idle: idle_and_steal()?.0 }),
        }
    }

    /// From "now at N nsecs" and the gateway's CPU's `.idle_sleeptime` and `.iowait_sleeptime`.
    fn from_timer_list(text: &str) -> Option<Self> {
        let at = text.lines().find_map(|line| nanoseconds(line.strip_prefix("now at ")?))?;
        let name = format!("cpu: {GATEWAY_CPU}");
        let of_cpu = || text.lines().skip_while(|line| *line != name).skip(1);
        let sum = |key: &str| {
            let mut lines = of_cpu().take_while(|line| !line.starts_with("cpu: "));
            lines.find_map(|line| nanoseconds(line.trim().strip_prefix(key)?.trim_start_matches([' ', ':'])))
        };
        Some(Self { at, idle: sum(".idle_sleeptime")? + sum(".iowait_sleeptime")? })
    }
}

/// What /proc/stat's ticks are measured against.
static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// `N nsecs`.
fn nanoseconds(text: &str) -> Option<Duration> {
    Some(Duration::from_nanos(text.strip_suffix(" nsecs")?.trim().parse().ok()?))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_is_read_to_the_nanosecond_and_of_the_right_cpu() {
        let text = "Timer List Version: v0.10\nnow at 15073614421828 nsecs\n\ncpu: 0\n clock 0:\n  \
            .idle_sleeptime : 5773365306371 nsecs\n  .iowait_sleeptime: 32633146386 nsecs\ncpu: 1\n  \
            .idle_sleeptime : 1 nsecs\n  .iowait_sleeptime: 2 nsecs\n";
        let clock = Clock::from_timer_list(text).unwrap();
        assert_eq!(clock.at, Duration::from_nanos(15_073_614_421_828));
        assert_eq!(clock.idle, Duration::from_nanos(5_773_365_306_371 + 32_633_146_386));
        assert!(Clock::from_timer_list("now at 1 nsecs\n").is_none());
    }
}
