//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgMatches, FromArgMatches};
use tmem_config::Layer;

use crate::bench::{BenchArgs, WorkloadArgs};
use crate::control::{EvictArgs, PsArgs, RecallArgs, SetArgs, StatsArgs, TopArgs};
use crate::doctor::DoctorArgs;
use crate::flags;
use crate::generate::GenerateArgs;

/// Run programs that need more memory than the machine has.
#[derive(clap::Parser)]
#[command(name = "tmem", version)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    // `flags` has its description.
    Run(RunArgs),
    /// Check what this machine, this user and the servers need for paging
    Doctor(DoctorArgs),
    /// List the paged programs of this user
    Ps(PsArgs),
    /// Show the paged programs live
    Top(TopArgs),
    /// Print the statistics of a program while it runs
    Stats(StatsArgs),
    /// Change the budget of a program while it runs
    Set(SetArgs),
    /// Have a program's memory leave, as far as it can
    Evict(EvictArgs),
    /// Bring a program's memory back from the servers
    Recall(RecallArgs),
    /// RDMA helper for programs that are started with LD_PRELOAD
    ///
    /// Prints a line to set in their environment, and stays.
    Agent,
    /// Make a secret for memory servers and their clients
    Keygen(KeygenArgs),
    /// Start a debugger for programs that are paged
    ///
    /// It reads and writes memory that is elsewhere as well: gdb, gcore, and whatever uses
    /// ptrace or /proc/PID/mem by the C library.
    Debug(DebugArgs),
    /// Measure what tmem costs on this machine
    Bench(BenchArgs),
    /// Write manual pages and completions for shells into a folder
    #[command(hide = true)]
    Generate(GenerateArgs),
    /// What `bench` starts
    #[command(hide = true)]
    BenchWorkload(WorkloadArgs),
}

#[derive(clap::Args)]
pub(crate) struct KeygenArgs {
    /// A new file for it, which only you can read; without one it is printed
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

#[derive(clap::Args)]
pub(crate) struct DebugArgs {
    /// The debugger and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) debugger: Vec<OsString>,
}

/// The arguments of `tmem run`: the options, and the program.
#[derive(Debug)]
pub(crate) struct RunArgs {
    /// The flags as a layer of options.
    pub(crate) flags: Layer,
    /// The program and its arguments; never empty.
    pub(crate) program: Vec<OsString>,
}

#[derive(clap::Args)]
struct Program {
    /// The program and its arguments; `--` ends the options of tmem
    #[arg(required = true, trailing_var_arg = true, value_name = "PROGRAM")]
    program: Vec<OsString>,
}

impl clap::Args for RunArgs {
    fn augment_args(command: clap::Command) -> clap::Command {
        <Program as clap::Args>::augment_args(flags::describe(command))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        <RunArgs as clap::Args>::augment_args(command)
    }
}

impl FromArgMatches for RunArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<RunArgs, clap::Error> {
        Ok(RunArgs {
            flags: flags::given(matches)?,
            program: Program::from_arg_matches(matches)?.program,
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = RunArgs::from_arg_matches(matches)?;
        Ok(())
    }
}
