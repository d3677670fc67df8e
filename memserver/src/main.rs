//! `tmem-memserver`: a memory server as a daemon.

mod args;
mod control;
mod file;

use args::{Args, Daemon};
use clap::Parser;
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use tmem_config::Level;
use tmem_memserver::{Error, Observer, Server};

/// Descriptors of a connection over RDMA: its pair of sockets, two channels of
/// events, and what the device's library takes.
const RDMA_DESCRIPTORS: u64 = 6;

/// Descriptors beside those of connections.
const OTHER_DESCRIPTORS: u64 = 32;

/// Exit status where the system refuses something.
const CANNOT_START: u8 = 1;

/// Exit status of a wrong flag, or a wrong value of one or of the file.
const WRONG_VALUE: u8 = 2;

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(folder) = &args.generate {
        return match args::generate(folder) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let _ = writeln!(std::io::stderr(), "tmem-memserver: {error}");
                ExitCode::from(CANNOT_START)
            }
        };
    }
    match keep_to_oneself()
        .map_err(|e| (CANNOT_START, e.into()))
        .and_then(|()| args.config().map_err(|e| (WRONG_VALUE, e)))
        .and_then(|daemon| run(daemon).map_err(|e| (status(&*e), e)))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err((status, error)) => {
            // Nobody is left to tell when stderr is closed.
            let _ = writeln!(std::io::stderr(), "tmem-memserver: {error}");
            ExitCode::from(status)
        }
    }
}

/// The exit status of an error: whether a value is wrong, or the system refuses something.
fn status(error: &(dyn std::error::Error + 'static)) -> u8 {
    match error.downcast_ref() {
        Some(Error::Listen { .. } | Error::Reserve { .. } | Error::Rdma(_) | Error::System(_))
        | None => CANNOT_START,
        Some(_) => WRONG_VALUE,
    }
}

fn run(daemon: Daemon) -> Result<(), Box<dyn std::error::Error>> {
    let Daemon {
        mut config,
        level,
        format,
        metrics,
    } = daemon;
    // Before the first client, so that no signal is missed.
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let log = control::log::to_stderr(level, format);
    config.log = Some(log.clone());
    let capacity = config.capacity;
    let memory = tmem_config::Memory::get()?.most();
    let warn = |text: &str| log(Level::Warn, text);
    if capacity > memory {
        warn(&format!(
            "the capacity, {capacity} bytes, is more than this machine's memory, or its \
             cgroup's: {memory} bytes"
        ));
    }
    let wanted = config.max_connections;
    let each = config.rdma.map_or(1, |_| RDMA_DESCRIPTORS);
    let descriptors = (wanted as u64)
        .saturating_mul(each)
        .saturating_add(OTHER_DESCRIPTORS);
    match allow_descriptors(descriptors) {
        Ok(allowed) if allowed < descriptors => warn(&format!(
            "{allowed} open files are allowed, too few for {wanted} connections: raise `ulimit -n`"
        )),
        _ => {}
    }
    let handle = Server::bind(config)?.spawn()?;
    let observer = handle.observer();
    let metrics = metrics.map(|addr| metrics_on(addr, observer)).transpose()?;
    let mut out = std::io::stdout();
    let rdma = handle
        .rdma_addr()
        .map_or(String::new(), |addr| format!(", RDMA on {addr}"));
    let metrics = metrics.map_or(String::new(), |addr| format!(", metrics on {addr}"));
    writeln!(
        out,
        "tmem-memserver: ready on {} with {capacity} bytes{rdma}{metrics}",
        handle.addr()
    )?;
    out.flush()?;
    for signal in signals.forever() {
        if signal != SIGHUP {
            break;
        }
        // A terminal that is closed is no reason to end the programs of others.
        log(Level::Info, "SIGHUP is ignored; SIGTERM ends this server");
    }
    handle.shutdown();
    Ok(())
}

/// Answers metrics and health checks on `addr`; where, with the real port.
fn metrics_on(addr: SocketAddr, server: Observer) -> Result<SocketAddr, Error> {
    control::start(addr, server).map_err(|error| Error::Listen {
        listen: addr.to_string(),
        error,
    })
}

/// Keeps what this process holds, the secret and pages of clients, out of core files, and
/// from other programs of its user.
fn keep_to_oneself() -> std::io::Result<()> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// Raises this process's limit on open files to `wanted`, as far as it may; the
/// limit now.
fn allow_descriptors(wanted: u64) -> std::io::Result<u64> {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|now| now < wanted) {
        let most = limit.maximum.unwrap_or(u64::MAX);
        limit.current = Some(wanted.min(most));
        setrlimit(Resource::Nofile, limit)?;
    }
    Ok(limit.current.unwrap_or(u64::MAX))
}
