//! `tmem debug`.

use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::process::Command;

use tmem_config::DEBUGGER_VARIABLE;

use crate::args::DebugArgs;
use crate::{OWN_FAILURE, library};

/// Exit statuses of a shell for programs that it cannot start.
const NOT_EXECUTABLE: i32 = 126;
const NOT_FOUND: i32 = 127;

/// Becomes the debugger; the exit status, if that fails.
pub(crate) fn run(args: &DebugArgs) -> i32 {
    let Some((program, rest)) = args.debugger.split_first() else {
        return OWN_FAILURE;
    };
    let library = match library::find() {
        Ok(library) => library,
        Err(error) => {
            eprintln!("tmem: {error}");
            return OWN_FAILURE;
        }
    };
    let mut command = Command::new(program);
    command.args(rest).env(DEBUGGER_VARIABLE, "1");
    // Below `tmem run` it is there already.
    let there = std::env::var_os("LD_PRELOAD").unwrap_or_default();
    let lists = there
        .to_string_lossy()
        .split([':', ' '])
        .any(|l| *l == *library.to_string_lossy());
    if !lists {
        command.env("LD_PRELOAD", library::preload(&library));
    }
    let error = command.exec();
    eprintln!("tmem: {} cannot be started: {error}", program.display());
    match error.kind() {
        ErrorKind::NotFound => NOT_FOUND,
        _ => NOT_EXECUTABLE,
    }
}
