//! The cluster's network: a namespace for each node, joined by a bridge in one of its own. No route leads out, so
//! that a packet to a Service address that nobody translates cannot leave the machine.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::layout::{Layout, SERVICES, node_address, node_pods};

/// Makes the namespaces of `nodes` nodes.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn make(layout: &Layout, nodes: u32) -> Result<()> {
    let switch = layout.switch();
    ip(&["netns", "add", &switch])?;
    ip(&["-n", &switch, "link", "add", "br0", "type", "bridge"])?;
    ip(&["-n", &switch, "link", "set", "br0", "up"])?;
    for node in 1..=nodes {
        make_node(layout, node, nodes)?;
    }
    Ok(())
}

fn make_node(layout: &Layout, node: u32, nodes: u32) -> Result<()> {
    let (switch, netns, port) = (layout.switch(), layout.netns(node), format!("port{node}"));
    ip(&["netns", "add", &netns])?;
    ip(&["-n", &switch, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &netns])?;
    ip(&["-n", &switch, "link", "set", &port, "master", "br0", "up"])?;
    ip(&["-n", &netns, "link", "set", "lo", "up"])?;
    ip(&["-n", &netns, "addr", "add", &format!("{}/24", node_address(node)), "dev", "eth0"])?;
    ip(&["-n", &netns, "link", "set", "eth0", "up"])?;
    // A Service's address is translated after its route was looked up: it needs one.
    ip(&["-n", &netns, "route", "add", SERVICES, "dev", "eth0"])?;
    for other in (1..=nodes).filter(|other| *other != node) {
        ip(&["-n", &netns, "route", "add", &node_pods(other), "via", &node_address(other)])?;
    }
    let mut sysctl = Command::new("ip");
    sysctl.args(["netns", "exec", &netns, "sysctl", "-qw", "net.ipv4.ip_forward=1"]);
    quietly(&mut sysctl)
}

/// Those of the cluster's namespaces that are there.
pub(crate) fn present(layout: &Layout) -> Vec<String> {
    let is_there = |name: &String| std::path::Path::new("/run/netns").join(name).exists();
    layout.every_netns().into_iter().filter(is_there).collect()
}

/// Removes what [`make`] has made.
pub(crate) fn remove(layout: &Layout) {
    for name in present(layout) {
        // What is still there is told at the end.
        drop(ip(&["netns", "delete", &name]));
    }
}

fn ip(args: &[&str]) -> Result<()> {
    quietly(Command::new("ip").args(args))
}

fn quietly(command: &mut Command) -> Result<()> {
    let done = command.stdin(Stdio::null()).output().context("cannot start ip")?;
    if !done.status.success() {
        let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
        bail!("ip {} failed: {}", words.join(" "), String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(())
}
