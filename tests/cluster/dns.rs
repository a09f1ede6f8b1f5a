//! What the cluster's name server says. It follows the API server in its own time: after one that was away for some
//! seconds, by half a minute.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Result, ensure};
use mirror_tests::kube::Cluster;

/// Waits until a Service's name has its address, asked from a node. `service`: namespace and name.
pub(crate) fn knows(cluster: &Cluster, node: u32, service: (&str, &str), address: IpAddr) -> Result<()> {
    let server = cluster.service("kube-system", "kube-dns")?;
    let netns = cluster.node(node);
    let (namespace, name) = service;
    let name = format!("{name}.{namespace}.svc.cluster.local");
    cluster.eventually(&format!("node-{node} is told that {name} is {address}"), || {
        let found = netns.run(|| look_up(server, &name))??;
        ensure!(found == address.to_string(), "it is told {found}");
        Ok(Some(()))
    })
}

/// The first address of a name (RFC 1035): one question, and the end of its answer.
fn look_up(server: SocketAddr, name: &str) -> Result<String> {
    let mut question = vec![0x6d, 0x64, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        question.push(label.len() as u8);
        question.extend_from_slice(label.as_bytes());
    }
    question.extend_from_slice(&[0, 0, 1, 0, 1]);
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    socket.connect(server)?;
    socket.send(&question)?;
    let mut answer = [0_u8; 512];
    let length = socket.recv(&mut answer)?;
    ensure!(length > question.len() && answer[7] >= 1, "{name} is unknown to {server}");
    let [.., a, b, c, d] = answer[..length] else { anyhow::bail!("a short answer") };
    Ok(format!("{a}.{b}.{c}.{d}"))
}
