//! What is right in a configuration, and what is a fault.

#![allow(clippy::arithmetic_side_effects, reason = "a test that overflows fails, as it should")]

use crate::config::*;
use crate::flow::FlowKey;
use crate::http::{BodyLength, Field, RequestHead, RequestNumber, Version};
use crate::rule::{Decision, GatewaySet, Sender};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

mod capture;
mod kubernetes;
mod routes;
mod shadows;
mod whole;

fn read(text: &str) -> Config {
    Config::from_toml(text, "mirror.toml").unwrap_or_else(|faults| panic!("{faults}"))
}

fn faults(text: &str) -> String {
    Config::from_toml(text, "m").expect_err("a fault").to_string()
}

fn with_shadow(keys: &str) -> String {
    format!("[[shadow]]\nname = \"a\"\nurl = \"http://a\"\n{keys}")
}

fn with_mirror(mirror: &str) -> String {
    with_shadow(&format!("[[route]]\n[[route.rule]]\nmirror = [{{ shadow = \"a\", {mirror} }}]\n"))
}

fn decide<'r>(config: &'r Config, method: &str, host: &str, number: u64) -> Decision<'r> {
    let fields = [Field { name: "Host", value: host.as_bytes(), line: b"" }];
    let body = BodyLength::None;
    let head = RequestHead { method, target: "/x?a", version: Version::Http11, fields: &fields, body };
    let client_ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
    config.rules.decide(
        &head,
        &Sender {
            client_ip,
            flow: FlowKey::default(),
            number: RequestNumber(number),
            gateways: GatewaySet::ALL,
        },
    )
}
