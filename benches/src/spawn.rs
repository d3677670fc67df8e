//! The cost of starting a program.

use crate::median;
use std::io;
use std::process::{Command, Stdio};
use std::time::Instant;

/// Medians of the time from start to end of a program, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StartUp {
    /// Without the library.
    pub plain: f64,
    /// With it.
    pub preloaded: f64,
}

/// Runs `command` `count` times with and without `library` preloaded, by turns.
///
/// # Errors
/// When it cannot be run, or fails.
pub fn start_up(count: usize, library: &str, command: &[String]) -> io::Result<StartUp> {
    let (mut plain, mut preloaded) = (vec![], vec![]);
    for _ in 0..count {
        plain.push(once(None, command)?);
        preloaded.push(once(Some(library), command)?);
    }
    Ok(StartUp {
        plain: median(&mut plain),
        preloaded: median(&mut preloaded),
    })
}

fn once(library: Option<&str>, words: &[String]) -> io::Result<f64> {
    let (program, args) = words
        .split_first()
        .ok_or_else(|| io::Error::other("no command to run"))?;
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null());
    if let Some(library) = library {
        command.env("LD_PRELOAD", library);
    }
    let start = Instant::now();
    let status = command.status()?;
    let us = start.elapsed().as_secs_f64() * 1e6;
    if status.success() {
        Ok(us)
    } else {
        Err(io::Error::other(format!("{program}: {status}")))
    }
}
