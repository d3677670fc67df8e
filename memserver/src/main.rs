//! `tmem-memserver`: a memory server as a daemon.

mod args;
mod control;
mod drain;
mod file;

use args::{Args, Daemon};
use clap::Parser;
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;
use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use tmem_config::Level;
use tmem_memserver::{
    Backing, Config, Control, Ending, Error, Handle, Inherited, Log, Manager, Server, descriptors,
};
use tmem_metrics::Endpoint;

/// Exit status where the system refuses something.
const CANNOT_START: u8 = 1;

/// Exit status of a drain that has not come to its end.
const STILL_HOLDS: u8 = 3;

/// Exit status of a wrong flag, or a wrong value of one or of the file.
const WRONG_VALUE: u8 = 2;

/// What one is told that this process starts.
const OF: &str = "--takeover-of";

/// Where a server begins.
enum Start {
    /// With what the service manager passes, if it does.
    Usual(Inherited),
    /// With what the server has that listens at the same address.
    TakeOver,
}

fn main() -> ExitCode {
    // Before anything else has descriptors.
    let inherited = Inherited::from_manager();
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
    if let Some(args::Command::Drain(asked)) = &args.command {
        return match drain::drain(asked) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::from(STILL_HOLDS),
            Err(error) => {
                let _ = writeln!(std::io::stderr(), "tmem-memserver: {error}");
                ExitCode::from(CANNOT_START)
            }
        };
    }
    let start = match args.takes_over() {
        true => Start::TakeOver,
        false => Start::Usual(inherited),
    };
    match keep_to_oneself()
        .map_err(|e| (CANNOT_START, e.into()))
        .and_then(|()| args.config().map_err(|e| (WRONG_VALUE, e)))
        .and_then(|daemon| run(daemon, start).map_err(|e| (status(&*e), e)))
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
        Some(
            Error::Listen { .. }
            | Error::Reserve { .. }
            | Error::Files { .. }
            | Error::TakeOver(_)
            | Error::Rdma(_)
            | Error::System(_),
        )
        | None => CANNOT_START,
        Some(_) => WRONG_VALUE,
    }
}

fn run(daemon: Daemon, start: Start) -> Result<(), Box<dyn std::error::Error>> {
    let Daemon {
        mut config,
        level,
        format,
        metrics,
    } = daemon;
    // Before the first client, so that no signal is missed.
    let signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2])?;
    let log = control::log::to_stderr(level, format);
    config.log = Some(log.clone());
    let capacity = config.capacity;
    let is_folder = matches!(config.backing, Backing::Folder(_));
    warn_of_limits(&config, &log)?;
    let manager = Manager::from_env();
    let takes_over = matches!(start, Start::TakeOver);
    let server = match start {
        Start::TakeOver => Server::take_over(config)?,
        Start::Usual(inherited) => Server::bind_inherited(config, inherited)?,
    };
    let handle = server.spawn()?;
    let metrics = match metrics {
        Some(addr) => Some(metrics_on(addr, &handle, takes_over)?),
        None => None,
    };
    let rdma = handle
        .rdma_addr()
        .map_or(String::new(), |addr| format!(", RDMA on {addr}"));
    let metrics = metrics.map_or(String::new(), |addr| format!(", metrics on {addr}"));
    let ready = format!(
        "tmem-memserver: ready on {} with {capacity} bytes{rdma}{metrics}\n",
        handle.addr()
    );
    let mut out = std::io::stdout();
    out.write_all(ready.as_bytes())?;
    out.flush()?;
    let tell = |text: &str| {
        if let Some(Err(error)) = manager.as_ref().map(|manager| manager.tell(text)) {
            log(
                Level::Warn,
                &format!("systemd cannot be told `{text}`: {error}"),
            );
        }
    };
    if let Some(Err(error)) = manager.as_ref().map(|manager| handle.store(manager)) {
        log(
            Level::Warn,
            &format!("systemd does not keep what clients store: {error}"),
        );
    }
    tell("READY=1");
    let keeps = is_folder || manager.as_ref().is_some_and(Manager::keeps);
    let (control, waits, addr) = (handle.control(), signals.handle(), handle.addr());
    let listening = {
        let log = log.clone();
        std::thread::spawn(move || on_signals(signals, &control, addr, keeps, &log))
    };
    let ending = handle.wait();
    waits.close();
    // A panic there was reported when it happened.
    let _ = listening.join();
    match ending {
        Ending::Gone => {
            tell("STOPPING=1");
            if let Some(manager) = &manager {
                let _ = manager.forget();
            }
        }
        Ending::Kept => tell("STOPPING=1"),
        Ending::HandedOver(process) => tell(&format!("MAINPID={process}\nREADY=1")),
    }
    Ok(())
}

/// Does what signals ask for.
fn on_signals(mut signals: Signals, control: &Control, addr: SocketAddr, keeps: bool, log: &Log) {
    for signal in signals.forever() {
        match signal {
            // A terminal that is closed is no reason to end the programs of others.
            SIGHUP => log(Level::Info, "SIGHUP is ignored; SIGTERM ends this server"),
            SIGUSR1 => control.drain(),
            SIGUSR2 => upgrade(addr, log),
            SIGTERM if keeps => control.keep(),
            _ => control.end(),
        }
    }
}

/// Starts this program's file as it is now, which takes over this server, that listens at `addr`.
fn upgrade(addr: SocketAddr, log: &Log) {
    let path = std::env::current_exe().unwrap_or_default();
    // A file that was replaced has this after its name.
    let path = path.to_string_lossy();
    let path = path.strip_suffix(" (deleted)").unwrap_or(&path);
    let mut args = std::env::args_os();
    let mut command = Command::new(path);
    command.arg0(args.next().unwrap_or_default());
    while let Some(arg) = args.next() {
        if arg == OF {
            args.next();
        } else {
            command.arg(arg);
        }
    }
    command.args([OF, &addr.to_string()]);
    command.stdin(Stdio::null());
    match command.spawn() {
        Ok(mut child) => {
            std::thread::spawn(move || child.wait());
        }
        Err(error) => log(
            Level::Error,
            &format!("{path} cannot be started: {error}; this server goes on"),
        ),
    }
}

/// Says what this machine does not give as asked for.
fn warn_of_limits(config: &Config, log: &Log) -> std::io::Result<()> {
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
    let descriptors = descriptors(wanted, config.rdma.is_some());
    match allow_descriptors(descriptors) {
        Ok(allowed) if allowed < descriptors => warn(&format!(
            "{allowed} open files are allowed, too few for {wanted} connections: raise `ulimit -n`"
        )),
        _ => {}
    }
    Ok(())
}

/// How long a server that takes another's place waits for its address of metrics, and how
/// often it tries: the other has it until its process has ended.
const METRICS_WAIT: Duration = Duration::from_secs(5);
const METRICS_TRY: Duration = Duration::from_millis(10);

/// Answers metrics and health checks on `addr`. Returns the address with the real port.
fn metrics_on(addr: SocketAddr, handle: &Handle, takes_over: bool) -> Result<SocketAddr, Error> {
    let begun = Instant::now();
    loop {
        let server = control::metrics::Server(handle.observer());
        let bound = Endpoint::bind(addr);
        let started = bound.and_then(|at| Ok((at.addr(), at.serve(server)?)));
        match started {
            Ok((addr, ())) => return Ok(addr),
            Err(error)
                if takes_over
                    && error.kind() == ErrorKind::AddrInUse
                    && begun.elapsed() < METRICS_WAIT =>
            {
                std::thread::sleep(METRICS_TRY);
            }
            Err(error) => {
                return Err(Error::Listen {
                    listen: addr.to_string(),
                    error,
                });
            }
        }
    }
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
