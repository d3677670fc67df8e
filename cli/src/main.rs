//! The `tmem` command.

mod agent;
mod args;
mod bench;
mod child;
mod debug;
mod elf;
mod embedded;
mod flags;
mod handover;
mod keygen;
mod library;
mod names;
mod program;
mod run;
mod servers;
mod signals;
mod stats;
mod uffd;

use clap::Parser;
use clap::error::ErrorKind;

/// Exit status for failures of tmem itself.
const OWN_FAILURE: i32 = 125;

fn main() {
    let args = match args::Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let status = match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => 0,
                _ => OWN_FAILURE,
            };
            // Nothing is left to do when the message cannot be written.
            let _ = error.print();
            std::process::exit(status);
        }
    };
    std::process::exit(match args.command {
        args::Command::Run(args) => run::run(args),
        args::Command::Agent => agent::run(),
        args::Command::Keygen(args) => keygen::run(&args),
        args::Command::Debug(args) => debug::run(&args),
        args::Command::Bench(args) => bench::run(&args),
        args::Command::BenchWorkload(args) => bench::workload(&args),
    });
}
