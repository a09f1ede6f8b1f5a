//! Configuration and process.

use super::super::{Family, Kind};

/// Configuration in force.
pub const CONFIG_LAST_RELOAD_OK: Family = Family {
    name: "mirror_config_last_reload_ok",
    kind: Kind::Gauge,
    labels: &[],
    help: "1 when the configuration as it is now is the one that runs, 0 when it was refused.",
    action: "Alert on 0: an older configuration still runs. `mirror-daemon check --config FILE` names every \
             fault; the log does too.",
};

/// Configuration generation.
pub const CONFIG_GENERATION: Family = Family {
    name: "mirror_config_generation",
    kind: Kind::Gauge,
    labels: &[],
    help: "1 for the configuration of the start, one more for each that was taken since.",
    action: "None. It tells whether a change has arrived.",
};

/// Configurations refused.
pub const CONFIG_RELOAD_FAILURES: Family = Family {
    name: "mirror_config_reload_failures_total",
    kind: Kind::Counter,
    labels: &[],
    help: "Configurations that were refused since the start.",
    action: "As for `mirror_config_last_reload_ok`.",
};

/// Rules of the cluster that were cut.
pub const CONFIG_RULES_CUT: Family = Family {
    name: "mirror_config_rules_cut",
    kind: Kind::Gauge,
    labels: &[],
    help: "1 while only a part of the cluster's rules runs: a change of them was refused, and what they no longer allow \
           was taken away all the same. Else 0.",
    action: "Alert on 1: copies are missing. The log says why the change was refused.",
};

/// Draining now.
pub const DRAINING: Family = Family {
    name: "mirror_draining",
    kind: Kind::Gauge,
    labels: &[],
    help: "1 from the first SIGTERM or SIGINT until the daemon ends, else 0.",
    action: "1 for longer than `drain_timeout`: a second SIGTERM ends it at once.",
};

/// Parsers that died.
pub const PARSER_RESTARTS: Family = Family {
    name: "mirror_parser_restarts_total",
    kind: Kind::Counter,
    labels: &[],
    help: "Times that the process which reads the network's bytes died and was started again. All other counters \
           begin anew with it.",
    action: "Alert on any increase: the log has its last words. Requests under way were not mirrored.",
};

/// Build.
pub const BUILD: Family = Family {
    name: "mirror_build_info",
    kind: Kind::Info,
    labels: &[("version", "of the daemon"), ("arch", "of the processor")],
    help: "Which build this is.",
    action: "None.",
};

/// Start of the process.
pub const PROCESS_START: Family = Family {
    name: "process_start_time_seconds",
    kind: Kind::Gauge,
    labels: &[],
    help: "When the daemon started, in seconds since 1970.",
    action: "`changes()` of it above 0: the daemon restarted; see its log from before.",
};

/// Processor time.
pub const PROCESS_CPU: Family = Family {
    name: "process_cpu_seconds_total",
    kind: Kind::Counter,
    labels: &[],
    help: "Processor time of the daemon, user and system; kernel programs count to who sent the packet.",
    action: "Compare its rate with the container's limit: a throttled daemon loses copies \
             (`mirror_kernel_losses_total`), production does not.",
};

/// Resident memory.
pub const PROCESS_RESIDENT: Family = Family {
    name: "process_resident_memory_bytes",
    kind: Kind::Gauge,
    labels: &[],
    help: "Resident memory of the daemon, mapped rings included.",
    action: "Near the container's limit: lower `ring_bytes`, `max_total_bytes` or `queue_bytes`.",
};

/// Resident memory without files.
pub const PROCESS_RESIDENT_ANON: Family = Family {
    name: "mirror_process_resident_anon_bytes",
    kind: Kind::Gauge,
    labels: &[],
    help: "The part of the resident memory that no file backs.",
    action: "None. It is what grows when something leaks.",
};

/// Peak of resident memory.
pub const PROCESS_RESIDENT_PEAK: Family = Family {
    name: "mirror_process_resident_peak_bytes",
    kind: Kind::Gauge,
    labels: &[],
    help: "Most resident memory since the start.",
    action: "None. Use it to size the container's limit.",
};

/// Threads.
pub const PROCESS_THREADS: Family = Family {
    name: "process_threads",
    kind: Kind::Gauge,
    labels: &[],
    help: "Threads of the daemon.",
    action: "None. Constant while it runs.",
};

/// Descriptors.
pub const PROCESS_FDS: Family = Family {
    name: "process_open_fds",
    kind: Kind::Gauge,
    labels: &[],
    help: "Open file descriptors of the daemon.",
    action: "Near `ulimit -n`: lower `max_connections` of the shadows, or raise the limit.",
};
