//! Puts the stages together and does what the command line says. The only module that knows every stage.

mod check;
mod cluster;
mod control;
mod import;
mod live;
mod losses;
mod manifests;
mod offline;
mod pages;
mod pods;
mod reload;
mod shard;
mod source;
mod start;
mod stats;
mod tap;

use crate::capture::AttacherLink;
use crate::cli::{Command, DoctorArgs, EXIT_FAILURE, EXIT_OK, EXIT_USAGE, RunArgs, TapArgs};
use crate::doctor::{self, Facts, Report};
use crate::kube::Finding;
use crate::supervisor::{self, Restart};
use crate::telemetry::logging::in_words;
use anyhow::{Context, anyhow};
use source::Source;
use std::io::Write;
use std::process::ExitCode;

/// How a command failed, and so with which code it exits.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line, the configuration or this machine is at fault; nothing was attached: exit code 2.
    Usage(anyhow::Error),
    /// It failed while running: exit code 1.
    Running(anyhow::Error),
}

impl Failure {
    fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self::Usage(error.into())
    }

    fn running(error: impl Into<anyhow::Error>) -> Self {
        Self::Running(error.into())
    }
}

/// Does what the command line says; faults go to standard error.
#[must_use]
pub fn main(command: Command) -> ExitCode {
    let done = match command {
        Command::Run(args) => run(&args),
        Command::Check(args) => check::check(&args).map(|()| EXIT_OK),
        Command::Explain(args) => check::explain(&args).map(|()| EXIT_OK),
        Command::Import(args) => import::run(&args).map(|()| EXIT_OK),
        Command::Tap(args) => tap(&args),
        Command::Doctor(args) => doctor(&args).map(|()| EXIT_OK),
    };
    let (error, code) = match done {
        Ok(code) => return ExitCode::from(code),
        Err(Failure::Usage(error)) => (error, EXIT_USAGE),
        Err(Failure::Running(error)) => (error, EXIT_FAILURE),
    };
    eprintln!("mirror-daemon: {}", in_words(error.as_ref()));
    ExitCode::from(code)
}

fn run(args: &RunArgs) -> Result<u8, Failure> {
    let source = Source { file: args.config.clone(), manifests: args.manifests.clone() };
    match &args.pcap {
        Some(pcap) => offline::run(&source, pcap, &args.ports).map(|()| EXIT_OK),
        None if source.file.is_none() && source.manifests.is_none() => {
            Err(Failure::usage(anyhow!("none of --config, --manifests and --pcap was given")))
        }
        None => {
            let place = pods::Place::of(args);
            split(Restart::Always, |link| live::run(&source, &place, link))
        }
    }
}

fn tap(args: &TapArgs) -> Result<u8, Failure> {
    match &args.pcap {
        Some(path) => tap::run_file(args, path).map(|()| EXIT_OK),
        None => split(Restart::Never, |link| tap::run_live(args, link)),
    }
}

/// What reads the network's bytes is a process of its own, without privileges: this one, when it was started as such.
/// Else this one is its attacher, until the other ends.
fn split(restart: Restart, parse: impl FnOnce(AttacherLink) -> Result<(), Failure>) -> Result<u8, Failure> {
    match supervisor::attacher_of_this_process().map_err(Failure::usage)? {
        Some(link) => parse(link).map(|()| EXIT_OK),
        None => supervisor::run(restart).map_err(Failure::running),
    }
}

fn doctor(args: &DoctorArgs) -> Result<(), Failure> {
    let place =
        doctor::Place { node: pods::node(args.node_name.as_deref()), kubeconfig: args.kubeconfig.clone() };
    let report = Report::of(&Facts::read(place));
    match args.json {
        true => print_json(&report)?,
        false => print(&report.to_string())?,
    }
    match report.is_bad() {
        true => Err(Failure::usage(anyhow!("something stands in the way of mirroring on this node"))),
        false => Ok(()),
    }
}

fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", text.trim_end()).context("standard output can't be written").map_err(Failure::Running)
}

/// Findings, one a line, on standard error.
fn show(findings: &[Finding]) {
    for finding in findings {
        eprintln!("{finding}");
    }
}

fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(Failure::running)?;
    print(&text)
}
