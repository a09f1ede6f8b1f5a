//! The tests in a real Kubernetes: image and cluster made, tests run, cluster taken down.

use std::fmt;
use std::time::Instant;

use anyhow::Result;

use super::{Options, cargo_test};
use crate::cluster::{self, Layout, NAME};
use crate::setup::{self, Need};
use crate::{image, interrupt, run};

/// The variable that lists the gateways to test with.
const GATEWAYS: &str = "MIRROR_CLUSTER_GATEWAYS";

/// The variable that says that this is a long run.
const LONG: &str = "MIRROR_CLUSTER_LONG";

/// The nodes that the tests are about.
const NODES: u32 = 2;

/// A gateway to test with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum GatewayKind {
    /// Debian's nginx.
    Nginx,
    /// Envoy from PyPI.
    Envoy,
    /// Envoy Gateway from its own chart: takes minutes more to build.
    EnvoyGateway,
}

impl GatewayKind {
    /// Without a choice; the other is for the long run.
    const USUAL: [Self; 2] = [Self::Nginx, Self::Envoy];

    /// The images that it needs.
    fn images(self) -> &'static [&'static str] {
        match self {
            // The shadow's log is written by an nginx, whatever the gateway.
            Self::Nginx => &["nginx"],
            Self::Envoy => &["nginx", "envoy"],
            Self::EnvoyGateway => &["nginx", "envoy", "envoy-gateway"],
        }
    }
}

impl fmt::Display for GatewayKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nginx => "nginx",
            Self::Envoy => "envoy",
            Self::EnvoyGateway => "envoy-gateway",
        })
    }
}

/// Makes everything, runs the tests, and takes the cluster down, whatever came of them.
///
/// # Errors
/// When a test fails, or something before or after them.
pub(crate) fn in_cluster(options: &Options) -> Result<()> {
    interrupt::note_signals()?;
    let usual = GatewayKind::USUAL.to_vec();
    let gateways = if options.gateway.is_empty() { &usual } else { &options.gateway };
    let layout = Layout::of_environment()?;
    setup::setup(&[Need::Kernel, Need::Peers, Need::AllH2Peers])?;
    cluster::prepare(gateways.contains(&GatewayKind::EnvoyGateway))?;
    let archive = image::from_files(options.dev_image)?;
    // Before the cluster is up, which would only be in the way.
    run::build_test("cluster")?;
    let begun = Instant::now();
    let done = cluster::with_cluster(&layout, NODES, options.keep, || {
        let mut names: Vec<&str> = gateways.iter().flat_map(|gateway| gateway.images()).copied().collect();
        names.sort_unstable();
        names.dedup();
        cluster::load(&layout, &names, &[&archive])?;
        if gateways.contains(&GatewayKind::EnvoyGateway) {
            cluster::install_envoy_gateway(&layout)?;
        }
        println!("tests in the cluster");
        let listed = gateways.iter().map(GatewayKind::to_string).collect::<Vec<_>>().join(",");
        let mut tests = cargo_test(options);
        tests.args(["--test", "cluster"]);
        tests.env(GATEWAYS, listed).env(NAME, layout.name()).env_remove(super::NO_CLUSTER);
        if options.long {
            tests.env(LONG, "1");
        }
        interrupt::run(&mut tests)
    });
    println!("cluster and tests in it: {:.1} s", begun.elapsed().as_secs_f64());
    done
}
