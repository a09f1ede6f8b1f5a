//! One run of one case: starts gateway and mirror anew, warms them up, measures, and stops them.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mirror_tests::bpf;
use mirror_tests::client::load::Load;
use mirror_tests::daemon::Daemon;
use mirror_tests::netns::Role;
use mirror_tests::nginx::{Nginx, NginxConfig};
use mirror_tests::wait;
use serde_json::{Value, json};

use crate::node::Look;
use crate::place::{GATEWAY_CPU, Place};

/// How long the gateway and the mirror are warmed up.
const WARM_UP_SECONDS: f64 = 0.5;

/// How long mirrored requests may still take after the last answer of production.
const SHADOW_LIMIT: Duration = Duration::from_secs(5);

/// The daemon's configuration, but for its admin address.
const CONFIG: &str = r#"[capture]
interfaces = ["eth0"]
leg   = "downstream"
ports = [8080]

[[shadow]]
name = "shadow"
url  = "http://10.77.0.4:8000"

[[route]]
hosts = ["shadowing.example"]
  [[route.rule]]
  match  = [{ path = { prefix = "/" } }]
  mirror = [{ shadow = "shadow", percentage = 100 }]
"#;

/// What mirrors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Case {
    /// Nothing.
    Without,
    /// Nothing, once more: what two equal cases differ by is noise.
    Again,
    /// This daemon.
    Daemon,
    /// nginx's own `mirror`.
    NginxMirror,
}

impl Case {
    pub(crate) const ALL: [Self; 4] = [Self::Without, Self::Again, Self::Daemon, Self::NginxMirror];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Without => "without",
            Self::Again => "again",
            Self::Daemon => "daemon",
            Self::NginxMirror => "nginx mirror",
        }
    }

    fn mirrors(self) -> bool {
        matches!(self, Self::Daemon | Self::NginxMirror)
    }
}

/// What the client sends, in open loop: a request is due when it is due.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Traffic {
    pub(crate) name: &'static str,
    pub(crate) rate: f64,
    pub(crate) body_bytes: usize,
}

impl Traffic {
    pub(crate) const ALL: [Self; 2] = [
        Self { name: "small GET", rate: 2000.0, body_bytes: 0 },
        Self { name: "64 KiB POST", rate: 400.0, body_bytes: 64 * 1024 },
    ];

    fn load(&self, first_id: u64, seconds: f64) -> Load {
        let requests = (self.rate * seconds) as u64;
        let to = Role::Gateway.at(8080);
        let (rate, body_bytes) = (Some(self.rate), self.body_bytes);
        Load { rate, body_bytes, first_id, ..Load::new(to, "shadowing.example", requests) }
    }
}

/// The figures of one run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    /// Requests measured.
    pub(crate) requests: u64,
    /// All of the gateway's CPU that was not idle, in microseconds a request.
    pub(crate) node_us: f64,
    /// The gateway's processes.
    pub(crate) gateway_us: f64,
    /// The mirror's process; 0 where the gateway mirrors.
    pub(crate) mirror_us: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    /// Requests that production did not answer well.
    pub(crate) failed: u64,
    /// Numbers that the shadow never saw.
    pub(crate) missing: u64,
    /// Numbers that it saw again.
    pub(crate) duplicates: u64,
    /// Connections that were opened to it, warm-up included.
    pub(crate) shadow_connections: u64,
    /// Memory of the daemon: its maps and its highest RssAnon.
    pub(crate) peak_bytes: u64,
    /// Share of the time in which others used the gateway's CPU.
    pub(crate) disturbed: f64,
}

impl Figures {
    /// The figures of a repetition from those of its slices, each of the same number of requests.
    pub(crate) fn of_slices(slices: &[Self]) -> Self {
        let mean = |figure: fn(&Self) -> f64| slices.iter().map(figure).sum::<f64>() / slices.len() as f64;
        let sum = |figure: fn(&Self) -> u64| slices.iter().map(figure).sum();
        // The median: one slice in which the machine stood still says nothing of the case.
        let median = |figure: fn(&Self) -> f64| {
            let mut values: Vec<f64> = slices.iter().map(figure).collect();
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
        };
        Self {
            requests: sum(|slice| slice.requests),
            node_us: mean(|slice| slice.node_us),
            gateway_us: mean(|slice| slice.gateway_us),
            mirror_us: mean(|slice| slice.mirror_us),
            p50_ms: median(|slice| slice.p50_ms),
            p99_ms: median(|slice| slice.p99_ms),
            failed: sum(|slice| slice.failed),
            missing: sum(|slice| slice.missing),
            duplicates: sum(|slice| slice.duplicates),
            shadow_connections: sum(|slice| slice.shadow_connections),
            peak_bytes: slices.iter().map(|slice| slice.peak_bytes).max().unwrap_or(0),
            disturbed: mean(|slice| slice.disturbed),
        }
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({
            "requests": self.requests,
            "node_us": self.node_us,
            "gateway_us": self.gateway_us,
            "mirror_us": self.mirror_us,
            "p50_ms": self.p50_ms,
            "p99_ms": self.p99_ms,
            "failed": self.failed,
            "missing": self.missing,
            "duplicates": self.duplicates,
            "shadow_connections": self.shadow_connections,
            "peak_bytes": self.peak_bytes,
            "disturbed": self.disturbed,
        })
    }
}

/// Runs `case` for `seconds` and measures it.
pub(crate) fn measure(place: &Place, case: Case, traffic: Traffic, seconds: f64) -> Result<Figures> {
    place.clear();
    let accepted = place.shadow.accepted();
    let _gateway = start_gateway(place, case)?;
    let daemon = start_daemon(place, case)?;
    let warm_up = traffic.load(0, WARM_UP_SECONDS);
    warm_up.run(&place.lab.client)?;
    let load = traffic.load(warm_up.requests, seconds);
    let before = Look::take(&place.gateway_cgroup, &place.mirror_cgroup)?;
    let report = load.run(&place.lab.client)?;
    let total = warm_up.requests + load.requests;
    if case.mirrors() {
        let came = || place.shadow.log().summary().requests >= total;
        // What does not come is a figure, not a failure.
        drop(wait::until_true("the shadow has seen everything", SHADOW_LIMIT, came));
    }
    let used = Look::take(&place.gateway_cgroup, &place.mirror_cgroup)?.since(&before);
    let a_request = |time: Duration| time.as_secs_f64() * 1e6 / load.requests as f64;
    let mut figures = Figures {
        requests: load.requests,
        node_us: a_request(used.busy),
        gateway_us: a_request(used.gateway),
        mirror_us: a_request(used.mirror),
        p50_ms: report.percentile_ms(0.50),
        p99_ms: report.percentile_ms(0.99),
        failed: load.requests - report.good,
        disturbed: used.disturbed,
        ..Figures::default()
    };
    if case.mirrors() {
        figures.missing = place.shadow.log().missing(total).len() as u64;
        figures.duplicates = place.shadow.log().summary().duplicates;
        figures.shadow_connections = place.shadow.accepted() - accepted;
    }
    if let Some(daemon) = &daemon {
        if figures.missing > 0 {
            eprintln!("\n{} are missing; the daemon's ledger says: {}", figures.missing, daemon.ledger()?);
        }
        figures.peak_bytes = bpf::map_bytes(daemon.pid())? + daemon.peak_rss_anon_bytes();
    }
    Ok(figures)
}

/// What one kernel program costs.
#[derive(Clone, Debug)]
pub(crate) struct ProgramCost {
    pub(crate) name: String,
    pub(crate) ns_a_run: f64,
    pub(crate) runs_a_request: f64,
}

impl ProgramCost {
    pub(crate) fn to_json(&self) -> Value {
        json!({ "name": self.name, "ns_a_run": self.ns_a_run, "runs_a_request": self.runs_a_request })
    }
}

/// Runs the daemon with the kernel's statistics on, which themselves cost: apart from the measurement.
pub(crate) fn measure_programs(place: &Place, traffic: Traffic, seconds: f64) -> Result<Vec<ProgramCost>> {
    place.clear();
    let _gateway = start_gateway(place, Case::Daemon)?;
    let daemon = start_daemon(place, Case::Daemon)?.context("no daemon")?;
    traffic.load(0, WARM_UP_SECONDS).run(&place.lab.client)?;
    let held = daemon.held_objects()?;
    ensure!(!held.programs.is_empty(), "the daemon holds no kernel program");
    // On until dropped, for all programs of the machine.
    let statistics = aya::sys::enable_stats(aya::sys::Stats::RunTime)?;
    let load = traffic.load(0, seconds);
    load.run(&place.lab.client)?;
    drop(statistics);
    let cost = |runs: bpf::ProgramRuns| ProgramCost {
        ns_a_run: runs.time.as_secs_f64() * 1e9 / runs.runs as f64,
        runs_a_request: runs.runs as f64 / load.requests as f64,
        name: runs.name,
    };
    let all = bpf::runs_of(&held.programs)?;
    Ok(all.into_iter().filter(|runs| runs.runs > 0).map(cost).collect())
}

fn start_gateway(place: &Place, case: Case) -> Result<Nginx> {
    let mirror = (case == Case::NginxMirror).then(|| Role::Shadow.at(8000));
    let config = NginxConfig {
        access_log: false,
        mirror,
        // Bodies stay in memory: by default, nginx would write these to a file, and the disk be measured.
        extra: "client_body_buffer_size 128k;".to_owned(),
        ..NginxConfig::new([Role::Gateway.at(8080)], Role::Production.at(8000))
    };
    Nginx::start_with(&place.lab.gateway, &config, |launch| {
        launch.in_cgroup(&place.gateway_cgroup).on_cpu(GATEWAY_CPU)
    })
}

fn start_daemon(place: &Place, case: Case) -> Result<Option<Daemon>> {
    if case != Case::Daemon {
        return Ok(None);
    }
    let daemon = Daemon::start_with(&place.lab.gateway, CONFIG, |launch| {
        launch.in_cgroup(&place.mirror_cgroup).on_cpu(GATEWAY_CPU)
    })?;
    Ok(Some(daemon))
}
