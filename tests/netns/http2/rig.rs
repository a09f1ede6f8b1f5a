//! What the HTTP/2 tests put around [`World`]: gateways that speak it, and configurations.

use std::net::SocketAddr;

use mirror_tests::envoy::{Envoy, EnvoyConfig};
use mirror_tests::h2tools::{OddClient, OddRequest, SCENES_FOR_NGINX};
use mirror_tests::netns::{Lab, Role};
use mirror_tests::nginx::{Nginx, NginxConfig};

use crate::faithful::rig::{GATEWAY_PORT, World};

/// The host that clients ask for.
pub(super) const HOST: &str = "shadowing.example";
/// Where gateways listen.
pub(super) const GATEWAY: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 77, 0, 2)), GATEWAY_PORT);
/// The connections of clients. The ring has room for all that a test sends while the daemon waits for a processor.
pub(super) const DOWNSTREAM: &str = "interfaces = [\"eth0\"]\nports = [8080]\nring_bytes = \"128MiB\"";
/// The connections that gateways open to production's HTTP and gRPC servers.
pub(super) const UPSTREAM: &str =
    "interfaces = [\"eth0\"]\nports = [8000, 8001]\nleg = \"upstream\"\nring_bytes = \"128MiB\"";
/// Where production's gRPC server listens, and the shadow's.
pub(super) const GRPC_PORT: u16 = 8001;
pub(super) const SHADOW_GRPC_PORT: u16 = 9001;

/// A gateway that clients speak HTTP/2 to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Nginx,
    Envoy,
}

/// A running one; stopped on Drop.
pub(super) enum Gateway {
    Nginx { _nginx: Nginx },
    Envoy { _envoy: Envoy },
}

impl Gateway {
    /// Listens over both families and speaks HTTP/2 to `upstream`, or HTTP/1.1.
    pub(super) fn start(lab: &Lab, kind: Kind, upstream: SocketAddr, http2_upstream: bool) -> Self {
        let listen = [GATEWAY, Role::Gateway.at_v6(GATEWAY_PORT)];
        match kind {
            Kind::Nginx => {
                let config = NginxConfig {
                    http2: true,
                    http2_upstream,
                    access_log: false,
                    ..NginxConfig::new(listen, upstream)
                };
                Self::Nginx { _nginx: Nginx::start(&lab.gateway, &config).unwrap() }
            }
            Kind::Envoy => {
                let config = EnvoyConfig { http2_upstream, ..EnvoyConfig::new(listen, upstream) };
                Self::Envoy { _envoy: Envoy::start(&lab.gateway, &config).unwrap() }
            }
        }
    }
}

impl Kind {
    /// The odd scenes that it lives through; none: all.
    pub(super) fn scenes(self) -> &'static [&'static str] {
        match self {
            Self::Nginx => SCENES_FOR_NGINX,
            Self::Envoy => &[],
        }
    }
}

/// Everything odd through a gateway, on one connection.
#[track_caller]
pub(super) fn send_odd(world: &World, to: SocketAddr, kind: Kind, first_id: u64) -> Vec<OddRequest> {
    let client = OddClient { to, authority: HOST, first_id, repeat: 1, scenes: kind.scenes() };
    client.run(&world.lab.client).unwrap()
}

/// A configuration that sends a copy of every captured request to `shadow`, which has these lines besides.
pub(super) fn to_shadow(shadow: SocketAddr, capture: &str, lines: &str) -> String {
    format!(
        "[capture]\n{capture}\n[[shadow]]\nname = \"v2\"\nurl = \"http://{shadow}\"\nqueue_bytes = \"64MiB\"\n\
         queue_items = 20000\nstream_window = \"16MiB\"\n{lines}\n[[route]]\n[[route.rule]]\n\
         mirror = [{{ shadow = \"v2\" }}]\n"
    )
}
