//! The project's own commands.

mod ebpf;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's own commands")]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build the kernel programs into target/bpf/mirror-ebpf.
    BuildEbpf,
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Task::BuildEbpf => {
            println!("{}", ebpf::build_ebpf()?.display());
            Ok(())
        }
    }
}
