//! From the TOML as written to [`Config`]: every key, its default, its range and its faults.

mod capture;
mod kubernetes;
mod names;
mod pods;
mod rewrite;
mod route;
mod sample;
mod shadow;

pub(crate) use names::is_token;
pub(crate) use rewrite::is_host_literal;
pub(crate) use shadow::MAX_SHADOWS;

use super::fault::ConfigFaults;
use super::read::{Document, Node, Section};
use super::types::DEFAULT_LOOP_MARK;
use super::types::{AdminConfig, CaptureConfig, Config, KubernetesConfig};
use crate::rule::{DEFAULT_REQUEST_ID, DEFAULT_SEED, MAX_GATEWAYS, Rules, Sampling};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

const DEFAULT_DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// A tenth of the share that a process with the usual 0 gets where they compete.
const DEFAULT_NICE: u64 = 10;
const DEFAULT_ADMIN_PORT: u16 = 9900;
/// Most proxies in a row that anyone trusts.
const MAX_TRUSTED_PROXIES: u64 = 32;

impl Config {
    /// Reads a configuration. `source_name` is what its faults call it, e.g. the file's name.
    ///
    /// # Errors
    /// All faults at once; where the text is no TOML at all, only that.
    pub fn from_toml(text: &str, source_name: &str) -> Result<Self, ConfigFaults> {
        let document = Document::new(text);
        let table = document.parse();
        if document.has_faults() {
            return Err(document.into_faults(source_name));
        }
        let config = root(document.root(table.get_ref()));
        match config {
            Some(config) if !document.has_faults() => Ok(config),
            _ => Err(document.into_faults(source_name)),
        }
    }
}

/// Reads every section, whatever was wrong in the ones before. `None` only after a fault was noted.
fn root(section: Section<'_>) -> Option<Config> {
    let loop_mark = section.or("loop_mark", DEFAULT_LOOP_MARK.to_owned(), names::own_header);
    let trusted_proxies = section.or("trusted_proxies", 0, |node| node.integer(0..=MAX_TRUSTED_PROXIES));
    let drain = Duration::ZERO..=Duration::from_secs(600);
    let drain_timeout = section.or("drain_timeout", DEFAULT_DRAIN_TIMEOUT, |node| node.duration(drain));
    let nice = section.or("nice", DEFAULT_NICE, |node| node.integer(0..=19));
    let text = |node: Node<'_>| node.text().map(str::to_owned);
    let seed = section.or("seed", DEFAULT_SEED.to_owned(), text);
    let request_id = section.or("request_id", DEFAULT_REQUEST_ID.to_owned(), names::header);
    let kubernetes = kubernetes::kubernetes(section.section("kubernetes"));
    let captured = capture::capture(section.section("capture"));
    let admin = admin(section.section("admin"));
    let shadow_sections = section.sections("shadow");
    let shadow_names = shadow::names(&shadow_sections);
    let shadows: Vec<_> =
        shadow_sections.into_iter().filter_map(|one| shadow::shadow(one, &loop_mark)).map(Arc::new).collect();
    let gateways = gateway_names(captured.as_ref().map(|(capture, _)| capture), &kubernetes);
    if gateways.len() > MAX_GATEWAYS {
        section.fault(format!("names {} gateways in all; allowed are {MAX_GATEWAYS}", gateways.len()));
    }
    let names = route::Names { shadows: shadow_names, gateways };
    let routes = section.sections("route").into_iter().map(|one| route::route(one, &names)).collect();
    section.close();
    let (capture, pods) = captured?;
    Some(Config {
        capture,
        pods,
        shadows,
        kubernetes,
        rules: Rules::new(routes, &Sampling { seed, request_id }),
        admin,
        loop_mark,
        trusted_proxies: u32::try_from(trusted_proxies).unwrap_or(u32::MAX),
        drain_timeout,
        nice: u8::try_from(nice).unwrap_or(0),
    })
}

/// The gateways that routes may be tied to: those that a capture point carries, and those bound to pods.
fn gateway_names(capture: Option<&CaptureConfig>, kubernetes: &KubernetesConfig) -> Vec<String> {
    let carried = capture.into_iter().flat_map(|capture| &capture.gateways).flat_map(|point| &point.names);
    let mut names: Vec<String> =
        carried.chain(kubernetes.gateways.iter().map(|bound| &bound.gateway)).cloned().collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn admin(section: Section<'_>) -> AdminConfig {
    let default = SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_ADMIN_PORT));
    let listen = section.or("listen", Some(default), |node| {
        if node.as_text() == Some("off") {
            return Some(None);
        }
        let found = node.as_text().and_then(|text| text.parse().ok());
        if found.is_none() {
            node.wrong_type("an address and port such as \"127.0.0.1:9900\" or \"[::1]:9900\", or \"off\"");
        }
        found.map(Some)
    });
    section.close();
    AdminConfig { listen }
}

#[cfg(test)]
mod tests;
