//! Flags.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::bench::{BenchArgs, WorkloadArgs};
use tmem_config::{Evict, Level, PagePath, Partial, ServerAddr, Size, When};

/// Run programs that need more memory than the machine has.
#[derive(clap::Parser)]
#[command(name = "tmem", version)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Run a program with its cold memory on memory servers
    Run(RunArgs),
    /// Speak RDMA for programs that are started by the preload line alone
    ///
    /// Prints a line to set in their environment, and stays.
    Agent,
    /// Make a secret for memory servers and their clients
    Keygen(KeygenArgs),
    /// Measure what tmem costs on this machine
    Bench(BenchArgs),
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
pub(crate) struct RunArgs {
    /// Memory that may be resident: bytes, 512M, 2G, 1.5GiB, or 50% of RAM
    #[arg(long, value_name = "SIZE")]
    local: Option<Size>,
    /// A memory server, host:port; may be given several times
    #[arg(long, value_name = "ADDR", value_delimiter = ',')]
    server: Vec<ServerAddr>,
    /// Start no program that cannot be paged, and none before its pager is ready
    #[arg(long)]
    strict: bool,
    /// Messages on stderr: error, warn, info or debug
    #[arg(long, value_name = "LEVEL")]
    log: Option<Level>,
    /// How pages travel: auto, move or copy
    #[arg(long, value_name = "PATH")]
    page_path: Option<PagePath>,
    /// When pages leave: as needed, or all of them all the time, as a test
    #[arg(long, value_name = "WHEN")]
    evict: Option<Evict>,
    /// Whether pages travel packed: auto (where it is quicker), always or never
    #[arg(long, value_name = "WHEN")]
    compress: Option<When>,
    /// Whether packed copies of pages are kept in local memory: auto (where that is
    /// quicker), always or never
    #[arg(long, value_name = "WHEN")]
    packed_copies: Option<When>,
    /// Write figures to this file as JSON at the end
    #[arg(long, value_name = "FILE")]
    stats_file: Option<PathBuf>,
    /// File with the secret that the servers want
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// Print figures on stderr at the end
    #[arg(long)]
    summary: bool,
    /// Each process may have the whole budget, instead of all together
    #[arg(long)]
    per_process: bool,
    /// Run the program without paging where the servers or the permission are missing,
    /// instead of ending with status 125
    #[arg(long)]
    unpaged_ok: bool,
    /// TOML file with options
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "PROGRAM")]
    pub(crate) program: Vec<OsString>,
}

impl RunArgs {
    /// The flags as a layer of options.
    pub(crate) fn partial(&self) -> Partial {
        Partial {
            local: self.local,
            servers: (!self.server.is_empty()).then(|| self.server.clone()),
            strict: self.strict.then_some(true),
            log: self.log,
            page_path: self.page_path,
            evict: self.evict,
            compress: self.compress,
            copies: self.packed_copies,
            stats_file: self.stats_file.clone(),
            secret_file: self.secret_file.clone(),
            summary: self.summary.then_some(true),
            per_process: self.per_process.then_some(true),
            unpaged_ok: self.unpaged_ok.then_some(true),
            config: self.config.clone(),
        }
    }
}
