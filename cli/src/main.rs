//! The `tmem` command.

mod agent;
mod args;
mod auto;
mod bench;
mod child;
mod control;
mod debug;
mod doctor;
mod elf;
mod embedded;
mod flags;
mod generate;
mod handover;
mod help;
mod keygen;
mod library;
mod metrics;
mod names;
mod open_files;
mod plot;
mod program;
mod run;
mod servers;
mod signals;
mod stats;
mod uffd;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches};

/// Exit status for failures of tmem itself.
const OWN_FAILURE: i32 = 125;

fn main() {
    if std::env::args_os().len() == 1 {
        // Nothing was started, which a script is to notice.
        eprint!("{}", help::WELCOME);
        std::process::exit(OWN_FAILURE);
    }
    let args = match parse() {
        Ok(args) => args,
        Err(error) => {
            let status = match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => 0,
                _ => OWN_FAILURE,
            };
            // If the message cannot be written, nothing can be done about it.
            let _ = error.print();
            std::process::exit(status);
        }
    };
    std::process::exit(match args.command {
        args::Command::Run(args) => run::run(args),
        args::Command::Doctor(args) => doctor::run(&args),
        args::Command::Ps(args) => control::ps(&args),
        args::Command::Stats(args) => control::stats(&args),
        args::Command::Top(args) => control::top(&args),
        args::Command::Set(args) => control::set(&args),
        args::Command::Evict(args) => control::evict(&args),
        args::Command::Recall(args) => control::recall(&args),
        args::Command::Generate(args) => generate::run(&args),
        args::Command::Agent => agent::run(),
        args::Command::Keygen(args) => keygen::run(&args),
        args::Command::Debug(args) => debug::run(&args),
        args::Command::Bench(args) => bench::run(&args),
        args::Command::BenchWorkload(args) => bench::workload(&args),
    });
}

fn parse() -> Result<args::Args, clap::Error> {
    let mut command = help::describe(args::Args::command());
    let matches = command
        .try_get_matches_from_mut(std::env::args_os())
        .map_err(|error| help::with_nearest(error, &command))?;
    args::Args::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}
