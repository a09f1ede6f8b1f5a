//! What mirroring costs: nginx without it (twice), with this daemon, and with nginx's own `mirror`, in one run.
//!
//! Gateway and mirror have one CPU, client, production and shadow another. A repetition is some short slices of every
//! case, interleaved in rotating order, so that what changes in the machine meets all of them; ratios are taken
//! within a repetition, of the sums of its slices. A slice during which somebody else used the gateway's CPU is repeated. Not a test: exit code 0 says that it
//! measured, not that a goal was reached.

// This is test code: sums of test sizes do not overflow.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::indexing_slicing
)]

mod case;
mod node;
mod place;
mod report;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Parser;
use mirror_tests::{cleanup, daemon};
use serde_json::json;

use case::{Case, Figures, Traffic};
use place::Place;
use report::Measured;

/// A slice is disturbed when others used more than this share of the gateway's CPU.
const MAX_DISTURBED: f64 = 0.005;

/// How often a disturbed slice is tried; the least disturbed one counts then.
const MAX_TRIES: u32 = 3;

/// How long repeated slices may take in all, so that a busy machine cannot draw the measurement out without end.
const REPEATS_LIMIT: Duration = Duration::from_secs(240);

/// Seconds of the phase in which the kernel counts its programs' time.
const PROGRAM_SECONDS: f64 = 3.0;

/// Measures what mirroring costs. Needs root and two CPUs, best with nothing else running.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench --")]
struct Options {
    /// Repetitions of every case.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    repetitions: u32,
    /// Slices of every case in a repetition.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    slices: u32,
    /// Seconds of each slice, after half a second of warm-up.
    #[arg(long, default_value_t = 1.5)]
    seconds: f64,
    /// Two repetitions of two slices of a second, none repeated: to see whether it works.
    #[arg(long)]
    quick: bool,
    /// Writes every figure of every run to a file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Runs one case only and prints its figures: to profile it meanwhile.
    #[arg(long)]
    only: Option<Case>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match cleanup::release_all_at_signals().and_then(|()| perform(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if cleanup::fail_if_interrupted().is_err() {
                // The thread that took the signal cleans up and ends the program.
                loop {
                    std::thread::park();
                }
            }
            eprintln!("\nthe measurement failed: {failure:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(options: &Options) -> Result<()> {
    // Built, where it was not given, before this program is pinned to one CPU.
    daemon::binary()?;
    let place = Place::new()?;
    if let Some(case) = options.only {
        return show_only(&place, case, options);
    }
    let begun = Instant::now();
    let (repetitions, slices, seconds, mut time_left) = match options.quick {
        true => (2, 2, 1.0, Duration::ZERO),
        false => (options.repetitions, options.slices, options.seconds, REPEATS_LIMIT),
    };
    let mut all =
        Traffic::ALL.map(|traffic| Measured { traffic, repetitions: Vec::new(), programs: Vec::new() });
    for repetition in 0..repetitions {
        for measured in &mut all {
            let traffic = measured.traffic;
            eprint!("repetition {} of {repetitions}, {}:", repetition + 1, traffic.name);
            let mut of_cases: [Vec<Figures>; 4] = Default::default();
            for slice in 0..slices {
                let turn = repetition * slices + slice;
                let figures = run_cases(&place, traffic, (turn, seconds), &mut time_left)?;
                of_cases.iter_mut().zip(figures).for_each(|(slices, figures)| slices.push(figures));
            }
            measured.repetitions.push(of_cases.map(|slices| Figures::of_slices(&slices)));
            eprintln!();
        }
    }
    for measured in &mut all {
        measured.programs = case::measure_programs(&place, measured.traffic, PROGRAM_SECONDS)?;
    }
    all.iter().for_each(Measured::print);
    println!("\nmeasured in {:.0} s", begun.elapsed().as_secs_f64());
    options.json.as_deref().map_or(Ok(()), |file| write_json(file, &all))
}

/// Every case once; the order is another one in each turn. `time_left` is what repeated runs may still
/// take.
fn run_cases(
    place: &Place,
    traffic: Traffic,
    (turn, seconds): (u32, f64),
    time_left: &mut Duration,
) -> Result<[Figures; 4]> {
    let mut figures: [Figures; 4] = Default::default();
    for step in 0..Case::ALL.len() {
        let case = Case::ALL[(step + turn as usize) % Case::ALL.len()];
        eprint!(" {}", case.label());
        let mut best = case::measure(place, case, traffic, seconds)?;
        for _ in 1..MAX_TRIES {
            if best.disturbed <= MAX_DISTURBED || time_left.is_zero() {
                break;
            }
            eprint!(" (disturbed, again)");
            let begun = Instant::now();
            let another = case::measure(place, case, traffic, seconds)?;
            *time_left = time_left.saturating_sub(begun.elapsed());
            if another.disturbed < best.disturbed {
                best = another;
            }
        }
        figures[case as usize] = best;
    }
    Ok(figures)
}

fn show_only(place: &Place, case: Case, options: &Options) -> Result<()> {
    for traffic in Traffic::ALL {
        let figures = case::measure(place, case, traffic, options.seconds)?;
        println!("{}, {}: {:#}", case.label(), traffic.name, figures.to_json());
    }
    Ok(())
}

fn write_json(file: &Path, all: &[Measured]) -> Result<()> {
    let text = format!("{:#}\n", json!(all.iter().map(Measured::to_json).collect::<Vec<_>>()));
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}
