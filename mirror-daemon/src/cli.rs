//! The command line: definitions only. `app` does what they say.
//!
//! Exit codes: [`EXIT_OK`], [`EXIT_FAILURE`], [`EXIT_USAGE`].

mod check;
mod explain;

pub use check::{CheckArgs, SourceArgs};
pub use explain::{ExplainArgs, HeaderArg};

use crate::config::Leg;
use crate::telemetry::logging::LogFormat;
use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// It did what was asked.
pub const EXIT_OK: u8 = 0;
/// It failed while running.
pub const EXIT_FAILURE: u8 = 1;
/// The command line or the configuration is wrong, or this machine can't do it; nothing was attached.
pub const EXIT_USAGE: u8 = 2;

const MAIN_HELP: &str = "\
First steps:
  See what a gateway on port 8080 gets; nothing is sent anywhere:
    mirror-daemon tap --interface eth0 --ports 8080

  The rules of Kubernetes manifests as a configuration:
    mirror-daemon import manifests/ > mirror.toml

  Write a configuration, check it, ask it about a request, run it:
    mirror-daemon check --config mirror.toml
    mirror-daemon explain --config mirror.toml --method GET --url http://shop.example/cart
    mirror-daemon run --config mirror.toml

Exit codes:
  0  it did what was asked
  1  it failed while running
  2  the command line or the configuration is wrong, or this machine can't do it; nothing was attached
";

const RUN_HELP: &str = "\
Examples:
  Mirror until SIGTERM or Ctrl-C; SIGHUP, or a change of the file, loads it again:
    mirror-daemon run --config /etc/mirror/mirror.toml

  Send the requests in a capture file to the configured shadows, then end:
    mirror-daemon run --config mirror.toml --pcap traffic.pcap

  With the rules of the Kubernetes manifests below a directory, loaded again when they change:
    mirror-daemon run --config capture.toml --manifests manifests/

  Only count what is in a capture file:
    mirror-daemon run --pcap traffic.pcap --ports 8080

While it runs:
    curl http://127.0.0.1:9900/ledger     where every request went (the address is admin.listen)
    kill -TERM PID                        finish what was taken in, then end; again, a second later: end at once

Exit codes:
  0  it ended because it was told to, or the capture file was read to its end
  1  it failed while running
  2  the command line or the configuration is wrong, or this machine can't do it; nothing was attached
";

const DOCTOR_HELP: &str = "\
It loads the kernel programs' maps for a moment and attaches nothing. Where an API server is known, it is asked
what the daemon may do there.

Examples:
  On a node:
    mirror-daemon doctor

  In the daemon's own container, with its capabilities and its ServiceAccount:
    kubectl exec -n mirror-system mirror-daemon-x7k2p -- /mirror-daemon doctor

  In a script:
    mirror-daemon doctor --json

Exit codes:
  0  mirroring would work, perhaps not in every mode
  2  something stands in the way; it is marked BAD
";

const IMPORT_HELP: &str = "\
Examples:
  HTTPRoutes with RequestMirror, and K8sGateway's RouteOptions, as TOML; findings go to standard error:
    mirror-daemon import manifests/ > rules.toml

  With the [kubernetes] settings of a configuration file (route_selector, gateways, ...), to be added to it:
    mirror-daemon import manifests/ --config mirror.toml > rules.toml

Exit codes:
  0  there are rules; what could not be used is on standard error
  1  it failed while running
  2  the manifests make no mirror, or can't be read, or the command line or the configuration is wrong. Where single files
     are no manifests, the rules of the others are printed all the same
";

const TAP_HELP: &str = "\
Examples:
  Requests that reach a gateway on this host:
    mirror-daemon tap --interface eth0 --ports 8080,8081

  The first ten, inside the network namespace of a pod, with headers:
    mirror-daemon tap --netns /proc/4711/ns/net --interface eth0 --ports 8080 --headers --count 10

  Those of one cgroup, on the connections that the gateway opens to its backends on port 3000:
    mirror-daemon tap --cgroup /sys/fs/cgroup/system.slice/nginx.service --ports 3000 --leg upstream

  gRPC calls as they start, and their messages when they end:
    mirror-daemon tap --interface eth0 --ports 50051 --live

  Errors in a capture file, by jq:
    mirror-daemon tap --pcap traffic.pcap --ports 8080 --json | jq 'select(.outcome == \"dropped\")'

Nothing is sent anywhere. Bytes of the network are escaped: they can't reach the terminal as control codes.
Exit codes:
  0  --count was reached, the file was read to its end, or Ctrl-C
  1  it failed while running
  2  the command line is wrong, or this machine can't do it; nothing was attached
";

/// Mirrors an ingress gateway's live HTTP traffic to shadow services, from outside the gateway.
///
/// Production never waits for it and never sees it: eBPF programs copy what the gateway receives, and this daemon
/// replays the copies to the shadows.
#[derive(Clone, Debug, Parser)]
#[command(name = "mirror-daemon", version, after_help = MAIN_HELP)]
pub struct Cli {
    /// What to log: error, warn, info, debug, trace, off, or a list such as info,mirror_daemon::capture=debug
    /// [default: $MIRROR_LOG, else info]
    #[arg(long, global = true, value_name = "FILTER")]
    pub log: Option<String>,
    /// How log lines on standard error look
    #[arg(long, global = true, value_name = "FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Mirror as a configuration says
    Run(RunArgs),
    /// Check a configuration, and name all of its faults
    Check(CheckArgs),
    /// Say which rule and mirrors a request would meet
    Explain(ExplainArgs),
    /// Print the rules of Kubernetes manifests as a configuration
    Import(ImportArgs),
    /// Print the requests seen, and send nothing
    Tap(TapArgs),
    /// Say what would work on this node, and what to change
    Doctor(DoctorArgs),
}

/// `run`
#[derive(Clone, Debug, Args)]
#[command(after_help = RUN_HELP)]
pub struct RunArgs {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE", required_unless_present_any = ["pcap", "manifests"])]
    pub config: Option<PathBuf>,
    /// Add the rules of the Kubernetes manifests (*.yaml, *.yml, *.json) below this directory
    #[arg(long, value_name = "DIR")]
    pub manifests: Option<PathBuf>,
    /// How the cluster's API server is reached; otherwise by $KUBECONFIG, or in a pod by its service account
    #[arg(long, value_name = "FILE", conflicts_with = "pcap")]
    pub kubeconfig: Option<PathBuf>,
    /// The node that this is, for capture.kubernetes [default: $NODE_NAME]
    #[arg(long, value_name = "NAME", conflicts_with = "pcap")]
    pub node_name: Option<String>,
    /// Read this capture file (pcap or pcapng) instead of capturing, then end
    #[arg(long, value_name = "FILE")]
    pub pcap: Option<PathBuf>,
    /// TCP ports of the gateway in the capture file, instead of capture.ports
    #[arg(long, value_name = "PORT,...", value_delimiter = ',', requires = "pcap", value_parser = port())]
    pub ports: Vec<u16>,
}

/// `doctor`
#[derive(Clone, Debug, Args)]
#[command(after_help = DOCTOR_HELP)]
pub struct DoctorArgs {
    /// How the cluster's API server is reached; otherwise by $KUBECONFIG, or in a pod by its service account
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The node that this is [default: $NODE_NAME]
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
    /// Write the findings as JSON
    #[arg(long)]
    pub json: bool,
}

/// `import`
#[derive(Clone, Debug, Args)]
#[command(after_help = IMPORT_HELP)]
pub struct ImportArgs {
    /// Directory with Kubernetes manifests: *.yaml, *.yml and *.json below it
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// Configuration file (TOML) whose `[kubernetes]` settings are used
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// `tap`
#[derive(Clone, Debug, Args)]
#[command(
    after_help = TAP_HELP,
    group(ArgGroup::new("source").required(true).multiple(true).args(["interfaces", "cgroups", "pcap"])),
)]
pub struct TapArgs {
    /// Capture on this interface; may be given several times
    #[arg(long = "interface", value_name = "IF")]
    pub interfaces: Vec<String>,
    /// Capture on this cgroup v2 directory; may be given several times
    #[arg(long = "cgroup", value_name = "PATH")]
    pub cgroups: Vec<PathBuf>,
    /// The interfaces are in this network namespace: a name as in `ip netns`, or a path such as /proc/PID/ns/net
    #[arg(long, value_name = "NAME|PATH", requires = "interfaces", value_parser = network_namespace)]
    pub netns: Option<PathBuf>,
    /// Read this capture file (pcap or pcapng) instead of capturing
    #[arg(long, value_name = "FILE", conflicts_with_all = ["interfaces", "cgroups", "netns"])]
    pub pcap: Option<PathBuf>,
    /// TCP ports: the gateway's own on the downstream leg, the other end's on the upstream leg
    #[arg(long, value_name = "PORT,...", value_delimiter = ',', required = true, value_parser = port())]
    pub ports: Vec<u16>,
    /// Which connections: those the gateway accepts, or those it opens
    #[arg(long, value_enum, default_value_t)]
    pub leg: LegArg,
    /// Write one JSON object a line
    #[arg(long)]
    pub json: bool,
    /// End after so many requests
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Show header fields too (they may hold secrets)
    #[arg(long)]
    pub headers: bool,
    /// Show each request when it starts, too, for streams may last for hours; with its number in its connection
    #[arg(long)]
    pub live: bool,
}

/// [`Leg`] on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, ValueEnum)]
pub enum LegArg {
    /// Connections that the gateway accepts
    #[default]
    Downstream,
    /// Connections that the gateway opens
    Upstream,
}

impl From<LegArg> for Leg {
    fn from(leg: LegArg) -> Self {
        match leg {
            LegArg::Downstream => Self::Downstream,
            LegArg::Upstream => Self::Upstream,
        }
    }
}

fn port() -> clap::builder::RangedI64ValueParser<u16> {
    clap::value_parser!(u16).range(1..)
}

/// A path, or a name as in `ip netns`, as in a configuration.
fn network_namespace(text: &str) -> Result<PathBuf, String> {
    match text {
        "" | "." | ".." => Err("write a name as in `ip netns`, or a path".to_owned()),
        name if !name.contains('/') => Ok(PathBuf::from("/run/netns").join(name)),
        path => Ok(PathBuf::from(path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_of_every_command_has_examples_that_parse_and_all_exit_codes() {
        let mut examples = 0;
        let mut all = Cli::command();
        let commands: Vec<_> = all.get_subcommands().map(|command| command.get_name().to_owned()).collect();
        assert_eq!(commands, ["run", "check", "explain", "import", "tap", "doctor"]);
        let mut pages = vec![all.render_long_help().to_string()];
        for name in &commands {
            pages.push(all.find_subcommand_mut(name).unwrap().render_long_help().to_string());
        }
        for page in &pages {
            assert!(page.contains("xit codes:\n  0  "), "{page}");
            let joined = page.replace("\\\n", " ");
            let lines: Vec<_> = joined
                .lines()
                .map(str::trim)
                .filter(|line| {
                    commands.iter().any(|name| line.starts_with(&format!("mirror-daemon {name} ")))
                })
                .collect();
            assert!(!lines.is_empty(), "{page}");
            for line in lines {
                let shell = line.split(['|', '>']).next().unwrap();
                let words = shell.split('\'').enumerate().flat_map(|(index, part)| match index % 2 {
                    0 => part.split_whitespace().collect(),
                    _ => vec![part],
                });
                Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
                examples += 1;
            }
        }
        assert!(examples >= 12, "{examples}");
    }

    #[test]
    fn usage_faults_exit_with_the_documented_code() {
        for line in [
            "mirror-daemon",
            "mirror-daemon run",
            "mirror-daemon run --config a --ports 80",
            "mirror-daemon tap --ports 80",
            "mirror-daemon tap --interface eth0",
            "mirror-daemon tap --interface eth0 --ports 0",
            "mirror-daemon tap --interface eth0 --ports 65536",
            "mirror-daemon tap --interface eth0 --ports 80 --count 0",
            "mirror-daemon tap --interface eth0 --pcap f --ports 80",
            "mirror-daemon tap --cgroup /c --netns /n --ports 80",
            "mirror-daemon tap --interface eth0 --ports 80 --leg sideways",
            "mirror-daemon explain --config a --url http://b/ -H nonsense",
            "mirror-daemon explain --config a --url http://b/ --method G(T",
            "mirror-daemon check",
        ] {
            let error = parse(line).expect_err(line);
            assert_eq!(error.exit_code(), i32::from(EXIT_USAGE), "{line}");
        }
        assert_eq!(parse("mirror-daemon --help").unwrap_err().exit_code(), i32::from(EXIT_OK));
        assert_eq!(parse("mirror-daemon --version").unwrap_err().kind(), ErrorKind::DisplayVersion);
    }

    #[test]
    fn tap_takes_several_points_and_ports() {
        let cli =
            parse("mirror-daemon tap --interface a --interface b --ports 80,81 --leg upstream --log debug");
        let cli = cli.unwrap();
        assert_eq!(cli.log.as_deref(), Some("debug"), "global options may follow the command");
        let Command::Tap(tap) = cli.command else { panic!("{:?}", cli.command) };
        assert_eq!((tap.interfaces.len(), tap.ports.as_slice()), (2, [80, 81].as_slice()));
        assert_eq!(Leg::from(tap.leg), Leg::Upstream);
    }

    #[test]
    fn tap_takes_a_namespace_by_name_or_path_and_names_every_source_when_none_is_given() {
        for (given, path) in [("gw", "/run/netns/gw"), ("/proc/1/ns/net", "/proc/1/ns/net")] {
            let cli = parse(&format!("mirror-daemon tap --netns {given} --interface a --ports 80")).unwrap();
            let Command::Tap(tap) = cli.command else { panic!("{:?}", cli.command) };
            assert_eq!(tap.netns, Some(PathBuf::from(path)));
        }
        let error = parse("mirror-daemon tap --ports 80").unwrap_err().to_string();
        assert!(["--interface", "--cgroup", "--pcap"].iter().all(|option| error.contains(option)), "{error}");
    }
}
