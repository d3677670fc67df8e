//! `tmem-memserver`: a memory server as a daemon.

mod args;

use args::Args;
use clap::Parser;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use tmem_memserver::Server;

fn main() -> ExitCode {
    let args = Args::parse();
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell when stderr is closed.
            let _ = writeln!(std::io::stderr(), "tmem-memserver: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<(), Box<dyn std::error::Error>> {
    // Before the first client, so that no signal is missed.
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT])?;
    let (mut config, level) = args.config()?;
    config.log = Some(Arc::new(move |l, text| {
        if l <= level {
            let _ = writeln!(std::io::stderr(), "tmem-memserver: {text}");
        }
    }));
    let capacity = config.capacity;
    let ram = tmem_config::ram_bytes()?;
    if capacity > ram
        && let Some(log) = &config.log
    {
        let text = format!(
            "the capacity, {capacity} bytes, is more than this machine's {ram} bytes of RAM"
        );
        log(tmem_config::Level::Warn, &text);
    }
    let handle = Server::bind(config)?.spawn()?;
    let mut out = std::io::stdout();
    writeln!(
        out,
        "tmem-memserver: ready on {} with {capacity} bytes",
        handle.addr()
    )?;
    out.flush()?;
    signals.forever().next();
    handle.shutdown();
    Ok(())
}
