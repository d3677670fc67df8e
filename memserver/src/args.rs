//! Flags, and the file that they win over.

use crate::control::log::Format;
use crate::file::{File, Parsed, read};
use clap::CommandFactory;
use clap_complete::Shell;
use std::error::Error;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tmem_config::{Level, Size};
use tmem_memserver::{Backing, Config, bearable_connections};

/// What else than to serve.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Have a server give no more memory, its clients move what they have there to other
    /// servers, and the server end once it holds nothing
    ///
    /// Exit status: 0 when it has ended, 1 when it cannot be reached or refuses, 3 when it
    /// holds something still after the time to wait.
    Drain(Drain),
}

/// What a drain is told.
#[derive(clap::Args)]
pub(crate) struct Drain {
    /// The server
    #[arg(value_name = "HOST:PORT")]
    pub(crate) server: String,
    /// File with the server's secret
    #[arg(long, value_name = "FILE")]
    pub(crate) secret_file: Option<PathBuf>,
    /// Seconds to wait for its end; it goes on to drain afterwards [default: 60]
    #[arg(
        long,
        value_name = "SECONDS",
        default_value = "60",
        hide_default_value = true
    )]
    pub(crate) wait: u64,
}

/// Hold the cold pages of other machines' programs in this machine's memory.
///
/// SIGHUP is ignored. Exit status: 0 when ended by SIGTERM or SIGINT, 1 when it cannot start, 2
/// when a flag or a value is wrong.
#[derive(clap::Parser)]
#[command(
    name = "tmem-memserver",
    version,
    args_conflicts_with_subcommands = true
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// Where to listen; port 0 takes a free one, which the ready line names
    /// [default: 127.0.0.1:7070]
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Where to listen for RDMA too, an address of an RDMA device; port 0 takes
    /// that of --listen
    #[arg(long, value_name = "IP:PORT")]
    rdma: Option<SocketAddr>,
    /// Memory to give at most: bytes, 512M, 64G, or 50% of RAM [default: 50%]
    #[arg(long, value_name = "SIZE")]
    capacity: Option<Size>,
    /// Memory given at a time [default: 16M]
    #[arg(long, value_name = "SIZE")]
    slab_size: Option<Size>,
    /// Keep what clients store in files of this folder, on a tmpfs: a server that
    /// is started there later, after whatever end of this one, takes it up
    #[arg(long, value_name = "DIR")]
    backing: Option<PathBuf>,
    /// Go on with what the server has that listens at the same address, which ends;
    /// start as usual where there is none
    #[arg(long)]
    takeover: bool,
    /// The same, of the server at this address, which is not that of --listen where its port
    /// is any
    #[arg(long, value_name = "IP:PORT", hide = true)]
    takeover_of: Option<SocketAddr>,
    /// File with the secret that clients must know
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// Seconds that a client may be away before its memory is freed
    /// [default: 10]
    #[arg(long, value_name = "SECONDS")]
    grace: Option<u32>,
    /// Connections at a time, of which a quarter is for programs that run already
    /// [default: as many as open files, memory and tasks allow]
    #[arg(long, value_name = "N")]
    max_connections: Option<usize>,
    /// Connections of one client machine's new programs [default: half of all]
    #[arg(long, value_name = "N")]
    max_per_client: Option<usize>,
    /// Memory that one client machine may have at most [default: all]
    #[arg(long, value_name = "SIZE")]
    client_memory: Option<Size>,
    /// Sessions of one client machine's new programs [default: four for each of its
    /// connections]
    #[arg(long, value_name = "N")]
    client_sessions: Option<usize>,
    /// Memory of this machine that is left to others: nothing is given while less is
    /// available [default: 0]
    #[arg(long, value_name = "SIZE")]
    reserve: Option<Size>,
    /// Messages on stderr: error, warn, info or debug [default: warn]
    #[arg(long, value_name = "LEVEL")]
    log: Option<Level>,
    /// How messages are written: text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<Format>,
    /// Where to answer metrics (/metrics) and health checks (/healthz, /readyz)
    /// over HTTP; port 0 takes a free one, which the ready line names
    #[arg(long, value_name = "IP:PORT")]
    metrics: Option<SocketAddr>,
    /// TOML file with the same options, which flags win over
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Write manual pages and completions for shells into this folder, and end
    #[arg(long, value_name = "DIR", hide = true, exclusive = true)]
    pub(crate) generate: Option<PathBuf>,
}

/// Writes manual pages and completions for shells into a folder.
pub(crate) fn generate(folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let command = Args::command();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let mut command = command.clone();
        clap_complete::generate_to(shell, &mut command, "tmem-memserver", folder)?;
    }
    clap_mangen::generate_to(command, folder)
}

/// What the daemon is told at its start.
pub(crate) struct Daemon {
    /// The server.
    pub(crate) config: Config,
    /// Which messages are written, and how.
    pub(crate) level: Level,
    pub(crate) format: Format,
    /// Where to answer metrics and health checks.
    pub(crate) metrics: Option<SocketAddr>,
}

impl Args {
    /// Whether to go on with what another server has.
    pub(crate) fn takes_over(&self) -> bool {
        self.takeover || self.takeover_of.is_some()
    }

    /// What they and the file come to.
    pub(crate) fn config(self) -> Result<Daemon, Box<dyn Error>> {
        let file = match &self.config {
            Some(path) => read(path)?,
            None => File::default(),
        };
        let memory = tmem_config::Memory::get()?.most();
        let bytes = |flag: Option<Size>, file: Option<Parsed<Size>>, default: Size| {
            flag.or(file.map(|f| f.0)).unwrap_or(default).bytes(memory)
        };
        let defaults = Config::default();
        let slab = Size::Bytes(defaults.slab_size);
        let secret = self.secret_file.or(file.secret_file);
        let backing = self.backing.or(file.backing);
        let grace = self.grace.or(file.grace);
        let metrics = self.metrics.or(file.metrics.map(|m| m.0));
        let rdma = self.rdma.or(file.rdma.map(|r| r.0));
        let config = Config {
            listen: self
                .takeover_of
                .map(|of| of.to_string())
                .or(self.listen)
                .or(file.listen)
                .unwrap_or(defaults.listen),
            rdma,
            capacity: bytes(self.capacity, file.capacity, "50%".parse()?),
            slab_size: bytes(self.slab_size, file.slab_size, slab),
            backing: backing.map_or(Backing::Unnamed, Backing::Folder),
            secret: secret.map(|p| tmem_config::read_secret(&p)).transpose()?,
            max_connections: self
                .max_connections
                .or(file.max_connections)
                .unwrap_or_else(|| bearable_connections(rdma.is_some())),
            max_per_client: self.max_per_client.or(file.max_per_client),
            client_memory: self
                .client_memory
                .or(file.client_memory.map(|f| f.0))
                .map(|size| size.bytes(memory)),
            client_sessions: self.client_sessions.or(file.client_sessions),
            reserve: bytes(self.reserve, file.reserve, Size::Bytes(0)),
            grace: grace.map_or(defaults.grace, |s| Duration::from_secs(s.into())),
            measures: metrics.is_some(),
            log: None,
        };
        let level = self.log.or(file.log.map(|l| l.0)).unwrap_or_default();
        let format = self.log_format.or(file.log_format.map(|f| f.0));
        Ok(Daemon {
            config,
            level,
            format: format.unwrap_or_default(),
            metrics,
        })
    }
}
