//! The harness of the tests that use the real kernel, real gateways and real clients.
//!
//! [`netns`] builds the network, [`process`] starts programs in it that cannot outlive the test, [`server`] and
//! [`client`] are the two ends that know exactly what they sent and got, [`nginx`], [`haproxy`], [`envoy`],
//! [`grpc`], [`h2tools`] and [`loadtool`] wrap the real peers ([`peers`] says where those are that no Debian
//! package brings), [`apiserver`] stands for a cluster's API server, [`kube`] sees a Kubernetes cluster, [`daemon`] runs
//! the real binary, [`bpf`] looks
//! for programs left behind, and [`footprint`] for whatever else a daemon could have kept.
//!
//! What it leaves out: it does not know how the daemon works inside; it sees what a user sees.

// This is test code: a panic is a failed test, and sums of test sizes do not overflow.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::indexing_slicing,
    clippy::panic
)]

pub mod apiserver;
pub mod bpf;
pub mod cgroup;
pub mod cleanup;
pub mod client;
pub mod daemon;
pub mod envoy;
pub mod footprint;
pub mod fuzz;
pub mod grpc;
pub mod h2tools;
pub mod haproxy;
pub mod kube;
pub mod loadtool;
pub mod netns;
pub mod nghttpx;
pub mod nginx;
pub mod numbered;
pub mod outlet;
pub mod pcap;
pub mod peers;
pub mod privilege;
pub mod process;
pub mod server;
pub mod wait;
pub mod weather;
pub mod wire;
