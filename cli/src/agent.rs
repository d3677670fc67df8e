//! `tmem agent`.

use crate::{OWN_FAILURE, run};
use std::io::Write;
use std::thread;
use tmem_config::{AGENT_VARIABLE, Level};

/// Starts an agent and keeps it running. Returns an exit status if that fails.
pub(crate) fn run() -> i32 {
    let agent = match run::start_agent(Level::Warn) {
        Ok(agent) => agent,
        Err(error) => {
            eprintln!("tmem: {error}");
            return OWN_FAILURE;
        }
    };
    let mut out = std::io::stdout();
    let said = writeln!(out, "{AGENT_VARIABLE}={}", agent.addr()).and_then(|()| out.flush());
    if let Err(error) = said {
        eprintln!("tmem: the line for the environment cannot be written: {error}");
        return OWN_FAILURE;
    }
    // A signal ends it like any program. The programs that use it notice that their
    // servers are gone.
    loop {
        thread::park();
    }
}
