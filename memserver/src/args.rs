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
use tmem_memserver::Config;

/// Hold the cold pages of other machines' programs in this machine's memory.
///
/// SIGHUP is ignored. Exit status: 0 when ended by SIGTERM or SIGINT, 1 when it cannot start, 2
/// when a flag or a value is wrong.
#[derive(clap::Parser)]
#[command(name = "tmem-memserver", version)]
pub(crate) struct Args {
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
    /// File with the secret that clients must know
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// Seconds that a client may be away before its memory is freed
    /// [default: 10]
    #[arg(long, value_name = "SECONDS")]
    grace: Option<u32>,
    /// Connections at a time, of which a quarter is for programs that run already
    /// [default: 2048]
    #[arg(long, value_name = "N")]
    max_connections: Option<usize>,
    /// Connections of one client machine's new programs [default: half of all]
    #[arg(long, value_name = "N")]
    max_per_client: Option<usize>,
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
        let grace = self.grace.or(file.grace);
        let metrics = self.metrics.or(file.metrics.map(|m| m.0));
        let config = Config {
            listen: self.listen.or(file.listen).unwrap_or(defaults.listen),
            rdma: self.rdma.or(file.rdma.map(|r| r.0)),
            capacity: bytes(self.capacity, file.capacity, "50%".parse()?),
            slab_size: bytes(self.slab_size, file.slab_size, slab),
            secret: secret.map(|p| tmem_config::read_secret(&p)).transpose()?,
            max_connections: self
                .max_connections
                .or(file.max_connections)
                .unwrap_or(defaults.max_connections),
            max_per_client: self.max_per_client.or(file.max_per_client),
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
